"""The embedded engine: an LMDB environment on tmpfs that every worker has open.

LMDB gives ordered keys, reads without locks in every process, one writer at a time behind a mutex
that survives the death of its owner, and a tree that is never half-written: pages are copied
before they are changed, and a commit is one store of a new root.

The parts: `database` (trees and transactions), `reads`, `writer` and `commit` (writes), `events`
(what changed), `upkeep` (ended keys, old events), `eviction` (who goes when it is full).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from keyrack.engines.contract import PAGE_BYTES, Capabilities, Space, WhenFull
from keyrack.engines.embedded import events as event_log
from keyrack.engines.embedded.audit import EmbeddedAudit
from keyrack.engines.embedded.clock import steady_ns
from keyrack.engines.embedded.database import Database
from keyrack.engines.embedded.durability.group_sync import GroupSync
from keyrack.engines.embedded.durability.journal import Journal
from keyrack.engines.embedded.events import DEFAULT_EVENTS, EventLog
from keyrack.engines.embedded.eviction import frequency
from keyrack.engines.embedded.eviction.policy import Evictor
from keyrack.engines.embedded.quota_counting import count_all, count_some
from keyrack.engines.embedded.reads import StoreReads
from keyrack.engines.embedded.trash import TrashReads
from keyrack.engines.embedded.upkeep import EngineUpkeep
from keyrack.engines.embedded.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from keyrack.engines.contract import (
        Event,
        Outcome,
        Page,
        Part,
        Record,
        Span,
        Sweep,
        Trashed,
        Undo,
        Usage,
        Write,
    )
    from keyrack.engines.embedded.durability import DurabilityConfig
    from keyrack.engines.fences import Refusals

    GroupCommit = Callable[[Sequence[Write]], Awaitable[Sequence[Outcome]]]

_LEAST_JOURNAL_BYTES: Final = 256 << 20
"""Bytes that may be changed while a snapshot is taken, or as much as the store may hold."""


class EmbeddedEngine:  # structure: the contract alone has 28 methods
    """One worker's hold on the store in `directory`. Open it after the process was forked.

    `limit` is the store's memory in bytes, all files together; `events` is how many events are
    kept, as far as they fit in a sixteenth of it. `steady` is the steady clock in ns.
    """

    def __init__(
        self,
        directory: str,
        limit: int,
        events: int = DEFAULT_EVENTS,
        steady: Callable[[], int] = steady_ns,
        kept: DurabilityConfig | None = None,
        when_full: WhenFull = WhenFull.REJECT,
    ) -> None:
        evicting = when_full is WhenFull.EVICT
        self.capabilities = Capabilities(
            engine="embedded",
            shared_by="processes of one machine",
            durable=kept is not None and kept.strict,
            eviction=evicting,
            atomic_across_keys=True,
            quotas=True,
        )
        self.journal: Journal | None = None
        if kept is not None:
            self.journal = Journal(kept.data, kept.strict, max(_LEAST_JOURNAL_BYTES, limit))
        self.database = Database(
            directory,
            limit,
            frequency.size_for(limit) if evicting else 0,
            event_log.most_pages(limit, events),
            steady,
            self.journal,
        )
        self.measures = self.database.measures
        size = event_log.most_bytes(limit, events)
        self.log = EventLog(self.database, events, size, steady)
        self.evictor = None
        if evicting:
            accesses = frequency.AccessFrequency(directory, limit)
            self.evictor = Evictor(self.database, self.log, accesses)
        self._writer = StoreWriter(self.database, self.log, self.evictor)
        self._frequency = self.evictor.frequency if self.evictor else None
        self._upkeep = EngineUpkeep(self.database, self.log, steady, self._frequency)
        self._reads = StoreReads(self.database, self._frequency)
        self._trash = TrashReads(self.database)
        self.get_now = self._reads.get
        """`get` as a plain function, for the most frequent request of all."""
        self._group_commit: GroupCommit | None = None

    # Life

    def group_sync(self) -> GroupSync:
        """Return this process's part in bringing the journal to the disk."""
        assert self.journal is not None, "there is a journal"
        lock = os.path.join(self.database.path, "sync")
        database = self.database
        return GroupSync(self.journal.data, database.words, lock, database.position, self.measures)

    def begin_life(self) -> None:
        """Prepare the store for the service that starts on it now; see `Database.begin_life`."""
        if self.evictor is not None:
            self.evictor.begin_life()
        else:
            frequency.forget(self.database.path)
        self.database.begin_life()
        count_all(self.database)

    def close(self) -> None:
        """Let go of the store. Data stays."""
        if self.journal is not None:
            self.journal.close()
        if self._frequency is not None:
            self._frequency.close()
        self.database.close()

    def now(self) -> int:
        """Return the store's clock in ms: the same in every process, moved by no clock setting."""
        return self.database.now()

    def listen(self, wanted: bool, told: Callable[[], None]) -> None:
        """Nobody but the workers of this service changes the store, and they wake one another."""

    # Reads

    async def get(self, key: bytes) -> Record | None:
        """Return the record, or None when the key is missing or its time is over. O(log keys)."""
        return self.get_now(key)

    async def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return what `get` returns for each key, all as of one moment."""
        return self._reads.get_many(keys)

    async def get_part(self, key: bytes, span: Span) -> Part | None:
        """Return a part of a value, None when the key is missing. Costs what the part costs."""
        return self._reads.get_part(key, span)

    async def sizes_of(self, keys: Sequence[bytes]) -> list[int]:
        """Return about how many bytes the record of each key has, 0 where there is none."""
        return self._reads.sizes_of(keys)

    async def lock_of(self, name: bytes) -> Record | None:
        """Return who holds a lock: the value is the owner, the revision the fencing token."""
        return self._reads.record_of(name, Space.LOCKS)

    async def get_stale(self, key: bytes) -> Record | None:
        """Return the record, be it over, as long as a stale copy of it is kept."""
        return self._reads.get_stale(key)

    async def stale_copies(
        self, prefix: bytes, after: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return keys under a prefix of which there is only a stale copy, and where to go on."""
        return self._reads.stale_copies(prefix, after, limit)

    async def admin_value(self, key: bytes) -> bytes | None:
        """Return a value of `Space.ADMIN`."""
        record = self._reads.record_of(key, Space.ADMIN)
        return None if record is None else record.value

    async def all_of(self, space: Space) -> dict[bytes, bytes]:
        """Return the values of a space, by their keys."""
        return self._reads.all_of(space)

    async def scan(
        self,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit: int = 100,
        reverse: bool = False,
        delimiter: bytes = b"",
        most_bytes: int = PAGE_BYTES,
    ) -> Page:
        """Return a page of the keys that begin with `prefix`, in order of their bytes."""
        return self._reads.page(Space.KEYS, prefix, after, limit, reverse, delimiter, most_bytes)

    async def scan_locks(
        self, prefix: bytes = b"", after: bytes | None = None, limit: int = 100
    ) -> Page:
        """Return a page of the locks that are held, in order of their names."""
        return self._reads.page(Space.LOCKS, prefix, after, limit, False, b"", PAGE_BYTES)

    async def count(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[int, bytes | None]:
        """Count keys in at most `steps` steps; return the number and where to go on, if at all."""
        return self._reads.count(prefix, after, steps)

    async def sizes(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return keys in order with about how many bytes each takes, and where to go on."""
        return self._reads.sizes(prefix, after, steps)

    async def history(self, after: int | None = None) -> tuple[int, int]:
        """Return the revision below which events are gone, and the store's revision now."""
        return self.log.history(after)

    async def events_after(self, revision: int, limit: int) -> list[Event]:
        """Return the oldest known events with a greater revision, at most so many."""
        return self.log.some_after(revision, limit)

    async def events_of(
        self, key: bytes, before: int | None, limit: int
    ) -> tuple[list[Event], int | None]:
        """Return at most `limit` events of one key, newest first, and where to go on, if at all."""
        return self.log.of(key, before, limit)

    async def undo_of(self, number: int) -> Undo | None:
        """Return an undo, None where there is none or it has ended."""
        return self._trash.undo_of(number)

    async def undos(self, below: int | None, limit: int) -> list[Undo]:
        """Return at most `limit` undos with a number below one, those of the newest first."""
        return self._trash.undos(below, limit)

    async def trashed(
        self, undo: int, after: bytes, limit: int
    ) -> tuple[list[Trashed], bytes | None]:
        """Return records of an undo that are in the trash, and where to go on, if at all."""
        return self._trash.trashed(undo, after, limit)

    async def usage(self) -> Usage:
        """Return counts and sizes. Costs a few microseconds, whatever the number of keys."""
        return self.database.usage()

    async def check(self) -> list[str]:
        """Audit everything and return what is wrong, a sentence each. Reads the whole store."""
        with self.database.read() as txn:
            return EmbeddedAudit(txn).problems()

    # Writes

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Apply each write, all or none, in order, and return one outcome for each.

        Where a group commit is set, that is when they are on the disk (see `answer_writes_by`).
        """
        if self._group_commit is not None:
            return await self._group_commit(writes)
        return self._writer.write(writes)

    @property
    def write_now(self) -> Callable[[Sequence[Write]], list[Outcome]] | None:
        """`write` as a plain function, where nothing has to be waited for."""
        return self._writer.write if self._group_commit is None else None

    def answer_writes_by(self, group_commit: GroupCommit) -> None:
        """Have `write` answered by a function that applies the writes and brings them to the disk.

        Answers come later then than the turn that asks for them, and reads do not.
        """
        self._group_commit = group_commit
        self.capabilities = msgspec.structs.replace(self.capabilities, answers_later=True)

    def fence(self, refusals: Callable[[Sequence[Write]], Refusals] | None) -> None:
        """From now on have a function say which writes are refused; None: none is."""
        self._writer.fenced = refusals

    def apply(self, writes: Sequence[Write]) -> list[Outcome]:
        """Apply each write, all or none, in order, and return one outcome for each.

        They share commits, of at most so many pages that the write lock is held only briefly.
        """
        return self._writer.write(writes)

    async def count_quotas(self) -> bool:
        """Go by the quotas that are kept now, and count some keys; say whether more are left."""
        return count_some(self.database)

    async def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys whose time is over, each with its event."""
        return self._upkeep.expire(limit)

    async def evict(self) -> int:
        """Evict what a full store owes for what was written to it; say how many keys went."""
        return self.evictor.evict_owed() if self.evictor is not None else 0

    async def trim(self, limit: int) -> int:
        """Remove at most `limit` commits' events beyond those that are kept; say how many."""
        return self._upkeep.trim(limit)
