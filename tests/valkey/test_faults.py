"""Valkey goes away, hangs, is full, loses its memory: what is answered, and what is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from valkey_support.engines import attempt, done, opened, run, value_of
from valkey_support.servers import MASTER, Alone, ClusterOfSix, Sentinel, Server, Watched

from keyrack.engines.contract import (
    Delete,
    Discard,
    Refusal,
    Set,
    StoreAway,
    StoreError,
    Touch,
    Why,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.valkey.engine import ValkeyEngine

pytestmark = pytest.mark.timeout(120)
TIMEOUT = 0.5
MIB = 1 << 20


@pytest.fixture
def own() -> Iterator[Alone]:
    """A server that the test may do anything to."""
    alone = Alone()
    yield alone
    alone.server.remove()


@pytest.fixture(scope="module")
def pair() -> Iterator[Watched]:
    """A primary and a replica, and Sentinels."""
    watched = Watched()
    yield watched
    for one in watched.everybody():
        one.remove()


@pytest.fixture
def six() -> Iterator[ClusterOfSix]:
    """A cluster that the test may do anything to."""
    cluster = ClusterOfSix()
    yield cluster
    for one in cluster.everybody():
        one.remove()


async def until_it_works(
    engine: ValkeyEngine, limit: float = 30.0, name: bytes = b"probe"
) -> float:
    """Try to write and to read a key until it works, and return how many seconds that took."""
    began = time.monotonic()
    while not isinstance(await attempt(engine, Set(name, b"w")), tuple):
        assert time.monotonic() - began < limit
        await asyncio.sleep(0.02)
    while True:
        with contextlib.suppress(StoreAway):
            await engine.get(name)
            return time.monotonic() - began
        assert time.monotonic() - began < limit
        await asyncio.sleep(0.02)


# One server


@pytest.mark.timing
def test_without_its_server_all_is_refused_in_time_and_works_again_later(own: Alone) -> None:
    async def look() -> None:
        async with opened(own.url, TIMEOUT) as engine:
            await done(engine, Set(b"k", b"v"))
            own.server.kill()
            for wait in (2 * TIMEOUT, 0.1, 0.1):
                began = time.monotonic()
                with pytest.raises(StoreAway, match=r"cannot be used|was lost"):
                    await engine.get(b"k")
                assert await attempt(engine, Set(b"k", b"v")) == Refusal(Why.AWAY)
                with pytest.raises(StoreAway):
                    await engine.scan()
                with pytest.raises(StoreAway):
                    await engine.usage()
                # Once it has been away for longer than that nobody is kept waiting.
                assert time.monotonic() - began < 4 * wait
                await asyncio.sleep(TIMEOUT)
            own.server.start()
            assert await until_it_works(engine) < 5
            await engine.usage()

    run(look())


def test_a_short_absence_is_waited_for(own: Alone) -> None:
    async def look() -> None:
        async with opened(own.url, timeout=8.0) as engine:
            own.server.kill()
            await asyncio.sleep(0.1)
            asked = asyncio.gather(attempt(engine, Set(b"k", b"v")), engine.get(b"none"))
            await asyncio.to_thread(own.server.start)
            outcome, record = await asked
            assert isinstance(outcome, tuple)
            assert record is None

    run(look())


@pytest.mark.timing
def test_a_server_that_hangs_costs_each_no_more_than_the_deadline(own: Alone) -> None:
    async def look() -> None:
        async with opened(own.url, TIMEOUT) as engine:
            for number in range(100):
                await done(engine, Set(b"%d" % number, b"%d" % number))
            own.server.signal(signal.SIGSTOP)
            began = time.monotonic()
            asked = [engine.get(b"%d" % number) for number in range(100)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(answer, StoreAway) for answer in answers)
            assert time.monotonic() - began < 3 * TIMEOUT
            own.server.signal(signal.SIGCONT)
            assert await until_it_works(engine) < 5
            values = [await value_of(engine, b"%d" % number) for number in range(100)]
            assert values == [b"%d" % number for number in range(100)]

    run(look())


def test_no_answer_is_anothers_though_many_are_called_off_and_the_server_halts(own: Alone) -> None:
    async def look() -> None:
        chance = random.Random(1)
        async with opened(own.url, TIMEOUT) as engine:
            for number in range(200):
                await done(engine, Set(b"%d" % number, b"%d" % number))
            right = wrong = away = 0
            for turn in range(150):
                if turn % 50 == 20:
                    own.server.signal(signal.SIGSTOP)
                asked: dict[bytes, Any] = {}
                for number in chance.sample(range(200), 60):
                    name = b"%d" % number
                    asked[name] = asyncio.ensure_future(engine.get(name))
                for name in chance.sample(list(asked), 20):
                    asked.pop(name).cancel()
                if turn % 3 == 0:
                    await asyncio.sleep(0)
                for name in chance.sample(list(asked), 10):
                    asked.pop(name).cancel()
                for name, answer in asked.items():
                    with contextlib.suppress(StoreAway):
                        record = await answer
                        right += record.value == name
                        wrong += record.value != name
                        continue
                    away += 1
                if turn % 50 == 20:
                    own.server.signal(signal.SIGCONT)
            assert wrong == 0
            assert right > 3000
            assert away > 50

    run(look())


def test_a_server_that_came_back_empty_is_another_store(
    own: Alone, caplog: pytest.LogCaptureFixture
) -> None:
    async def look() -> None:
        async with opened(own.url, TIMEOUT) as engine:
            (before,) = await done(engine, Set(b"k", b"v"))
            first = engine.store_id
            own.server.kill()
            own.server.start()
            await until_it_works(engine)
            assert await value_of(engine, b"k") is None
            (after,) = await done(engine, Set(b"k", b"v"))
            assert after.revision > before.revision
            assert (await engine.history())[0] > before.revision
            for _ in range(100):
                if engine.store_id != first:
                    break
                await asyncio.sleep(0.05)
            assert engine.store_id != first
            assert "is another one now" in caplog.text

    run(look())


# Full


def test_a_full_server_refuses_what_needs_room_and_goes_on_with_the_rest(own: Alone) -> None:
    async def look() -> None:
        async with opened(own.url) as engine:
            await done(engine, Set(b"kept", b"v"))
            own.server.ask("CONFIG", "SET", "maxmemory", str(8 * MIB))
            full = 0
            while isinstance(await attempt(engine, Set(b"%d" % full, bytes(100_000))), tuple):
                full += 1
                assert full < 200
            assert await attempt(engine, Set(b"more", bytes(100_000))) == Refusal(Why.SERVER_FULL)
            assert await value_of(engine, b"kept") == b"v"
            # In one turn with what is refused.
            big, touch = Set(b"x", bytes(100_000)), Touch(b"kept", 9000)
            outcomes = await engine.write([(big,), (Delete(b"0"),), (touch,), (Delete(b"1"),)])
            assert [type(outcome) for outcome in outcomes] == [Refusal, tuple, Refusal, tuple]
            for number in range(2, full):
                assert (await done(engine, Delete(b"%d" % number)))[0].existed
            await done(engine, Set(b"more", b"there is room again"))
            assert (await engine.usage()).limit == 8 * MIB
            assert await engine.check() == []

    run(look())


def test_the_trash_of_a_full_server_makes_way(own: Alone) -> None:
    async def look() -> None:
        async with opened(own.url) as engine:
            for number in range(30):
                await done(engine, Set(b"old%d" % number, bytes(100_000)))
            own.server.ask("CONFIG", "SET", "maxmemory", str(8 * MIB))
            until, undo = engine.now() + 3_600_000, 0
            for number in range(30):
                gone = await done(engine, Discard(b"old%d" % number, until, undo=undo))
                undo = undo or gone[0].revision
            for number in range(40):
                await done(engine, Set(b"new%d" % number, bytes(100_000)))
            left = await engine.undo_of(undo)
            assert left is None or left.gone > 0
            full = 0
            while isinstance(await attempt(engine, Set(b"%d" % full, bytes(100_000))), tuple):
                full += 1
                assert full < 200
            assert (await engine.usage()).trash == 0
            # A key can be thrown away all the same.
            assert (await done(engine, Discard(b"new1", until)))[0].existed
            assert await engine.check() == []

    run(look())


# Replicas


@pytest.mark.timing
def test_a_write_is_acknowledged_when_so_many_replicas_have_it(pair: Watched) -> None:
    async def look() -> None:
        primary = pair.primaries()[0]
        (replica,) = (server for server in pair.servers if server is not primary)
        url = f"valkey://127.0.0.1:{primary.port}"
        async with opened(url, timeout=1.5, wait=1) as engine:
            for number in range(50):
                await done(engine, Set(b"%d" % number, b"v"))
                assert replica.ask("EXISTS", b"{0}k%d" % number) == 1
            refused = await attempt(engine, Set(b"0", b"", condition=None), Touch(b"none", 1))
            assert refused == Refusal(Why.MISSING, 1, None)
            replica.signal(signal.SIGSTOP)
            began = time.monotonic()
            assert await attempt(engine, Set(b"k", b"v")) == Refusal(Why.AWAY)
            # Reads do not wait behind it.
            writing = asyncio.ensure_future(attempt(engine, Set(b"k", b"v")))
            await asyncio.sleep(0.05)
            reading = time.monotonic()
            assert await value_of(engine, b"0") == b"v"
            assert time.monotonic() - reading < 0.5
            assert await writing == Refusal(Why.AWAY)
            assert 1.0 < time.monotonic() - began < 6
            replica.signal(signal.SIGCONT)
            assert await until_it_works(engine) < 10
        async with opened(url, timeout=0.5, wait=2) as engine:
            assert await attempt(engine, Set(b"k", b"v")) == Refusal(Why.AWAY)

    run(look())


@pytest.mark.slow
def test_sentinel_names_another_primary_when_one_dies(pair: Watched) -> None:
    async def look() -> None:
        async with opened(pair.url, timeout=1.0, wait=1) as engine:
            kept = [b"%d" % number for number in range(100)]
            for name in kept:
                await done(engine, Set(name, b"v"))
            before = (await engine.history())[1]
            primary = pair.primaries()[0]
            primary.kill()
            without = engine_without_wait(engine)
            took = await until_it_works(without)
            print(f"recovered after {took:.1f} s")
            assert [await value_of(engine, name) for name in kept] == [b"v"] * 100
            (after,) = await done(engine, Set(b"k", b"v"))
            assert after.revision > before
            primary.start()

    run(look())


def engine_without_wait(engine: ValkeyEngine) -> ValkeyEngine:
    """The same connections, for writes that the only server that is left may acknowledge."""
    engine.writes._wait = 0
    return engine


@pytest.mark.timing
@pytest.mark.slow
def test_a_cluster_goes_on_when_a_primary_dies(six: ClusterOfSix) -> None:
    async def look() -> None:
        async with opened(six.url, timeout=1.0, wait=1) as engine:
            kept = [b"%d" % number for number in range(200)]
            for name in kept:
                await done(engine, Set(name, b"v"))
            engine_without_wait(engine)
            victim = six.primaries()[1]
            victim.kill()
            began = time.monotonic()
            working = 0
            while working < len(kept):
                outcomes = await engine.write([(Set(name, b"w"),) for name in kept])
                working = sum(isinstance(outcome, tuple) for outcome in outcomes)
                # Two thirds of the keys are on servers that nothing has happened to.
                assert working > len(kept) // 3
                assert time.monotonic() - began < 30
            print(f"recovered after {time.monotonic() - began:.1f} s")
            for name in kept:
                await until_it_works(engine, 10, name)
            assert [await value_of(engine, name) for name in kept] == [b"w"] * 200
            assert (await engine.usage()).keys == 200

    run(look())


@pytest.mark.slow
def test_slots_that_move_are_followed(six: ClusterOfSix) -> None:
    """Keys of a shard move one by one to another server while they are read and written."""

    async def look() -> None:
        async with opened(six.url) as engine:
            names = [b"{t}%d" % number for number in range(50)]
            for name in names:
                await done(engine, Set(name, b"v"))
            slot = engine.layout.slots[engine.layout.shard_of(b"{t}")]
            mover = asyncio.ensure_future(asyncio.to_thread(move, six, slot))
            turns = 0
            while not mover.done() or turns < 20:
                turns += 1
                outcomes = await engine.write([(Set(name, b"%d" % turns),) for name in names])
                values = await asyncio.gather(*(value_of(engine, name) for name in names))
                if all(isinstance(outcome, tuple) for outcome in outcomes):
                    assert set(values) == {b"%d" % turns}
            await mover
            await done(engine, *(Set(name, b"moved") for name in names))
            assert await engine.check() == []

    run(look())


def move(six: ClusterOfSix, slot: int) -> None:
    """Move a slot from its primary to another one, as resharding does."""
    holders = {server: server.ask("CLUSTER", "MYID") for server in six.primaries()}
    source = next(s for s in holders if s.ask("CLUSTER", "COUNTKEYSINSLOT", str(slot)))
    target = next(server for server in holders if server is not source)
    target.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", holders[source])
    source.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", holders[target])
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", str(slot), "100"):
        arguments = ("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *keys)
        source.ask(*arguments)
    for server in (target, source, *(s for s in holders if s not in (source, target))):
        server.ask("CLUSTER", "SETSLOT", str(slot), "NODE", holders[target])


# Who may enter


def test_a_password_is_needed_and_given() -> None:
    async def look(server: Server) -> None:
        async with opened(f"valkey://:secret%20of%20all@127.0.0.1:{server.port}") as engine:
            await done(engine, Set(b"k", b"v"))
        for wrong in ("", ":wrong@", "nobody:secret@"):
            with pytest.raises(StoreAway, match=r"NOAUTH|WRONGPASS"):
                async with opened(f"valkey://{wrong}127.0.0.1:{server.port}", TIMEOUT):
                    pass

    server = Server("--requirepass", "secret of all", password="secret of all")
    try:
        run(look(server))
    finally:
        server.remove()


@pytest.mark.parametrize("wants", ["both", "the server"])
def test_a_sentinel_gets_the_servers_password_if_it_wants_one(wants: str) -> None:
    async def look(sentinel: Server, password: str) -> None:
        address = f"valkey-sentinel://:{password}@127.0.0.1:{sentinel.port}/?master={MASTER}"
        async with opened(address, TIMEOUT) as engine:
            await done(engine, Set(b"k", b"v"))

    server = Server("--requirepass", "secret", password="secret")
    sentinel = Sentinel(server.port, 1, password="secret" if wants == "both" else "")
    try:
        run(look(sentinel, "secret"))
        with pytest.raises(StoreAway, match=r"NOAUTH|WRONGPASS"):
            run(look(sentinel, "wrong"))
    finally:
        sentinel.remove()
        server.remove()


def test_a_user_with_few_rights_is_enough(own: Alone) -> None:
    """With those that docs/valkey.md names, and for names of its own alone."""
    page = (Path(__file__).parents[2] / "docs" / "valkey.md").read_text()
    rules = re.findall(r"^    ACL SETUSER keyrack (.+)$", page, re.MULTILINE)[0].split()
    own.server.ask("ACL", "SETUSER", "keyrack", *rules)

    async def look() -> None:
        address = own.url.replace("//", "//keyrack:secret@")
        async with opened(f"{address}/app:") as engine:
            heard = asyncio.Event()
            engine.listen(True, heard.set)
            await asyncio.wait_for(heard.wait(), 5)
            await done(engine, Set(b"k", b"v", ttl_ms=1000), Delete(b"none"))
            assert await value_of(engine, b"k") == b"v"
            assert len((await engine.scan()).entries) == 1
            assert (await engine.usage()).keys == 1
            await engine.expire(1)
            await engine.trim(1)
            await engine.usage()
            assert await engine.check() == []
        async with opened(f"{address}/app:", wait=1, timeout=0.3) as engine:
            assert await attempt(engine, Set(b"k", b"v")) == Refusal(Why.AWAY)
        with pytest.raises(StoreError, match="NOPERM"):
            async with opened(f"{address}/other:"):
                pass

    run(look())
