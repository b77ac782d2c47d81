"""A worker's parts in this process: an engine, its turn, and its hub, without sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine_support.driven import Driven

from keyrack.engines.embedded import EmbeddedEngine
from keyrack.http.api.counting import REQUEST_WORDS
from keyrack.http.eager import at_once
from keyrack.http.key_locks import KeyLocks
from keyrack.http.reply import Context, Limits
from keyrack.http.tick import Tick
from keyrack.http.watch.hub import WatchHub
from keyrack.shared.counters import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

_MIB = 1 << 20


class SteadyClock:
    """A steady clock (ns) that stands still until it is moved, or moves with every reading."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000_000
        self.reading_ns = 0

    def __call__(self) -> int:
        self.ns += self.reading_ns
        return self.ns

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.ns += round(seconds * 1e9)


class Inside:
    """What an operation may use, with an event loop of its own and a clock that is moved."""

    def __init__(self, directory: Path, events: int = 100_000) -> None:
        directory.mkdir()
        self.clock = SteadyClock()
        awaited = EmbeddedEngine(str(directory), 64 * _MIB, events, self.clock)
        self.engine = Driven(awaited, at_once)
        self.loop = asyncio.new_event_loop()
        self.interested: list[bool] = []
        self.hub = WatchHub(self.loop, awaited, self.interested.append)
        counters = memoryview(bytearray(8 * (REQUESTS + REQUEST_WORDS.number))).cast("q")
        self.tick = Tick(self.loop, awaited, counters, self.hub.wake)
        self.limits = Limits(_MIB, 8 * _MIB)
        self.context = Context(awaited, self.limits, self.tick, self.hub, KeyLocks())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run the loop until some work is done."""
        return self.loop.run_until_complete(work)

    def spin(self, seconds: float = 0.0) -> None:
        """Let the loop run for a while."""
        self.run(asyncio.sleep(seconds))

    def settle(self) -> None:
        """Run the loop until all are up to date, however slow the machine is just now."""
        self.pass_round()
        self.until(lambda: not self.hub._unsynced)

    def pass_round(self) -> None:
        """Run the loop until those who keep up, or could, are up to date."""
        hub = self.hub
        self.until(
            lambda: not (hub._telling or hub._news.is_set() or hub._synced.waits or hub._ready)
        )

    def until(self, holds: Callable[[], bool]) -> None:
        """Run the loop until something holds, for some seconds at most."""
        for _ in range(2000):
            self.spin(0.002)
            if holds():
                return
        raise AssertionError("it never came to hold")

    def close(self) -> None:
        """End, with the engine's audit of itself."""
        self.spin()  # lets tasks end that were cancelled
        problems = self.engine.check()
        self.engine.close()
        self.loop.close()
        assert problems == []
