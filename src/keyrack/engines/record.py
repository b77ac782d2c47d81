"""The wire format of a record: the one module that knows it.

    revision   8 bytes, big-endian
    tag        1 byte: low 7 bits name the media type, the high bit says that a TTL follows
    expires    8 bytes, big-endian, ms of the store's clock; only with the high bit
    media type 1 byte of length and that many bytes; only where the low bits are 127
    value      the rest

Where the low bits are 126 the value is elsewhere, and what follows is

    size       8 bytes, big-endian: the value's length
    media type 1 byte as the low bits above; after 127 again a length and that many bytes

Where the low bits are 125 a stale copy of the record is kept when its time is over, and where they
are 124 it is one by now: the event of its end is written, and nobody sees it who does not ask for
it. There is always a TTL then, and behind it

    until      8 bytes, big-endian, ms of the store's clock: when the stale copy goes
    stored     8 bytes, big-endian, likewise: when the value was stored, 0 where that is not known
    tag        1 byte: the low bits that the record would have otherwise, and what follows those

Where the low bits are 123, here or in the place just named, caches may keep the value. Behind the
end there is

    max age    4 bytes, big-endian: seconds for which a cache may serve it without asking
    stale      4 bytes, big-endian: seconds for which it may serve it after that, while it asks
    public     1 byte: 1 where the writer allows caches that serve several people, else 0
    tag        1 byte: the low bits that there would be otherwise, and what follows those

Where the low bits are 122 the record was deleted and is in the trash. There is always a TTL then,
which says when it goes from there, and behind it

    length     2 bytes, big-endian
    key        so many bytes: the record's key
    tag        1 byte: the tag that the record had, and what followed that

A short value of a common type costs nine bytes on top of itself, which is what keeps a store of
small values small.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from keyrack.engines.contract import (
    BINARY,
    JSON,
    MAX_MEDIA_TYPE_BYTES,
    TEXT,
    CacheControl,
    Record,
)

# The order is part of the format: only ever append, up to 122 entries.
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
_CACHED: Final = 123
_TTL: Final = 0x80
_STALE: Final = 125 | _TTL
_COPY: Final = 124 | _TTL
_TRASHED: Final = 122 | _TTL
_STALE_TAGS: Final = (_STALE, _COPY)
_STALE_HEAD: Final = 33
"""Where the tag is that a record with a stale copy would have otherwise."""
_CACHE: Final = Struct(">IIBB")
MOST_HEAD: Final = _STALE_HEAD + 1 + _CACHE.size + 1 + MAX_MEDIA_TYPE_BYTES
"""The most bytes of a record besides its value."""

_HEAD: Final = Struct(">QB")
_HEAD_TTL: Final = Struct(">QBQ")
_HEAD_STALE: Final = Struct(">QBQQQB")
_HEAD_TRASHED: Final = Struct(">QBQH")
_SIZE: Final = Struct(">QB")
_pack_head: Final = _HEAD.pack
_pack_head_ttl: Final = _HEAD_TTL.pack
_pack_head_stale: Final = _HEAD_STALE.pack
_unpack_head: Final = _HEAD.unpack_from
_unpack_head_ttl: Final = _HEAD_TTL.unpack_from


class Elsewhere(Exception):
    """Raised for a record whose value is not in it: `unpack_long` says where."""


class Ends(NamedTuple):
    """When a record ends, and its stale copy: all in ms of the store's clock, 0 for never."""

    expires_at: int = 0
    stale_until: int = 0
    """When the stale copy goes; 0 where none is kept."""
    stored_at: int = 0
    """When the value was stored; known only where a stale copy is kept."""


def pack(
    revision: int,
    value: bytes,
    media_type: str = TEXT,
    expires_at: int = 0,
    stale_until: int = 0,
    stored_at: int = 0,
) -> bytes:
    """Return the bytes that are stored for a record. `media_type` is ASCII, at most 255 bytes."""
    code = _CODES.get(media_type, _INLINE)
    if code != _INLINE and not expires_at:
        return _pack_head(revision, code) + value
    head = _head(revision, code, expires_at, stale_until, stored_at)
    if code != _INLINE:
        return head + value
    name = media_type.encode("ascii")
    return b"%b%c%b%b" % (head, len(name), name, value)


def _head(revision: int, code: int, expires_at: int, stale_until: int, stored_at: int) -> bytes:
    if stale_until:
        return _pack_head_stale(revision, _STALE, expires_at, stale_until, stored_at, code)
    if expires_at:
        return _pack_head_ttl(revision, code | _TTL, expires_at)
    return _pack_head(revision, code)


def pack_rest(value: bytes, media_type: str = TEXT) -> bytes:
    """Return what `pack` makes without the revision, for a record that does not end."""
    code = _CODES.get(media_type, _INLINE)
    if code != _INLINE:
        return b"%c%b" % (code, value)
    name = media_type.encode("ascii")
    return b"%c%c%b%b" % (code, len(name), name, value)


def pack_long(
    revision: int,
    size: int,
    media_type: str = TEXT,
    expires_at: int = 0,
    stale_until: int = 0,
    stored_at: int = 0,
) -> bytes:
    """Return the bytes that are stored for a record whose value, of `size` bytes, is elsewhere."""
    head = _head(revision, _LONG, expires_at, stale_until, stored_at)
    return head + _long_rest(size, media_type)


def _long_rest(size: int, media_type: str) -> bytes:
    code = _CODES.get(media_type, _INLINE)
    if code != _INLINE:
        return _SIZE.pack(size, code)
    name = media_type.encode("ascii")
    return b"%b%c%b" % (_SIZE.pack(size, code), len(name), name)


def unpack(raw: bytes) -> Record:
    """Return the record that `pack` made these bytes of; raise `Elsewhere` for `pack_long`'s."""
    revision, tag = _unpack_head(raw)
    if tag < _CACHED:
        return Record(raw[9:], _MEDIA_TYPES[tag], revision)
    return _unpack_rare(raw)


def _unpack_rare(raw: bytes) -> Record:
    code, start, caching = _kind(raw)
    if code == _LONG:
        raise Elsewhere
    if code != _INLINE:
        return Record(raw[start:], _MEDIA_TYPES[code], revision(raw), *ends(raw), caching)
    end = start + 1 + raw[start]
    name = raw[start + 1 : end].decode("ascii")
    return Record(raw[end:], name, revision(raw), *ends(raw), caching)


def unpack_long(raw: bytes) -> tuple[Record, int]:
    """Return the record that `pack_long` made these bytes of, without value, and its size."""
    _, start, caching = _kind(raw)
    size, code = _SIZE.unpack_from(raw, start)
    start += _SIZE.size
    name = _MEDIA_TYPES[code] if code != _INLINE else raw[start + 1 :].decode("ascii")
    return Record(b"", name, revision(raw), *ends(raw), caching), size


def _code(raw: bytes) -> tuple[int, int]:
    """Return the tag without what says when the record ends, and where what follows begins."""
    tag = raw[8]
    if tag == _TRASHED:
        code, start = _code(from_trash(raw)[1])
        return code, start + _trash_bytes(raw)
    if tag in _STALE_TAGS:
        return raw[_STALE_HEAD], _STALE_HEAD + 1
    return (tag & ~_TTL, 17) if tag & _TTL else (tag, 9)


def _kind(raw: bytes) -> tuple[int, int, CacheControl | None]:
    """Return what names the media type, or says that the value is elsewhere, and what follows.

    With it what caches may do with the value.
    """
    code, start = _code(raw)
    if code != _CACHED:
        return code, start, None
    max_age, stale, public, code = _CACHE.unpack_from(raw, start)
    return code, start + _CACHE.size, CacheControl(max_age, stale, bool(public))


def is_plain(raw: bytes) -> bool:
    """Tell whether the record is of the frequent kind, on which nothing depends.

    It does not end, its value is in it, and no cache may keep it.
    """
    return raw[8] < _CACHED


def is_long(raw: bytes) -> bool:
    """Tell whether the record's value is elsewhere."""
    return _kind(raw)[0] == _LONG


def size(raw: bytes) -> int:
    """Return about how many bytes the record takes, its value included wherever that is."""
    return unpack_long(raw)[1] if is_long(raw) else len(raw)


def value_bytes(raw: bytes) -> int:
    """Return how many bytes the record's value has, wherever that is."""
    code, start, _ = _kind(raw)
    if code == _LONG:
        return int(_SIZE.unpack_from(raw, start)[0])
    return len(raw) - start - (1 + raw[start] if code == _INLINE else 0)


def with_end(raw: bytes, expires_at: int, stale_until: int = 0, stored_at: int = 0) -> bytes:
    """Return the bytes of the same record with another end, 0 for none."""
    code, start = _code(raw)
    return _head(revision(raw), code, expires_at, stale_until, stored_at) + raw[start:]


def with_value(raw: bytes, value: bytes) -> bytes:
    """Return the bytes of the same record with its value in it, which was elsewhere."""
    head, _ = unpack_long(raw)
    return _with_rest(raw, cached_rest(pack_rest(value, head.media_type), head.cache_control))


def without_value(raw: bytes) -> bytes:
    """Return the bytes of the same record with its value elsewhere, which was in it."""
    record = unpack(raw)
    rest = bytes((_LONG,)) + _long_rest(len(record.value), record.media_type)
    return _with_rest(raw, cached_rest(rest, record.cache_control))


def with_cache_control(raw: bytes, caching: CacheControl) -> bytes:
    """Return the bytes of a record that caches may keep, of the same one that they may not."""
    code, start = _code(raw)
    return _with_rest(raw, cached_rest(b"%c%b" % (code, raw[start:]), caching))


def cached_rest(rest: bytes, caching: CacheControl | None) -> bytes:
    """Return what `pack_rest` makes, of a record that caches may keep."""
    if caching is None:
        return rest
    times = caching.max_age, caching.stale_while_revalidate
    return b"%c%b%b" % (_CACHED, _CACHE.pack(*times, caching.public, rest[0]), rest[1:])


def _with_rest(raw: bytes, rest: bytes) -> bytes:
    """Return a record with other bytes from its tag on, the end apart; `rest` is as of no end."""
    if raw[8] == _TRASHED:
        return raw[: 8 + _trash_bytes(raw)] + _with_rest(from_trash(raw)[1], rest)[8:]
    if raw[8] in _STALE_TAGS:
        return raw[:_STALE_HEAD] + rest
    if raw[8] & _TTL:
        return b"%b%c%b%b" % (raw[:8], rest[0] | _TTL, raw[9:17], rest[1:])
    return raw[:8] + rest


def has_ttl(raw: bytes) -> bool:
    """Tell whether the record ends."""
    return raw[8] >= _TTL


def expires_at(raw: bytes) -> int:
    """Return when the record ends, 0 for never, without unpacking the rest."""
    return _unpack_head_ttl(raw)[2] if raw[8] & _TTL else 0


def ends(raw: bytes) -> Ends:
    """Return all that is known of when the record ends."""
    if raw[8] in _STALE_TAGS:
        return Ends(*_HEAD_STALE.unpack_from(raw)[2:5])
    return Ends(expires_at(raw))


def keeps_copy(raw: bytes) -> bool:
    """Tell whether a stale copy is kept when the record's time is over, or it is one."""
    return raw[8] in _STALE_TAGS


def is_copy(raw: bytes) -> bool:
    """Tell whether the record is a stale copy, the event of its end written."""
    return raw[8] == _COPY


def as_copy(raw: bytes) -> bytes:
    """Return the bytes of the stale copy of a record that keeps one."""
    return b"%b%c%b" % (raw[:8], _COPY, raw[9:])


def due_at(raw: bytes) -> int:
    """Return when something is to be done with the record, 0 for never: it ends, or its copy."""
    return ends(raw).stale_until if raw[8] == _COPY else expires_at(raw)


def revision(raw: bytes) -> int:
    """Return the record's revision without unpacking the rest."""
    return int.from_bytes(raw[:8], "big")


# In the trash


def as_trash(raw: bytes, key: bytes, ends: int) -> bytes:
    """Return the bytes of a key's record for the trash, where it stays until `ends`."""
    head = _HEAD_TRASHED.pack(revision(raw), _TRASHED, ends, len(key))
    return b"%b%b%b" % (head, key, raw[8:])


def from_trash(raw: bytes) -> tuple[bytes, bytes]:
    """Return key and bytes of the record that `as_trash` made these bytes of."""
    start = 8 + _trash_bytes(raw)
    return raw[_HEAD_TRASHED.size : start], raw[:8] + raw[start:]


def with_revision(raw: bytes, revision: int) -> bytes:
    """Return the bytes of the same record with another revision."""
    return revision.to_bytes(8, "big") + raw[8:]


def _trash_bytes(raw: bytes) -> int:
    """Return how many bytes `as_trash` has put in front of the tag."""
    return _HEAD_TRASHED.size - 8 + int.from_bytes(raw[17:19], "big")
