"""A connection that ends is freed at once: nothing that it leaves behind needs a collector."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from keyrack_server import request
from uvicorn.server import ServerState

from keyrack.engines.contract import Set
from keyrack.engines.embedded import EmbeddedEngine
from keyrack.http.api.counting import REQUEST_WORDS
from keyrack.http.app import Application
from keyrack.http.client_memory import ClientMemory
from keyrack.http.key_locks import KeyLocks
from keyrack.http.protocol.connection import Connection
from keyrack.http.protocol.guard import Guard
from keyrack.http.reply import Context, Limits
from keyrack.http.tick import Tick
from keyrack.http.watch.hub import WatchHub
from keyrack.http.worker_context import ServerConfig, Timeouts, WorkerContext
from keyrack.shared.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LARGE = b"x" * 900_000
TEXT = "text/plain"

CONVERSATIONS = {
    "nothing": b"",
    "half a request": b"GET /get/a HTTP/1.1\r\nHo",
    "hot requests": request("GET", "/get/a") * 3 + request("PUT", "/v1/keys/a", b"1"),
    "the last request": request("GET", "/get/a", Connection="close"),
    "the wide lane": request("GET", "/metrics"),
    "a request that is refused": b"BAD\r\n\r\n",
    "a read that waits": request("GET", "/v1/keys/a", If_None_Match="*", Prefer="wait=60"),
    "a watch": request("GET", "/v1/watch"),
    "a large value": request("PUT", "/v1/keys/a", LARGE, Content_Type=TEXT),
    "half a large value": request("PUT", "/v1/keys/a", LARGE, Content_Type=TEXT)[:600_000],
    "an answer that is not read": request("GET", "/v1/keys/large") * 8,
}


class Worker:
    """What connections need of a worker, and references to those that were made."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
        engine = EmbeddedEngine(str(directory), 64 << 20, 1000)
        counters = Counters.create(1, REQUEST_WORDS.number)
        tick = Tick(loop, engine, counters.slot(0))
        hub = WatchHub(loop, engine, lambda interested: None)
        context = Context(engine, Limits(1 << 20, 8 << 20), tick, hub, KeyLocks())
        self.context = WorkerContext(
            loop,
            tick,
            Guard(("127.0.0.1",), demands_host=True),
            context,
            Timeouts(90.0, 10.0, 60.0, 60.0),
            ClientMemory(counters, 0, 64 << 20),
        )
        self.made: list[weakref.ref[Connection]] = []
        self._config = ServerConfig(self.context, Application(self.context, counters))
        self._config.load()
        self._state = ServerState()

    def connection(self) -> Connection:
        one = Connection(self._config, self._state, {})
        self.made.append(weakref.ref(one))
        return one


async def converse(worker: Worker, sent: bytes) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(worker.connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await asyncio.sleep(0.05)
        # With a reset: who has only closed its sending side may still wait.
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        del writer, own
    await eventually(lambda: len(worker.made) == 3 and not worker.context.connections)
    await eventually(lambda: not any(one() for one in worker.made))
    server.close()


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("sent", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_nothing_is_left_of_a_connection(tmp_path: Path, sent: bytes) -> None:
    async def run() -> Any:
        worker = Worker(asyncio.get_running_loop(), tmp_path)
        engine = worker.context.context.engine
        await engine.write([(Set(b"a", b"1"),), (Set(b"large", LARGE),)])
        await converse(worker, sent)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
