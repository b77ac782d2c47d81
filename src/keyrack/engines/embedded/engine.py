"""The embedded engine: an LMDB environment on tmpfs that every worker has open.

LMDB gives ordered keys, reads without locks in every process, one writer at a time behind a mutex
that survives the death of its owner, and a tree that is never half-written: pages are copied
before they are changed, and a commit is one store of a new root.

Databases in the environment: `records` (key to record), `expiry` (end and revision of a record to
its key), `pieces` (what is in no record because it is long), `events` (see `eventlog`), and the
unnamed one, which also holds entries of ours: the format, the clock's anchor, the state (last
revision, number of events), and how many keys were evicted.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Final, cast

import lmdb
import msgspec

from keyrack.engines import record as wire
from keyrack.engines.contract import (
    Capabilities,
    Check,
    Delete,
    Get,
    Outcome,
    Page,
    Record,
    Refusal,
    Remember,
    Set,
    Space,
    StoreFormatUnknown,
    Sweep,
    Usage,
    WhenFull,
    Why,
    Write,
)
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.audit import Audit
from keyrack.engines.embedded.clock import Anchor, steady_ns
from keyrack.engines.embedded.commit import Commit, are_plain, read_due
from keyrack.engines.embedded.durability.group_sync import Syncer
from keyrack.engines.embedded.durability.hold import Hold
from keyrack.engines.embedded.durability.journal import Journal, JournalFailed, Watched
from keyrack.engines.embedded.evict import Evictor, keys_of, likely_pages
from keyrack.engines.embedded.heat import Heat, forget, size_for
from keyrack.engines.embedded.memory import (
    PAGE,
    PAGES_A_COMMIT,
    PAGES_A_REMOVAL,
    PAGES_A_TTL,
    PAGES_A_WRITE,
    RESERVE,
    Memory,
)
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, Pieces, pages_of
from keyrack.engines.embedded.scan import Scan
from keyrack.engines.embedded.words import (
    BROKEN,
    PAGES_CLAIMED,
    SWEEP_UNTIL,
    SWEEPER,
    SYNCED_SEQUENCE,
    claim_readers,
    open_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keyrack.engines.contract import Event
    from keyrack.engines.embedded.durability import DurabilityConfig
    from keyrack.engines.embedded.durability.journal import Begin

    Apply = Callable[[Commit, Sequence[Write]], list[Outcome]]

FORMAT: Final = b"keyrack 2"
_EARLIER_FORMAT: Final = b"keyrack 1"
"""Long values stood in their records. Those are read; new ones are made in pieces."""
DEFAULT_EVENTS: Final = 100_000

_FORMAT_KEY: Final = b"keyrack:format"
_ANCHOR_KEY: Final = b"keyrack:anchor"
_STATE_KEY: Final = b"keyrack:state"
_STATE: Final = Struct(">QQQ")
_EVICTED_KEY: Final = b"keyrack:evicted"

_MOST_PAGES: Final = 1536
"""A commit's bound: about 120 small writes or 6 MiB, well under a millisecond."""
_NAMES: Final = frozenset((b"records", b"locks", b"answers", b"expiry", b"pieces", b"events"))
_SMALL_FILES: Final = (1 << 16) + (1 << 14)
"""The table of readers, the words, the lock."""
_PAGES_AN_OUTCOME: Final = 48
"""An outcome that is remembered: 64 KiB of values that were read, and a thousand results."""
_MOST_ROUNDS: Final = 512
"""Rounds of eviction for one write, after which it is refused."""
_LOG_PART: Final = 16
"""The event log takes at most this part of the memory."""
_MOST_BYTES_AN_EVENT: Final = 640
_TRIM_SLACK: Final = 8
"""Commits trim the log themselves when it is an eighth above its bounds: upkeep is behind then."""
_LEAST_SLACK: Final = 256
_TRIMS_A_COMMIT: Final = 8
_BYTES_AN_ENTRY: Final = 24
"""What an entry of the log costs in its tree, its key included."""
_SWEEP_LEASE_NS: Final = 200_000_000
_STEP_NS: Final = 300_000
"""How long a step of upkeep, or of a search in the log, goes on before it leaves the rest."""
_READ_SECONDS: Final = 0.0005
_PATIENCE_NS: Final = 100_000_000
"""How long a write waits for readers that keep freed pages from being used."""
_REST_NS: Final = 500_000_000
"""How long none does, when that was in vain."""
_REMOVALS_A_COMMIT: Final = 32
"""Bounds what a step's commit claims of memory and holds of the write lock, whatever the clock."""
_LOOK_EVERY: Final = 8
"""Entries of the log between two looks at the clock."""
_LEAST_JOURNAL: Final = 256 << 20
"""Bytes that may be changed while a snapshot is taken, or as much as the store may hold."""


class _NoRoom(lmdb.MapFullError):
    """Raised before a write is tried: the store is full, whoever reads it."""


class EmbeddedEngine:
    """One worker's hold on the store in `directory`. Open it after the process was forked.

    `limit` is the store's memory in bytes, all files together; `events` is how many events are
    kept, as far as they fit in a sixteenth of it. `steady` is the steady clock in ns.
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
        kept: DurabilityConfig | None = None,
        when_full: WhenFull = WhenFull.REJECT,
    ) -> None:
        evicting = when_full is WhenFull.EVICT
        others = _SMALL_FILES + (size_for(limit) if evicting else 0)
        self._env = _open(directory, (limit - others) // PAGE * PAGE)
        self._begin = self._env.begin
        self._refuse_others()
        self._records = self._env.open_db(b"records")
        self._expiry = self._env.open_db(b"expiry")
        self._log = self._env.open_db(b"events")
        self._spaces = (
            self._records,
            self._env.open_db(b"locks"),
            self._env.open_db(b"answers"),
        )
        self._pieces = self._env.open_db(b"pieces")
        self._databases = (None, *self._spaces, self._expiry, self._pieces, self._log)
        self._steady = steady
        self._words = open_words(directory)
        self.events_kept = max(1, events)
        self._log_bytes = min(limit // _LOG_PART, self.events_kept * _MOST_BYTES_AN_EVENT)
        # What the log may hold, with the slack in its pages and what commits let it grow beyond.
        self._log_pages = self._log_bytes * 5 // 4 // PAGE + 8
        self._limit, self._others = limit, others
        pages = self._env.info()["map_size"] // PAGE
        self._most_pages = _MOST_PAGES
        self._held_since = 0
        self._evictor: Evictor | None = None
        if evicting:
            heat = Heat(directory, limit)
            self._evictor = Evictor(heat, self._records, self._log, pages)
            self._most_pages = min(_MOST_PAGES, pages // 8)
            # In place of the method, so that who rejects pays nothing for it.
            setattr(self, "get", heat.warming(self.get))  # noqa: B010  # else mypy objects
            self.capabilities = msgspec.structs.replace(self.capabilities, eviction=True)
        self._most_plain = (self._most_pages - PAGES_A_COMMIT) // PAGES_A_WRITE
        look = self._evictor.look if self._evictor else None
        self._memory = Memory(self._env, self._words, self._live_pages, self._log_pages, look)
        self.now = self._start().clock(steady)
        self._env.reader_check()
        self._transaction: Begin = partial(self._begin, None, None, True)
        self.journal: Journal | None = None
        if kept is not None:
            self._write_down(kept)

    # Life

    def _write_down(self, kept: DurabilityConfig) -> None:
        """Have the changes of each write transaction written down, where there is a journal."""
        words = self._words
        most_bytes = max(_LEAST_JOURNAL, self._memory.limit * PAGE)

        def fail() -> None:
            words[BROKEN] = 1

        self.journal = Journal(
            kept.data,
            kept.strict,
            most_bytes,
            refuses=lambda: words[BROKEN] == 1,
            synced=lambda: words[SYNCED_SEQUENCE],
            failed=fail,
        )
        places = {database: place for place, database in enumerate((*self._spaces, self._log))}
        # What stands for a transaction has the methods of one that are used here.
        watched = Watched(places, self._pieces)
        transaction = partial(self.journal.transaction, self._begin, watched)
        self._transaction = cast("Begin", transaction)
        if kept.strict:
            self.capabilities = msgspec.structs.replace(self.capabilities, durable=True)

    def hold(self) -> Hold:
        """Return what the durable modes need of this engine."""
        return Hold(
            self._env,
            self._spaces,
            self._expiry,
            self._pieces,
            self._log,
            self._memory,
            self._words,
            lambda: self.now(),
            self._state,
            lambda txn, *state: txn.put(_STATE_KEY, _STATE.pack(*state)),
        )

    def syncer(self) -> Syncer:
        """Return this process's part in bringing the journal to the disk."""
        assert self.journal is not None, "there is a journal"
        lock = os.path.join(self._env.path(), "sync")
        return Syncer(self.journal.data, self._words, lock, self.hold().position)

    def set_clock(self, not_before: int) -> None:
        """Let the clock go on from `not_before` (ms) if it is behind: time does not go back."""
        if self.now() >= not_before:
            return
        anchor = Anchor.here_and_now(self._steady, not_before)
        with self._begin(write=True) as txn:
            txn.put(_ANCHOR_KEY, anchor.pack())
        self.now = anchor.clock(self._steady)

    def _refuse_others(self) -> None:
        """Raise `StoreFormatUnknown` for another program's database, before it is written to."""
        with self._begin() as txn, txn.cursor() as cursor:
            ours = txn.get(_FORMAT_KEY) is not None
            ours = ours or _NAMES.issuperset(cursor.iternext(values=False))
        if not ours:
            directory = self._env.path()
            self._env.close()
            raise StoreFormatUnknown(
                f"{directory} holds the database of another program. "
                "Name an empty directory or a new one."
            )

    def _start(self) -> Anchor:
        """Make the store if it is new, refuse it if it is another's, and return its anchor."""
        with self._begin(write=True) as txn:
            found = txn.get(_FORMAT_KEY)
            if found is None:
                return self._make(txn)
            if found == _EARLIER_FORMAT:
                txn.put(_FORMAT_KEY, FORMAT)
            elif found != FORMAT:
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
        txn.put(_STATE_KEY, _STATE.pack(time.time_ns() // 1000, 0, 0))
        return anchor

    def _last_time(self, txn: lmdb.Transaction[bytes]) -> int:
        with txn.cursor(self._log) as cursor:
            if not cursor.last():
                return 0
            return max(event.time for event in eventlog.unpack(*cursor.item()))

    def begin_life(self, above: int = 0) -> None:
        """Raise the revision to the wall clock's microseconds, or to `above`, if it is behind.

        Called once whenever a service starts on the store, so that a revision of a life whose end
        was lost (a restored copy, a store made anew) is never handed out again.
        """
        self._memory.claim_again()
        if self._evictor:
            self._evictor.begin_life()
        else:
            forget(self._env.path())
        with self._begin(write=True) as txn:
            revision, events, size = self._state(txn)
            revision = max(revision, time.time_ns() // 1000, above)
            txn.put(_STATE_KEY, _STATE.pack(revision, events, size))

    def close(self) -> None:
        """Let go of the store. Data stays."""
        if self.journal is not None:
            self.journal.close()
        if self._evictor:
            self._evictor.heat.close()
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
        try:
            record = wire.unpack(raw)
        except wire.Elsewhere:
            return self._read_long(key, Space.KEYS)
        if record.expires_at and record.expires_at <= self.now():
            return None
        return record

    def lock_of(self, name: bytes) -> Record | None:
        """Return who holds a lock: the value is the owner, the revision the fencing token."""
        return self._read_long(name, Space.LOCKS)

    def _read_long(self, key: bytes, space: Space) -> Record | None:
        """Return a record whose value may be in pieces, all as of one moment."""
        with self._begin(self._spaces[space]) as txn:
            raw = txn.get(key)
            if raw is None or 0 < wire.expires_at(raw) <= self.now():
                return None
            return Pieces(txn, self._pieces).record(space, raw)

    def scan(
        self,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit: int = 100,
        reverse: bool = False,
        delimiter: bytes = b"",
    ) -> Page:
        """Return a page of the keys that begin with `prefix`, in order of their bytes."""
        with self._begin() as txn, txn.cursor(self._records) as cursor:
            pieces = Pieces(txn, self._pieces)
            scan = Scan(cursor, pieces, prefix, after, reverse, delimiter, self.now())
            entries, folders, following = scan.page(limit)
            return Page(entries, folders, following, self._state(txn)[0])

    def count(self, prefix: bytes, after: bytes | None, steps: int) -> tuple[int, bytes | None]:
        """Count keys in at most `steps` steps; return the number and where to go on, if at all."""
        with self._begin(self._records) as txn, txn.cursor() as cursor:
            pieces = Pieces(txn, self._pieces)
            return Scan(cursor, pieces, prefix, after, False, b"", self.now()).count(steps)

    def history(self) -> tuple[int, int]:
        """Return the revision below which events are gone, and the store's revision now."""
        with self._begin() as txn, txn.cursor(self._log) as cursor:
            revision, _, _ = self._state(txn)
            if not cursor.first():
                return revision, revision
            first = int.from_bytes(cursor.key(), "big") - eventlog.count(cursor.value())
            return first, revision

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

    def events_after(self, revision: int, limit: int) -> list[Event]:
        """Return the oldest known events with a greater revision, at most so many."""
        return list(islice(self.events(revision), limit))

    def events_of(
        self, key: bytes, before: int | None, limit: int
    ) -> tuple[list[Event], int | None]:
        """Return at most `limit` events of one key, newest first, and where to go on, if at all.

        Entries that do not hold the key's bytes are passed over without being unpacked, which is
        what makes a log of 100 000 events readable in 25 ms, all steps together.
        """
        found: list[Event] = []
        stop = self._steady() + _STEP_NS
        unlooked = 0
        with self._begin() as txn, txn.cursor(self._log) as cursor:
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

    def usage(self) -> Usage:
        """Return counts and sizes. Costs a few microseconds, whatever the number of keys."""
        with self._begin() as txn:
            revision, events, _ = self._state(txn)
            live = self._count_pages(txn)
            keys = txn.stat(self._records)["entries"]
            others = sum(txn.stat(space)["entries"] for space in self._spaces[1:])
            # Locks and answers have a TTL, every one of them.
            keys_with_ttl = txn.stat(self._expiry)["entries"] - others
            taken = self._env.info()["last_pgno"] + 1
            evicted = self._evicted(txn)
        used = live * PAGE + self._others
        return Usage(
            keys=keys,
            keys_with_ttl=keys_with_ttl,
            events=events,
            revision=revision,
            limit=self._limit,
            used=used,
            free=max(0, self._limit - used),
            reclaimable=max(0, taken - live) * PAGE,
            reserved=int(self._words[PAGES_CLAIMED]) * PAGE + self._others,
            evicted=evicted,
        )

    def check(self) -> list[str]:
        """Audit everything and return what is wrong, a sentence each. Reads the whole store."""
        with self._begin() as txn:
            pieces = Pieces(txn, self._pieces)
            return Audit(
                txn, self._spaces, self._expiry, self._log, pieces, self._state(txn)[:2]
            ).problems()

    # Writes

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """Apply each write, all or none, in order, and return one outcome for each.

        They share commits, of at most so many pages that the write lock is held only briefly.
        """
        if 0 < len(writes) <= self._most_plain and are_plain(writes):
            pages = PAGES_A_COMMIT + PAGES_A_WRITE * len(writes)
            return self._commit(writes, pages, True, Commit.set_each)
        outcomes: list[Outcome] = []
        group: list[Write] = []
        pages, grows = PAGES_A_COMMIT, False
        for write in writes:
            need, growing = 0, False
            for operation in write:
                if type(operation) is Get or type(operation) is Check:
                    continue
                need += PAGES_A_WRITE
                if type(operation) is Set:
                    growing = True
                    if len(operation.value) > LONGEST_WHOLE:
                        need += pages_of(len(operation.value))
                    if operation.ttl_ms:
                        need += PAGES_A_TTL
                elif type(operation) is not Delete:
                    growing = True
                    need += PAGES_A_TTL
                    if type(operation) is Remember:
                        need += _PAGES_AN_OUTCOME
            if group and pages + need > self._most_pages:
                outcomes += self._commit(group, pages, grows)
                group, pages, grows = [], PAGES_A_COMMIT, False
            group.append(write)
            pages += need
            grows = grows or growing
        if group:
            outcomes += self._commit(group, pages, grows)
        return outcomes

    def _commit(
        self, writes: Sequence[Write], pages: int, grows: bool, apply: Apply = Commit.apply_each
    ) -> list[Outcome]:
        """Do writes in one transaction, or one by one where together they do not fit."""
        try:
            return self._transact(writes, pages, grows, apply)
        except JournalFailed as error:
            return [Refusal(error.why)] * len(writes)
        except (lmdb.MapFullError, lmdb.TxnFullError) as error:
            outcomes = self._make_room_and_commit(writes, apply) if grows else None
            if outcomes is not None:
                return outcomes
            if len(writes) == 1:
                held = self._evictor is not None or not isinstance(error, _NoRoom)
                return self._commit_behind_readers(writes[0], held)
        return [outcome for write in writes for outcome in self.write((write,))]

    def _commit_behind_readers(self, write: Write, held: bool) -> list[Outcome]:
        """Do a write for which there is no page; `held`: there are some that a reader still sees.

        One that was killed is cleared away. One that lost its processor in the middle of a read is
        waited for: it takes a microsecond, once it goes on, and a long one is not waited for twice.
        """
        if not self._env.reader_check() and not (held and self._readers_go_on()):
            return [Refusal(Why.FULL)]
        outcomes = self.write((write,))
        if outcomes != [Refusal(Why.FULL)]:
            self._held_since = 0
        return outcomes

    def _readers_go_on(self) -> bool:
        now = time.monotonic_ns()
        if now - self._held_since > _REST_NS:
            self._held_since = now
        if now - self._held_since > _PATIENCE_NS:
            return False
        time.sleep(_READ_SECONDS)
        return True

    def _make_room_and_commit(self, writes: Sequence[Write], apply: Apply) -> list[Outcome] | None:
        """Do writes after evicting others for them; None where that cannot be done."""
        if self._evictor is None:
            return None
        spared, likely = keys_of(writes), likely_pages(writes)
        for pages in (likely, 2 * likely):
            try:
                if not self._make_room(pages, spared):
                    return None
                return self._transact(writes, pages, True, apply)
            except lmdb.MapFullError:
                continue
            except JournalFailed as error:
                return [Refusal(error.why)] * len(writes)
        return None

    def _make_room(self, pages: int, spared: frozenset[bytes]) -> bool:
        """Evict until so many pages are free beyond the reserve; say whether they are."""
        most = self._memory.limit - RESERVE
        if pages > most - self._log_pages:
            return False
        for _ in range(_MOST_ROUNDS):
            missing = self._live_pages() + pages + PAGES_A_COMMIT - most
            if missing <= 0 or not self._evict(missing * PAGE, spared):
                break
        with contextlib.suppress(lmdb.MapFullError):
            # What a transaction frees can be used by the one after the next.
            for _ in range(2):
                with self._begin(write=True) as txn:
                    txn.put(_STATE_KEY, txn.get(_STATE_KEY, b""))
        return self._live_pages() + pages <= most

    def _transact(
        self, writes: Sequence[Write], pages: int, grows: bool, apply: Apply
    ) -> list[Outcome]:
        # The transaction is aborted by the context manager on any error: nothing was done then.
        with self._transaction() as txn:
            if not self._memory.claim(pages, grows):
                # Many operations touch the same pages: each copies none twice, and adds few.
                fewer = self._live_pages() + pages // 4
                if fewer >= pages or not self._memory.claim(fewer, grows):
                    raise _NoRoom("no room")
            last, events, size = self._state(txn)
            commit = self._new_commit(txn, last)
            outcomes = apply(commit, writes)
            if self._evictor is not None:
                self._evictor.pay(txn, commit, writes, outcomes)
            if commit.draft.last != last:
                self._finish(txn, commit, events, size)
        return outcomes

    def _new_commit(self, txn: lmdb.Transaction[bytes], last: int) -> Commit:
        return Commit(txn, self._spaces, self._expiry, self._pieces, self.now(), last)

    def _finish(self, txn: lmdb.Transaction[bytes], commit: Commit, events: int, size: int) -> None:
        """Write down the events of a commit and the state after it."""
        draft = commit.draft
        number = draft.last.to_bytes(8, "big")
        entry = draft.pack(commit.now)
        txn.put(number, entry, append=True, db=self._log)
        events += draft.last - draft.first + 1
        size += len(entry) + _BYTES_AN_ENTRY
        if (
            events > self.events_kept + max(_LEAST_SLACK, self.events_kept // _TRIM_SLACK)
            or size > self._log_bytes + self._log_bytes // _TRIM_SLACK
        ):
            stop = self._steady() + _STEP_NS
            _, events, size = self._trim(txn, events, size, _TRIMS_A_COMMIT, stop)
        txn.put(_STATE_KEY, _STATE.pack(draft.last, events, size))
        if commit.evicted:
            evicted = self._evicted(txn) + commit.evicted
            txn.put(_EVICTED_KEY, evicted.to_bytes(8, "big"))

    # Upkeep

    def evict(self) -> int:
        """Evict what a full store owes for what was written to it; say how many keys went.

        Commits do so themselves, as far as it holds nobody up; this does the rest.
        """
        if self._evictor is None or not self._evictor.owed:
            return 0
        before = self.usage().evicted
        self._evict(self._evictor.owed, frozenset())
        return self.usage().evicted - before

    def _evict(self, owed: int, spared: frozenset[bytes]) -> bool:
        """Evict about `owed` bytes of records, in a transaction; say whether to go on like that."""
        assert self._evictor is not None
        try:
            with self._transaction() as txn:
                self._claim_removals(self._evictor.most_keys)
                last, events, size = self._state(txn)
                commit = self._new_commit(txn, last)
                going = self._evictor.evict(txn, commit, owed, spared)
                if commit.draft.last != last:
                    self._finish(txn, commit, events, size)
        except (lmdb.MapFullError, JournalFailed):
            return False
        return going

    def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys whose time is over, each with its event.

        One process at a time does it: two would only wait for each other's write lock. It ends
        after `_STEP_NS` with what is done by then.
        """
        due = self._next_due()
        if due is None or due > self.now() or not self._take_lease():
            return Sweep(0, due)
        expired = self._in_short_commits(self._sweep, limit)
        due = self._next_due()
        if due is None or due > self.now():
            self._words[SWEEP_UNTIL] = 0
        return Sweep(expired, due)

    def _in_short_commits(self, remove: Callable[[int, int], int], limit: int) -> int:
        """Have `remove(most, stop)` called until `limit` things are gone, or the step's time is."""
        stop = self._steady() + _STEP_NS
        removed, most = 0, _REMOVALS_A_COMMIT
        while removed < limit and most:
            asked = min(most, limit - removed)
            try:
                found = remove(asked, stop)
            except lmdb.MapFullError:
                most = asked // 2
                continue
            removed += found
            if found < asked or self._steady() >= stop:
                break
        return removed

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
            return read_due(cursor.key())[0] if cursor.first() else None

    def _sweep(self, limit: int, stop: int) -> int:
        with self._transaction() as txn:
            self._claim_removals(limit)
            last, events, size = self._state(txn)
            commit = self._new_commit(txn, last)
            expired = 0
            with txn.cursor(self._expiry) as cursor:
                cursor.first()
                while expired < limit and (entry := cursor.key()):
                    if read_due(entry)[0] > commit.now:
                        break
                    commit.expire(entry, cursor.value())
                    cursor.delete()
                    expired += 1
                    if self._steady() >= stop:
                        break  # looked at for each key: one may be a value of hundreds of pieces
            if commit.draft.last != last:
                self._finish(txn, commit, events, size)
        return expired

    def trim(self, limit: int) -> int:
        """Remove at most `limit` commits' events beyond those that are kept; say how many."""
        with self._begin() as txn:
            _, events, size = self._state(txn)
        if events <= self.events_kept and size <= self._log_bytes:
            return 0
        return self._in_short_commits(self._trim_some, limit)

    def _trim_some(self, limit: int, stop: int) -> int:
        with self._begin(write=True) as txn:
            self._claim_removals(limit)
            revision, events, size = self._state(txn)
            removed, events, size = self._trim(txn, events, size, limit, stop)
            txn.put(_STATE_KEY, _STATE.pack(revision, events, size))
        return removed

    def _claim_removals(self, removals: int) -> None:
        if not self._memory.claim(PAGES_A_COMMIT + removals * PAGES_A_REMOVAL, grows=False):
            raise lmdb.MapFullError("no room")

    def _trim(
        self, txn: lmdb.Transaction[bytes], events: int, size: int, limit: int, stop: int
    ) -> tuple[int, int, int]:
        """Remove the oldest entries that are too many; return how many, and what is left."""
        removed = 0
        with txn.cursor(self._log) as cursor:
            cursor.first()
            while removed < limit and cursor.key():
                entry = cursor.value()
                number = eventlog.count(entry)
                if events - number < self.events_kept and size <= self._log_bytes:
                    break
                if events == number:
                    break  # the last commit's are always kept
                events -= number
                size -= len(entry) + _BYTES_AN_ENTRY
                removed += 1
                cursor.delete()
                if not removed % _LOOK_EVERY and self._steady() >= stop:
                    break
        return removed, events, size

    # Helpers

    def _state(self, txn: lmdb.Transaction[bytes]) -> tuple[int, int, int]:
        """Return the last revision, and the number and the bytes of the events."""
        revision, events, size = _STATE.unpack(txn.get(_STATE_KEY, b""))
        return revision, events, size

    @staticmethod
    def _evicted(txn: lmdb.Transaction[bytes]) -> int:
        """Return how many keys were evicted; a count of its own, for stores that began without."""
        return int.from_bytes(txn.get(_EVICTED_KEY, b""), "big")

    def _live_pages(self) -> int:
        """Return the pages in use, with what the log may still grow to."""
        with self._begin() as txn:
            log = _pages(txn.stat(self._log))
            return self._count_pages(txn) + max(0, self._log_pages - log)

    def _count_pages(self, txn: lmdb.Transaction[bytes]) -> int:
        """Return the pages in use. The free list's own are not counted: they are few."""
        return 2 + sum(_pages(txn.stat(database)) for database in self._databases)


def _open(directory: str, map_size: int) -> lmdb.Environment:
    claim_readers(directory)
    try:
        return _opened(directory, map_size)
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise StoreFormatUnknown(
            f"the store in {directory} cannot be read ({error}). "
            "Name another --store, or remove its files to begin anew."
        ) from None


def _opened(directory: str, map_size: int) -> lmdb.Environment:
    return lmdb.open(
        directory,
        map_size=map_size,
        max_dbs=6,
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


def _seek_below(cursor: lmdb.Cursor[bytes], revision: int) -> bool:
    """Go to the entry of the log that holds the last event below a revision."""
    # The first entry that ends at or behind it may begin before it.
    return cursor.set_range(eventlog.encode_revision(revision - 1)) or cursor.last()


def _pages(stat: lmdb._StatDict) -> int:
    return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
