"""Calls that are done only while a lock is held: the server checks its token in the same commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import quote_from_bytes

from keyrack.client import wire
from keyrack.client.calls import ApiCall, json_body, json_response
from keyrack.client.errors import LockLost, ProtocolError
from keyrack.client.refusals import refused

if TYPE_CHECKING:
    from keyrack.client.calls import Requests
    from keyrack.client.leases import Lease
    from keyrack.client.wire import Response

T = TypeVar("T")


class NamedFence(NamedTuple):
    """Which keys need which lock to be written. `source` is `file` or `store`."""

    name: str
    keys: str
    lock: str
    source: str


def under(call: ApiCall[T], requests: Requests, lock: Lease | None) -> ApiCall[T]:
    """Return a call that is done only while a lock is held. Raises `LockLost` if that is known now.

    So does the call where the server says so.
    """
    if lock is None:
        return call
    lock.check()

    def read(answer: Response) -> T:
        if answer.status == 412:
            error = refused(answer)
            if error.kind == "lock-lost":
                raise LockLost(f"The lock {lock.name!r} is not held any more.") from error
        return call.read(answer)

    return call.with_fields(held_field(requests.key(lock.name), lock.token))._replace(read=read)


def held_field(name: bytes, token: int) -> bytes:
    """Return the field of a write that names a lock and its token."""
    return b'Keyrack-Lock: "%b"; token=%d\r\n' % (
        quote_from_bytes(name, safe="/:{}@").encode("ascii"),
        token,
    )


def put(requests: Requests, name: str, keys: str, lock: str | bytes) -> ApiCall[None]:
    """Make or change a fence."""
    pattern = quote_from_bytes(requests.prefix, safe="/:{}@") + keys
    asked = {"keys": pattern, "lock": requests.key(lock).decode()}
    fields = b"Content-Type: application/json\r\n"
    data = requests.request(b"PUT", _path(name), fields, json_body(asked))
    return ApiCall("fence", data, _read_done, True)


def drop(requests: Requests, name: str) -> ApiCall[bool]:
    """Remove a fence, and tell whether it was there."""
    return ApiCall("drop_fence", requests.request(b"DELETE", _path(name)), _read_dropped, True)


def all_of(requests: Requests) -> ApiCall[list[NamedFence]]:
    """Return all fences."""
    return ApiCall("fences", requests.request(b"GET", b"/v1/fences"), _read_fences, True)


def _path(name: str) -> bytes:
    return b"/v1/fences/" + wire.key_path(name.encode())


def _read_done(answer: Response) -> None:
    if answer.status not in (201, 202, 204):
        raise refused(answer)


def _read_dropped(answer: Response) -> bool:
    if answer.status in (202, 204):
        return True
    error = refused(answer)
    if error.kind != "fence-not-found":
        raise error
    return False


def _read_fences(answer: Response) -> list[NamedFence]:
    shown = json_response(answer)
    try:
        return [NamedFence(**one) for one in shown["fences"]]
    except (KeyError, TypeError):
        raise ProtocolError("The answer tells of no fences.") from None
