"""What a worker does without being asked: expired keys, old events, deadlines, the date.

Work on the store is done in small steps with pauses of their own length between them, so that
requests are never held up: a step of the engine ends by the clock.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, cast

from keyrack.engines.contract import StoreAway
from keyrack.server.liveness import INTERVAL
from keyrack.shared.counters import EXPIRED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Engine, WaitingEngine
    from keyrack.http.lane import Lane, OpenConnection

_CONNECTIONS_A_STEP: Final = 500
_IDLE: Final = 0.05
"""Seconds between two looks for expired keys when there are none."""
_MOST: Final = 1000
"""Keys, or groups of events, that a step removes at most; the engine's clock ends it before."""

_log = logging.getLogger("keyrack.upkeep")


class Upkeep:
    """A worker's timers. `phase` (0 to 1) spreads the workers over the interval.

    `ticks` are called every half second.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: Lane,
        store: Engine | WaitingEngine,
        phase: float = 0.0,
        ticks: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._loop = loop
        self._turn = lane.turn
        self._engine = cast("Engine", store)
        self._connections = lane.connections
        self._phase = phase
        self._ticks = ticks
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(self) -> None:
        """Begin."""
        self._timers["tick"] = self._loop.call_later(INTERVAL, self._tick)
        self._timers["sweep"] = self._loop.call_later(_IDLE * self._phase, self._sweep)

    def stop(self) -> None:
        """End."""
        for timer in self._timers.values():
            timer.cancel()

    def _tick(self) -> None:
        self._timers["tick"] = self._loop.call_later(INTERVAL, self._tick)
        self._turn.tick()
        self._check_deadlines(list(self._connections))
        for tick in self._ticks:
            tick()

    def _check_deadlines(self, connections: list[OpenConnection]) -> None:
        """Look at some of the connections, and at the rest when others have been served."""
        now = self._turn.now
        for connection in connections[-_CONNECTIONS_A_STEP:]:
            if connection in self._connections:
                connection.check_deadlines(now)
        del connections[-_CONNECTIONS_A_STEP:]
        if connections:
            self._loop.call_soon(self._check_deadlines, connections)

    def _sweep(self) -> None:
        pause = _IDLE
        try:
            pause = self._sweep_once()
        except StoreAway:
            # The disk has failed or is full, which those who write are told.
            pause = 1.0
        except Exception:
            _log.exception("the store's upkeep failed; it is tried again")
            pause = 1.0
        finally:
            self._timers["sweep"] = self._loop.call_later(pause, self._sweep)

    def _sweep_once(self) -> float:
        """Do one step and return how many seconds to wait for the next."""
        began = time.monotonic_ns()
        sweep = self._engine.expire(_MOST)
        trimmed = self._engine.trim(_MOST)
        evicted = self._engine.evict()
        took = time.monotonic_ns() - began
        if sweep.expired:
            self._count_expired(sweep.expired)
        if evicted:
            self._turn.committed()
        if not sweep.expired and not trimmed and not evicted:
            return self._until(sweep.next_due)
        return max(took / 1e9, 0.001)

    def _count_expired(self, number: int) -> None:
        self._turn.count[EXPIRED] += number
        self._turn.committed()

    def _until(self, due: int | None) -> float:
        if due is None:
            return _IDLE
        return min(_IDLE, max(0.001, (due - self._engine.now()) / 1000))
