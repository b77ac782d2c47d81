"""The events of a shard: entries of a stream, each with all events of one call.

    time    8 bytes, big-endian, ms of the store's clock
    count   4 bytes, big-endian
    then for each event: change, 1 byte; length of the key, 2 bytes, big-endian; the key

The entry's id is the revision of its last event. Revisions of one call follow one another in steps
of the number of shards, so they need not be written. `library.lua` writes this.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import Change, Event

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD: Final = Struct(">QI")
_ITEM: Final = Struct(">BH")


def unpack(last: int, entry: bytes, step: int) -> Iterator[Event]:
    """Yield the events of an entry, oldest first; `last` is its id."""
    time, number = _HEAD.unpack_from(entry)
    revision = last - number * step
    position = _HEAD.size
    for _ in range(number):
        change, length = _ITEM.unpack_from(entry, position)
        position += _ITEM.size
        revision += step
        yield Event(revision, Change(change), entry[position : position + length], time)
        position += length
