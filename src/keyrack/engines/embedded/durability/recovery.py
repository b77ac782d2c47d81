"""Filling an empty store from a data directory: the newest good snapshot, then the journals.

All of it is read twice: once to see that it is good (`examination`), once to load it.
"""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import lmdb

from keyrack.engines import record as wire
from keyrack.engines.contract import Space, StoreError, StoreTooSmall
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.commit import due_entry, due_number
from keyrack.engines.embedded.durability import changes, journal, snapshot
from keyrack.engines.embedded.durability.changes import EVENTS
from keyrack.engines.embedded.durability.snapshot import RECORDS
from keyrack.engines.embedded.memory import PAGES_A_COMMIT
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, PIECE, PieceWriter, pages_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyrack.engines.embedded.database import Database, WriteTransaction
    from keyrack.engines.embedded.durability.changes import Change
    from keyrack.engines.embedded.durability.examination import Examination

_BATCH: Final = 200
_PAGES_A_CHANGE: Final = 6
"""Leaf, branch and a split of each, in the records and in the expiry index: shared by a batch."""


class Recovered(NamedTuple):
    """What was put into the store."""

    entries: int
    """How many journal entries were applied after the snapshot."""
    last_ms: int
    """The latest time that is written down, in ms of the clock of the store that was kept."""


def load(database: Database, found: Examination) -> Recovered:
    """Fill a store, which must be empty, with what can be read of a data directory.

    Raises `StoreTooSmall` when the store cannot hold what was kept, and `OSError`.
    """
    assert found.summary is not None, "there is a snapshot"
    loader = _Loader(database)
    for kind, block in snapshot.read(found.data.snapshot(found.snapshot)):
        loader.load(block, kind == RECORDS)
    entries = 0
    for payload in journal_entries(found):
        loader.load(changes.unpack(payload), False)
        entries += 1
    loader.finish(found.summary.revision)
    return Recovered(entries, max(found.summary.store_ms, loader.last_ms))


def journal_entries(found: Examination) -> Iterator[bytes]:
    """Yield the entries after the snapshot, each its packed changes."""
    for stretch in found.stretches:
        with contextlib.closing(journal.JournalReader(found.data, stretch.journal)) as reader:
            read = 0
            for entry in islice(reader.entries(stretch.offset, stretch.before), stretch.entries):
                read += 1
                yield entry.payload
            if read < stretch.entries:
                raise StoreError(
                    f"{found.data.journal(stretch.journal)} was changed while it was read."
                )


class _Loader:
    """Puts changes into a store that nobody else uses yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._trees = {tree.place: tree for tree in (*database.spaces, database.events)}
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
            with self._database.load(pages) as txn:
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
        self, txn: WriteTransaction, place: int, key: bytes, raw: bytes | None, new: bool
    ) -> None:
        tree = self._trees[place]
        if place == EVENTS:
            assert raw is not None, "events are not removed by changes"
            self.last_ms = max(self.last_ms, eventlog.time_of(raw))
            txn.put(key, raw, tree)
            return
        space = changes.space_of(place)
        if raw is not None and len(raw) > LONGEST_WHOLE:
            raw = self._in_pieces(txn, space, raw)
        if new and raw is not None:
            txn.put(key, raw, tree, append=True)
        else:
            old = txn.pop(key, tree) if raw is None else txn.replace(key, raw, tree)
            if old is not None:
                txn.copies -= wire.is_copy(old)
                self._let_go(txn, space, key, old, raw)
        if raw is not None and wire.has_ttl(raw):
            txn.copies += wire.is_copy(raw)
            txn.put(_due(space, key, raw), key, self._database.expiry)

    def _in_pieces(self, txn: WriteTransaction, space: Space, raw: bytes) -> bytes:
        record = wire.unpack(raw)
        # In the trash a key stands beside the value, and both together may be too long for a page.
        if len(record.value) <= LONGEST_WHOLE and len(raw) <= PIECE:
            return raw
        pieces = PieceWriter(txn)
        pieces.clear(space, record.revision)
        pieces.store(space, record.revision, record.value, newest=False)
        return wire.without_value(raw)

    def _let_go(
        self, txn: WriteTransaction, space: Space, key: bytes, old: bytes, new: bytes | None
    ) -> None:
        """Remove what depends on a record that another one, or none, has taken the place of."""
        if wire.has_ttl(old):
            txn.pop(_due(space, key, old), self._database.expiry)
        kept = new is not None and wire.is_long(new) and wire.revision(new) == wire.revision(old)
        if wire.is_long(old) and not kept:
            PieceWriter(txn).drop(space, wire.revision(old), wire.size(old))

    def finish(self, revision: int) -> None:
        """Write down what the store's state is after all of it."""
        events = size = 0
        with self._database.read() as txn, txn.cursor(self._database.events) as cursor:
            for key, entry in cursor:
                events += eventlog.count(entry)
                size += len(entry) + eventlog.ENTRY_BYTES
                revision = max(revision, int.from_bytes(key, "big"))
        with self._database.maintain() as txn:
            txn.put_state(revision, events, size)


def _due(space: Space, key: bytes, raw: bytes) -> bytes:
    """Return the expiry index's entry for a record."""
    return due_entry(wire.due_at(raw), due_number(key, wire.revision(raw), space), space)
