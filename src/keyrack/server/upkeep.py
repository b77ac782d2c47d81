"""What a worker does without being asked: expired keys, old events, deadlines, the date.

Work on the store is done in small steps with pauses of their own length between them, so that
requests are never held up: a step of the engine ends by the clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import StoreAway
from keyrack.server.liveness import INTERVAL
from keyrack.shared.counters import EXPIRED, duration_word, observe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Engine
    from keyrack.http.worker_context import OpenConnection, WorkerContext

_CONNECTIONS_A_STEP: Final = 500
_LATE: Final = duration_word("late")
_LATELY_SECONDS: Final = 2.5
"""Connections that were used since are looked at, because their traffic is counted then."""
_IDLE: Final = 0.05
"""Seconds between two looks for expired keys when there are none."""
_AWAY: Final = 1.0
"""Seconds until a store that could not be reached is tried again."""
_MOST: Final = 1000
"""Keys, or groups of events, that a step removes at most; the engine's clock ends it before."""

_log = logging.getLogger("keyrack.upkeep")


class Upkeep:
    """A worker's timers. `phase` (0 to 1) spreads the workers over the interval.

    `ticks` are called every half second. `idle` is how many seconds lie between two looks for
    expired keys when there are none.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        worker: WorkerContext,
        engine: Engine,
        phase: float = 0.0,
        ticks: Sequence[Callable[[], None]] = (),
        idle: float = _IDLE,
    ) -> None:
        self._loop = loop
        self._tick = worker.tick
        self._engine = engine
        # Each look at a store that is elsewhere is work for its server: no more often than must be.
        self._idle = idle
        self._shortest = 0.001 if engine.get_now is not None else _IDLE
        self._connections = worker.connections
        self._phase = phase
        self._looks = ticks
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer is to ring, in seconds of the monotonic clock."""
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._set_timer()
        self._sweeper = self._loop.create_task(self._sweep())

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _set_timer(self) -> None:
        self._timer = self._loop.call_later(INTERVAL, self._look)
        self._due = time.monotonic() + INTERVAL

    def _look(self) -> None:
        late = max(0.0, time.monotonic() - self._due)
        observe(self._tick.counters, _LATE, round(late * 1e9))
        self._set_timer()
        self._tick.refresh()
        now = self._tick.now
        lately = now - _LATELY_SECONDS
        self._check_deadlines(
            [one for one in self._connections if one.next_look <= now or one.used >= lately]
        )
        for tick in self._looks:
            tick()

    def _check_deadlines(self, connections: list[OpenConnection]) -> None:
        """Look at some of the connections, and at the rest when others have been served."""
        now = self._tick.now
        for connection in connections[-_CONNECTIONS_A_STEP:]:
            if connection in self._connections:
                connection.check_deadlines(now)
        del connections[-_CONNECTIONS_A_STEP:]
        if connections:
            self._loop.call_soon(self._check_deadlines, connections)

    async def _sweep(self) -> None:
        pause = self._idle * self._phase
        while True:
            await asyncio.sleep(pause)
            try:
                pause = await self._step()
            except StoreAway:
                # Whoever asks for something is told so.
                pause = _AWAY
            except Exception:
                _log.exception("the store's upkeep failed; it is tried again")
                pause = _AWAY

    async def _step(self) -> float:
        """Do one step and return how many seconds to wait for the next."""
        began = time.monotonic_ns()
        sweep = await self._engine.expire(_MOST)
        trimmed = await self._engine.trim(_MOST)
        evicted = await self._engine.evict()
        took = time.monotonic_ns() - began
        if sweep.expired:
            self._count_expired(sweep.expired)
        if evicted:
            self._tick.committed()
        if not sweep.expired and not trimmed and not evicted:
            return self._until(sweep.next_due)
        return max(took / 1e9, 0.001)

    def _count_expired(self, number: int) -> None:
        self._tick.counters[EXPIRED] += number
        self._tick.committed()

    def _until(self, due: int | None) -> float:
        if due is None:
            return self._idle
        return min(self._idle, max(self._shortest, (due - self._engine.now()) / 1000))
