"""Calls about the service itself, and streams from and to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.client import wire
from keyrack.client.calls import ApiCall, json_body, json_response
from keyrack.client.errors import ProtocolError, Refused

if TYPE_CHECKING:
    from keyrack.client.calls import Requests
    from keyrack.client.wire import Response


def info(requests: Requests) -> ApiCall[dict[str, Any]]:
    """Ask what runs, and how full it is."""
    return ApiCall("info", requests.request(b"GET", b"/v1/info"), json_response, True)


def limits(requests: Requests) -> ApiCall[dict[str, Any]]:
    """Ask for every limit that is enforced."""
    return ApiCall("limits", requests.request(b"GET", b"/v1/limits"), json_response, True)


def whoami(requests: Requests) -> ApiCall[dict[str, Any]]:
    """Ask who this client's token says it is."""
    return ApiCall("whoami", requests.request(b"GET", b"/v1/auth/self"), json_response, True)


def export(requests: Requests, prefix: str | bytes) -> bytes:
    """Return the request that exports the keys under a prefix."""
    query = wire.query([("prefix", requests.prefix_of(prefix))])
    return requests.request(b"GET", b"/v1/export" + query)


def snapshot(requests: Requests) -> bytes:
    """Return the request that fetches a snapshot."""
    return requests.request(b"GET", b"/v1/snapshot")


def importing(requests: Requests, stop_on_error: bool) -> ApiCall[dict[str, Any]]:
    """Import lines, which are sent behind this call's head."""
    query = wire.query([("on_error", "stop" if stop_on_error else "continue")])
    fields = b"Content-Type: application/x-ndjson\r\n"
    head = requests.chunked(b"POST", b"/v1/import" + query, fields)
    return ApiCall("import", head, _read_report, False)


def _read_report(response: Response) -> dict[str, Any]:
    """Return what was imported and what not, which is a refusal's members when nothing was."""
    try:
        report: dict[str, Any] = json_response(response)
    except Refused as error:
        if error.kind != "nothing-imported":
            raise
        return {
            name: error.members.get(name) for name in ("imported", "failed", "errors", "stopped")
        }
    return report


def chunk(piece: bytes) -> bytes:
    """Return a piece of a body as a chunk; nothing ends the body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def can(requests: Requests, verb: str, key: str | bytes) -> ApiCall[bool]:
    """Ask whether this client's token may do something with a key."""
    name = requests.key(key).decode("utf-8", "replace")
    body = json_body({"checks": [{"verb": verb, "key": name}]})
    fields = b"Content-Type: application/json\r\n"
    data = requests.request(b"POST", b"/v1/auth/check", fields, body)
    return ApiCall("can", data, _read_allowed, True)


def _read_allowed(answer: Response) -> bool:
    try:
        return bool(json_response(answer)["results"][0]["allowed"])
    except (KeyError, IndexError, TypeError):
        raise ProtocolError("The answer does not say whether it is allowed.") from None
