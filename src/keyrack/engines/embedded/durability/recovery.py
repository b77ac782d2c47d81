"""Filling an empty store from a data directory: the newest good snapshot, then the journals.

A snapshot is read twice: once to see that it is good, once to load it. One that is not is set
aside, and the one before it is used, together with the journals since then: nothing is lost as
long as those are there. Reading of journals ends at the first bytes that are not the next entry:
what follows was never acknowledged.
"""

from __future__ import annotations

import contextlib
import os
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import lmdb

from keyrack.engines import record as wire
from keyrack.engines.contract import Space, StoreError, StoreTooSmall
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.commit import due_entry, due_number
from keyrack.engines.embedded.durability import changes, journal, snapshot
from keyrack.engines.embedded.durability.changes import EVENTS
from keyrack.engines.embedded.durability.snapshot import RECORDS, Header, SnapshotDamaged
from keyrack.engines.embedded.memory import PAGES_A_COMMIT
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, Pieces, pages_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyrack.engines.embedded.durability.changes import Change
    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.engines.embedded.durability.hold import Hold
    from keyrack.engines.embedded.durability.snapshot import Summary

_BATCH: Final = 200
_PAGES_A_CHANGE: Final = 6
"""Leaf, branch and a split of each, in the records and in the expiry index: shared by a batch."""
_BYTES_AN_ENTRY: Final = 24


class Found(NamedTuple):
    """What a data directory had."""

    snapshot: int
    """The number of the snapshot that was used; 0 when there was none."""
    restored: bool
    """Whether an operator has put it there: it was made under another name."""
    summary: Summary | None
    entries: int
    """How many journal entries were applied after it."""
    sequence: int
    """The number of the last entry that is in the store now."""
    last_ms: int
    """The latest time that is written down, in ms of the clock of the store that was kept."""
    troubles: list[str]
    """What should not have been, a sentence each."""


def recover(hold: Hold, data: DataDirectory) -> Found:
    """Fill a store, which must be empty.

    Raises `StoreError` when there are snapshots and none is good, `StoreFormatUnknown` for files of
    another version, and `StoreTooSmall` when the store cannot hold what was kept.
    """
    troubles: list[str] = []
    number, header, summary = _newest_good(data, troubles)
    if header is None or summary is None:
        return Found(0, False, None, 0, 0, 0, troubles)
    loader = _Loader(hold)
    for kind, block in snapshot.read(data.snapshot(number)):
        loader.load(block, kind == RECORDS)
    entries = 0
    for payload in _journal_entries(data, number, summary, troubles):
        loader.load(changes.unpack(payload), False)
        entries += 1
    loader.finish(summary.revision)
    last_ms = max(summary.store_ms, loader.last_ms)
    restored = header != Header(number, data.name)
    return Found(number, restored, summary, entries, summary.sequence + entries, last_ms, troubles)


def _newest_good(
    data: DataDirectory, troubles: list[str]
) -> tuple[int, Header | None, Summary | None]:
    numbers = data.snapshots()
    for number in reversed(numbers):
        try:
            return number, *snapshot.verify(data.snapshot(number))
        except SnapshotDamaged as error:
            troubles.append(f"{error} It is set aside, and the one before it is used.")
            data.set_aside(number)
    if numbers:
        raise StoreError(
            f"None of the {len(numbers)} snapshots in {data.path} can be read. They are kept under "
            "names that end in .damaged; restore a good one (keyrack snapshot restore), or name "
            "another --data-dir to begin anew."
        )
    return 0, None, None


def _journal_entries(
    data: DataDirectory, number: int, summary: Summary, troubles: list[str]
) -> Iterator[bytes]:
    """Yield the entries after a snapshot, each its packed changes."""
    sequence = summary.sequence
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(contextlib.closing(reader))
            for reader in _readable(data, number, troubles)
        ]
        for reader, following in pairwise([*readers, None]):
            assert reader is not None, "only the last one is followed by none"
            offset = journal.START
            if reader.header.number == number:
                offset = summary.offset
            elif reader.header.first != sequence + 1:
                troubles.append(
                    f"In {data.path}: what journal {reader.header.number} holds does not follow on "
                    "what was read before it; it is not used."
                )
                return
            for _, payload in reader.entries(offset, sequence):
                if following is not None and sequence + 1 >= following.header.first:
                    break
                sequence += 1
                yield payload


def _readable(data: DataDirectory, number: int, troubles: list[str]) -> Iterator[journal.Reader]:
    """Yield the journals from a number on, without those that were made and never begun."""
    for found in data.journals():
        if found < number:
            continue
        try:
            yield journal.Reader(data, found)
        except journal.Damaged as error:
            if os.path.getsize(data.journal(found)) >= journal.START:
                troubles.append(f"In {data.path}: {error}; what it holds is not used.")


class _Loader:
    """Puts changes into a store that nobody else uses yet."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._databases = (*hold.spaces, hold.log)
        self.last_ms = 0

    def load(self, block: Iterable[Change], new: bool) -> None:
        """Apply changes; `new` ones come in the order of their keys, and each key once."""
        batch: list[Change] = []
        for change in block:
            batch.append(change)
            if len(batch) == _BATCH:
                self._apply(batch, new)
                batch = []
        self._apply(batch, new)

    def _apply(self, batch: list[Change], new: bool) -> None:
        if not batch:
            return
        pages = PAGES_A_COMMIT + sum(
            _PAGES_A_CHANGE + pages_of(len(raw or b"")) for _, _, raw in batch
        )
        try:
            with self._hold.env.begin(write=True) as txn:
                if not self._hold.memory.claim(pages, grows=False):
                    raise lmdb.MapFullError("no room")
                for place, key, raw in batch:
                    self._put(txn, place, key, raw, new)
        except (lmdb.MapFullError, lmdb.TxnFullError):
            if len(batch) == 1:
                raise StoreTooSmall(
                    "the store cannot hold what was kept in the data directory. Give it more "
                    "--memory."
                ) from None
            middle = len(batch) // 2
            self._apply(batch[:middle], new)
            self._apply(batch[middle:], new)

    def _put(
        self, txn: lmdb.Transaction[bytes], place: int, key: bytes, raw: bytes | None, new: bool
    ) -> None:
        database = self._databases[place]
        if place == EVENTS:
            assert raw is not None, "events are not removed by changes"
            self.last_ms = max(self.last_ms, eventlog.time_of(raw))
            txn.put(key, raw, db=database)
            return
        space = Space(place)
        if raw is not None and len(raw) > LONGEST_WHOLE:
            raw = self._in_pieces(txn, space, raw)
        if new and raw is not None:
            txn.put(key, raw, append=True, db=database)
        else:
            old = txn.pop(key, database) if raw is None else txn.replace(key, raw, database)
            if old is not None:
                self._let_go(txn, space, key, old, raw)
        if raw is not None and wire.has_ttl(raw):
            txn.put(_due(space, key, raw), key, db=self._hold.expiry)

    def _in_pieces(self, txn: lmdb.Transaction[bytes], space: Space, raw: bytes) -> bytes:
        record = wire.unpack(raw)
        if len(record.value) <= LONGEST_WHOLE:
            return raw
        pieces = Pieces(txn, self._hold.pieces)
        pieces.drop(space, record.revision)
        pieces.store(space, record.revision, record.value, newest=False)
        return wire.pack_long(
            record.revision, len(record.value), record.media_type, record.expires_at
        )

    def _let_go(
        self, txn: lmdb.Transaction[bytes], space: Space, key: bytes, old: bytes, new: bytes | None
    ) -> None:
        """Remove what depends on a record that another one, or none, has taken the place of."""
        if wire.has_ttl(old):
            txn.delete(_due(space, key, old), db=self._hold.expiry)
        kept = new is not None and wire.is_long(new) and wire.revision(new) == wire.revision(old)
        if wire.is_long(old) and not kept:
            Pieces(txn, self._hold.pieces).drop(space, wire.revision(old))

    def finish(self, revision: int) -> None:
        """Write down what the store's state is after all of it."""
        events = size = 0
        with self._hold.env.begin(self._hold.log) as txn, txn.cursor() as cursor:
            for key, entry in cursor:
                events += eventlog.count(entry)
                size += len(entry) + _BYTES_AN_ENTRY
                revision = max(revision, int.from_bytes(key, "big"))
        with self._hold.writing() as txn:
            self._hold.write_state(txn, revision, events, size)


def _due(space: Space, key: bytes, raw: bytes) -> bytes:
    """Return the expiry index's entry for a record."""
    return due_entry(wire.expires_at(raw), due_number(key, wire.revision(raw), space), space)
