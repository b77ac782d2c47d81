"""Which keys go when the store is full: S3-FIFO, with queues that take no memory.

S3-FIFO has a small queue for new keys and a main one for those that proved themselves. A new key
that was not used again by the time it has crossed the small queue is evicted: most keys of most
caches are never asked for twice, and should not stay as long as those that are. What crosses it
after it was used goes to the main queue, where a hand goes round, counts down what was used and
evicts what was not (CLOCK). Ghosts remember what was evicted lately; it counts as used when it
comes back.

Neither queue exists in memory here. The small one is the end of the event log: it has all new keys
in their order already, so that a position in it, the small hand, is enough. It is kept at a tenth
of the keys, or what the log remembers if that is less. The main one is the order of the keys
themselves. A record's revision tells where it is: above the small hand's, it is in the small one.

Whoever asks for more keys than fit, one after the other and then again, finds none of them in a
queue: each goes just before it is asked for. So where twice as many keys as are held have crossed
the small queue and next to none was used, some go on to the main queue unused, and are found there.

All of this happens in write transactions, mostly in those that set keys: what a commit adds it
pays for with as many bytes of others, and a margin of free pages is kept, so that the next commit
need not wait. `look` is told what room there is, now and then, and corrects what was guessed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final
from zlib import crc32

import lmdb

from keyrack.engines import record as wire
from keyrack.engines.contract import Add, Get, Remember, Restore, Set, Space, Touch
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.commit import Commit
from keyrack.engines.embedded.database import JournalFailed
from keyrack.engines.embedded.eviction.frequency import (
    LARGEST_PAGES,
    OWED_BYTES,
    PRESSURE_PER_CENT,
    SMALL_HAND_REVISION,
    SMALL_QUEUE_SETS,
    UNUSED_RUN,
    AccessFrequency,
)
from keyrack.engines.embedded.memory import PAGE, PAGES_A_COMMIT, pages_of_removals
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, pages_of
from keyrack.engines.embedded.trash import Trash, is_empty

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from keyrack.engines.contract import Operation, Outcome, Result, Write
    from keyrack.engines.embedded.database import Cursor, Database, DeletingCursor
    from keyrack.engines.embedded.events import EventLog

_SMALL_QUEUE_PART: Final = 10
"""The small queue's part of the keys, as in the paper."""
_MARGIN_PART: Final = 48
"""The margin's part of the pages: in a store of 64 MiB it is enough for a value of 1 MiB."""
_LEAST_MARGIN_PAGES: Final = 64
_MOST_MARGIN_PAGES: Final = 1024
_MOST_EXTRA_PER_CENT: Final = 400
"""Per cent by which evictions exceed what is added when no room is left."""
_BOUNDS_EXCEED: Final = 4
"""How often what commits are said to take at most is likely to exceed what they take."""
_BYTES_A_KEY: Final = 60
"""What a key takes besides its value: itself, twice, and the heads of a node and of an event."""
_LEAST_OWED_BYTES: Final = 4096
"""Fewer bytes than this are owed until later: a round has a price of its own."""
_MOST_KEYS_A_ROUND: Final = 256
_MOST_LOOKS_A_ROUND: Final = 1024
"""A round's bounds: about a millisecond."""
_MOST_ROUNDS: Final = 512
"""Rounds for one write, after which it is refused."""
_MAIN_LOOKS_A_STEP: Final = 256
_SMALL_LOOKS_A_STEP: Final = 32
_USED_WEIGHT: Final = 32
"""Unused keys of a run that one makes good which was used: a run has fewer than 3 per cent."""
_MIX: Final = 2_654_435_761
"""Spreads revisions, of which one follows the other."""
_KEPT_OF_A_RUN: Final = 8
"""Of so many keys of a long run one stays."""
_SETS: Final = frozenset((Set, Add, Restore))
_USES: Final = frozenset((Set, Add, Get, Touch))


class Pressure:
    """How short memory is, and what is to be evicted for it. `pages` is the database's pages."""

    def __init__(self, frequency: AccessFrequency, pages: int) -> None:
        self._words = frequency.words
        self._most_margin = pages // 4
        self.margin = max(_LEAST_MARGIN_PAGES, min(_MOST_MARGIN_PAGES, pages // _MARGIN_PART))
        """Pages that are kept free, so that the next commit need not wait."""

    def begin_life(self) -> None:
        """Forget that memory was short: whether it is, is seen when pages are claimed."""
        self._words[PRESSURE_PER_CENT] = 0

    @property
    def owed(self) -> int:
        """How many bytes are to be evicted before anybody asks for their room."""
        owed = self._words[OWED_BYTES] if self._words[PRESSURE_PER_CENT] else 0
        return owed if owed >= _LEAST_OWED_BYTES else 0

    def look(self, room: int) -> int:
        """Take note of the room there is, in pages; return after how many to be asked again."""
        words = self._words
        margin = min(self.margin + words[LARGEST_PAGES], self._most_margin)
        words[LARGEST_PAGES] -= words[LARGEST_PAGES] + 31 >> 5
        if room >= 2 * margin:
            words[PRESSURE_PER_CENT] = words[OWED_BYTES] = 0
            return _BOUNDS_EXCEED * max(room - 2 * margin, margin // 2)
        # Keys that go leave room in their leaves, and free a page only when it is nearly empty. So
        # as many bytes as are added is not enough at first; the less room, the more have to go.
        words[PRESSURE_PER_CENT] = 100 + _MOST_EXTRA_PER_CENT * (2 * margin - room) // (2 * margin)
        return _BOUNDS_EXCEED * min(max(0, room), margin)

    def add(self, added: int) -> int:
        """Take note of bytes that were added; return how many are to be evicted at once."""
        words = self._words
        if not words[PRESSURE_PER_CENT]:
            return 0
        more = min(added, self.margin * PAGE // 8) * (words[PRESSURE_PER_CENT] - 100) // 100
        words[OWED_BYTES] += added + more
        return words[OWED_BYTES] if words[OWED_BYTES] >= _LEAST_OWED_BYTES else 0

    def pay(self, freed: int) -> None:
        """Take note of bytes that were evicted."""
        self._words[OWED_BYTES] = max(0, self._words[OWED_BYTES] - freed)


class Evictor:
    """What evicts, in one process."""

    def __init__(self, database: Database, log: EventLog, frequency: AccessFrequency) -> None:
        self.frequency = frequency
        self._database = database
        self._log = log
        self._pressure = pressure = Pressure(frequency, database.memory.limit)
        database.memory.watch(pressure.look)
        # Each copies a leaf before it changes it, and what it frees is not there at once.
        self.most_keys = min(_MOST_KEYS_A_ROUND, pressure.margin // 2)

    def begin_life(self) -> None:
        """Forget that memory was short: whether it is, is seen when pages are claimed."""
        self._pressure.begin_life()

    def pay(self, commit: Commit, writes: Sequence[Write], outcomes: Sequence[Outcome]) -> None:
        """Evict what is owed, what these writes added included. They are done in `commit`."""
        first, added, sets = commit.draft.first, 0, 0
        for write, outcome in zip(writes, outcomes):  # noqa: B905  # as many, and this is hot
            if isinstance(outcome, tuple):
                if type(write[0]) is Remember:
                    write = write[1:]  # its outcome is kept, and is none of its results
                for operation, result in zip(write, outcome):  # noqa: B905  # as above
                    added += self._take_in(operation, result)
                    sets += type(operation) in _SETS and result.revision >= first
        self.frequency.words[SMALL_QUEUE_SETS] += sets
        owed = self._pressure.add(added)
        if owed:
            self._evict(commit, owed, keys_of(writes))

    def _take_in(self, operation: Operation, result: Result) -> int:
        """Note that a key was used; return the bytes that this added to the store."""
        if result.existed:
            if type(operation) in _USES:
                self.frequency.record_access(operation.key)
            return 0
        size = 0
        if type(operation) is Set:
            size = len(operation.value)
            if size > LONGEST_WHOLE:
                words = self.frequency.words
                words[LARGEST_PAGES] = max(words[LARGEST_PAGES], pages_of(size))
        elif type(operation) is Restore and result.revision:
            self.frequency.note_new(operation.key)
            return 0  # it was in the trash before
        elif type(operation) is not Add:
            return 0
        self.frequency.note_new(operation.key)
        return size + _BYTES_A_KEY

    def _evict(self, commit: Commit, owed: int, spared: AbstractSet[bytes]) -> bool:
        """Evict about `owed` bytes of records, or as much as one round may.

        The trash is dropped first. Return whether another round may evict more.
        """
        database, txn = self._database, commit.txn
        if not is_empty(txn):
            freed = Trash(commit).drop_oldest(owed, self.most_keys)
            self._pressure.pay(freed)
            return True
        records = database.spaces[Space.KEYS]
        keys = txn.entries(records)
        with txn.deleting(records) as cursor, txn.cursor(database.events) as log:
            round_ = _Round(self.frequency, cursor, log, keys, self.most_keys, spared)
            round_.run(owed)
        commit.evict(round_.gone)
        self.frequency.add_ghosts([key for key, _ in round_.gone], keys)
        self._pressure.pay(round_.freed)
        return not round_.is_over

    def evict_owed(self) -> int:
        """Evict what is owed for what was written before; say how many keys went.

        Commits do so themselves, as far as it holds nobody up; this does the rest.
        """
        owed = self._pressure.owed
        if not owed:
            return 0
        before = self._database.usage().evicted
        self.evict(owed, frozenset())
        return self._database.usage().evicted - before

    def evict(self, owed: int, spared: AbstractSet[bytes]) -> bool:
        """Evict about `owed` bytes of records, in a transaction; say whether to go on like that."""
        pages = pages_of_removals(self.most_keys)
        try:
            with Commit(self._database, self._log, pages, grows=False) as commit:
                return self._evict(commit, owed, spared)
        except (lmdb.MapFullError, JournalFailed):
            return False

    def make_room(self, pages: int, spared: AbstractSet[bytes]) -> bool:
        """Evict until so many pages are free beyond the reserve; say whether they are."""
        database, most = self._database, self._database.most_live_pages
        if pages > most - database.log_pages:
            return False
        for _ in range(_MOST_ROUNDS):
            missing = database.live_pages() + pages + PAGES_A_COMMIT - most
            if missing <= 0 or not self.evict(missing * PAGE, spared):
                break
        with contextlib.suppress(lmdb.MapFullError):
            database.reclaim()
        return database.live_pages() + pages <= most


def keys_of(writes: Sequence[Write]) -> frozenset[bytes]:
    """Return the keys that writes are about: they are not evicted for them."""
    return frozenset(operation.key for write in writes for operation in write)


def likely_pages(writes: Sequence[Write]) -> int:
    """Return about how many pages writes take: not the bound, which is far above it."""
    pages = PAGES_A_COMMIT
    operations = [operation for write in writes for operation in write]
    for operation in operations:
        size = len(operation.value) if isinstance(operation, Set) else 0
        if size > LONGEST_WHOLE:
            pages += pages_of(size)
        elif size > PAGE // 3:
            pages += 1
    return pages + len(operations) // 2


class _Round:
    """One round of evictions, in one transaction."""

    def __init__(
        self,
        frequency: AccessFrequency,
        records: DeletingCursor,
        log: Cursor,
        keys: int,
        most: int,
        spared: AbstractSet[bytes],
    ) -> None:
        self._frequency = frequency
        self._words = frequency.words
        self._records = records
        self._log = log
        self._keys = keys
        self._most = most
        self._spared = spared
        self._least_used: tuple[int, bytes] | None = None
        self._looks = 0
        self.gone: list[tuple[bytes, bytes]] = []
        """Keys that were evicted, and their records."""
        self.freed = 0
        self.is_over = False
        """Whether nothing is left that might be evicted, now or by another round."""

    def run(self, owed: int) -> None:
        """Evict until `owed` bytes are freed, or the round has lasted long enough."""
        words, most_small = self._words, self._keys // _SMALL_QUEUE_PART
        while (
            self.freed < owed and len(self.gone) < self._most and self._looks < _MOST_LOOKS_A_ROUND
        ):
            if words[SMALL_QUEUE_SETS] > most_small:
                going = self._from_small(owed) or self._from_main(owed)
            else:
                going = self._from_main(owed) or self._from_small(owed)
            if not going:
                self.is_over = True
                break
        if not self.gone:
            self._evict_least_used()

    def _from_small(self, owed: int) -> bool:
        """Look at the next sets of the log; say whether there were any."""
        words, log = self._words, self._log
        found = log.set_range(eventlog.encode_revision(words[SMALL_HAND_REVISION] + 1))
        if not found:
            words[SMALL_QUEUE_SETS] = 0
            return False
        sets: list[tuple[int, bytes]] = []
        hand, entries = words[SMALL_HAND_REVISION], 0
        # What a round needs is not known before; a set evicts a key, or a few do.
        while found and len(sets) < _SMALL_LOOKS_A_STEP and entries < _MOST_KEYS_A_ROUND:
            last, entry = log.item()
            sets += eventlog.sets(last, entry, hand)
            hand = int.from_bytes(last, "big")
            entries += 1
            found = log.next()
        # The last few are not left for later, unless they are much for this store.
        looked = self._judge(sets, owed, len(sets) - (self._keys >> 7))
        self._looks += looked + 1
        words[SMALL_QUEUE_SETS] = max(0, words[SMALL_QUEUE_SETS] - looked)
        words[SMALL_HAND_REVISION] = hand if looked == len(sets) else sets[looked][0] - 1
        return True

    def _judge(self, sets: list[tuple[int, bytes]], owed: int, least: int) -> int:
        """Evict what was neither used nor set again; return how many sets were looked at."""
        seek, value, delete, gone = (
            self._records.set_key, self._records.value, self._records.delete, self.gone,
        )  # fmt: skip
        counts, mask, spared = self._frequency.counts, self._frequency.mask, self._spared
        words, long_run = self._words, 2 * self._keys
        for looked, (revision, key) in enumerate(sets):
            if (self.freed >= owed and looked < least) or len(gone) >= self._most:
                return looked
            if not seek(key):
                continue
            raw = value()
            if wire.revision(raw) != revision:
                continue
            slot = crc32(key) & mask
            if counts[slot] or key in spared:
                counts[slot] = 0  # what it does in the main queue counts from now on
                words[UNUSED_RUN] = max(0, words[UNUSED_RUN] - _USED_WEIGHT)
                continue
            run = words[UNUSED_RUN]
            if run <= long_run + long_run // 4:
                words[UNUSED_RUN] = run + 1
            if run > long_run and not (revision * _MIX >> 16) % _KEPT_OF_A_RUN:
                continue
            delete()
            gone.append((key, raw))
            self.freed += _BYTES_A_KEY + wire.size(raw)
        return len(sets)

    def _from_main(self, owed: int) -> bool:
        """Move the main hand until enough is freed; say whether it came by any of its keys."""
        records, frequency = self._records, self._frequency
        small_hand = self._words[SMALL_HAND_REVISION]
        counts, mask, spared = frequency.counts, frequency.mask, self._spared
        going = False
        records.set_range(frequency.main_hand)
        for _ in range(_MAIN_LOOKS_A_STEP):
            if self.freed >= owed or len(self.gone) >= self._most:
                break
            key = records.key()
            if not key:
                if not records.first():
                    return False
                key = records.key()
            self._looks += 1
            slot = crc32(key) & mask
            count = counts[slot]
            if count:
                going = True
                counts[slot] = count - 1
                if (self._least_used is None or count < self._least_used[0]) and key not in spared:
                    self._least_used = count, key
                records.next()
                continue
            raw = records.value()
            if wire.revision(raw) > small_hand or key in spared:
                records.next()
            else:
                going = True
                self._remove(key, raw)
        frequency.main_hand = records.key()
        return going

    def _evict_least_used(self) -> None:
        """Everything was used: take what was the least, so that every round gets somewhere."""
        if self._least_used is not None and self._records.set_key(self._least_used[1]):
            self._remove(self._least_used[1], self._records.value())

    def _remove(self, key: bytes, raw: bytes) -> None:
        """Remove the record that the cursor is at; it goes on to the next."""
        self._records.delete()
        self.gone.append((key, raw))
        self.freed += _BYTES_A_KEY + wire.size(raw)
