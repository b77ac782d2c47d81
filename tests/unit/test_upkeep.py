"""A worker's timers: that what they do for many connections holds nobody up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from keyrack.server.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 500


class Connection:
    """A connection that counts how often its deadlines are looked at."""

    def __init__(self, looked: Callable[[], None], next_look: float = 0.0) -> None:
        self.looks = 0
        self.next_look = next_look
        self.used = -10.0
        self._looked = looked

    def check_deadlines(self, now: float) -> None:
        self.looks += 1
        self._looked()


def test_deadlines_of_many_connections_are_looked_at_in_steps() -> None:
    step = [0]
    connections = {Connection(lambda: step.append(step.pop() + 1)) for _ in range(1700)}
    tick = SimpleNamespace(
        refresh=lambda: None, now=1.0, counters=memoryview(bytearray(8192)).cast("q")
    )

    async def most_in_a_step() -> int:
        loop = asyncio.get_running_loop()
        worker: Any = SimpleNamespace(tick=tick, connections=connections)
        engine: Any = SimpleNamespace(get_now=None)
        upkeep = Upkeep(loop, worker, engine)
        upkeep._look()
        most = step[0]
        for _ in range(10):
            step[0] = 0
            await asyncio.sleep(0)
            most = max(most, step[0])
        upkeep.stop()
        return most

    assert asyncio.run(most_in_a_step()) <= MOST
    assert {connection.looks for connection in connections} == {1}


def test_a_connection_that_was_lost_meanwhile_is_passed_over() -> None:
    connections = {Connection(lambda: None) for _ in range(MOST + 1)}
    tick = SimpleNamespace(
        refresh=lambda: None, now=1.0, counters=memoryview(bytearray(8192)).cast("q")
    )

    async def look() -> None:
        worker: Any = SimpleNamespace(tick=tick, connections=connections)
        engine: Any = SimpleNamespace(get_now=None)
        upkeep = Upkeep(asyncio.get_running_loop(), worker, engine)
        upkeep._look()
        left = [connection for connection in connections if not connection.looks]
        assert len(left) == 1
        connections.discard(left[0])
        await asyncio.sleep(0)
        upkeep.stop()
        assert left[0].looks == 0

    asyncio.run(look())


def test_only_those_are_looked_at_that_are_due_or_were_used_lately() -> None:
    due, idle, busy = (Connection(lambda: None, next_look) for next_look in (5.0, 11.0, 11.0))
    busy.used = 8.0
    tick = SimpleNamespace(
        refresh=lambda: None, now=10.0, counters=memoryview(bytearray(8192)).cast("q")
    )

    async def look() -> None:
        worker: Any = SimpleNamespace(tick=tick, connections={due, idle, busy})
        engine: Any = SimpleNamespace(get_now=None)
        upkeep = Upkeep(asyncio.get_running_loop(), worker, engine)
        upkeep._look()
        upkeep.stop()

    asyncio.run(look())
    assert (due.looks, idle.looks, busy.looks) == (1, 0, 1)
