"""Engines that answer late, in the place of the embedded one: for trying how HTTP serves such.

    python -m keyrack_server.stand_ins writes|remote serve [FLAGS]

`writes` acknowledges writes some milliseconds after they were done, `remote` answers everything as
late as that, and asks of each kind of thing overtake one another. What is asked for and what comes
back is the embedded engine's, so a test that fails here and not there is about serving.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from keyrack.cli import run
from keyrack.server import serving, worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Capabilities, Engine
    from keyrack.http.turn import Concluding
    from keyrack.server.serving import Serving

_LATEST = 0.004
_chance = random.Random(7)


def late_writes(engine: Engine) -> Serving:
    """Serve an engine whose writes are concluded late."""
    at_once = serving.direct(engine)

    def perform(writes: list[Any], done: Concluding) -> None:
        def later(outcomes: Any) -> None:
            asyncio.get_running_loop().call_later(_chance.uniform(0, _LATEST), done, outcomes)

        at_once.perform(writes, later)

    return serving.acknowledged_later(engine, perform)


@dataclasses.dataclass
class Remote:
    """An engine that answers everything late."""

    engine: Engine
    capabilities: Capabilities

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.engine, name)
        return (
            method if name == "now" else functools.wraps(method)(functools.partial(_late, method))
        )


def _late(method: Callable[..., Any], *about: Any) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def come() -> None:
        if not answer.done():
            answer.set_result(result)

    # Done now and told later, as by a server that is quick and far away.
    result = method(*about)
    loop.call_later(_chance.uniform(0, _LATEST), come)
    return answer


def remote(engine: Engine) -> Serving:
    """Serve an engine as if it were elsewhere."""
    capabilities = msgspec.structs.replace(engine.capabilities, waits=True)
    return serving.remote(Remote(engine, capabilities))  # type: ignore[arg-type]  # by __getattr__


STAND_INS = {"writes": late_writes, "remote": remote}

if __name__ == "__main__":
    worker.direct = STAND_INS[sys.argv.pop(1)]  # type: ignore[attr-defined]  # in its place
    sys.exit(run(sys.argv[1:]))
