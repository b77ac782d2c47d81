"""Whether processes that live also work: signs of life in shared memory, and who looks for them.

A worker's timer gives a sign twice a second, and so does the supervisor. One that is alive and
gives none is stuck: stopped by a signal or a debugger, or in a loop without end. The supervisor
kills such a worker; a worker that misses the supervisor's sign says so at `/healthz`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyrack.shared.counters import Counters

INTERVAL: Final = 0.5
"""Seconds between two signs, and between two looks."""
_LONGEST_STEP: Final = 2 * INTERVAL


class Liveness:
    """For how many seconds each of several processes has given no sign, as seen from this one.

    A look counts for at most a second, however long ago the last one was: while the machine slept
    or this process was stopped itself, nobody can be blamed for having been silent.
    """

    def __init__(self, processes: int) -> None:
        self.seconds = [0.0] * processes
        self._signs = [-1] * processes
        self._looked = time.monotonic()

    def look(self, signs: Sequence[int], now: float | None = None) -> None:
        """Compare the signs with those of the last look; `now` is in monotonic seconds."""
        now = time.monotonic() if now is None else now
        passed = min(now - self._looked, _LONGEST_STEP)
        self._looked = now
        for number, sign in enumerate(signs):
            changed = sign != self._signs[number]
            self.seconds[number] = 0.0 if changed else self.seconds[number] + passed
            self._signs[number] = sign

    def forgive(self, number: int, seconds: float = 0.0) -> None:
        """Count a process as silent for so many seconds, and no longer."""
        self.seconds[number] = min(self.seconds[number], seconds)


class Heartbeat:
    """A worker's part: its own sign, and what it thinks of the others'.

    `limit` is the seconds of silence after which a process counts as stuck, 0 for never.
    """

    def __init__(self, counters: Counters, slot: int, limit: float) -> None:
        self.trouble = ""
        """What is wrong with the service as a whole, empty when nothing is."""
        self._counters = counters
        self._slot = slot
        self._limit = limit
        self._liveness = Liveness(counters.workers + 1)

    def beat(self) -> None:
        """Give a sign, and look for those of the others. Call it every `INTERVAL` seconds."""
        self._counters.beats.give(self._slot)
        if self._limit:
            self._liveness.look(
                (*self._counters.beats.of_workers, self._counters.beats.of_supervisor)
            )
            self.trouble = self._found()

    def _found(self) -> str:
        *workers, supervisor = self._liveness.seconds
        if supervisor > self._limit:
            return f"the supervisor has given no sign of life for {supervisor:.0f} s"
        for number, seconds in enumerate(workers):
            # The supervisor comes first: it replaces who is silent.
            if seconds > 2 * self._limit + _LONGEST_STEP and self._counters.ready(number):
                return f"worker {number} has given no sign of life for {seconds:.0f} s"
        return ""
