"""HTTP/1.1 as bytes: a strict reader of answers, and a socket that sends whatever it is told."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [A-Z][A-Za-z -]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\r\n\0]*)")


@dataclass(frozen=True)
class Answer:
    """One answer, as it was on the wire. Names of fields are lower case."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """Return the only value of a field."""
        (value,) = [value for key, value in self.fields if key == name.lower()]
        return value

    def get(self, name: str) -> str | None:
        """Return the only value of a field, or None without the field."""
        return self[name] if name.lower() in dict(self.fields) else None

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        """Whether the server says that this is its last answer."""
        return self.get("connection") == "close"


def parse(data: bytes, method: str = "GET") -> tuple[Answer, bytes] | None:
    """Return the first answer in the data and what follows it; None when it is not whole yet.

    Raises `AssertionError` for anything that is no answer to the letter.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        assert b"HTTP/1.1 "[: len(data)] == data[:9], f"no answer: {data[:80]!r}"
        return None
    line, *lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(line)
    assert match is not None, f"no status line: {line!r}"
    status = int(match[1])
    fields = []
    for one in lines:
        field = _FIELD.fullmatch(one)
        assert field is not None, f"no field: {one!r}"
        fields.append((field[1].decode().lower(), field[2].decode("latin-1")))
    length = _body_length(status, fields, method)
    if len(rest) < length:
        return None
    return Answer(status, tuple(fields), rest[:length]), rest[length:]


def _body_length(status: int, fields: list[tuple[str, str]], method: str) -> int:
    lengths = [value for name, value in fields if name == "content-length"]
    if status < 200 or status in (204, 304):
        assert not lengths, f"an answer {status} has no body and no Content-Length"
        return 0
    assert len(lengths) == 1, f"an answer {status} has one Content-Length: {fields}"
    return 0 if method == "HEAD" else int(lengths[0])


def request(
    method: str = "GET",
    target: str = "/healthz",
    body: bytes | None = None,
    host: str = "localhost",
    **fields: str,
) -> bytes:
    """Return a request. `Content_Type="text/plain"` is the field `Content-Type`."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if body is not None and "Transfer_Encoding" not in fields:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join((*lines, "", ""))
    return head.encode("latin-1") + (body or b"")


def chunked(*chunks: bytes, trailer: bytes = b"", extension: bytes = b"") -> bytes:
    """Return a chunked body."""
    pieces = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join((*pieces, b"0\r\n", trailer, b"\r\n"))


class Wire:
    """A client's connection that sends any bytes and reads answers strictly."""

    def __init__(self, port: int, timeout: float = 10.0, host: str = "127.0.0.1") -> None:
        self._begin(socket.create_connection((host, port), timeout))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    def over(cls, connected: socket.socket) -> Wire:
        """Speak over a socket of any kind."""
        wire = cls.__new__(cls)
        wire._begin(connected)
        return wire

    def _begin(self, connected: socket.socket) -> None:
        self.socket = connected
        self._received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close."""
        self.socket.close()

    def reset(self) -> None:
        """Close so that the other side gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        """Send bytes."""
        self.socket.sendall(data)
        return self

    def send_pieces(self, *pieces: bytes, pause: float = 0.0) -> Wire:
        """Send each piece as a packet of its own."""
        for piece in pieces:
            if piece:
                self.socket.sendall(piece)
                time.sleep(pause)
        return self

    def half_close(self) -> Wire:
        """Say that nothing more is sent."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer; `EOFError` when the connection ends instead."""
        while (found := parse(self._received, method)) is None:
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError(f"the connection ended after {self._received!r}")
            self._received += data
        answer, self._received = found
        return answer

    def ask(self, data: bytes) -> Answer:
        """Send one request and read its answer."""
        self.send(data)
        return self.answer(data.split(b" ", 1)[0].decode("latin-1"))

    def rest(self) -> bytes:
        """Read until the connection ends; a reset counts as an end."""
        pieces = [self._received]
        self._received = b""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(1 << 18):
                pieces.append(data)
        return b"".join(pieces)

    def nothing_comes(self, seconds: float = 0.2) -> bool:
        """Tell whether the connection stays open and silent for a while."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1)
        except TimeoutError:
            return not self._received
        finally:
            self.socket.settimeout(before)
        self._received += data
        return False
