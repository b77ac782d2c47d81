"""How many requests a token may make, over all workers, and how many wrong ones an address.

A metered token has one word in shared memory: the moment until which its rate is used up (the
generic cell rate algorithm). A request moves it on by the time that one request is worth, and is
refused where that is further ahead than the burst. Nothing is locked: of two workers that let a
request through within the same microsecond one may not be counted.
"""

from __future__ import annotations

import binascii
import mmap
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from keyrack.access.model import Rate

SLOTS: Final = 4096
"""Metered tokens share a slot, and so a count, where their ids happen to fall into the same one."""
MOST_FAILURES: Final = 20
"""Wrong log-ins of an address that are looked at in a second."""
_MOST_ADDRESSES: Final = 10_000
_SECOND: Final = 1_000_000_000


def slot_of(token_id: str) -> int:
    """Return the slot that a token's requests are counted in."""
    return binascii.crc32(token_id.encode()) % SLOTS


class Allowance(NamedTuple):
    """Whether a request is let through, how many more are now, and in how many seconds one is."""

    allowed: bool
    left: int
    wait: float


class Meters:
    """How much tokens have used of their rates and watches, in memory that all workers share.

    Made before the workers are forked.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._used_until = memoryview(mmap.mmap(-1, SLOTS * 8)).cast("q")
        self._watches = memoryview(mmap.mmap(-1, SLOTS * workers * 8)).cast("q")

    def take(self, slot: int, rate: Rate, now: int) -> Allowance:
        """Judge a request, and count it if it is let through; `now` in ns of a steady clock."""
        worth = _SECOND / rate.per_second
        used_until = max(self._used_until[slot], now) + round(worth)
        ahead = used_until - now - worth * rate.burst
        if ahead > 1:  # ns, for rounding
            return Allowance(False, 0, ahead / _SECOND)
        self._used_until[slot] = used_until
        left = int(-ahead / worth + 1e-6)
        return Allowance(True, left, 0.0 if left else (ahead + worth) / _SECOND)

    def hold(self, slot: int, worker: int, change: int) -> None:
        """Count a watch that begins (1) or ends (-1). A worker writes only its own words."""
        self._watches[slot * self._workers + worker] += change

    def held(self, slot: int) -> int:
        """Return how many watches are open."""
        start = slot * self._workers
        return sum(self._watches[start : start + self._workers])

    def release(self, worker: int) -> None:
        """Take back the watches of a worker that has ended."""
        for slot in range(SLOTS):
            self._watches[slot * self._workers + worker] = 0


class Failures:
    """Wrong log-ins of the last second, by address. `now` is in seconds of a steady clock.

    The table is bounded: the address that was first to be wrong is forgotten first.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def too_many(self, address: str, now: float) -> bool:
        """Tell whether credentials from an address are not to be looked at for now."""
        second, count = self._counts.get(address, (0, 0))
        return second == int(now) and count >= MOST_FAILURES

    def note(self, address: str, now: float) -> None:
        """Count a wrong log-in."""
        second, count = self._counts.pop(address, (0, 0))
        if len(self._counts) >= _MOST_ADDRESSES:
            del self._counts[next(iter(self._counts))]
        self._counts[address] = (int(now), count + 1 if second == int(now) else 1)
