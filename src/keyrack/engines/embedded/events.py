"""The event log: what was changed, in order, as long as it is kept. `eventlog` has its format."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.memory import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.contract import Event
    from keyrack.engines.embedded.database import Cursor, Database, Maintenance, WriteTransaction

DEFAULT_EVENTS: Final = 100_000

_PART_OF_MEMORY: Final = 16
"""The event log takes at most this part of the memory."""
_MOST_BYTES_AN_EVENT: Final = 640
_SLACK_PART: Final = 8
"""Commits trim the log themselves when it is an eighth above its bounds: upkeep is behind then."""
_LEAST_SLACK_EVENTS: Final = 256
_TRIMS_A_COMMIT: Final = 8
_STEP_NS: Final = 300_000
"""How long a search goes on before it leaves the rest, and how long a commit trims."""
_LOOK_EVERY: Final = 8
"""Entries between two looks at the clock."""


def most_bytes(limit: int, events: int) -> int:
    """Return how many bytes the log of `events` events may take in a store of `limit` bytes."""
    return min(limit // _PART_OF_MEMORY, max(1, events) * _MOST_BYTES_AN_EVENT)


def most_pages(limit: int, events: int) -> int:
    """Return the pages of that, with their slack and what commits let it grow beyond."""
    return most_bytes(limit, events) * 5 // 4 // PAGE + 8


class EventLog:
    """The log in a database. At most `events` events and `size` bytes are kept, about."""

    def __init__(
        self, database: Database, events: int, size: int, steady: Callable[[], int]
    ) -> None:
        self._database = database
        self._tree = database.events
        self._steady = steady
        self._most_bytes = size
        self._trim_above_bytes = size + size // _SLACK_PART
        self.keep(events)

    def keep(self, events: int) -> None:
        """Keep at most so many events from now on, about."""
        self._kept = max(1, events)
        self._trim_above_events = self._kept + max(_LEAST_SLACK_EVENTS, self._kept // _SLACK_PART)

    # Writing

    def append(
        self, txn: WriteTransaction, draft: eventlog.Draft, now: int, events: int, size: int
    ) -> None:
        """Write down the events of a commit, made at `now`, and the state after it.

        `events` and `size` are the number and the bytes of the events before it.
        """
        entry = draft.pack(now)
        txn.put(draft.last.to_bytes(8, "big"), entry, self._tree, append=True)
        events += draft.last - draft.first + 1
        size += len(entry) + eventlog.ENTRY_BYTES
        if events > self._trim_above_events or size > self._trim_above_bytes:
            stop = self._steady() + _STEP_NS
            _, events, size = self._trim(txn, events, size, _TRIMS_A_COMMIT, stop)
        txn.put_state(draft.last, events, size)

    def is_above_bounds(self) -> bool:
        """Tell whether there is something to trim."""
        with self._database.read() as txn:
            _, events, size = txn.state()
        return events > self._kept or size > self._most_bytes

    def trim(self, txn: Maintenance, limit: int, stop: int) -> int:
        """Remove at most `limit` of the oldest entries that are too many; say how many.

        It ends when the steady clock is at `stop` (ns).
        """
        revision, events, size = txn.state()
        removed, events, size = self._trim(txn, events, size, limit, stop)
        txn.put_state(revision, events, size)
        return removed

    def _trim(
        self, txn: Maintenance, events: int, size: int, limit: int, stop: int
    ) -> tuple[int, int, int]:
        """Remove the oldest entries that are too many; return how many, and what is left."""
        removed = 0
        with txn.trimming() as cursor:
            cursor.first()
            while removed < limit and cursor.key():
                entry = cursor.value()
                number = eventlog.count(entry)
                if events - number < self._kept and size <= self._most_bytes:
                    break
                if events == number:
                    break  # the last commit's are always kept
                events -= number
                size -= len(entry) + eventlog.ENTRY_BYTES
                removed += number > 0  # of what says that a life began there are few
                cursor.delete()
                if not removed % _LOOK_EVERY and self._steady() >= stop:
                    break
        return removed, events, size

    # Reading

    def history(self, after: int | None = None) -> tuple[int, int]:
        """Return the revision below which events are gone, and the store's revision now.

        With `after`: gone for somebody who knows the store as of that revision. The first revision
        is above it, too, where it is none of this store: it was given to a change that was lost.
        """
        with self._database.read() as txn, txn.cursor(self._tree) as cursor:
            revision, _, _ = txn.state()
            if not cursor.first():
                return revision, revision
            oldest = eventlog.first(*cursor.item()) - 1
            if after is None or not oldest <= after < revision:
                return oldest, revision
            return max(oldest, _known_from(cursor, after, revision)), revision

    def after(self, revision: int) -> Iterator[Event]:
        """Yield the known events with a greater revision, oldest first.

        Each step reads one commit's events in a transaction of its own: a long one would keep the
        pages of everything that is deleted meanwhile from being used again.
        """
        while True:
            with self._database.read() as txn, txn.cursor(self._tree) as cursor:
                if not cursor.set_range(eventlog.encode_revision(revision + 1)):
                    return
                last, entry = cursor.item()
            for event in eventlog.unpack(last, entry):
                if event.revision > revision:
                    yield event
            revision = int.from_bytes(last, "big")

    def some_after(self, revision: int, limit: int) -> list[Event]:
        """Return the oldest known events with a greater revision, at most so many."""
        return list(islice(self.after(revision), limit))

    def of(self, key: bytes, before: int | None, limit: int) -> tuple[list[Event], int | None]:
        """Return at most `limit` events of one key, newest first, and where to go on, if at all.

        Entries that do not hold the key's bytes are passed over without being unpacked, which is
        what makes a log of 100 000 events readable in 25 ms, all steps together.
        """
        found: list[Event] = []
        stop = self._steady() + _STEP_NS
        unlooked = 0
        with self._database.read() as txn, txn.cursor(self._tree) as cursor:
            there = cursor.last() if before is None else _seek_below(cursor, before)
            while there:
                last, entry = cursor.item()
                unlooked += 1
                if key in entry:
                    found += eventlog.newest_of(key, last, entry, before)
                    unlooked = _LOOK_EVERY
                if len(found) >= limit:
                    return found[:limit], found[limit - 1].revision
                if unlooked >= _LOOK_EVERY:
                    unlooked = 0
                    if self._steady() >= stop:
                        return found, eventlog.first(last, entry)
                there = cursor.prev()
        return found, None


def _known_from(cursor: Cursor, after: int, revision: int) -> int:
    """Return `after` where the events behind it are all known, else what they are known from."""
    if cursor.set_range(eventlog.encode_revision(after + 1)):
        known = eventlog.first(*cursor.item()) - 1
        there = cursor.prev()
    else:
        known, there = revision, cursor.last()
    if known <= after or (there and cursor.key() == eventlog.encode_revision(after)):
        return after
    return known


def _seek_below(cursor: Cursor, revision: int) -> bool:
    """Go to the entry of the log that holds the last event below a revision."""
    # The first entry that ends at or behind it may begin before it.
    return cursor.set_range(eventlog.encode_revision(revision - 1)) or cursor.last()
