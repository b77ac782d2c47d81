"""HTTP/1.1 as this client speaks it: bytes to send, and bytes that came; no socket is touched here.

Of an answer's head only the fields that frame the body are looked at; the others are searched for
by whoever wants them. The head is checked as a whole first, by one anchored pattern, so that no
field can hide in another one's value. What is not plain HTTP/1.1 is a `ProtocolError`, after which
the connection is of no use: where the next answer begins is not known.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from keyrack.client.errors import ProtocolError

MAX_HEAD_BYTES: Final = 65536
_MAX_LINE_BYTES: Final = 1024
"""Of a chunk's first line, with extensions."""
_MAX_TRAILER_BYTES: Final = 8192
_MAX_INTERIM: Final = 100
"""Answers of status 1xx before the one that counts."""

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

_TOKEN: Final = rb"[!#-'*+.^-z|~0-9A-Za-z-]"
_FIELD: Final = _TOKEN + rb"+:[\t\x20-\x7e\x80-\xff]*\r\n"
_head: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?\r\n(?:" + _FIELD + rb")*\r\n"
).match
_framing: Final = re.compile(
    rb"\r\n(?:content-length(:[^\r]*)|transfer-encoding(:[^\r]*)|connection:([^\r]*))(?=\r\n)",
    re.IGNORECASE,
).findall
_chunk_line: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?").fullmatch
_trailer: Final = re.compile(_FIELD).fullmatch

_SEGMENT: Final = rb"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_~:@,;=!$&'()*+.-]+"
_plain_key: Final = re.compile(_SEGMENT + rb"(?:/" + _SEGMENT + rb")*").fullmatch


# What is sent


def key_bytes(key: str | bytes) -> bytes:
    """Return a key's bytes. Raises `ValueError` for a string that has no UTF-8."""
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError:
            raise ValueError(f"The key {key!r} has half of a surrogate pair: no UTF-8.") from None
    if not isinstance(key, bytes):
        raise TypeError(f"A key is a str or bytes, not {type(key).__name__}.")
    return key


def key_path(key: bytes) -> bytes:
    """Return a key as a path names it, such that no proxy on the way has anything to normalise.

    Raises `ValueError` for an empty one; what else can be wrong with a key the server says.
    """
    if _plain_key(key):
        return key
    if not key:
        raise ValueError("A key has at least one character.")
    return quote(key, safe="").replace(".", "%2E").encode()


def root_path(path: str) -> bytes:
    """Return the path of a URL as requests begin with it; what is encoded already stays so."""
    return quote(path, safe="/%:@,;=!$&'()*+~").encode()


def query(parameters: list[tuple[str, str | bytes]]) -> bytes:
    """Return a query with its question mark, empty for none.

    A space is %20 and a plus is %2B: that means the same wherever a query is read.
    """
    if not parameters:
        return b""
    return (
        "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters)
    ).encode()


def field(name: str, value: str) -> bytes:
    """Return a header field. Raises `ValueError` for a value that would be more than one line."""
    if not value.isascii() or not value.isprintable():
        raise ValueError(f"{value!r} cannot be sent as {name}: use visible ASCII characters.")
    return f"{name}: {value}\r\n".encode()


# What comes


class Response:
    """A whole answer. `head` has all its bytes up to the empty line."""

    __slots__ = ("body", "closes", "head", "status")

    def __init__(self, status: int, head: bytes, body: bytes, closes: bool) -> None:
        self.status = status
        self.head = head
        self.body = body
        self.closes = closes

    def field(self, name: bytes) -> str | None:
        """Return a field's value, None when there is none. The first counts. O(head)."""
        return field_of(self.head, name)


def field_of(head: bytes, name: bytes) -> str | None:
    """Return the value of a head's field, None when there is none."""
    start = head.find(b"\r\n" + name + b": ")
    if start >= 0:
        start += len(name) + 4
        return head[start : head.index(b"\r\n", start)].decode("latin-1").strip(" \t")
    found = re.search(rb"\r\n" + re.escape(name) + rb":([^\r]*)\r\n", head, re.IGNORECASE)
    return None if found is None else found[1].decode("latin-1").strip(" \t")


def whole(data: bytes, bodyless: bool) -> Response | None:
    """Return the answer that these bytes are, no less and no more; None when they are not one.

    This is what nearly every answer is, and costs about 2 µs. `bodyless` says that the request was
    a `HEAD`. Raises `ProtocolError`.
    """
    match = _head(data)
    if match is None:
        return None
    end = match.end()
    length, closes = _framed(match, data, bodyless)
    if length != len(data) - end or match[2] < b"200":
        return None
    return Response(int(match[2]), data[:end], data[end:], closes)


def _framed(match: re.Match[bytes], data: bytes, bodyless: bool) -> tuple[int, bool]:
    """Return the length of a body, and whether the connection is closed behind it."""
    lengths: list[bytes] = []
    coding = b""
    closes = match[1] == b"0"
    for length, transfer, connection in _framing(data, 0, match.end()):
        if length:
            lengths.append(length[1:])
        elif transfer:
            coding += b"," + transfer[1:]
        elif b"close" in connection.lower():
            closes = True
    status = match[2]
    digits = lengths[0].strip(b" \t") if lengths else b"0"
    if len(lengths) > 1 or not digits.isdigit() or len(digits) > 15:
        raise ProtocolError("The answer's Content-Length cannot be read.")
    if coding and (lengths or coding.strip(b" \t,").lower() != b"chunked" or match[1] == b"0"):
        raise ProtocolError("The answer's Transfer-Encoding cannot be read.")
    if bodyless or status < b"200" or status == b"204" or status == b"304":
        return 0, closes
    if coding:
        return CHUNKED, closes
    if not lengths:
        if status < b"400":
            raise ProtocolError("The answer does not say how long it is.")
        return UNTIL_CLOSE, True
    return int(digits), closes


class ResponseHead:
    """The head of an answer whose body is still to come. `length` may be CHUNKED or UNTIL_CLOSE."""

    __slots__ = ("closes", "data", "length", "status")

    def __init__(self, match: re.Match[bytes], data: bytes, bodyless: bool) -> None:
        self.length, self.closes = _framed(match, data, bodyless)
        self.status = int(match[2])
        self.data = data[: match.end()]


def read_head(buffer: bytes, bodyless: bool = False) -> ResponseHead | None:
    """Return the head that bytes begin with, None when it is not whole yet.

    Raises `ProtocolError` as soon as the bytes cannot become a head.
    """
    match = _head(buffer)
    if match is not None:
        return ResponseHead(match, buffer, bodyless)
    if b"\r\n\r\n" in buffer or len(buffer) > MAX_HEAD_BYTES:
        raise ProtocolError("What came is not an HTTP/1.1 answer.")
    if not buffer.startswith(b"HTTP/1."[: len(buffer)]):
        raise ProtocolError("What came does not begin as an HTTP/1.1 answer does.")
    return None


class ResponseBody:
    """Takes a body's bytes as they come. `rest` has what came behind its end."""

    def __init__(self, length: int) -> None:
        self._left = length
        self._chunks = Chunks() if length == CHUNKED else None
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what these bytes are of the body, without its framing."""
        if self._chunks is not None:
            piece = self._chunks.feed(data)
            self.done, self.rest = self._chunks.done, self._chunks.rest
            return piece
        if self._left == UNTIL_CLOSE:
            return data
        piece = data[: self._left]
        self._left -= len(piece)
        self.done = not self._left
        self.rest = data[len(piece) :]
        return piece

    def close(self) -> None:
        """Say that the connection ended. Raises `ProtocolError` when the body had not."""
        if self._left != UNTIL_CLOSE and not self.done:
            raise ProtocolError("The answer broke off.")
        self.done = True


class Chunks:
    """Undoes the chunked coding (RFC 9112, 7.1)."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._in_chunk = False
        self._trailer: int | None = None
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the payload of these bytes. Raises `ProtocolError`."""
        self._buffer += data
        pieces: list[bytes] = []
        while not self.done and self._step(pieces):
            pass
        if self.done:
            self.rest, self._buffer = self._buffer, b""
        return b"".join(pieces)

    def _step(self, pieces: list[bytes]) -> bool:
        """Take what comes next, and tell whether it was all there."""
        if self._left:
            piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
            self._left -= len(piece)
            pieces.append(piece)
            return not self._left
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise ProtocolError("The line of a chunk is too long.")
            return False
        self._buffer = rest
        self._take_line(line)
        return True

    def _take_line(self, line: bytes) -> None:
        if self._trailer is not None:
            self._take_trailer(line)
        elif self._in_chunk:
            if line:
                raise ProtocolError("A chunk is longer than it says.")
            self._in_chunk = False
        else:
            match = _chunk_line(line)
            if match is None or len(line) > _MAX_LINE_BYTES:
                raise ProtocolError("The line of a chunk cannot be read.")
            self._left = int(match[1], 16)
            self._in_chunk = bool(self._left)
            self._trailer = None if self._left else 0

    def _take_trailer(self, line: bytes) -> None:
        assert self._trailer is not None
        self._trailer += len(line) + 2
        if (line and not _trailer(line + b"\r\n")) or self._trailer > _MAX_TRAILER_BYTES:
            raise ProtocolError("The fields behind the chunks cannot be read.")
        self.done = not line


class ResponseReader:
    """Takes an answer's bytes as they come, however they are cut.

    `begun` tells whether any came; `rest` has what came behind the answer's end.
    """

    def __init__(self, bodyless: bool = False) -> None:
        self._bodyless = bodyless
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._body: ResponseBody | None = None
        self._pieces: list[bytes] = []
        self._interim = 0
        self.begun = False
        self.rest = b""

    def feed(self, data: bytes) -> Response | None:
        """Return the answer when it is whole, else None. Raises `ProtocolError`."""
        self.begun = self.begun or bool(data)
        if self._body is None:
            self._buffer += data
            if not self._read_head():
                return None
            data, self._buffer = self._buffer, b""
        assert self._body is not None
        self._pieces.append(self._body.feed(data))
        return self._answer() if self._body.done else None

    def close(self) -> Response:
        """Return the answer that ends with its connection. Raises `ProtocolError` otherwise."""
        if self._body is None:
            raise ProtocolError("The answer broke off.")
        self._body.close()
        return self._answer()

    def _read_head(self) -> bool:
        while (head := read_head(self._buffer, self._bodyless)) is not None:
            self._buffer = self._buffer[len(head.data) :]
            if head.status >= 200:
                self._head, self._body = head, ResponseBody(head.length)
                return True
            self._interim += 1
            if head.status == 101 or self._interim > _MAX_INTERIM:
                raise ProtocolError("The server began to speak of something else.")
        return False

    def _answer(self) -> Response:
        assert self._head is not None
        assert self._body is not None
        self.rest = self._body.rest
        head = self._head
        return Response(head.status, head.data, b"".join(self._pieces), head.closes)


class PipelineReader:
    """Takes the bytes of several answers as they come, in the order of their requests.

    `answers` has those that are whole, `done` tells whether all are, or no more can come.
    """

    def __init__(self, bodyless: list[bool]) -> None:
        self._bodyless = bodyless
        self._reader = ResponseReader(bodyless[0])
        self.answers: list[Response] = []
        self.done = False
        self.closes = False

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises `ProtocolError`."""
        while not self.done and (answer := self._reader.feed(data)) is not None:
            data = self._reader.rest
            self.answers.append(answer)
            whole = len(self.answers) == len(self._bodyless)
            # What nobody asked for may come behind: such a connection is not kept.
            self.closes = answer.closes or (whole and bool(data))
            self.done = whole or answer.closes
            if not self.done:
                self._reader = ResponseReader(self._bodyless[len(self.answers)])
                if not data:
                    return
