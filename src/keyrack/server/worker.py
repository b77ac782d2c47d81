"""One worker process: an event loop, the store as it has it open, and uvicorn's server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING, Final, cast

import uvicorn

from keyrack.http.app import Application
from keyrack.http.feed import Feed
from keyrack.http.guard import Guard
from keyrack.http.lane import Lane, Timeouts
from keyrack.http.reply import Context, Limits
from keyrack.http.snapshots import Snapshots
from keyrack.http.turn import Turn
from keyrack.server.connection_limit import ConnectionLimit, most_connections
from keyrack.server.listeners import on_loopback_only
from keyrack.server.liveness import Heartbeat
from keyrack.server.stores import kind_of
from keyrack.shared.counters import STARTS
from keyrack.system import file_limit

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from keyrack.http.connection import Connection
    from keyrack.http.message import Request
    from keyrack.server.serving import Serving
    from keyrack.server.stores import Held
    from keyrack.settings import Settings
    from keyrack.shared.counters import Counters

_OTHER_SERVICE_SECONDS: Final = 0.02
_GRACE_SECONDS: Final = 0.5
_GRACE_SECONDS_TLS: Final = 5.0
"""How long a connection that was just accepted may need until it is there, handshake included."""
_DESERTED_SECONDS: Final = 0.1

_log = logging.getLogger("keyrack")
_access = logging.getLogger("keyrack.access")


def run(
    settings: Settings,
    slot: int,
    listeners: list[socket.socket],
    place: Held,
    counters: Counters,
    lifeline_fd: int,
) -> None:
    """Serve until told to end, or until the supervisor is gone (`lifeline_fd` reads its end)."""

    async def serve(serving: Serving) -> None:
        await _serve(settings, slot, listeners, place, serving, counters, lifeline_fd)

    kind_of(settings).serve(settings, place, serve)


async def _serve(
    settings: Settings,
    slot: int,
    listeners: list[socket.socket],
    place: Held,
    serving: Serving,
    counters: Counters,
    lifeline_fd: int,
) -> None:
    loop = asyncio.get_running_loop()
    count = counters.slot(slot)
    count[STARTS] += 1
    turn = Turn(loop, serving.reads, count, serving.perform)
    engine = serving.store

    def interested(some: bool) -> None:
        counters.set_interested(slot, some)
        serving.listen(some, feed.wake)

    feed = Feed(loop, engine, turn, interested)
    heartbeat = Heartbeat(counters, slot, settings.worker_timeout)
    limit = _connection_limit(settings, slot, counters, len(listeners))
    limits = _limits(settings)
    context = Context(serving.reads, limits, feed, engine, lambda: heartbeat.trouble)
    # Where every client can know the names, a browser need not be recognised by its marks.
    demands_host = bool(settings.allowed_hosts) or on_loopback_only(listeners)
    lane = _lane(settings, loop, turn, context, limit, demands_host)
    snapshots = None if place.kept is None else Snapshots(place.kept.data, counters)
    app = Application(lane, counters, snapshots)
    server = _Server(_config(settings, app, serving.protocol))
    server.lane = lane
    server.listeners = listeners
    ticks = (heartbeat.beat, limit.tell, server.look_after_listeners)
    connections = server.server_state.connections
    upkeep = serving.upkeep(loop, lane, engine, connections, slot / counters.workers, ticks)
    server.when_started = lambda: counters.set_ready(slot)
    other_service = OtherService(loop, counters, feed)

    def orphaned() -> None:
        loop.remove_reader(lifeline_fd)
        _log.warning("the supervisor is gone; this worker ends")
        server.should_exit = True

    def committed() -> None:
        counters.wake_others(slot)
        feed.wake()

    def woken() -> None:
        counters.woken(slot)
        feed.wake()
        other_service.look()

    turn.committed = committed
    loop.add_reader(counters.wakeups[slot], woken)
    loop.add_reader(lifeline_fd, orphaned)
    upkeep.start()
    other_service.look()
    try:
        await server.serve(listeners)
    finally:
        counters.clear_ready(slot)
        upkeep.stop()


def _connection_limit(
    settings: Settings, slot: int, counters: Counters, listeners: int
) -> ConnectionLimit:
    most_here = most_connections(file_limit(), counters.workers, listeners)
    return ConnectionLimit(counters, slot, settings.max_connections, most_here)


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.max_value, settings.max_body, settings.max_wait, settings.idempotency_ttl
    )


def _lane(
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    turn: Turn,
    context: Context,
    limit: ConnectionLimit,
    demands_host: bool,
) -> Lane:
    return Lane(
        loop,
        turn,
        Guard((*settings.allowed_hosts, settings.host), demands_host=demands_host),
        context,
        Timeouts(
            keep_alive=settings.keep_alive,
            head=settings.head_timeout,
            body=settings.body_timeout,
            send=settings.send_timeout,
        ),
        _log_access if settings.access_log else None,
        limit.turns_away,
    )


def _config(settings: Settings, app: Application, protocol: type[Connection]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=2048,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


class OtherService:
    """The workers of another service that has the store as well, while one takes over.

    What they commit wakes nobody here, so whoever waits is told by looking now and then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters, feed: Feed) -> None:
        self._loop = loop
        self._counters = counters
        self._feed = feed
        self._looks = False

    def look(self) -> None:
        """Look, and go on with it as long as there are any. Call when that may have changed."""
        if not self._looks:
            self._look()

    def _look(self) -> None:
        self._looks = self._counters.shared
        if self._looks:
            self._feed.wake()
            self._loop.call_later(_OTHER_SERVICE_SECONDS, self._look)


class _Server(uvicorn.Server):
    """uvicorn's server, with signals as Keyrack promises them."""

    when_started = staticmethod(lambda: None)
    lane: Lane
    listeners: list[socket.socket]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self.when_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM through the loop; a repeated one means no more than the first.

        A signal to the whole process group arrives twice, once by way of the supervisor, and it is
        the supervisor that ends impatiently. uvicorn raises captured signals again at the end,
        which would make a graceful end look like a killed process.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end)
        loop.add_signal_handler(signal.SIGUSR1, self._leave)
        yield

    def _end(self) -> None:
        self.should_exit = True

    def _leave(self) -> None:
        """Another service has taken over: accept nothing more, and end when nobody is left."""
        if self.lane.leaving:
            return
        self.lane.leaving = True
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            cast("Connection", connection).leave()
        grace = _GRACE_SECONDS_TLS if self.config.is_ssl else _GRACE_SECONDS
        self.lane.loop.call_later(grace, self._end_when_deserted)

    def _end_when_deserted(self) -> None:
        if self.server_state.connections:
            self.lane.loop.call_later(_DESERTED_SECONDS, self._end_when_deserted)
        else:
            self.should_exit = True

    def look_after_listeners(self) -> None:
        """End when a socket is no longer listened on: the next worker will listen again.

        uvloop closes a listening socket without a word when accepting fails in an unusual way.
        """
        if self.should_exit or self.lane.leaving or not self.started:
            return
        if any(listener.fileno() < 0 for listener in self.listeners):
            _log.error("this worker can no longer accept connections; it ends and is replaced")
            self.should_exit = True


def _log_access(peer: str, request: Request, status: int) -> None:
    query = "?" + request.query.decode("latin-1") if request.query else ""
    _access.info(
        "%s %s %d",
        request.method.decode("latin-1"),
        request.path.decode("latin-1") + query,
        status,
        extra={"peer": peer},
    )
