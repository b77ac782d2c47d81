"""Upkeep of a store that is elsewhere: the same work, asked for instead of done."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast

from keyrack.engines.contract import StoreAway
from keyrack.server.upkeep import Upkeep

if TYPE_CHECKING:
    import asyncio

    from keyrack.engines.contract import WaitingEngine

_IDLE: Final = 0.05
_AWAY: Final = 1.0
_MOST: Final = 256

_log = logging.getLogger("keyrack.upkeep")


class RemoteUpkeep(Upkeep):
    """A worker's timers, with a store that is a `WaitingEngine`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *others: Any, **named: Any) -> None:
        super().__init__(loop, *others, **named)
        self._work: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """End."""
        super().stop()
        if self._work is not None:
            self._work.cancel()

    def _sweep(self) -> None:
        self._work = self._loop.create_task(self._sweep_there())

    async def _sweep_there(self) -> None:
        pause = _AWAY
        try:
            pause = await self._step_there()
        except StoreAway:
            pass  # requests say so already, each to its client
        except Exception:
            _log.exception("the store's upkeep failed; it is tried again")
        self._timers["sweep"] = self._loop.call_later(pause, self._sweep)

    async def _step_there(self) -> float:
        """Do one step and return how many seconds to wait for the next."""
        store = cast("WaitingEngine", self._engine)
        sweep = await store.expire(_MOST)
        trimmed = await store.trim(_MOST)
        if sweep.expired:
            self._count_expired(sweep.expired)
        return 0.001 if sweep.expired or trimmed else _IDLE
