"""One worker process: an event loop, the store as it has it open, and uvicorn's server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING, Final

import uvicorn

from keyrack import __version__
from keyrack.engines.contract import SHORT_WAIT_NS
from keyrack.http.access_control import AccessControl
from keyrack.http.api.routes import ROUTES
from keyrack.http.app import Application
from keyrack.http.audit import AuditTrail
from keyrack.http.client_memory import ClientMemory
from keyrack.http.fence_keeper import FenceKeeper
from keyrack.http.inquirer import Inquirer
from keyrack.http.key_locks import KeyLocks
from keyrack.http.observer import ServiceObserver
from keyrack.http.protocol.connection import Connection
from keyrack.http.protocol.cors import Cors
from keyrack.http.protocol.guard import Guard
from keyrack.http.reply import Context, Limits
from keyrack.http.slow_log import SlowLog
from keyrack.http.snapshots import Snapshots
from keyrack.http.spans import SpanRecorder
from keyrack.http.tick import NEVER, Tick
from keyrack.http.watch.hub import WatchHub
from keyrack.http.worker_context import ServerConfig, Timeouts, WorkerContext
from keyrack.server import audit_log, logs
from keyrack.server.access_log import log_access
from keyrack.server.collector import Collector
from keyrack.server.connection_limit import ConnectionLimit, most_connections
from keyrack.server.full_store import FullStore
from keyrack.server.listeners import accept_waiting, on_loopback_only
from keyrack.server.liveness import Heartbeat
from keyrack.server.otlp import Traces
from keyrack.server.tls import WorkerTls
from keyrack.server.upkeep import Upkeep
from keyrack.server.wall_clock import WallClock
from keyrack.shared.counters import (
    LOG_DROPPED,
    STARTS,
    WAITING,
    WATCH_RESETS,
    WATCHERS,
    bucket,
    duration_word,
    observe,
)
from keyrack.system import file_limit, memory_limit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from keyrack.engines.contract import Engine
    from keyrack.http.layer import Layer
    from keyrack.server.worker_spec import WorkerSpec
    from keyrack.settings import Settings
    from keyrack.shared.counters import Counters

_OTHER_SERVICE_SECONDS: Final = 0.02
_GRACE_SECONDS: Final = 0.5
_GRACE_SECONDS_TLS: Final = 5.0
"""How long a connection that was just accepted may need until it is there, handshake included."""
_DRAINED_SECONDS: Final = 0.2
"""How long a client that has connected at the very end of a drain may need to send its request."""
_CLIENT_SHARE: Final = 8
_LEAST_CLIENT_MEMORY: Final = 16 << 20
_MOST_CLIENT_MEMORY: Final = 512 << 20
_DESERTED_SECONDS: Final = 0.1

_log = logging.getLogger("keyrack")


def run(spec: WorkerSpec) -> None:
    """Serve until told to end, or until the supervisor is gone."""

    async def serve(engine: Engine) -> None:
        await Worker(spec, engine, asyncio.get_running_loop()).run()

    spec.store.serve(serve)


class Worker:
    """One worker, inside its event loop: all that its connections share, and who drives it."""

    def __init__(self, spec: WorkerSpec, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        settings, slot, counters = spec.settings, spec.slot, spec.counters
        self._spec = spec
        self._engine = engine
        self._loop = loop
        self._counters = counters
        self._guard = _guard(spec)
        self._slow_log = _slow_log(spec)
        self._tick = Tick(
            loop,
            engine,
            counters.slot(slot),
            self._committed,
            self._guard.cors.common,
            self._slow_log,
        )
        self._hub = WatchHub(loop, engine, self._interested)
        self._heartbeat = Heartbeat(counters, slot, settings.worker_timeout)
        self._limit = _connection_limit(spec)
        self._client_memory = ClientMemory(counters, slot, _most_client_memory(spec))
        self._traces = _traces(settings)
        self._inquirer = Inquirer(loop, counters, slot)
        self._observer = ServiceObserver(self._inquirer, self._slow_log, slot)
        self._access = AccessControl(spec.access, slot, counters, engine, self._tick)
        self._context = self._make_context()
        self._tls = None
        if spec.certificates is not None:
            self._tls = WorkerTls(spec.certificates, counters)
        layers = _layers(settings, self._context)
        application = Application(self._context, counters, _snapshots(spec), layers)
        config = _config(settings, self._context, application, self._tls)
        self._server = _Server(config, spec.listeners, self._ready)
        self._upkeep = self._make_upkeep()
        self._other_service = OtherService(loop, counters, self._hub)
        self._measure()

    def _make_upkeep(self) -> Upkeep:
        slot = self._spec.slot
        collector = Collector(self._context.connections)
        collector.begin()
        chores = (
            self._heartbeat.beat,
            self._limit.tell,
            *self._watch_over_the_store(),
            self._server.look_after_listeners,
            logs.Drops(self._count_log_dropped).look,
            self._look_after_held,
            self._publish,
            *(() if self._traces is None else (self._traces.look,)),
            self._access.tick,
            self._fences.tick,
            *self._look_after_the_audit_log(),
            collector.look,
        )
        share = slot / self._counters.workers
        return Upkeep(self._loop, self._context, self._engine, share, chores)

    def _measure(self) -> None:
        """Have the engine tell for how long one waits for its locks and its disk."""
        words = self._counters.slot(self._spec.slot)
        lock, sync = duration_word("lock_wait"), duration_word("sync")
        slow_log = self._slow_log

        def lock_waited(nanoseconds: int) -> None:
            observe(words, lock, nanoseconds)
            slow_log.lock_waited(nanoseconds)

        def synced(nanoseconds: int) -> None:
            observe(words, sync, nanoseconds)
            slow_log.synced(nanoseconds)

        self._engine.measures.lock_waited = lock_waited
        self._engine.measures.synced = synced

    def _make_context(self) -> WorkerContext:
        settings = self._spec.settings
        limits = Limits(
            settings.max_value,
            settings.max_body,
            settings.max_wait,
            settings.idempotency_ttl,
            round(settings.undo_default),
        )
        context = Context(
            self._engine,
            limits,
            self._tick,
            self._hub,
            KeyLocks(),
            lambda: self._heartbeat.trouble,
            self._access,
            self._observer,
            FenceKeeper(
                self._spec.slot, self._counters, self._engine, self._tick, self._spec.access
            ),
        )
        timeouts = Timeouts(
            keep_alive=settings.keep_alive,
            head=settings.head_timeout,
            body=settings.body_timeout,
            send=settings.send_timeout,
        )
        return WorkerContext(
            self._loop,
            self._tick,
            self._guard,
            context,
            timeouts,
            self._client_memory,
            log_access if settings.access_log else None,
            self._limit.turns_away,
            self._access.gate,
            _audit(spec=self._spec),
            None if self._traces is None else self._traces.recorder,
        )

    @property
    def _fences(self) -> FenceKeeper:
        fences = self._context.context.fences
        assert fences is not None, "a worker knows which there are"
        return fences

    def _watch_over_the_store(self) -> tuple[Callable[[], None], ...]:
        """One worker does it for all of them."""
        if self._spec.slot != 0:
            return ()
        return (
            FullStore(self._engine, self._counters, self._spec.store.memory).look,
            WallClock(self._tick.counters).look,
        )

    def _look_after_the_audit_log(self) -> tuple[Callable[[], None], ...]:
        board, path = self._spec.access, self._spec.settings.audit_log
        if board is None or path is None:
            return ()
        return (audit_log.begin(path, partial(board.count_audit_dropped, self._spec.slot)),)

    async def run(self) -> None:
        """Serve until the server is told to end."""
        slot, counters = self._spec.slot, self._counters
        counters.slot(slot)[STARTS] += 1
        self._loop.add_reader(counters.wakeups[slot], self._woken)
        self._loop.add_reader(self._spec.lifeline, self._orphaned)
        await self._access.begin(self._context)
        await self._fences.begin()
        self._observer.begin(self._context)
        self._upkeep.start()
        self._other_service.look()
        try:
            await self._server.serve(self._spec.listeners)
        finally:
            counters.clear_ready(slot)
            self._upkeep.stop()
            if self._traces is not None:
                self._traces.close()

    def _ready(self) -> None:
        self._counters.set_ready(self._spec.slot)

    def _interested(self, some: bool) -> None:
        """Tell the other workers, and an engine elsewhere, whether anybody waits here."""
        self._counters.set_interested(self._spec.slot, some)
        self._engine.listen(some, self._hub.wake)

    def _committed(self) -> None:
        self._counters.wake_others(self._spec.slot)
        self._hub.wake()

    def _woken(self) -> None:
        """Another worker has committed something, or the supervisor has changed a word."""
        self._counters.woken(self._spec.slot)
        self._access.follow()
        self._fences.follow()
        self._inquirer.look()
        self._hub.wake()
        self._other_service.look()
        if self._tls is not None:
            self._tls.look()
        if self._counters.leaving:
            self._server.leave()
        elif self._counters.draining:
            self._server.drain()

    def _count_log_dropped(self, lines: int) -> None:
        self._counters.slot(self._spec.slot)[LOG_DROPPED] += lines

    def _publish(self) -> None:
        """Say how many clients wait for something to happen, and how many commits did not."""
        slot = self._counters.slot(self._spec.slot)
        slot[WATCHERS] = self._hub.watchers
        slot[WAITING] = self._hub.waiting
        measures = self._engine.measures
        slot[duration_word("lock_wait") + bucket(SHORT_WAIT_NS - 1)] += measures.short_waits
        measures.short_waits = 0
        slot[WATCH_RESETS] += self._hub.resets
        self._hub.resets = 0

    def _look_after_held(self) -> None:
        self._client_memory.relieve(self._context.connections)
        self._client_memory.give_back()

    def _orphaned(self) -> None:
        self._loop.remove_reader(self._spec.lifeline)
        _log.warning("the supervisor is gone; this worker ends")
        self._server.should_exit = True


def _guard(spec: WorkerSpec) -> Guard:
    settings = spec.settings
    # Where every client can know the names, a browser need not be recognised by its marks.
    demands_host = bool(settings.allowed_hosts) or on_loopback_only(spec.listeners)
    names = (*settings.allowed_hosts, settings.host)
    return Guard(names, demands_host=demands_host, cors=Cors(settings.cors_origins))


def _layers(settings: Settings, worker: WorkerContext) -> list[Layer]:
    """Return the APIs of others that are wanted; most services do without."""
    layers: list[Layer] = []
    if "upstash" in settings.compat:
        from keyrack.compat.upstash import Upstash

        layers.append(Upstash(worker))
    return layers


def _slow_log(spec: WorkerSpec) -> SlowLog:
    settings = spec.settings
    longest, largest = round(settings.slow * 1e9) or NEVER, settings.slow_bytes or NEVER
    return SlowLog(spec.counters, spec.slot, longest, largest, _paths())


def _snapshots(spec: WorkerSpec) -> Snapshots | None:
    data = spec.store.data
    if data is None:
        return None
    return Snapshots(data, spec.counters, spec.settings.snapshot_interval)


def _paths() -> dict[str, str]:
    """Return the path of each operation, by its name."""
    return {route.name: route.path for route in ROUTES.values()}


def _traces(settings: Settings) -> Traces | None:
    if settings.traces is None:
        return None
    recorder = SpanRecorder(settings.trace_share, _paths(), settings.trace_keys)
    return Traces(settings.traces, recorder, __version__)


def _audit(spec: WorkerSpec) -> AuditTrail | None:
    level = spec.settings.audit
    return None if spec.access is None or level == "none" else AuditTrail(level)


def _connection_limit(spec: WorkerSpec) -> ConnectionLimit:
    most_here = most_connections(file_limit(), spec.counters.workers, len(spec.listeners))
    return ConnectionLimit(spec.counters, spec.slot, spec.settings.max_connections, most_here)


def _most_client_memory(spec: WorkerSpec) -> int:
    """Return what the service may hold for its clients, beside the store (bytes)."""
    if spec.settings.client_memory is not None:
        return spec.settings.client_memory
    rest = memory_limit() - (spec.store.memory or 0)
    return min(max(rest // _CLIENT_SHARE, _LEAST_CLIENT_MEMORY), _MOST_CLIENT_MEMORY)


def _config(
    settings: Settings, worker: WorkerContext, application: Application, tls: WorkerTls | None
) -> ServerConfig:
    return ServerConfig(
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
        backlog=2048,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
        ssl_context_factory=None if tls is None else lambda config, default: tls.context,
    )


class OtherService:
    """The workers of another service that has the store as well, while one takes over.

    What they commit wakes nobody here, so whoever waits is told by looking now and then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters, hub: WatchHub) -> None:
        self._loop = loop
        self._counters = counters
        self._hub = hub
        self._looks = False

    def look(self) -> None:
        """Look, and go on with it as long as there are any. Call when that may have changed."""
        if not self._looks:
            self._look()

    def _look(self) -> None:
        self._looks = self._counters.shared
        if self._looks:
            self._hub.wake()
            self._loop.call_later(_OTHER_SERVICE_SECONDS, self._look)


class _Server(uvicorn.Server):
    """uvicorn's server, with signals as Keyrack promises them. `ready` is called once it serves."""

    def __init__(
        self, config: ServerConfig, listeners: list[socket.socket], ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._own_config = config
        self._context = config.worker
        self._listeners = listeners
        self._ready = ready
        self.server_state.connections = config.worker.connections  # type: ignore[assignment]  # it calls shutdown() of each

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM through the loop; a repeated one means no more than the first.

        A signal to the whole process group arrives twice, once by way of the supervisor, and it is
        the supervisor that ends impatiently. uvicorn raises captured signals again at the end,
        which would make a graceful end look like a killed process.
        """
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        yield

    def _end(self) -> None:
        self.should_exit = True

    def drain(self) -> None:
        """The service is about to end: serve on, and have each answer close its connection.

        Clients find their way to where they are served longer. Nothing idle is closed: its client
        may just be about to send something.
        """
        if not self._context.leaving:
            self._context.leaving = True
            for connection in list(self._context.connections):
                connection.announce_end()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more and end; after a drain, first hear those who have just connected.

        While a service drains each answer closes its connection, so that busy clients connect anew
        all the time. Who is about to send as its connection is closed is left in doubt.
        """
        await self._close_listeners()
        if self._context.leaving and not self._context.ends_streams:
            await asyncio.sleep(_DRAINED_SECONDS)
        await super().shutdown(sockets)

    async def _close_listeners(self) -> None:
        """Close them, and serve those who wait in their queues: closing alone would reset these."""
        loop, config = self._context.loop, self.config
        waiting = [client for one in self._listeners for client in accept_waiting(one)]
        for server in self.servers:
            server.close()
        for client in waiting:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._connection, client, ssl=config.ssl)

    def _connection(self) -> Connection:
        return Connection(self._own_config, self.server_state, self.lifespan.state)

    def leave(self) -> None:
        """Another service has taken over: accept nothing more, and end when nobody is left."""
        if self._context.ends_streams:
            return
        self._context.leaving = self._context.ends_streams = True
        for server in self.servers:
            server.close()
        for connection in list(self._context.connections):
            connection.leave()
        grace = _GRACE_SECONDS_TLS if self.config.is_ssl else _GRACE_SECONDS
        self._context.loop.call_later(grace, self._end_when_deserted)

    def _end_when_deserted(self) -> None:
        if self._context.connections:
            self._context.loop.call_later(_DESERTED_SECONDS, self._end_when_deserted)
        else:
            self.should_exit = True

    def look_after_listeners(self) -> None:
        """End when a socket is no longer listened on: the next worker will listen again.

        uvloop closes a listening socket without a word when accepting fails in an unusual way.
        """
        if self.should_exit or self._context.ends_streams or not self.started:
            return
        if any(listener.fileno() < 0 for listener in self._listeners):
            _log.error("this worker can no longer accept connections; it ends and is replaced")
            self.should_exit = True
