"""Worlds of the conformance suite on Valkey: one engine, driven by a loop of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import uvloop
from engine_support.driven import Driven
from engine_support.world import EVENTS_KEPT, SteadyClock

from keyrack.engines.valkey.address import parse
from keyrack.engines.valkey.engine import Options, ValkeyEngine
from keyrack.engines.valkey.servers import Login
from valkey_support.servers import alone, cluster, watched, wipe

if TYPE_CHECKING:
    from pathlib import Path

    from keyrack.engines.contract import Usage

T = TypeVar("T")
TIMEOUT = 5.0


class OnValkey(Driven):
    """An engine on Valkey, opened in a loop of its own, which runs while an answer is awaited."""

    def __init__(self, engine: ValkeyEngine) -> None:
        loop = uvloop.new_event_loop()
        super().__init__(engine, loop.run_until_complete)
        self.run(engine.open())
        self.__dict__["_loop"] = loop

    def usage(self) -> Usage:
        """Return counts; the server's memory also moves with its connections, so without it."""
        usage: Usage = self.run(self.awaited.usage())
        assert usage.limit >= usage.used > 0
        return msgspec.structs.replace(usage, limit=0, used=0, free=0, reserved=0)

    def close(self) -> None:
        """Let go of the store, and end the loop."""
        self.run(self.awaited.close())
        self.__dict__["_loop"].close()


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

    def _open(self) -> OnValkey:
        address = parse(self._servers.url + self.more)
        engine = ValkeyEngine(
            address,
            Login("", "", None, TIMEOUT),
            Options(self._events, clock=self._now, wall=lambda: time.time_ns() // 1000),
        )
        opened = OnValkey(engine)
        engine.upkeep.me = b"the only one"
        return opened

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
