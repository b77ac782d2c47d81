"""The thread of a store of one's own: an event loop for what waits, and for what has to be done.

It removes keys whose time is over and events that are too many, and serves what waits or goes on
for long (watches, locks that are waited for, exports) over pairs of connected sockets that never
leave the process. Nothing is listened on.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvloop
from uvicorn.server import ServerState

from keyrack.http import eager
from keyrack.http.app import Application
from keyrack.http.client_memory import ClientMemory
from keyrack.http.fence_keeper import FenceKeeper
from keyrack.http.key_locks import KeyLocks
from keyrack.http.protocol.connection import Connection
from keyrack.http.protocol.guard import Guard
from keyrack.http.reply import Context, Limits
from keyrack.http.snapshots import Snapshots
from keyrack.http.tick import Tick
from keyrack.http.watch.hub import WatchHub
from keyrack.http.worker_context import ServerConfig, Timeouts, WorkerContext
from keyrack.server.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.inprocess.engine import ThreadedEngine
    from keyrack.settings import Settings
    from keyrack.shared.counters import Counters

_CLIENT_MEMORY_BYTES: Final = 64 << 20
"""What may be held for streams that are not read as fast as they are written."""
_IDLE_SECONDS: Final = 0.2
"""Between two looks for keys that have ended: a program at rest should cost next to nothing."""
_LEAVE_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.001


class StoreLoop:
    """Serves one store from a thread of its own. `looks` are called every half second there."""

    def __init__(
        self,
        settings: Settings,
        engine: ThreadedEngine,
        counters: Counters,
        data: DataDirectory | None,
        looks: Sequence[Callable[[], None]],
    ) -> None:
        self._engine = engine
        self._counters = counters
        self._looks = looks
        self._loop = uvloop.new_event_loop()
        self._tick = Tick(self._loop, engine, counters.slot(0), self._wake)
        self._hub = WatchHub(self._loop, engine, self._interested)
        self._is_watched = False
        self._is_woken = False
        self._ending = asyncio.Event()
        self._connecting: set[asyncio.Task[Any]] = set()
        limits = Limits(
            settings.max_value,
            settings.max_body,
            settings.max_wait,
            settings.idempotency_ttl,
            round(settings.undo_default),
        )
        self.guard = Guard()
        fences = FenceKeeper(0, counters, engine, self._tick)
        eager.at_once(fences.begin())
        self.context = Context(engine, limits, self._tick, self._hub, KeyLocks(), fences=fences)
        self._worker = self._make_worker(settings)
        snapshots = None if data is None else Snapshots(data, counters)
        application = Application(self._worker, counters, snapshots)
        config = _config(self._worker, application)
        self._protocol = partial(Connection, config, ServerState(), {})
        self._thread = threading.Thread(target=self._run, name="keyrack-store", daemon=True)
        counters.set_ready(0)

    def _make_worker(self, settings: Settings) -> WorkerContext:
        timeouts = Timeouts(
            settings.keep_alive, settings.head_timeout, settings.body_timeout, settings.send_timeout
        )
        memory = ClientMemory(self._counters, 0, _CLIENT_MEMORY_BYTES)
        return WorkerContext(self._loop, self._tick, self.guard, self.context, timeouts, memory)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    # What other threads call

    def wake(self) -> None:
        """Have those told that wait for changes: something was committed."""
        # Who begins to watch says so before it looks where the history ends, so nobody is missed.
        if self._is_watched and not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._wake)

    def connect(self) -> socket.socket:
        """Return one end of a new connection. Raises `RuntimeError` where the loop has ended."""
        mine, other = socket.socketpair()
        try:
            self._loop.call_soon_threadsafe(self._adopt, other)
        except BaseException:
            mine.close()
            other.close()
            raise
        return mine

    def stop(self) -> None:
        """End all connections and the thread."""
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    # The thread

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._look_after())

    async def _look_after(self) -> None:
        upkeep = Upkeep(
            self._loop, self._worker, self._engine, ticks=self._looks, idle=_IDLE_SECONDS
        )
        upkeep.start()
        await self._ending.wait()
        upkeep.stop()
        connections = self._worker.connections
        for connection in list(connections):
            connection.shutdown()
        over = self._loop.time() + _LEAVE_SECONDS
        while connections:
            await asyncio.sleep(_POLL_SECONDS)
            if self._loop.time() > over:
                for connection in list(connections):
                    connection.cut()

    def _adopt(self, sock: socket.socket) -> None:
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, sock))
        # The loop itself holds tasks weakly.
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _interested(self, some: bool) -> None:
        self._is_watched = some

    def _wake(self) -> None:
        self._is_woken = False
        self._hub.wake()


def _config(worker: WorkerContext, application: Application) -> ServerConfig:
    config = ServerConfig(
        worker,
        application,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    config.load()
    return config
