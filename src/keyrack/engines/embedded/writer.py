"""Writes: which share a commit, and what is done when the store is full.

Commits are bounded in pages, so that the write lock is held only briefly. Where one does not fit,
its writes are tried one by one; where one alone does not fit, keys are evicted for it, and readers
are waited for that keep freed pages from being used.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

import lmdb
from msgspec.structs import replace

from keyrack.engines.contract import (
    Check,
    Delete,
    Discard,
    Get,
    Refusal,
    Remember,
    Restore,
    Set,
    Why,
)
from keyrack.engines.embedded.commit import (
    Commit,
    apply_each,
    are_plain_sets,
    pages_of_plain,
    set_each,
    set_together,
)
from keyrack.engines.embedded.database import JournalFailed, NoRoom
from keyrack.engines.embedded.demand import PAGES_AN_OUTCOME, Demand
from keyrack.engines.embedded.eviction.policy import keys_of, likely_pages
from keyrack.engines.embedded.memory import PAGE, PAGES_A_COMMIT, PAGES_A_TTL, PAGES_A_WRITE
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, pages_of
from keyrack.engines.embedded.trash_room import TrashRoom
from keyrack.engines.fences import joined, left

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Outcome, Write
    from keyrack.engines.embedded.database import Database
    from keyrack.engines.embedded.events import EventLog
    from keyrack.engines.embedded.eviction.policy import Evictor
    from keyrack.engines.fences import Refusals

    Apply = Callable[[Commit, Sequence[Write]], list[Outcome]]

_MOST_PAGES: Final = 1536
"""A commit's bound: about 120 small writes or 6 MiB, well under a millisecond."""
_LARGE: Final = 16
"""Operations above which a write has a commit of its own, and its demand is looked at closely."""
_READ_SECONDS: Final = 0.0005
_PATIENCE_NS: Final = 100_000_000
"""How long a write waits for readers that keep freed pages from being used."""
_REST_NS: Final = 500_000_000
"""How long none does, when that was in vain."""


class StoreWriter:
    """What does the writes of one process. `evictor` makes room in a full store, where it may."""

    def __init__(self, database: Database, log: EventLog, evictor: Evictor | None) -> None:
        self._database = database
        self._log = log
        self._evictor = evictor
        self._most_pages = _MOST_PAGES
        if evictor is not None:
            self._most_pages = min(_MOST_PAGES, database.memory.limit // 8)
        self._held_since = 0
        self._trash_room = TrashRoom(database, log)
        self.fenced: Callable[[Sequence[Write]], Refusals] | None = None
        """Says which writes are refused because of a fence; None where there is none."""

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """Apply each write, all or none, in order, and return one outcome for each."""
        if self.fenced is not None and (refusals := self.fenced(writes)):
            return joined(refusals, self.write(left(writes, refusals)))
        plain = pages_of_plain(writes)
        if plain > self._most_pages and len(writes) > 1:
            half = len(writes) // 2
            return self.write(writes[:half]) + self.write(writes[half:])
        if plain:
            return self._commit(writes, plain, True, set_each)
        outcomes: list[Outcome] = []
        group: list[Write] = []
        pages, grows = PAGES_A_COMMIT, False
        for write in writes:
            need, growing = _needs(write)
            large = len(write) > _LARGE
            if group and (large or pages + need > self._most_pages):
                outcomes += self._commit(group, pages, grows)
                group, pages, grows = [], PAGES_A_COMMIT, False
            if large:
                outcomes.append(self._commit_large(write, PAGES_A_COMMIT + need, growing))
                continue
            group.append(write)
            pages += need
            grows = grows or growing
        if group:
            outcomes += self._commit(group, pages, grows)
        return outcomes

    def _commit_large(self, write: Write, pages: int, grows: bool) -> Outcome:
        """Do a write of many operations; a refusal says how much it needs and how much there is."""
        demand = Demand(write)
        apply = set_together if are_plain_sets(write) else apply_each
        (outcome,) = self._commit((write,), pages, grows, apply, demand)
        if not _is_full(outcome):
            return outcome
        needed, available = self._weigh(demand)
        if needed <= available:
            # What the last one of many operations has freed is there, but not ready yet.
            with contextlib.suppress(lmdb.MapFullError):
                self._database.reclaim()
            (outcome,) = self._commit((write,), pages, grows, apply, demand)
            if not _is_full(outcome):
                return outcome
            needed, available = self._weigh(demand)
        return Refusal(Why.FULL, needed=needed, available=min(needed, available))

    def _weigh(self, demand: Demand) -> tuple[int, int]:
        """Return how many bytes a write needs and how many there are."""
        with self._database.read() as txn:
            needed = demand.pages(txn)
        return needed * PAGE, self._database.room() * PAGE

    def _commit(
        self,
        writes: Sequence[Write],
        pages: int,
        grows: bool,
        apply: Apply = apply_each,
        demand: Demand | None = None,
    ) -> list[Outcome]:
        """Do writes in one transaction, or one by one where together they do not fit."""
        try:
            return self._transact(writes, pages, grows, apply, demand)
        except JournalFailed as error:
            return [Refusal(error.why)] * len(writes)
        except (lmdb.MapFullError, lmdb.TxnFullError) as error:
            if self._trash_room.make(pages):
                return self._commit(writes, pages, grows, apply, demand)
            if len(writes) == 1 and _keeps(writes[0]):
                return self.write((_without_trash(writes[0]),))
            outcomes = self._make_room_and_commit(writes, apply) if grows else None
            if outcomes is not None:
                return outcomes
            if len(writes) == 1:
                held = self._evictor is not None or not isinstance(error, NoRoom)
                return self._commit_behind_readers(writes[0], held)
        return [outcome for write in writes for outcome in self.write((write,))]

    def _commit_behind_readers(self, write: Write, held: bool) -> list[Outcome]:
        """Do a write for which there is no page; `held`: there are some that a reader still sees.

        One that was killed is cleared away. One that lost its processor in the middle of a read is
        waited for: it takes a microsecond, once it goes on, and a long one is not waited for twice.
        """
        if not self._database.clear_readers() and not (held and self._readers_go_on()):
            return [Refusal(Why.FULL)]
        outcomes = self.write((write,))
        if not _is_full(outcomes[0]):
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
                if not self._evictor.make_room(pages, spared):
                    return None
                return self._transact(writes, pages, True, apply)
            except lmdb.MapFullError:
                continue
            except JournalFailed as error:
                return [Refusal(error.why)] * len(writes)
        return None

    def _transact(
        self,
        writes: Sequence[Write],
        pages: int,
        grows: bool,
        apply: Apply,
        demand: Demand | None = None,
    ) -> list[Outcome]:
        with Commit(self._database, self._log, pages, grows, demand) as commit:
            outcomes = apply(commit, writes)
            if self._evictor is not None:
                self._evictor.pay(commit, writes, outcomes)
        return outcomes


def _is_full(outcome: Outcome) -> bool:
    return isinstance(outcome, Refusal) and outcome.why is Why.FULL


def _keeps(write: Write) -> bool:
    return any(type(operation) is Discard and operation.keep for operation in write)


def _without_trash(write: Write) -> Write:
    """Return a write that keeps nothing of what it deletes: a full store can be emptied."""
    return tuple(
        replace(operation, keep=False) if type(operation) is Discard else operation
        for operation in write
    )


def _needs(write: Write) -> tuple[int, bool]:
    """Return how many pages a write takes at most, and whether the store may be larger by it."""
    pages, grows = 0, False
    for operation in write:
        if type(operation) is Get or type(operation) is Check:
            continue
        pages += PAGES_A_WRITE
        if type(operation) is Set:
            grows = True
            if len(operation.value) > LONGEST_WHOLE:
                pages += pages_of(len(operation.value))
            if operation.ttl_ms:
                pages += PAGES_A_TTL
        elif type(operation) is Discard:
            # The record's new place, and the undo that it belongs to; each ends.
            grows = grows or operation.keep
            pages += 2 * (PAGES_A_WRITE + PAGES_A_TTL)
        elif type(operation) is not Delete:
            grows = True
            if type(operation) is Restore:
                pages += PAGES_A_WRITE + PAGES_A_TTL + pages_of(operation.size)
            pages += PAGES_A_TTL
            if type(operation) is Remember:
                pages += PAGES_AN_OUTCOME
    return pages, grows
