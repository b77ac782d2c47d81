"""A store that is full says so in the log: once, and then once a minute while it goes on."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from keyrack.http import eager
from keyrack.http.api.counting import OPERATIONS, request_word
from keyrack.shared.units import shown_size

if TYPE_CHECKING:
    from keyrack.engines.contract import Engine, Usage
    from keyrack.shared.counters import Counters

_PAUSE: Final = 60.0
_ROOM: Final = 10
"""Where a tenth of the store is left, it is not for want of room that writes are refused."""
_REFUSED: Final = tuple(request_word(operation, 507) for operation in OPERATIONS)

_log = logging.getLogger("keyrack.store")


class FullStore:
    """What one worker, for all of them, tells of writes that were refused and keys that went.

    `memory` is the store's limit in bytes, None where it is not for this service to set.
    """

    def __init__(self, engine: Engine, counters: Counters, memory: int | None) -> None:
        self._engine = engine
        self._counters = counters
        self._limit = "" if memory is None else f" ({shown_size(memory)})"
        self._advice = _advice(engine, memory)
        self._refused = self._refusals()
        self._evicted: int | None = None
        self._silent_until = 0.0
        self.look()  # what was evicted before is no news

    def look(self) -> None:
        """Tell what has happened since the last line. Call it regularly."""
        if time.monotonic() < self._silent_until:
            return
        refused = self._refusals() - self._refused
        if refused:
            self._refused += refused
            self._silence()
            if self._engine.capabilities.quotas:
                eager.run(self._engine.usage(), partial(self._tell_why, refused))
            else:
                self._tell(refused)
        elif self._engine.capabilities.eviction:
            eager.run(self._engine.usage(), self._look_at)

    def _tell_why(self, refused: int, usage: Usage) -> None:
        room = usage.free - usage.kept_free
        if not usage.quotas or room < usage.limit // _ROOM:
            self._tell(refused)
            return
        _log.warning(
            "%d requests were refused with 507: a quota is used up (GET /v1/quotas shows all), or "
            "one wanted more than the %s that are left",
            refused,
            shown_size(room),
            extra={"event": "quota_full", "refused": refused},
        )

    def _tell(self, refused: int) -> None:
        _log.warning(
            "the store is full%s: %d requests were refused with 507. %s",
            self._limit,
            refused,
            self._advice,
            extra={"event": "store_full", "refused": refused},
        )

    def _look_at(self, usage: Usage) -> None:
        evicted = usage.evicted - (usage.evicted if self._evicted is None else self._evicted)
        self._evicted = usage.evicted
        if evicted:
            self._silence()
            _log.info(
                "the store is full%s: %d keys that were not used lately were evicted",
                self._limit,
                evicted,
                extra={"event": "store_evicts", "evicted": evicted},
            )

    def _refusals(self) -> int:
        return sum(map(self._counters.total, _REFUSED))

    def _silence(self) -> None:
        self._silent_until = time.monotonic() + _PAUSE


def _advice(engine: Engine, memory: int | None) -> str:
    if memory is None:
        return "Give Valkey more memory, or delete keys"
    if engine.capabilities.eviction:
        return "Raise --memory: what is not evicted, locks and answers, takes too much"
    return "Raise --memory, delete keys, or have some evicted with --when-full evict"
