"""Engines that answer late, in the place of the embedded one: for trying how HTTP serves such.

    python -m keyrack_server.stand_ins writes|remote serve [FLAGS]

`writes` acknowledges writes some milliseconds after they were done, `remote` answers everything as
late as that, and asks of each kind of thing overtake one another. What is asked for and what comes
back is the embedded engine's, so a test that fails here and not there is about serving.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import random
import sys
from typing import TYPE_CHECKING, Any

from keyrack.cli import run
from keyrack.server import durability

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Outcome, Write
    from keyrack.engines.embedded import EmbeddedEngine

_LATEST = 0.004
_chance = random.Random(7)


async def _pause() -> None:
    await asyncio.sleep(_chance.uniform(0, _LATEST))


def late_writes(engine: EmbeddedEngine) -> EmbeddedEngine:
    """Return an engine whose writes are done now and told later."""

    async def apply(writes: Sequence[Write]) -> Sequence[Outcome]:
        outcomes = engine.apply(writes)
        await _pause()
        return outcomes

    engine.answer_writes_by(apply)
    return engine


@dataclasses.dataclass
class Remote:
    """An engine that does everything now and tells it later, as a server that is far away."""

    engine: EmbeddedEngine
    get_now: None = None
    write_now: None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.engine, name)
        return _late(method) if inspect.iscoroutinefunction(method) else method


def _late(method: Callable[..., Any]) -> Callable[..., Any]:
    async def ask(*about: Any, **more: Any) -> Any:
        answer = await method(*about, **more)
        await _pause()
        return answer

    return ask


def remote(engine: EmbeddedEngine) -> Remote:
    """Return an engine that answers as if it were elsewhere."""
    engine.answer_writes_by(_applied(engine))
    return Remote(engine)


def _applied(engine: EmbeddedEngine) -> Callable[..., Any]:
    async def apply(writes: Sequence[Write]) -> Sequence[Outcome]:
        return engine.apply(writes)

    return apply


STAND_INS: dict[str, Callable[[EmbeddedEngine], Any]] = {"writes": late_writes, "remote": remote}

if __name__ == "__main__":
    stand_in = STAND_INS[sys.argv.pop(1)]
    # In the place of what a worker opens.
    opened = durability.open_store
    durability.open_store = lambda *about: stand_in(opened(*about))
    sys.exit(run(sys.argv[1:]))
