"""One worker process: an event loop, the store as it has it open, and uvicorn's server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from keyrack.engines.embedded import EmbeddedEngine
from keyrack.http.app import Application
from keyrack.http.feed import Feed
from keyrack.http.guard import Guard
from keyrack.http.lane import Lane, Timeouts
from keyrack.http.reply import Context, Limits
from keyrack.http.turn import Turn
from keyrack.server.counters import STARTS
from keyrack.server.serving import direct

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from keyrack.engines.embedded.directory import Place
    from keyrack.http.connection import Connection
    from keyrack.http.message import Request
    from keyrack.server.counters import Counters
    from keyrack.server.serving import Serving
    from keyrack.settings import Settings

_access = logging.getLogger("keyrack.access")


def run(
    settings: Settings,
    slot: int,
    listeners: list[socket.socket],
    place: Place,
    counters: Counters,
    lifeline_fd: int,
) -> None:
    """Serve until told to end, or until the supervisor is gone (`lifeline_fd` reads its end)."""
    engine = EmbeddedEngine(place.path, place.memory, settings.events)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            serving = direct(engine)
            runner.run(_serve(settings, slot, listeners, serving, counters, lifeline_fd))
    finally:
        engine.close()


async def _serve(
    settings: Settings,
    slot: int,
    listeners: list[socket.socket],
    serving: Serving,
    counters: Counters,
    lifeline_fd: int,
) -> None:
    loop = asyncio.get_running_loop()
    count = counters.slot(slot)
    count[STARTS] += 1
    turn = Turn(loop, serving.reads, count, serving.perform)
    engine = serving.store
    feed = Feed(loop, engine, turn, lambda interested: counters.set_interested(slot, interested))
    context = Context(serving.reads, Limits(settings.max_value, settings.max_body), feed, engine)
    lane = _lane(settings, loop, turn, context)
    server = _Server(_config(settings, Application(lane, counters), serving.protocol))
    upkeep = serving.upkeep(
        loop, lane, engine, server.server_state.connections, phase=slot / counters.workers
    )
    server.when_started = lambda: counters.set_ready(slot)

    def orphaned() -> None:
        loop.remove_reader(lifeline_fd)
        logging.getLogger("keyrack").warning("the supervisor is gone; this worker ends")
        server.should_exit = True

    def committed() -> None:
        counters.wake_others(slot)
        feed.wake()

    def woken() -> None:
        counters.woken(slot)
        feed.wake()

    turn.committed = committed
    loop.add_reader(counters.wakeups[slot], woken)
    loop.add_reader(lifeline_fd, orphaned)
    upkeep.start()
    try:
        await server.serve(listeners)
    finally:
        counters.clear_ready(slot)
        upkeep.stop()


def _lane(
    settings: Settings, loop: asyncio.AbstractEventLoop, turn: Turn, context: Context
) -> Lane:
    return Lane(
        loop,
        turn,
        Guard((*settings.allowed_hosts, settings.host)),
        context,
        Timeouts(
            keep_alive=settings.keep_alive,
            head=settings.head_timeout,
            body=settings.body_timeout,
            send=settings.send_timeout,
        ),
        _log_access if settings.access_log else None,
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
        headers=[("Server", "keyrack")],
        backlog=2048,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, with signals as Keyrack promises them."""

    when_started = staticmethod(lambda: None)

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
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        yield

    def _end(self) -> None:
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
