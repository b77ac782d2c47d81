"""Which keys go when the store is full: S3-FIFO, with queues that take no memory.

S3-FIFO has a small queue for new keys and a main one for those that proved themselves. A new key
that was not used again by the time it has crossed the small queue is evicted: most keys of most
caches are never asked for twice, and should not stay as long as those that are. What crosses it
with some heat goes to the main queue, where a hand goes round, lowers the heat of what is warm and
evicts what is cold (CLOCK). Ghosts remember what was evicted lately; it comes back warm.

Neither queue exists in memory here. The small one is the end of the event log: it has all new keys
in their order already, so that a position in it, the young hand, is enough. It is kept at a tenth
of the keys, or what the log remembers if that is less. The main one is the order of the keys
themselves. A record's revision tells where it is: above the young hand's, it is young.

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
from keyrack.engines.contract import Add, Get, Remember, Set, Space, Touch
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.commit import Commit
from keyrack.engines.embedded.database import JournalFailed
from keyrack.engines.embedded.eviction.frequency import (
    LARGEST,
    OWED,
    PRESSED,
    YOUNG,
    YOUNG_HAND,
    Heat,
)
from keyrack.engines.embedded.memory import PAGE, PAGES_A_COMMIT, pages_of_removals
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, pages_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from keyrack.engines.contract import Operation, Outcome, Result, Write
    from keyrack.engines.embedded.database import Cursor, Database, DeletingCursor
    from keyrack.engines.embedded.events import EventLog

_YOUNG_PART: Final = 10
"""The small queue's part of the keys, as in the paper."""
_MARGIN_PART: Final = 48
"""The margin's part of the pages: in a store of 64 MiB it is enough for a value of 1 MiB."""
_LEAST_MARGIN: Final = 64
_MOST_MARGIN: Final = 1024
_MOST_MORE: Final = 400
"""Per cent by which evictions exceed what is added when no room is left."""
_BOUNDS_EXCEED: Final = 4
"""How often what commits are said to take at most is likely to exceed what they take."""
_ENTRY: Final = 60
"""What a key takes besides its value: itself, twice, and the heads of a node and of an event."""
_WORTH_IT: Final = 4096
"""Fewer bytes than this are owed until later: a round has a price of its own."""
_MOST_KEYS: Final = 256
_MOST_LOOKS: Final = 1024
"""A round's bounds: about a millisecond."""
_MOST_ROUNDS: Final = 512
"""Rounds for one write, after which it is refused."""
_A_STRETCH: Final = 256
_A_HANDFUL: Final = 32
_SETS: Final = frozenset((Set, Add))
_USES: Final = frozenset((Set, Add, Get, Touch))


class Pressure:
    """How short memory is, and what is to be evicted for it. `pages` is the database's pages."""

    def __init__(self, heat: Heat, pages: int) -> None:
        self._words = heat.words
        self._most_margin = pages // 4
        self.margin = max(_LEAST_MARGIN, min(_MOST_MARGIN, pages // _MARGIN_PART))
        """Pages that are kept free, so that the next commit need not wait."""

    def begin_life(self) -> None:
        """Forget that memory was short: whether it is, is seen when pages are claimed."""
        self._words[PRESSED] = 0

    @property
    def owed(self) -> int:
        """How many bytes are to be evicted before anybody asks for their room."""
        owed = self._words[OWED] if self._words[PRESSED] else 0
        return owed if owed >= _WORTH_IT else 0

    def look(self, room: int) -> int:
        """Take note of the room there is, in pages; return after how many to be asked again."""
        words = self._words
        margin = min(self.margin + words[LARGEST], self._most_margin)
        words[LARGEST] -= words[LARGEST] + 31 >> 5
        if room >= 2 * margin:
            words[PRESSED] = words[OWED] = 0
            return _BOUNDS_EXCEED * max(room - 2 * margin, margin // 2)
        # Keys that go leave room in their leaves, and free a page only when it is nearly empty. So
        # as many bytes as are added is not enough at first; the less room, the more have to go.
        words[PRESSED] = 100 + _MOST_MORE * (2 * margin - room) // (2 * margin)
        return _BOUNDS_EXCEED * min(max(0, room), margin)

    def add(self, added: int) -> int:
        """Take note of bytes that were added; return how many are to be evicted at once."""
        words = self._words
        if not words[PRESSED]:
            return 0
        more = min(added, self.margin * PAGE // 8) * (words[PRESSED] - 100) // 100
        words[OWED] += added + more
        return words[OWED] if words[OWED] >= _WORTH_IT else 0

    def pay(self, freed: int) -> None:
        """Take note of bytes that were evicted."""
        self._words[OWED] = max(0, self._words[OWED] - freed)


class Evictor:
    """What evicts, in one process."""

    def __init__(self, database: Database, log: EventLog, heat: Heat) -> None:
        self.heat = heat
        self._database = database
        self._log = log
        self._pressure = pressure = Pressure(heat, database.memory.limit)
        database.memory.watch(pressure.look)
        # Each copies a leaf before it changes it, and what it frees is not there at once.
        self.most_keys = min(_MOST_KEYS, pressure.margin // 2)

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
        self.heat.words[YOUNG] += sets
        owed = self._pressure.add(added)
        if owed:
            self._evict(commit, owed, keys_of(writes))

    def _take_in(self, operation: Operation, result: Result) -> int:
        """Note that a key was used; return the bytes that this added to the store."""
        if result.existed:
            if type(operation) in _USES:
                self.heat.warm(operation.key)
            return 0
        size = 0
        if type(operation) is Set:
            size = len(operation.value)
            if size > LONGEST_WHOLE:
                words = self.heat.words
                words[LARGEST] = max(words[LARGEST], pages_of(size))
        elif type(operation) is not Add:
            return 0
        self.heat.welcome(operation.key)
        return size + _ENTRY

    def _evict(self, commit: Commit, owed: int, spared: AbstractSet[bytes]) -> bool:
        """Evict about `owed` bytes of records, or as much as one round may.

        Return whether another round may evict more.
        """
        database, txn = self._database, commit.txn
        records = database.spaces[Space.KEYS]
        keys = txn.entries(records)
        with txn.deleting(records) as cursor, txn.cursor(database.events) as log:
            round_ = _Round(self.heat, cursor, log, keys, self.most_keys, spared)
            round_.run(owed)
        commit.evict(round_.gone)
        self.heat.bury([key for key, _ in round_.gone], keys)
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
        heat: Heat,
        records: DeletingCursor,
        log: Cursor,
        keys: int,
        most: int,
        spared: AbstractSet[bytes],
    ) -> None:
        self._heat = heat
        self._words = heat.words
        self._records = records
        self._log = log
        self._keys = keys
        self._most = most
        self._spared = spared
        self._coldest: tuple[int, bytes] | None = None
        self._looks = 0
        self.gone: list[tuple[bytes, bytes]] = []
        """Keys that were evicted, and their records."""
        self.freed = 0
        self.is_over = False
        """Whether nothing is left that might be evicted, now or by another round."""

    def run(self, owed: int) -> None:
        """Evict until `owed` bytes are freed, or the round has lasted long enough."""
        words, most_young = self._words, self._keys // _YOUNG_PART
        while self.freed < owed and len(self.gone) < self._most and self._looks < _MOST_LOOKS:
            if words[YOUNG] > most_young:
                going = self._from_the_young(owed) or self._from_the_others(owed)
            else:
                going = self._from_the_others(owed) or self._from_the_young(owed)
            if not going:
                self.is_over = True
                break
        if not self.gone:
            self._the_coldest()

    def _from_the_young(self, owed: int) -> bool:
        """Look at the next sets of the log; say whether there were any."""
        words, log = self._words, self._log
        found = log.set_range(eventlog.encode_revision(words[YOUNG_HAND] + 1))
        if not found:
            words[YOUNG] = 0
            return False
        sets: list[tuple[int, bytes]] = []
        hand, entries = words[YOUNG_HAND], 0
        # What a round needs is not known before; a set evicts a key, or a few do.
        while found and len(sets) < _A_HANDFUL and entries < _MOST_KEYS:
            last, entry = log.item()
            sets += eventlog.sets(last, entry, hand)
            hand = int.from_bytes(last, "big")
            entries += 1
            found = log.next()
        # The last few are not left for later, unless they are much for this store.
        looked = self._judge(sets, owed, len(sets) - (self._keys >> 7))
        self._looks += looked + 1
        words[YOUNG] = max(0, words[YOUNG] - looked)
        words[YOUNG_HAND] = hand if looked == len(sets) else sets[looked][0] - 1
        return True

    def _judge(self, sets: list[tuple[int, bytes]], owed: int, least: int) -> int:
        """Evict young keys that are cold and were not set again; return how many were looked at."""
        seek, value, delete, gone = (
            self._records.set_key, self._records.value, self._records.delete, self.gone,
        )  # fmt: skip
        levels, mask, spared = self._heat.levels, self._heat.mask, self._spared
        for looked, (revision, key) in enumerate(sets):
            if (self.freed >= owed and looked < least) or len(gone) >= self._most:
                return looked
            if not seek(key):
                continue
            raw = value()
            if wire.revision(raw) != revision:
                continue
            slot = crc32(key) & mask
            if levels[slot] or key in spared:
                levels[slot] = 0  # what it does as a grown-up counts from now on
                continue
            delete()
            gone.append((key, raw))
            self.freed += _ENTRY + wire.size(raw)
        return len(sets)

    def _from_the_others(self, owed: int) -> bool:
        """Move the hand until enough is freed; say whether it came by any key that is not young."""
        records, heat, young = self._records, self._heat, self._words[YOUNG_HAND]
        levels, mask, spared = heat.levels, heat.mask, self._spared
        going = False
        records.set_range(heat.hand)
        for _ in range(_A_STRETCH):
            if self.freed >= owed or len(self.gone) >= self._most:
                break
            key = records.key()
            if not key:
                if not records.first():
                    return False
                key = records.key()
            self._looks += 1
            slot = crc32(key) & mask
            level = levels[slot]
            if level:
                going = True
                levels[slot] = level - 1
                if (self._coldest is None or level < self._coldest[0]) and key not in spared:
                    self._coldest = level, key
                records.next()
                continue
            raw = records.value()
            if wire.revision(raw) > young or key in spared:
                records.next()
            else:
                going = True
                self._remove(key, raw)
        heat.hand = records.key()
        return going

    def _the_coldest(self) -> None:
        """Nothing is cold: take what was the least warm, so that every round gets somewhere."""
        if self._coldest is not None and self._records.set_key(self._coldest[1]):
            self._remove(self._coldest[1], self._records.value())

    def _remove(self, key: bytes, raw: bytes) -> None:
        """Remove the record that the cursor is at; it goes on to the next."""
        self._records.delete()
        self.gone.append((key, raw))
        self.freed += _ENTRY + wire.size(raw)
