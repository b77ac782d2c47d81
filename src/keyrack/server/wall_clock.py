"""A clock of the machine that was set says so in the log.

Nothing that is stored depends on it: times to live are measured by the steady clock. But dates in
logs, certificates and the expiry of tokens do, and so does whoever compares logs of machines.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from keyrack.shared.counters import CLOCK_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

_LEAST_SECONDS: Final = 1.0
"""A step that is told of. A clock that is slewed (by NTP) moves by half a millisecond a second."""

_log = logging.getLogger("keyrack.clock")


class WallClock:
    """What one worker, for all of them, tells of steps of the machine's clock.

    `words` are its counters. `wall` and `steady` are clocks in seconds.
    """

    def __init__(
        self,
        words: memoryview,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._words = words
        self._wall = wall
        self._steady = steady
        self._offset = self._now()

    def _now(self) -> float:
        return self._wall() - self._steady()

    def look(self) -> None:
        """Tell of a step since the last look. Call it regularly."""
        offset = self._now()
        step, self._offset = offset - self._offset, offset
        if abs(step) < _LEAST_SECONDS:
            return
        self._words[CLOCK_STEPS] += 1
        _log.warning(
            "the machine's clock was set %s by %.1f s: times to live go on by the steady clock; "
            "dates in logs, and the ends of tokens and certificates, follow the new time",
            "forward" if step > 0 else "back",
            abs(step),
            extra={"event": "clock_set", "seconds": round(step, 3)},
        )
