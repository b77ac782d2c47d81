"""The wire format of changes, shared by snapshots and journals. For each change:

    place   1 byte: 0 keys, 1 locks, 2 answers, 3 the event log, 4 tokens, 5 trash, 6 undos; the
            high bit says that the record is gone
    key     2 bytes of length, big-endian
    record  4 bytes of length, big-endian
    then the key and the record's bytes, with the whole value in it however long that is

A change says what is there after it, not what was done: to apply one twice does no harm.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

from keyrack.engines.contract import Space

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EVENTS: Final = 3
"""The place of the event log. Spaces that came later are behind it."""
_PLACES: Final = {
    Space.KEYS: 0,
    Space.LOCKS: 1,
    Space.ANSWERS: 2,
    Space.ADMIN: 4,
    Space.TRASH: 5,
    Space.UNDOS: 6,
}
_SPACES: Final = {place: space for space, place in _PLACES.items()}
_LAST: Final = max(_PLACES.values())


def place_of(space: Space) -> int:
    """Return the place of a space's records."""
    return _PLACES[space]


def space_of(place: int) -> Space:
    """Return the space whose records are in a place."""
    return _SPACES[place]


Change: TypeAlias = tuple[int, bytes, bytes | None]
"""Place, key, and the record's bytes; None when it is gone."""

_HEAD: Final = Struct(">BHI")
_GONE: Final = 0x80


def pack(changes: Iterable[Change]) -> bytes:
    """Return the bytes of some changes."""
    parts: list[bytes] = []
    for place, key, raw in changes:
        if raw is None:
            parts += (_HEAD.pack(place | _GONE, len(key), 0), key)
        else:
            parts += (_HEAD.pack(place, len(key), len(raw)), key, raw)
    return b"".join(parts)


def unpack(data: bytes) -> Iterator[Change]:
    """Yield the changes that `pack` made these bytes of; raise `ValueError` where it did not."""
    position, end = 0, len(data)
    while position < end:
        if end - position < _HEAD.size:
            raise ValueError("a change is cut off")
        place, key_length, length = _HEAD.unpack_from(data, position)
        start = position + _HEAD.size
        middle = start + key_length
        position = middle + length
        if position > end or place & ~_GONE > _LAST:
            raise ValueError("a change is damaged")
        raw = None if place & _GONE else data[middle:position]
        yield place & ~_GONE, data[start:middle], raw
