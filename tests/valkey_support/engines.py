"""Waiting engines for tests that are coroutines themselves, in real time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from keyrack.engines.valkey.address import parse
from keyrack.engines.valkey.engine import Options, ValkeyEngine
from keyrack.engines.valkey.servers import Login

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from keyrack.engines.contract import Operation, Outcome, Result

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine on the event loop that Keyrack uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@contextlib.asynccontextmanager
async def opened(url: str, timeout: float = 2.0, **more: Any) -> AsyncIterator[ValkeyEngine]:
    """Have a store open."""
    address = parse(url)
    login = Login(address.user, address.password, None, timeout)
    engine = ValkeyEngine(address, login, Options(**more))
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


async def attempt(engine: ValkeyEngine, *operations: Operation) -> Outcome:
    """Do one write of these operations and return its outcome."""
    (outcome,) = await engine.write([operations])
    return outcome


async def done(engine: ValkeyEngine, *operations: Operation) -> tuple[Result, ...]:
    """Do one write of these operations, which must not be refused, and return the results."""
    outcome = await attempt(engine, *operations)
    assert isinstance(outcome, tuple), outcome
    return outcome


async def value_of(engine: ValkeyEngine, key: bytes) -> bytes | None:
    """Return what is stored under a key, None when it is missing."""
    record = await engine.get(key)
    return None if record is None else record.value


async def changes(engine: ValkeyEngine, after: int = 0) -> list[tuple[str, bytes]]:
    """Return the known changes after a revision, oldest first."""
    found = []
    while events := await engine.events_after(after, 100):
        found += [(event.change.name, event.key) for event in events]
        after = events[-1].revision
    return found
