"""The client: one connection, kept open between requests; one thread at a time.

A request is sent once. Whether a write was done is not known when its answer did not arrive, and
only the caller can tell whether doing it twice would hurt.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

DEFAULT_URL: Final = "http://127.0.0.1:8088"
_MISSING: Final = "key-not-found"
_LONGEST_PROBLEM: Final = 65536
_PIECE: Final = 1 << 16


class ClientError(Exception):
    """A request that did not succeed. The message is one sentence for people."""


class Unreachable(ClientError):
    """Raised when no answer arrived, or none that is HTTP. A write may have been done."""


class Refused(ClientError):
    """Raised when the server refused the request.

    `status` is HTTP's; `kind` is the last part of the problem's type, empty if it has none.
    """

    def __init__(self, status: int, detail: str, kind: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind


class Value(NamedTuple):
    """A stored value: its bytes, media type, ETag, and seconds left if it has a TTL."""

    data: bytes
    media_type: str
    etag: str
    ttl: float | None


class Client:
    """Talks to the service at a URL, or at a Unix socket. `timeout` is in seconds, per wait.

    Raises `ValueError` for a URL that is none of `http://` or `https://` with a host.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, uds: str | None = None, timeout: float = 10.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL like {DEFAULT_URL}.")
        self._where = f"the Unix socket {uds!r}" if uds is not None else url
        self._root = parts.path.rstrip("/")
        self._path = self._root + "/v1/keys/"
        self._connection = _connection(parts.scheme, parts.hostname, parts.port, uds, timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next request opens another."""
        self._connection.close()

    def get(self, key: str) -> Value | None:
        """Return a key's value, or None when the key is missing."""
        response, body = self._exchange("GET", self._target(key))
        if response.status != 200:
            _refuse_unless_missing(response, body)
            return None
        ttl = response.headers["Keyrack-TTL"]
        return Value(
            body,
            response.headers.get("Content-Type", ""),
            response.headers.get("ETag", ""),
            None if ttl is None else float(ttl),
        )

    def set(
        self,
        key: str,
        value: bytes | str,
        *,
        media_type: str | None = None,
        ttl: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> str:
        """Store a value and return its ETag. Text is sent as UTF-8.

        Without a media type, the server takes UTF-8 as text and all else as binary. `ttl` is in
        seconds, to the millisecond. Raises `Refused` with status 412 when a condition fails.
        """
        query = "" if ttl is None else "?" + urlencode({"ttl": f"{ttl:.3f}"})
        fields = {"Content-Type": media_type, "If-Match": if_match, "If-None-Match": if_none_match}
        headers = {name: field for name, field in fields.items() if field is not None}
        body = value.encode() if isinstance(value, str) else value
        response, answer = self._exchange("PUT", self._target(key) + query, headers, body)
        if response.status not in (200, 201, 204):
            raise _refused(response, answer)
        return response.headers.get("ETag", "")

    def delete(self, key: str) -> bool:
        """Remove a key, and tell whether it was there."""
        response, body = self._exchange("DELETE", self._target(key))
        if response.status in (200, 204):
            return True
        _refuse_unless_missing(response, body)
        return False

    def export(self, prefix: str = "") -> Iterator[bytes]:
        """Yield the keys under a prefix as NDJSON, in pieces that end anywhere.

        Raises `Unreachable` when the export breaks off: what came before is not all.
        """
        query = urlencode({"prefix": prefix.encode("utf-8", "surrogateescape")})
        return self._stream(f"/v1/export?{query}")

    def snapshot(self) -> Iterator[bytes]:
        """Have a snapshot taken, and yield its file in pieces.

        Raises `Unreachable` when it breaks off: what came before is no snapshot.
        """
        return self._stream("/v1/snapshot")

    def _stream(self, target: str) -> Iterator[bytes]:
        self._drop_stale()
        try:
            self._connection.request("GET", self._root + target)
            response = self._connection.getresponse()
            if response.status != 200:
                raise _refused(response, response.read())
            while piece := response.read1(_PIECE):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unreachable(_explained(error, self._where, "GET")) from error

    def import_lines(
        self, lines: Iterable[bytes], *, stop_on_error: bool = False
    ) -> dict[str, Any]:
        """Send NDJSON as `export` gives it, and return the server's report."""
        query = urlencode({"on_error": "stop" if stop_on_error else "continue"})
        self._drop_stale()
        try:
            # A server that stops at an error answers before it has read all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._connection.request(
                    "POST",
                    f"{self._root}/v1/import?{query}",
                    lines,
                    {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"},
                    encode_chunked=True,
                )
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unreachable(_explained(error, self._where, "POST")) from error
        if response.status != 200:
            raise _refused(response, answer)
        import json  # only needed here

        report: dict[str, Any] = json.loads(answer)
        return report

    def _target(self, key: str) -> str:
        if not key:
            raise ValueError("A key has at least one character.")
        # Bytes of a command line that are no UTF-8 go out as they are: the server judges them.
        return self._path + quote(key.encode("utf-8", "surrogateescape"), safe="")

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self._drop_stale()
        try:
            # A server that refuses a long body answers before it has read all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._connection.request(method, target, body or None, headers or {})
            response = self._connection.getresponse()
            return response, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unreachable(_explained(error, self._where, method)) from error

    def _drop_stale(self) -> None:
        """Close a connection that the server closed while it was idle, so that a new one is made.

        Anything to read before a request was sent means the same.
        """
        sock = self._connection.sock
        if sock is not None and select.select([sock], [], [], 0)[0]:
            self._connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._seconds)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def _connection(
    scheme: str, host: str, port: int | None, uds: str | None, timeout: float
) -> http.client.HTTPConnection:
    if uds is not None:
        return _UnixConnection(uds, timeout)
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout)
    return http.client.HTTPConnection(host, port, timeout=timeout)


def _explained(error: Exception, where: str, method: str) -> str:
    doubt = "" if method == "GET" else " Whether the change was made is not known."
    if isinstance(error, ConnectionRefusedError | FileNotFoundError | socket.gaierror):
        return f"No service answers at {where} ({error.strerror})."
    if isinstance(error, TimeoutError):
        return f"No answer came from {where} in time.{doubt}"
    reason = str(error) or type(error).__name__
    return f"{where} gave no usable answer ({reason}).{doubt}"


def _refuse_unless_missing(response: http.client.HTTPResponse, body: bytes) -> None:
    """Raise `Refused`, unless the answer is that the key is missing. Not every 404 says so."""
    refused = _refused(response, body)
    if refused.kind != _MISSING:
        raise refused


def _refused(response: http.client.HTTPResponse, body: bytes) -> Refused:
    problem = _problem(response, body)
    said = problem.get("detail") or problem.get("title")
    detail = str(said or f"The server answered {response.status} {response.reason}.")
    return Refused(response.status, detail, str(problem.get("type", "")).rpartition("/")[2])


def _problem(response: http.client.HTTPResponse, body: bytes) -> dict[str, Any]:
    """Return the members of an RFC 9457 problem, none when the body is something else."""
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    if kind != "application/problem+json" or len(body) > _LONGEST_PROBLEM:
        return {}
    import json  # only needed when something failed

    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
