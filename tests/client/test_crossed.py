"""No caller ever gets another one's answer, whenever and however calls are broken off.

Each value names its key, so that an answer says whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from client_support import answer

from keyrack import AsyncClient, Client, KeyrackError

if TYPE_CHECKING:
    from types import FrameType

pytestmark = pytest.mark.timeout(120)

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
KEYS = [f"mine-{number}" for number in range(64)]


@pytest.fixture
def where(url: str) -> str:
    """Only a service: this is about connections."""
    return url


@pytest.fixture
def filled(sync: Client) -> None:
    for key in KEYS:
        sync.set(key, key)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("loop", LOOPS)
def test_of_fifty_thousand_calls_that_are_cancelled_anywhere_none_is_crossed(
    loop: str, url: str
) -> None:
    counts = {"done": 0, "cancelled": 0}

    async def one(client: AsyncClient, random: random.Random) -> None:
        key = random.choice(KEYS)
        task = asyncio.ensure_future(client.get(key))
        if random.random() < 0.15:
            for _ in range(random.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            value = await task
        except asyncio.CancelledError:
            counts["cancelled"] += 1
        else:
            assert value == key
            counts["done"] += 1

    async def work(client: AsyncClient, number: int) -> None:
        source = random.Random(number)
        for _ in range(50_000 // 16):
            await one(client, source)

    async def main() -> None:
        async with AsyncClient(url, max_connections=12) as client:
            await asyncio.gather(*(work(client, number) for number in range(16)))

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    assert counts["cancelled"] > 2000
    assert counts["done"] > 40_000


@pytest.mark.parametrize("loop", LOOPS)
def test_a_call_can_be_cancelled_between_any_two_bytes_of_its_answer(loop: str) -> None:
    served: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                for byte in answer(head.split(b" ")[1].rpartition(b"/")[2]):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        broken = 0
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            for turns in range(0, 260, 2):
                task = asyncio.ensure_future(client.get(f"a-{turns}"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    assert await task == f"a-{turns}"
                broken += task.cancelled()
                assert await client.get(f"b-{turns}") == f"b-{turns}"
        assert broken > 20
        server.close()
        await server.wait_closed()
        await asyncio.gather(*(task for task in served if task is not None))

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


@pytest.mark.usefixtures("filled")
def test_timeouts_under_load_cross_nothing(url: str) -> None:
    async def work(client: AsyncClient, number: int) -> int:
        done = 0
        for turn in range(200):
            key = KEYS[(number * 7 + turn) % len(KEYS)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0005 * (turn % 5 + 1)):
                    assert await client.get(key) == key
                    done += 1
        return done

    async def main() -> None:
        async with AsyncClient(url, max_connections=8) as client:
            assert sum(await asyncio.gather(*(work(client, n) for n in range(16)))) > 0
            for key in KEYS:
                assert await client.get(key) == key

    asyncio.run(main())


class Interrupt(BaseException):
    """What a signal's handler raises."""


# A handler that raises inside `socket.create_connection` leaves its socket to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("filled")
def test_a_signal_that_raises_anywhere_crosses_nothing_and_loses_no_connection(url: str) -> None:
    def raise_it(_number: int, _frame: FrameType | None) -> None:
        raise Interrupt

    interrupted = 0
    source = random.Random(7)
    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        with Client(url, max_connections=4, timeout=5) as client:
            for turn in range(3000):
                key = KEYS[turn % len(KEYS)]
                try:
                    signal.setitimer(signal.ITIMER_REAL, source.uniform(0.00002, 0.0006))
                    assert client.get(key) == key
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Interrupt:
                    interrupted += 1
            for key in KEYS:
                assert client.get(key) == key
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 100


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("connections", [2, 64])
def test_sixteen_threads_share_a_client(url: str, connections: int) -> None:
    wrong: list[Any] = []
    done: list[int] = []

    def work(client: Client, number: int) -> None:
        for turn in range(300):
            key = KEYS[(number * 5 + turn) % len(KEYS)]
            try:
                if (value := client.get(key)) != key:
                    wrong.append((key, value))
                client.set(f"thread-{number}", str(turn))
            except KeyrackError as error:
                wrong.append(error)
        if client.get(f"thread-{number}") == "299":
            done.append(number)

    with Client(url, max_connections=connections) as client:
        threads = [threading.Thread(target=work, args=(client, number)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert sorted(done) == list(range(16))
