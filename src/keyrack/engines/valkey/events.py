"""Events: how a shard keeps them, and how those of all shards are read in order.

A shard's events are entries of a stream, each with all events of one call.

    time    8 bytes, big-endian, ms of the store's clock
    count   4 bytes, big-endian
    then for each event: change, 1 byte; length of the key, 2 bytes, big-endian; the key

The entry's id is the revision of its last event. Revisions of one call follow one another in steps
of the number of shards, so they need not be written. `library.lua` writes this.
"""

from __future__ import annotations

import logging
from struct import Struct
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import Change, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.valkey.calls import Calls

_HEAD: Final = Struct(">QI")
_ITEM: Final = Struct(">BH")
_ENTRIES_A_LOOK: Final = b"1000"
"""Groups of events that one call reads to find those of a key."""

_log = logging.getLogger("keyrack.valkey")


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


class EventReader:
    """Reads the events of all shards. `more` is called when there are some that cannot be told yet.

    Shards give revisions each for itself, so an event may be there before a lesser one of another
    shard. What is told is complete: reading raises every shard to about now, and nothing below the
    lowest of them is still to come.

    A server that takes over from another one may lack the last events of a shard, and have others.
    This is noticed by the last event that was told or read: it is none of the shard's history then.
    Where there is one shard, `history` looks for it. Where there are more, reading events does, and
    has the shard forget its history up to now.
    """

    def __init__(self, calls: Calls, more: Callable[[], None]) -> None:
        self._calls = calls
        self._shards = calls.layout.shards
        self._more = more
        self._read = [0] * self._shards
        """The last event that was read of each shard."""

    async def history(self, after: int | None = None) -> tuple[int, int]:
        """Return the revision below which events are gone, and the store's revision now.

        With `after`: gone for somebody who was told of changes up to that revision.
        """
        known = b"%d" % after if after is not None and self._shards == 1 else b"0"
        replies = await self._calls.each("raise", b"%d" % self._target(), known)
        gone, last = max(reply[2] for reply in replies), min(reply[1] for reply in replies)
        clock = self._calls.clock
        if after is not None and not replies[0][3]:
            gone = max(gone, after + 1)
            if after <= clock.highest:  # else it is the client's word alone that it was ever told
                _log.warning("Valkey lost changes that were told: watchers begin anew")
        clock.saw(last)
        return gone, last

    def _target(self) -> int:
        """Return the revision to raise shards to; the only shard needs no other to wait for it."""
        return 0 if self._shards == 1 else self._calls.clock.about_now()

    async def closed(self) -> int:
        """Return a revision, about now, below which no shard will ever do anything again."""
        return (await self.history())[1]

    async def after(self, revision: int, limit: int) -> list[Event]:
        """Return the oldest known events with a greater revision, at most so many."""
        for _ in range(2):
            found, closed = await self._once(b"%d" % revision, b"%d" % limit)
            found = [event for event in found if event.revision > revision]
            complete = [event for event in found if event.revision <= closed]
            if complete or not found:
                break
        if len(complete) < len(found):
            self._calls.loop.call_soon(self._more)
        return complete[:limit]

    async def _once(self, revision: bytes, limit: bytes) -> tuple[list[Event], int]:
        if self._shards == 1:
            replies = await self._calls.each("events", revision, limit)
        else:
            target = b"%d" % self._target()
            arguments = [(revision, limit, target, b"%d" % read) for read in self._read]
            replies = await self._calls.each_with("events_raising", arguments)
        events: list[Event] = []
        closed = 1 << 63
        for shard, (_, last, *entries) in enumerate(replies):
            if entries:
                self._calls.clock.saw(entries[-2])
                self._read[shard] = entries[-2]
            for number, entry in zip(entries[::2], entries[1::2], strict=True):
                events += unpack(number, entry, self._shards)
            closed = min(closed, entries[-2] if len(entries) >= 2 * int(limit) else last)
        events.sort(key=lambda event: event.revision)
        return events, closed

    async def of(
        self, key: bytes, before: int | None, limit: int
    ) -> tuple[list[Event], int | None]:
        """Return at most `limit` events of one key, newest first, and where to go on, if at all.

        All of them are in the key's shard, so only its events are read.
        """
        below = b"" if before is None else b"%d" % before
        shard = self._calls.layout.shard_of(key)
        following, *found = await self._calls.function(
            shard, "events_of", key, below, b"%d" % limit, _ENTRIES_A_LOOK
        )
        events = [Event(revision, Change(change), key, at) for revision, change, at in found]
        return events, following
