"""Taking a snapshot of a store that is being written to.

A long read transaction would show the store as it was at one moment, and it would keep every page
that is replaced meanwhile from being used again: a store that is full, or that evicts, would come
to a stop. So the records are read in many short transactions, one piece after the other, while
writers go on; and everything that is changed from before the first piece until after the last is
written to the journal, which is read behind them. Records and then changes, each the last word on
its key, are the store at the moment that the journal was read to: not one change more or less.

    1  a new journal is begun: from here on each change is written down (in the mode `commit` it
       was before, and is afterwards)
    2  records and events are copied, the events from the newest to the oldest, because the oldest
       are being removed: what is copied is then without a gap
    3  one transaction says where the journal stands: the snapshot's moment
    4  the journal up to there is appended, with the end that makes the file valid
    5  the file is brought to the disk, gets its name, and older ones are removed
"""

from __future__ import annotations

import contextlib
import os
import time
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.engines.contract import Space, StoreError
from keyrack.engines.embedded.durability import changes, journal
from keyrack.engines.embedded.durability.changes import EVENTS
from keyrack.engines.embedded.durability.high_water import REVISIONS_AHEAD, HighWaterMark
from keyrack.engines.embedded.durability.journal import (
    SCRATCH,
    WRITE_AHEAD,
)
from keyrack.engines.embedded.durability.snapshot import (
    CHANGES,
    RECORDS,
    SnapshotHeader,
    Summary,
    Writer,
)
from keyrack.engines.embedded.pieces import Pieces

if TYPE_CHECKING:
    from keyrack.engines.embedded.database import Database
    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.engines.embedded.durability.group_sync import GroupSync
    from keyrack.engines.embedded.position import Position

_PIECE_ENTRIES: Final = 400
_PIECE_BYTES: Final = 1 << 20
"""What one transaction reads at most: it is open for a few tenths of a millisecond."""
_REST_PER_WORK: Final = 2.0
"""How long to rest after each piece, as a multiple of what it took."""
_LONGEST_REST_SECONDS: Final = 0.05


class SnapshotFailed(StoreError):
    """Raised when a snapshot could not be taken; those before it are as they were."""


class Taken(NamedTuple):
    """A snapshot that was taken."""

    number: int
    summary: Summary
    bytes: int
    seconds: float


def take(
    database: Database,
    data: DataDirectory,
    group_sync: GroupSync | None = None,
    *,
    gently: bool = False,
) -> Taken:
    """Take a snapshot; `group_sync` is given in the mode `commit`, where the journal goes on.

    `gently` makes it three times as long, and leaves the time between to others.
    Raises `StoreError` or `OSError`. The journal then goes on as it would have, and without a
    `group_sync` it is ended. What the snapshot makes superfluous is left to `DataDirectory.prune`.
    """
    began = time.monotonic()
    data.check_present()
    number = data.next_number()
    mark = HighWaterMark(data)
    taking = _Taking(database, data, number, group_sync, _Pace(_REST_PER_WORK if gently else 0.0))
    try:
        mark.note_ceiling(database.revision() + REVISIONS_AHEAD)
        summary = taking.run()
        size = os.stat(data.part(number)).st_size
        data.files.rename(data.part(number), data.snapshot(number))
        data.files.sync_directory(data.path)
        mark.note_snapshot(number, database.revision() + REVISIONS_AHEAD)
    except BaseException:
        if group_sync is None:
            database.move(lambda position: position._replace(on=False))
        with contextlib.suppress(OSError):
            data.remove_parts()
        raise
    finally:
        mark.close()
    database.move(lambda position: position._replace(saved=taking.transaction))
    if group_sync is not None:
        group_sync.resume()
    else:
        _remove_scratch_journals(data)
    return Taken(number, summary, size, time.monotonic() - began)


def note_end(database: Database, data: DataDirectory) -> None:
    """Write down, at the end of a life, which revision was its last: the next one goes on there.

    Raises `StoreError` or `OSError`.
    """
    data.check_present()
    mark = HighWaterMark(data)
    mark.note_ceiling(database.revision())
    mark.close()


def _remove_scratch_journals(data: DataDirectory) -> None:
    """Remove the journal of this snapshot, and those of snapshots that were broken off."""
    for number in data.journals():
        if journal.is_scratch(data, number):
            data.remove_journal(number)


class _Taking:
    def __init__(
        self,
        database: Database,
        data: DataDirectory,
        number: int,
        group_sync: GroupSync | None,
        pace: _Pace,
    ) -> None:
        self._database = database
        self._data = data
        self._number = number
        self._group_sync = group_sync
        self._pace = pace
        self.transaction = 0
        """The database's transaction at the snapshot's moment."""

    def run(self) -> Summary:
        """Write the snapshot's file, and return when all of it is on the disk."""
        journal.create(self._data, self._number)
        with self._database.maintain() as txn:
            kind = SCRATCH if self._group_sync is None else WRITE_AHEAD
            begun = journal.begin(txn, self._data, self._number, kind)
        if self._group_sync is not None:
            self._group_sync.leave(begun)
        header = SnapshotHeader(self._number, self._data.name)
        writer = Writer(self._data.files, self._data.part(self._number), header)
        try:
            self._copy(writer)
            ended, summary = self._end()
            self._append(writer, begun, ended)
            writer.finish(summary)
        finally:
            writer.close()
        return summary

    def _end(self) -> tuple[Position, Summary]:
        with self._database.maintain() as txn:
            position = txn.position()
            if not position.on or position.number != self._number:
                raise SnapshotFailed(
                    "the changes that were made meanwhile could not be written down; "
                    "the disk is full, or too slow for them"
                )
            keep = self._group_sync is not None
            position = position._replace(on=keep, saved=0)
            txn.put_position(position)
            self.transaction = txn.number
            summary = Summary(
                revision=txn.state()[0],
                store_ms=self._database.now(),
                wall_ms=time.time_ns() // 1_000_000,
                sequence=position.sequence,
                offset=position.offset if keep else 0,
                keys=txn.entries(self._database.spaces[Space.KEYS]),
                changes=0,
            )
        return position, summary

    def _copy(self, writer: Writer) -> None:
        for space in Space:
            after: bytes | None = b""
            while after is not None:
                packed, number, after = self._records(space, after)
                writer.add(RECORDS, packed, number)
                self._pace.rest()
        before: bytes | None = b"\xff" * 8
        while before is not None:
            packed, number, before = self._events(before)
            writer.add(RECORDS, packed, number)
            self._pace.rest()

    def _records(self, space: Space, after: bytes) -> tuple[bytes, int, bytes | None]:
        """Return the records behind a key, as many as a piece has, and the key to go on after."""
        found: list[changes.Change] = []
        size = 0
        with self._database.read() as txn, txn.cursor(self._database.spaces[space]) as cursor:
            there = cursor.set_range(after)
            if there and cursor.key() == after:
                there = cursor.next()
            pieces = Pieces(txn)
            for key, head in islice(cursor, _PIECE_ENTRIES if there else 0):
                raw = pieces.whole(space, head)
                found.append((changes.place_of(space), key, raw))
                size += len(raw)
                if size > _PIECE_BYTES:
                    break
        return changes.pack(found), len(found), found[-1][1] if found else None

    def _events(self, before: bytes) -> tuple[bytes, int, bytes | None]:
        """Return entries of the event log that lie before a key, newest first, and so on."""
        found: list[changes.Change] = []
        with self._database.read() as txn, txn.cursor(self._database.events) as cursor:
            there = cursor.prev() if cursor.set_range(before) else cursor.last()
            if there:
                found = [
                    (EVENTS, key, raw) for key, raw in islice(cursor.iterprev(), _PIECE_ENTRIES)
                ]
        return changes.pack(found), len(found), found[-1][1] if found else None

    def _append(self, writer: Writer, begun: Position, ended: Position) -> None:
        reader = journal.JournalReader(self._data, self._number)
        try:
            reached = begun.offset
            for entry in reader.entries(begun.offset, begun.sequence):
                reached, payload = entry.end, entry.payload
                writer.add(CHANGES, payload, sum(1 for _ in changes.unpack(payload)))
                self._pace.rest()
                if reached >= ended.offset:
                    break
        finally:
            reader.close()
        if reached != ended.offset:
            raise SnapshotFailed("the journal cannot be read up to its end")


class _Pace:
    """Rests after each piece of work, for longer than the piece took, so that others come first.

    No low priority instead: a process that is kept waiting with a transaction open keeps pages from
    being used again, and with the write lock held it stops everybody.
    """

    def __init__(self, rests: float) -> None:
        self._rests = rests
        self._since = time.thread_time()

    def rest(self) -> None:
        """Rest; call between pieces."""
        if self._rests:
            worked = time.thread_time() - self._since
            time.sleep(min(worked * self._rests, _LONGEST_REST_SECONDS))
            self._since = time.thread_time()
