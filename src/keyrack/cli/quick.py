"""`keyrack get KEY` in its plainest form, without loading anything that it can do without.

Scripts call it in loops, and most of what it costs is what Python loads. So the form that they use
is answered here, with the socket alone: over HTTP to an address that is a number, without a file of
contexts. Whatever is not this form, and whatever does not end in a value, is left to the verb
itself: it asks again, which a read allows, and says what is wrong.
"""

from __future__ import annotations

import _socket  # the module `socket` loads enum and selectors, half of what may be spent here
import os

_HEAD_BYTES = 1 << 13
_MOST_BYTES = 1 << 20
_SECONDS = 10.0
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~:./")
"""Bytes of keys and tokens that need no second look."""
_OTHERS = (
    "KEYRACK_CONTEXT",
    "KEYRACK_TOKEN_FILE",
    "KEYRACK_UDS",
    "KEYRACK_PORT",
    "KEYRACK_HOST",
)


def run(arguments: list[str]) -> bool:
    """Print the value that the arguments ask for, and tell whether that was done."""
    if len(arguments) != 2 or arguments[0] != "get" or os.isatty(1):
        return False
    key = os.fsencode(arguments[1])
    address = _address() if _is_plain(key) else None
    if address is None:
        return False
    value = _value(address, key)
    return value is not None and _written(value)


def _is_plain(key: bytes) -> bool:
    """Tell whether a key is in a path what it is, and no proxy has anything to normalise."""
    path = b"/%b/" % key
    odd = b"//" in path or b"/." in path or key[:1] == b"-"
    return not odd and _PLAIN.issuperset(key)


def _address() -> tuple[str, int] | None:
    """Return where KEYRACK_URL points, or the default; None where that needs a longer look."""
    environ = os.environ
    url = environ.get("KEYRACK_URL") or "http://127.0.0.1:8088"
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    is_number = host.replace(".", "").isdigit() and host.isascii() and host.count(".") == 3
    if not is_number or not (port.isascii() and port.isdigit() and len(port) < 6):
        return None
    if not environ.get("KEYRACK_URL") and (any(map(environ.get, _OTHERS)) or _has_contexts()):
        return None
    return (host, int(port)) if int(port) < 65536 else None


def _has_contexts() -> bool:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.exists(f"{base}/keyrack/contexts.toml")


def _value(address: tuple[str, int], key: bytes) -> bytes | None:
    """Return the whole value of an answer that is one, else None."""
    token = os.environ.get("KEYRACK_TOKEN", "")
    if not _PLAIN.issuperset(token.encode("utf-8", "surrogateescape")):
        return None
    fields = b"Host: %b:%d\r\nUser-Agent: keyrack\r\nConnection: close\r\n" % (
        address[0].encode(),
        address[1],
    )
    if token:
        fields += b"Authorization: Bearer %b\r\n" % token.encode()
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_SECONDS)
        connection.connect(address)
        connection.send(b"GET /v1/keys/%b HTTP/1.1\r\n%b\r\n" % (key, fields))
        return _received(connection)
    except OSError:
        return None
    finally:
        connection.close()


def _received(connection: _socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(_HEAD_BYTES)
        if not piece or len(data) > _HEAD_BYTES:
            return None
        data += piece
    head, _, value = data.partition(b"\r\n\r\n")
    length = _length(head)
    if length is None:
        return None
    pieces = [value]
    left = length - len(value)
    while left > 0:
        piece = connection.recv(min(left, _MOST_BYTES))
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces) if not left else None


def _length(head: bytes) -> int | None:
    """Return the length of the value behind a head that is Keyrack's answer of a text."""
    line, *fields = head.split(b"\r\n")
    named = dict(field.lower().split(b": ", 1) for field in fields if b": " in field)
    length = named.get(b"content-length", b"")
    is_value = line.startswith(b"HTTP/1.1 200 ") and b"etag" in named
    if not is_value or b"transfer-encoding" in named or not length.isdigit():
        return None
    return int(length) if int(length) <= _MOST_BYTES else None


def _written(value: bytes) -> bool:
    """Write a value, and tell whether that was done."""
    try:
        at = os.write(1, value)
    except OSError:
        return False  # nothing was written, so the verb may try, and say what is wrong
    if at < len(value):
        _write_rest(value[at:])
    return True


def _write_rest(value: bytes) -> None:
    import sys

    from keyrack.cli import streams  # it waits where that is needed, and knows what to say

    def write(_: list[str]) -> int:
        sys.stdout.buffer.write(value)
        return 0

    sys.exit(streams.guard(write, []))
