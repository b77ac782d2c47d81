"""Worlds of the conformance suite on Valkey: the waiting engine behind a synchronous face."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import uvloop
from engine_support.world import EVENTS_KEPT, SteadyClock

from keyrack.engines.valkey.address import parse
from keyrack.engines.valkey.engine import ValkeyEngine
from keyrack.engines.valkey.servers import Login
from valkey_support.servers import alone, cluster, watched, wipe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from keyrack.engines.contract import Event, Outcome, Page, Record, Sweep, Usage, Write

T = TypeVar("T")
TIMEOUT = 5.0


class Synchronous:
    """A waiting engine with the methods of `Engine`: the loop runs while an answer is awaited."""

    def __init__(self, engine: ValkeyEngine) -> None:
        self._loop = uvloop.new_event_loop()
        self.waiting = engine
        self.capabilities = engine.capabilities
        self.run(engine.open())

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run the loop until an answer is there."""

        async def answer() -> T:
            return await awaitable

        return self._loop.run_until_complete(answer())

    def call(self, method: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Call a method inside the loop, and run it until the answer is there."""

        async def answer() -> T:
            return await method(*arguments)

        return self._loop.run_until_complete(answer())

    def now(self) -> int:
        """See `Engine`; so with all methods here."""
        return self.waiting.now()

    def get(self, key: bytes) -> Record | None:
        return self.call(self.waiting.get, key)

    def lock_of(self, name: bytes) -> Record | None:
        return self.call(self.waiting.lock_of, name)

    def scan(
        self,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit: int = 100,
        reverse: bool = False,
        delimiter: bytes = b"",
    ) -> Page:
        return self.call(self.waiting.scan, prefix, after, limit, reverse, delimiter)

    def count(self, prefix: bytes, after: bytes | None, steps: int) -> tuple[int, bytes | None]:
        return self.call(self.waiting.count, prefix, after, steps)

    def write(self, writes: Sequence[Write]) -> list[Outcome]:
        return self.call(self.waiting.write, writes)

    def expire(self, limit: int) -> Sweep:
        return self.call(self.waiting.expire, limit)

    def trim(self, limit: int) -> int:
        return self.call(self.waiting.trim, limit)

    def events_after(self, revision: int, limit: int) -> list[Event]:
        return self.call(self.waiting.events_after, revision, limit)

    def events(self, after: int = 0) -> Iterator[Event]:
        while found := self.events_after(after, 1):
            yield from found
            after = found[-1].revision

    def events_of(
        self, key: bytes, before: int | None, limit: int
    ) -> tuple[list[Event], int | None]:
        return self.call(self.waiting.events_of, key, before, limit)

    def history(self) -> tuple[int, int]:
        return self.call(self.waiting.history)

    def usage(self) -> Usage:
        """See `Engine`; the server's memory also moves with its connections, so without it."""
        usage = self.call(self.waiting.usage)
        assert usage.limit >= usage.used > 0
        return msgspec.structs.replace(usage, limit=0, used=0, free=0, reserved=0)

    def check(self) -> list[str]:
        return self.call(self.waiting.check)

    def close(self) -> None:
        self.call(self.waiting.close)
        self._loop.close()


class ValkeyWorld:
    """A store in Valkey that has the servers for itself, its clock in the test's hand."""

    servers: Any = staticmethod(alone)
    more = ""

    def __init__(self, _: Path, events: int = EVENTS_KEPT) -> None:
        self._servers = self.servers()
        self._events = events
        self.clock = SteadyClock()
        self._offset = time.time_ns() - self.clock.ns
        wipe(self._servers.primaries())
        self.engine = self._open()

    def _now(self) -> int:
        return (self.clock.ns + self._offset) // 1_000_000

    def _open(self) -> Synchronous:
        address = parse(self._servers.url + self.more)
        engine = ValkeyEngine(
            address,
            Login("", "", None, TIMEOUT),
            self._events,
            clock=self._now,
            wall=lambda: time.time_ns() // 1000,
        )
        engine._me = b"the only one"
        return Synchronous(engine)

    def restart(self) -> None:
        """Close the engine and open the same store again, as the next service does."""
        self.engine.close()
        self.engine = self._open()

    def lose(self) -> None:
        """Lose the store, and begin an empty one."""
        self.engine.close()
        wipe(self._servers.primaries())
        self.engine = self._open()

    def close(self) -> None:
        """End."""
        self.engine.close()
        wipe(self._servers.primaries())


class SentinelWorld(ValkeyWorld):
    """A store on a server that Sentinel names."""

    servers = staticmethod(watched)


class OneShardWorld(ValkeyWorld):
    """A store that is one shard of a cluster."""

    servers = staticmethod(cluster)
    more = "/?shards=1"


class ClusterWorld(ValkeyWorld):
    """A store on all shards of a cluster."""

    servers = staticmethod(cluster)
