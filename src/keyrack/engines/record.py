"""The wire format of a record: the one module that knows it.

    revision   8 bytes, big-endian
    tag        1 byte: low 7 bits name the media type, the high bit says that a TTL follows
    expires    8 bytes, big-endian, ms of the store's clock; only with the high bit
    media type 1 byte of length and that many bytes; only where the low bits are 127
    value      the rest

Where the low bits are 126 the value is elsewhere, and what follows is

    size       8 bytes, big-endian: the value's length
    media type 1 byte as the low bits above; after 127 again a length and that many bytes

A short value of a common type costs nine bytes on top of itself, which is what keeps a store of
small values small.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from keyrack.engines.contract import BINARY, JSON, MAX_MEDIA_TYPE_BYTES, TEXT, Record

# The order is part of the format: only ever append, up to 125 entries.
_MEDIA_TYPES: Final = (
    TEXT,
    JSON,
    BINARY,
    "text/plain",
    "text/html; charset=utf-8",
    "text/css",
    "text/csv",
    "application/xml",
    "application/x-www-form-urlencoded",
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/svg+xml",
    "application/pdf",
    "application/gzip",
    "application/msgpack",
    "application/cbor",
    "application/x-protobuf",
)
_CODES: Final = {name: code for code, name in enumerate(_MEDIA_TYPES)}
_INLINE: Final = 127
_LONG: Final = 126
_TTL: Final = 0x80
MOST_HEAD: Final = 17 + 1 + MAX_MEDIA_TYPE_BYTES
"""The most bytes of a record besides its value."""

_HEAD: Final = Struct(">QB")
_HEAD_TTL: Final = Struct(">QBQ")
_SIZE: Final = Struct(">QB")
_pack_head: Final = _HEAD.pack
_pack_head_ttl: Final = _HEAD_TTL.pack
_unpack_head: Final = _HEAD.unpack_from
_unpack_head_ttl: Final = _HEAD_TTL.unpack_from


class Elsewhere(Exception):
    """Raised for a record whose value is not in it: `unpack_long` says where."""


def pack(revision: int, value: bytes, media_type: str = TEXT, expires_at: int = 0) -> bytes:
    """Return the bytes that are stored for a record. `media_type` is ASCII, at most 255 bytes."""
    code = _CODES.get(media_type, _INLINE)
    if code != _INLINE and not expires_at:
        return _pack_head(revision, code) + value
    head = _pack_head_ttl(revision, code | _TTL, expires_at) if expires_at else b""
    if code != _INLINE:
        return head + value
    name = media_type.encode("ascii")
    return b"%b%c%b%b" % (head or _pack_head(revision, code), len(name), name, value)


def pack_rest(value: bytes, media_type: str = TEXT) -> bytes:
    """Return what `pack` makes without the revision, for a record that does not end."""
    code = _CODES.get(media_type, _INLINE)
    if code != _INLINE:
        return b"%c%b" % (code, value)
    name = media_type.encode("ascii")
    return b"%c%c%b%b" % (code, len(name), name, value)


def pack_long(revision: int, size: int, media_type: str = TEXT, expires_at: int = 0) -> bytes:
    """Return the bytes that are stored for a record whose value, of `size` bytes, is elsewhere."""
    code = _CODES.get(media_type, _INLINE)
    head = (
        _pack_head_ttl(revision, _LONG | _TTL, expires_at)
        if expires_at
        else _pack_head(revision, _LONG)
    )
    if code != _INLINE:
        return head + _SIZE.pack(size, code)
    name = media_type.encode("ascii")
    return b"%b%b%c%b" % (head, _SIZE.pack(size, code), len(name), name)


def unpack(raw: bytes) -> Record:
    """Return the record that `pack` made these bytes of; raise `Elsewhere` for `pack_long`'s."""
    revision, tag = _unpack_head(raw)
    if tag < _LONG:
        return Record(raw[9:], _MEDIA_TYPES[tag], revision)
    return _unpack_rare(raw)


def unpack_long(raw: bytes) -> tuple[Record, int]:
    """Return the record that `pack_long` made these bytes of, without value, and its size."""
    start = 17 if raw[8] & _TTL else 9
    size, code = _SIZE.unpack_from(raw, start)
    start += _SIZE.size
    name = _MEDIA_TYPES[code] if code != _INLINE else raw[start + 1 :].decode("ascii")
    return Record(b"", name, revision(raw), expires_at(raw)), size


def _unpack_rare(raw: bytes) -> Record:
    revision, tag = _unpack_head(raw)
    start, expires_at = 9, 0
    if tag & _TTL:
        start, expires_at = 17, _unpack_head_ttl(raw)[2]
    code = tag & ~_TTL
    if code == _LONG:
        raise Elsewhere
    if code != _INLINE:
        return Record(raw[start:], _MEDIA_TYPES[code], revision, expires_at)
    end = start + 1 + raw[start]
    return Record(raw[end:], raw[start + 1 : end].decode("ascii"), revision, expires_at)


def is_plain(raw: bytes) -> bool:
    """Tell whether nothing depends on the record: it does not end, and its value is in it."""
    return raw[8] < _LONG


def is_long(raw: bytes) -> bool:
    """Tell whether the record's value is elsewhere."""
    return raw[8] & ~_TTL == _LONG


def size(raw: bytes) -> int:
    """Return about how many bytes the record takes, its value included wherever that is."""
    return unpack_long(raw)[1] if raw[8] & ~_TTL == _LONG else len(raw)


def with_end(raw: bytes, expires_at: int) -> bytes:
    """Return the bytes of the same record with another end, 0 for none."""
    rest = raw[17 if raw[8] & _TTL else 9 :]
    code = raw[8] & ~_TTL
    if expires_at:
        return _pack_head_ttl(revision(raw), code | _TTL, expires_at) + rest
    return _pack_head(revision(raw), code) + rest


def has_ttl(raw: bytes) -> bool:
    """Tell whether the record ends."""
    return raw[8] >= _TTL


def expires_at(raw: bytes) -> int:
    """Return when the record ends, 0 for never, without unpacking the rest."""
    return _unpack_head_ttl(raw)[2] if raw[8] & _TTL else 0


def revision(raw: bytes) -> int:
    """Return the record's revision without unpacking the rest."""
    return int.from_bytes(raw[:8], "big")
