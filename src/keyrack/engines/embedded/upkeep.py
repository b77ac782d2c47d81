"""What is removed without being asked for: keys whose time is over, and events that are too many.

It is done in short commits, in steps that end by the clock, so that nobody waits long for the write
lock.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import lmdb

from keyrack.engines.contract import Sweep
from keyrack.engines.embedded.commit import Commit, read_due
from keyrack.engines.embedded.memory import PAGES_A_TTL, pages_of_removals

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.embedded.database import Database
    from keyrack.engines.embedded.events import EventLog
    from keyrack.engines.embedded.eviction.frequency import AccessFrequency

_SWEEP_LEASE_NS: Final = 200_000_000
_STEP_NS: Final = 300_000
"""How long a step goes on before it leaves the rest."""
_REMOVALS_A_COMMIT: Final = 32
"""Bounds what a step's commit claims of memory and holds of the write lock, whatever the clock."""


def _pages_of_ends(ends: int) -> int:
    """Return how many pages a commit takes at most in which so many records end.

    One that ends is removed, or takes its place in the expiry index again, as a stale copy.
    """
    return pages_of_removals(ends) + ends * PAGES_A_TTL


class EngineUpkeep:
    """One process's part in the upkeep of a database and its event log."""

    def __init__(
        self,
        database: Database,
        log: EventLog,
        steady: Callable[[], int],
        frequency: AccessFrequency | None = None,
    ) -> None:
        self._database = database
        self._log = log
        self._steady = steady
        self._frequency = frequency

    def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys whose time is over, each with its event.

        One process at a time does it: two would only wait for each other's write lock. It ends
        after `_STEP_NS` with what is done by then.
        """
        due = self._next_due()
        if due is None or due > self._database.now() or not self._take_lease():
            return Sweep(0, due)
        expired = self._in_short_commits(self._sweep, limit)
        due = self._next_due()
        if due is None or due > self._database.now():
            self._database.words.sweep_until = 0
        return Sweep(expired, due)

    def trim(self, limit: int) -> int:
        """Remove at most `limit` commits' events beyond those that are kept; say how many."""
        return self._in_short_commits(self._trim, limit) if self._log.is_above_bounds() else 0

    def _in_short_commits(self, remove: Callable[[int, int], int], limit: int) -> int:
        """Have `remove(most, stop)` called until `limit` things are gone, or the step's time is."""
        stop = self._steady() + _STEP_NS
        removed, most = 0, _REMOVALS_A_COMMIT
        while removed < limit and most:
            wanted = min(most, limit - removed)
            try:
                found = remove(wanted, stop)
            except lmdb.MapFullError:
                most = wanted // 2
                continue
            removed += found
            if found < wanted or self._steady() >= stop:
                break
        return removed

    def _take_lease(self) -> bool:
        words, now, me = self._database.words, self._steady(), os.getpid()
        # A lease that ends later than any given now is of an earlier start of the machine.
        leased = now < words.sweep_until <= now + _SWEEP_LEASE_NS
        if leased and words.sweeper != me:
            return False
        words.sweeper = me
        words.sweep_until = now + _SWEEP_LEASE_NS
        return True

    def _next_due(self) -> int | None:
        with self._database.read() as txn, txn.cursor(self._database.expiry) as cursor:
            return read_due(cursor.key())[0] if cursor.first() else None

    def _sweep(self, limit: int, stop: int) -> int:
        expired = 0
        with (
            Commit(self._database, self._log, _pages_of_ends(limit), grows=False) as commit,
            commit.txn.deleting(self._database.expiry) as cursor,
        ):
            cursor.first()
            while expired < limit and (entry := cursor.key()):
                if read_due(entry)[0] > commit.now:
                    break
                key = cursor.value()
                cursor.delete()
                commit.expire(entry, key)
                expired += 1
                if self._steady() >= stop:
                    break  # looked at for each key: one may be a value of hundreds of pieces
        if self._frequency is not None:
            # What nobody asks for as a stale copy goes before any key does.
            self._frequency.forget(commit.copied)
        return expired

    def _trim(self, limit: int, stop: int) -> int:
        with self._database.maintain(pages_of_removals(limit)) as txn:
            return self._log.trim(txn, limit, stop)
