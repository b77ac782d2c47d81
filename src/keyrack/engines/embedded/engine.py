"""The embedded engine: an LMDB environment on tmpfs that every worker has open.

LMDB gives ordered keys, reads without locks in every process, one writer at a time behind a mutex
that survives the death of its owner, and a tree that is never half-written: pages are copied
before they are changed, and a commit is one store of a new root.

Databases in the environment: `records` (key to record), `expiry` (end and revision of a record to
its key), `events` (see `eventlog`), and the unnamed one, which also holds three entries of ours:
the format, the clock's anchor, and the state (last revision, number of events).
"""

from __future__ import annotations

import os
import time
from struct import Struct
from typing import TYPE_CHECKING, Final

import lmdb

from keyrack.engines import record as wire
from keyrack.engines.contract import (
    Capabilities,
    Change,
    Outcome,
    Record,
    Refusal,
    Result,
    Set,
    StoreFormatUnknown,
    Sweep,
    Usage,
    Why,
    Write,
)
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.audit import audit
from keyrack.engines.embedded.clock import Anchor, steady_ns
from keyrack.engines.embedded.space import (
    PAGE,
    PAGE_SHIFT,
    PAGES_A_COMMIT,
    PAGES_A_TTL,
    PAGES_A_WRITE,
    Space,
)
from keyrack.engines.embedded.words import PAGES_CLAIMED, SWEEP_UNTIL, SWEEPER, open_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keyrack.engines.contract import Event

FORMAT: Final = b"keyrack 1"
DEFAULT_EVENTS: Final = 100_000

_FORMAT_KEY: Final = b"keyrack:format"
_ANCHOR_KEY: Final = b"keyrack:anchor"
_STATE_KEY: Final = b"keyrack:state"
_STATE: Final = Struct(">QQ")
_DUE: Final = Struct(">QQ")

_MOST_PAGES: Final = 1024
"""A commit's bound: about 140 small writes or 4 MiB, well under a millisecond."""
_BYTES_AN_EVENT: Final = 64
_SWEEP_LEASE_NS: Final = 200_000_000
_SET_IN_THIS_WRITE: Final = -2
"""Stands for a revision that is not known yet: it exists, and matches none that was named."""


class EmbeddedEngine:
    """One worker's hold on the store in `directory`. Open it after the process was forked.

    `limit` is the store's memory in bytes, all files together; `events` is how many events are
    kept, at most one for every 1 KiB of memory. `steady` is the steady clock in ns.
    """

    capabilities = Capabilities(
        engine="embedded",
        shared_by="processes of one machine",
        durable=False,
        eviction=False,
        atomic_across_keys=True,
    )

    def __init__(
        self,
        directory: str,
        limit: int,
        events: int = DEFAULT_EVENTS,
        steady: Callable[[], int] = steady_ns,
    ) -> None:
        self._env = _open(directory, limit)
        self._records = self._env.open_db(b"records")
        self._expiry = self._env.open_db(b"expiry")
        self._log = self._env.open_db(b"events")
        self._databases = (None, self._records, self._expiry, self._log)
        self._begin = self._env.begin
        self._steady = steady
        self._words = open_words(directory)
        self._space = Space(self._env, self._words, self._live_pages)
        self.events_kept = max(1, min(events, limit // 16 // _BYTES_AN_EVENT))
        self.now = self._start().clock(steady)
        self._env.reader_check()

    # Life

    def _start(self) -> Anchor:
        """Make the store if it is new, refuse it if it is another's, and return its anchor."""
        with self._begin(write=True) as txn:
            found = txn.get(_FORMAT_KEY)
            if found is None:
                return self._make(txn)
            if found != FORMAT:
                raise StoreFormatUnknown(
                    f"the store in {self._env.path()} has the format {found!r}, and this version "
                    f"of Keyrack reads {FORMAT!r}. Use the one that made it, or another --store."
                )
            anchor = Anchor.unpack(txn.get(_ANCHOR_KEY, b""))
            if anchor.boot == Anchor.here_and_now(self._steady).boot:
                return anchor
            anchor = Anchor.here_and_now(self._steady, not_before=self._last_time(txn))
            txn.put(_ANCHOR_KEY, anchor.pack())
            return anchor

    def _make(self, txn: lmdb.Transaction[bytes]) -> Anchor:
        anchor = Anchor.here_and_now(self._steady)
        txn.put(_FORMAT_KEY, FORMAT)
        txn.put(_ANCHOR_KEY, anchor.pack())
        txn.put(_STATE_KEY, _STATE.pack(time.time_ns() // 1000, 0))
        return anchor

    def _last_time(self, txn: lmdb.Transaction[bytes]) -> int:
        with txn.cursor(self._log) as cursor:
            if not cursor.last():
                return 0
            return max(event.time for event in eventlog.unpack(*cursor.item()))

    def begin_life(self) -> None:
        """Raise the revision to the wall clock's microseconds if it is behind.

        Called once whenever a service starts on the store, so that a revision of a life whose end
        was lost (a restored copy, a store made anew) is never handed out again.
        """
        with self._begin(write=True) as txn:
            revision, events = self._state(txn)
            txn.put(_STATE_KEY, _STATE.pack(max(revision, time.time_ns() // 1000), events))

    def close(self) -> None:
        """Let go of the store. Data stays."""
        self._words.release()
        self._env.close()

    # Reads

    def get(self, key: bytes) -> Record | None:
        """Return the record, or None when the key is missing or its time is over. O(log keys)."""
        txn = self._begin(self._records)
        raw = txn.get(key)
        txn.abort()
        if raw is None:
            return None
        record = wire.unpack(raw)
        if record.expires_at and record.expires_at <= self.now():
            return None
        return record

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield the known events with a revision above `after`, oldest first.

        Each step reads one commit's events in a transaction of its own: a long one would keep the
        pages of everything that is deleted meanwhile from being used again.
        """
        while True:
            with self._begin() as txn, txn.cursor(self._log) as cursor:
                if not cursor.set_range(eventlog.encode_revision(after + 1)):
                    return
                last, entry = cursor.item()
            for event in eventlog.unpack(last, entry):
                if event.revision > after:
                    yield event
            after = int.from_bytes(last, "big")

    def usage(self) -> Usage:
        """Return counts and sizes. Costs a few microseconds, whatever the number of keys."""
        with self._begin() as txn:
            revision, events = self._state(txn)
            live = self._count_pages(txn)
            keys = txn.stat(self._records)["entries"]
            keys_with_ttl = txn.stat(self._expiry)["entries"]
        return Usage(
            keys=keys,
            keys_with_ttl=keys_with_ttl,
            events=events,
            revision=revision,
            limit=self._space.limit * PAGE,
            used=live * PAGE,
            free=max(0, self._space.limit - live) * PAGE,
            reserved=int(self._words[PAGES_CLAIMED]) * PAGE,
        )

    def check(self) -> list[str]:
        """Audit everything and return what is wrong, a sentence each. Reads the whole store."""
        with self._begin() as txn:
            return audit(txn, self._records, self._expiry, self._log, self._state(txn))

    # Writes

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """Apply each write, all or none, in order, and return one outcome for each.

        They share commits, of at most so many pages that the write lock is held only briefly.
        """
        outcomes: list[Outcome] = []
        group: list[Write] = []
        pages, grows = PAGES_A_COMMIT, False
        for write in writes:
            need, growing = 0, False
            for operation in write:
                need += PAGES_A_WRITE
                if type(operation) is Set:
                    growing = True
                    need += len(operation.value) >> PAGE_SHIFT
                    if operation.ttl_ms:
                        need += PAGES_A_TTL
            if group and pages + need > _MOST_PAGES:
                outcomes += self._commit(group, pages, grows)
                group, pages, grows = [], PAGES_A_COMMIT, False
            group.append(write)
            pages += need
            grows = grows or growing
        if group:
            outcomes += self._commit(group, pages, grows)
        return outcomes

    def _commit(self, writes: list[Write], pages: int, grows: bool) -> list[Outcome]:
        """Do writes in one transaction, or one by one where together they do not fit."""
        try:
            return self._transact(writes, pages, grows)
        except (lmdb.MapFullError, lmdb.TxnFullError):
            if len(writes) == 1:
                return [Refusal(Why.FULL)]
        return [outcome for write in writes for outcome in self.write((write,))]

    def _transact(self, writes: list[Write], pages: int, grows: bool) -> list[Outcome]:
        # The transaction is aborted by the context manager on any error: nothing was done then.
        with self._begin(None, None, True) as txn:
            if not self._space.claim(pages, grows):
                raise lmdb.MapFullError("no room")
            now = self.now()
            last, events = self._state(txn)
            draft = eventlog.Draft(last)
            outcomes: list[Outcome] = []
            for write in writes:
                if len(write) != 1 or write[0].condition is not None:
                    refusal = self._examine(txn, write, now)
                    if refusal is not None:
                        outcomes.append(refusal)
                        continue
                outcomes.append(
                    tuple(
                        [
                            self._set(txn, operation, now, draft)
                            if type(operation) is Set
                            else self._delete(txn, operation.key, now, draft)
                            for operation in write
                        ]
                    )
                )
            if draft.last != last:
                self._finish(txn, draft, now, events)
        return outcomes

    def _finish(
        self, txn: lmdb.Transaction[bytes], draft: eventlog.Draft, now: int, events: int
    ) -> None:
        """Write down the events of a commit and the state after it."""
        number = draft.last.to_bytes(8, "big")
        txn.put(number, draft.pack(now), append=True, db=self._log)
        txn.put(_STATE_KEY, _STATE.pack(draft.last, events + draft.last - draft.first + 1))

    def _examine(self, txn: lmdb.Transaction[bytes], write: Write, now: int) -> Refusal | None:
        """Look whether all preconditions hold, each one after the operations before it."""
        revisions: dict[bytes, int | None] = {}
        for index, operation in enumerate(write):
            key = operation.key
            if key not in revisions:
                revisions[key] = self._revision(txn, key, now)
            current = revisions[key]
            if operation.condition is not None and not operation.condition.holds(current):
                # What the operations before it would have made of the key is not there.
                return Refusal(Why.CONDITION, index, self._revision(txn, key, now))
            revisions[key] = _SET_IN_THIS_WRITE if type(operation) is Set else None
        return None

    def _revision(self, txn: lmdb.Transaction[bytes], key: bytes, now: int) -> int | None:
        raw = txn.get(key, None, self._records)
        if raw is None or 0 < wire.expires_at(raw) <= now:
            return None
        return wire.revision(raw)

    def _set(
        self, txn: lmdb.Transaction[bytes], operation: Set, now: int, draft: eventlog.Draft
    ) -> Result:
        key, ttl = operation.key, operation.ttl_ms
        revision = draft.set(key)
        ends = now + ttl if ttl else 0
        raw = wire.pack(revision, operation.value, operation.media_type, ends)
        old = txn.replace(key, raw, self._records)
        if old is not None and wire.has_ttl(old):
            existed, revision = self._replaced_one_with_ttl(
                txn, operation, old, revision, now, draft
            )
        else:
            existed = old is not None
        if ends:
            txn.put(_DUE.pack(ends, revision), key, db=self._expiry)
        return Result(revision, existed)

    def _replaced_one_with_ttl(
        self,
        txn: lmdb.Transaction[bytes],
        operation: Set,
        old: bytes,
        revision: int,
        now: int,
        draft: eventlog.Draft,
    ) -> tuple[bool, int]:
        """Take the earlier value's end out of the index; say whether it existed, and our revision.

        If it had ended and was still there, that is an event of its own, and comes first.
        """
        ended = wire.expires_at(old)
        txn.delete(_DUE.pack(ended, wire.revision(old)), db=self._expiry)
        if ended > now:
            return True, revision
        revision = draft.expire_before_last_set(operation.key)
        ends = now + operation.ttl_ms if operation.ttl_ms else 0
        raw = wire.pack(revision, operation.value, operation.media_type, ends)
        txn.put(operation.key, raw, db=self._records)
        return False, revision

    def _delete(
        self, txn: lmdb.Transaction[bytes], key: bytes, now: int, draft: eventlog.Draft
    ) -> Result:
        old = txn.pop(key, self._records)
        if old is None:
            return Result(0, existed=False)
        ended = wire.expires_at(old)
        if ended:
            txn.delete(_DUE.pack(ended, wire.revision(old)), db=self._expiry)
        if 0 < ended <= now:
            draft.note(Change.EXPIRE, key)
            return Result(0, existed=False)
        return Result(draft.note(Change.DELETE, key), existed=True)

    # Upkeep

    def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys whose time is over, each with its event.

        One process at a time does it: two would only wait for each other's write lock.
        """
        due = self._next_due()
        if due is None or due > self.now() or not self._take_lease():
            return Sweep(0, due)
        while True:
            try:
                expired = self._sweep(limit)
                break
            except lmdb.MapFullError:
                if limit == 1:
                    return Sweep(0, due)
                limit = max(1, limit // 4)
        due = self._next_due()
        if due is None or due > self.now():
            self._words[SWEEP_UNTIL] = 0
        return Sweep(expired, due)

    def _take_lease(self) -> bool:
        now, me = self._steady(), os.getpid()
        # A lease that ends later than any given now is of an earlier start of the machine.
        leased = now < self._words[SWEEP_UNTIL] <= now + _SWEEP_LEASE_NS
        if leased and self._words[SWEEPER] != me:
            return False
        self._words[SWEEPER] = me
        self._words[SWEEP_UNTIL] = now + _SWEEP_LEASE_NS
        return True

    def _next_due(self) -> int | None:
        with self._begin(self._expiry) as txn, txn.cursor() as cursor:
            return _DUE.unpack(cursor.key())[0] if cursor.first() else None

    def _sweep(self, limit: int) -> int:
        with self._begin(write=True) as txn:
            if not self._space.claim(_sweep_pages(limit), grows=False):
                raise lmdb.MapFullError("no room")
            now = self.now()
            last, events = self._state(txn)
            draft = eventlog.Draft(last)
            with txn.cursor(self._expiry) as cursor:
                cursor.first()
                while draft.last - last < limit and (entry := cursor.key()):
                    if _DUE.unpack(entry)[0] > now:
                        break
                    key = cursor.value()
                    txn.delete(key, db=self._records)
                    draft.note(Change.EXPIRE, key)
                    cursor.delete()
            expired = draft.last - last
            if expired:
                self._finish(txn, draft, now, events)
        return expired

    def trim(self, limit: int) -> int:
        """Remove at most `limit` commits' events beyond those that are kept; say how many."""
        with self._begin() as txn:
            if self._state(txn)[1] <= self.events_kept:
                return 0
        with self._begin(write=True) as txn:
            if not self._space.claim(_sweep_pages(limit), grows=False):
                return 0
            revision, events = self._state(txn)
            removed = 0
            with txn.cursor(self._log) as cursor:
                cursor.first()
                while removed < limit and cursor.key():
                    number = eventlog.count(cursor.value())
                    if events - number < self.events_kept:
                        break
                    events -= number
                    removed += 1
                    cursor.delete()
            txn.put(_STATE_KEY, _STATE.pack(revision, events))
        return removed

    # Helpers

    def _state(self, txn: lmdb.Transaction[bytes]) -> tuple[int, int]:
        """Return the last revision and the number of events."""
        revision, events = _STATE.unpack(txn.get(_STATE_KEY, b""))
        return revision, events

    def _live_pages(self) -> int:
        with self._begin() as txn:
            return self._count_pages(txn)

    def _count_pages(self, txn: lmdb.Transaction[bytes]) -> int:
        """Return the pages in use. The free list's own are not counted: they are few."""
        stats = [txn.stat(database) for database in self._databases]
        return 2 + sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)


def _open(directory: str, limit: int) -> lmdb.Environment:
    return lmdb.open(
        directory,
        map_size=map_size(limit),
        max_dbs=3,
        max_readers=1022,
        mode=0o600,
        writemap=True,
        # Durability is not this mode's promise; shared memory survives the death of any process.
        sync=False,
        metasync=False,
        map_async=True,
        readahead=False,
        meminit=False,
        # Keeps the reader's slot: without it every read takes a lock that all processes share.
        max_spare_txns=2,
        # The 0.9 library, over a decade in production, not the 1.0 that py-lmdb also carries.
        lib_version=0,
    )


def _sweep_pages(keys: int) -> int:
    return PAGES_A_COMMIT + keys * (PAGES_A_WRITE + PAGES_A_TTL)


def map_size(limit: int) -> int:
    """Return the database's part of a memory limit, both in bytes; the rest is for small files."""
    return (limit - (1 << 16)) // PAGE * PAGE
