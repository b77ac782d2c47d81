"""The wire format of the event log: one entry for all events of a commit.

The entry's key is the revision of its last event (8 bytes, big-endian); revisions inside a commit
follow one another, so they need not be written. The value:

    time   8 bytes, big-endian, ms of the store's clock
    count  4 bytes, big-endian
    then for each event: change, 1 byte; length of the key, 2 bytes, big-endian; the key

One entry for a commit, not one for an event: writes that share a transaction also share this.

An entry without events says that a life of a service began at that revision. Between two entries
revisions may be missing. They were never handed out, or what they were given to was lost: whoever
knows of one of them has seen what is no more.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import Change, Event

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD: Final = Struct(">QI")
_ITEM: Final = Struct(">BH")
_IS_SET: Final = int(Change.SET)
_SET: Final = [_ITEM.pack(Change.SET, length) for length in range(512)]


class Draft:
    """The events of a commit that is being made; hands out the revisions."""

    __slots__ = ("_parts", "first", "last")

    def __init__(self, last: int) -> None:
        self.first = last + 1
        self.last = last
        self._parts: list[bytes] = []

    def set(self, key: bytes) -> int:
        """Note that a key was set and return the change's revision."""
        self._parts += (_SET[len(key)], key)
        self.last += 1
        return self.last

    def set_all(self, keys: list[bytes]) -> None:
        """Note that keys were set, one after the other."""
        parts = self._parts
        for key in keys:
            parts += (_SET[len(key)], key)
        self.last += len(keys)

    def before_last(self, change: Change, key: bytes) -> int:
        """Put a change before the last one, and return the last one's new revision."""
        self._parts[-2:-2] = (_ITEM.pack(change, len(key)), key)
        self.last += 1
        return self.last

    def mark(self) -> tuple[int, int]:
        """Return where the draft is, for `back_to`."""
        return self.last, len(self._parts)

    def back_to(self, mark: tuple[int, int]) -> None:
        """Forget what was noted since a mark."""
        self.last = mark[0]
        del self._parts[mark[1] :]

    def note(self, change: Change, key: bytes) -> int:
        """Note a change of a key and return the change's revision."""
        self._parts += (_ITEM.pack(change, len(key)), key)
        self.last += 1
        return self.last

    def pack(self, time: int) -> bytes:
        """Return the value of the log's entry."""
        return _HEAD.pack(time, self.last - self.first + 1) + b"".join(self._parts)


ENTRY_BYTES: Final = 24
"""What an entry costs in its tree, its key included."""


def beginning(time: int) -> bytes:
    """Return the value of the entry that says that a life began."""
    return _HEAD.pack(time, 0)


def count(entry: bytes) -> int:
    """Return how many events an entry holds."""
    return int(_HEAD.unpack_from(entry)[1])


def first(last: bytes, entry: bytes) -> int:
    """Return the revision of an entry's first event. `last` is the entry's key."""
    return int.from_bytes(last, "big") - count(entry) + 1


def newest_of(key: bytes, last: bytes, entry: bytes, before: int | None) -> list[Event]:
    """Return an entry's events of one key, newest first; those below `before` where it is given."""
    events = [
        event
        for event in unpack(last, entry)
        if event.key == key and (before is None or event.revision < before)
    ]
    events.reverse()
    return events


def time_of(entry: bytes) -> int:
    """Return the time of an entry's events."""
    return int(_HEAD.unpack_from(entry)[0])


def unpack(last: bytes, entry: bytes) -> Iterator[Event]:
    """Yield the events of an entry, oldest first. `last` is the entry's key."""
    time, number = _HEAD.unpack_from(entry)
    revision = int.from_bytes(last, "big") - number
    position = _HEAD.size
    for _ in range(number):
        change, length = _ITEM.unpack_from(entry, position)
        position += _ITEM.size
        revision += 1
        yield Event(revision, Change(change), entry[position : position + length], time)
        position += length


def sets(last: bytes, entry: bytes, after: int) -> list[tuple[int, bytes]]:
    """Return revision and key of an entry's sets with a revision above `after`, oldest first.

    It looks at every key that is ever set in a full store, and so does without `Event`.
    """
    number = _HEAD.unpack_from(entry)[1]
    first = int.from_bytes(last, "big") - number + 1
    position, found = _HEAD.size, []
    for revision in range(first, first + number):
        # Written out for `_ITEM`: change, and two bytes of length.
        end = position + 3 + (entry[position + 1] << 8 | entry[position + 2])
        if entry[position] == _IS_SET and revision > after:
            found.append((revision, entry[position + 3 : end]))
        position = end
    return found


def encode_revision(revision: int) -> bytes:
    """Return a revision as a key that sorts as the number does."""
    return revision.to_bytes(8, "big")
