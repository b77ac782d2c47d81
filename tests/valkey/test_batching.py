"""Requests of one turn share a call: each gets its own answer, whatever happens to the others."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from valkey_support.engines import done, opened, run, value_of
from valkey_support.servers import Alone, alone, cluster

from keyrack.engines.contract import Refusal, Set, Space, StoreAway, StoreError, Why

if TYPE_CHECKING:
    from collections.abc import Iterator

    from valkey_support.servers import Server


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that the test may do anything to."""
    servers = Alone()
    yield servers.server
    servers.server.remove()


def calls_of(servers: list[Server], command: str) -> int:
    """Return how often servers were sent a command."""
    number = 0
    for server in servers:
        for line in server.ask("INFO", "commandstats").decode().splitlines():
            if line.startswith(f"cmdstat_{command}:calls="):
                number += int(line.partition("=")[2].partition(",")[0])
    return number


def test_many_reads_are_one_call_for_each_shard(anywhere: str) -> None:
    async def look() -> None:
        servers = [*alone().primaries(), *cluster().primaries()]
        async with opened(anywhere) as engine:
            names = [b"%d" % number for number in range(1000)]
            await engine.write([(Set(name, b"of " + name),) for name in names[::2]])
            shards = len(engine.layout.by_shard(names))
            before = calls_of(servers, "mget")
            records = await engine.get_many(names)
            assert calls_of(servers, "mget") - before == shards
            assert [record and record.value for record in records[::2]] == [
                b"of " + name for name in names[::2]
            ]
            assert records[1::2] == [None] * 500

    run(look())


def test_long_records_are_read_few_at_a_time_so_that_no_reply_is_huge(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            names = [b"%d" % number for number in range(20)]
            await engine.write([(Set(name, name * 500_000),) for name in names])
            await engine.write([(Set(name + b"short", name),) for name in names])
            assert await value_of(engine, names[0]) == names[0] * 500_000
            before = calls_of(alone().primaries(), "mget")
            values = await asyncio.gather(*(value_of(engine, name) for name in names))
            assert values == [name * 500_000 for name in names]
            assert calls_of(alone().primaries(), "mget") - before >= 10
            for _ in range(200):
                await engine.get(b"0short")
            before = calls_of(alone().primaries(), "mget")
            values = await asyncio.gather(*(value_of(engine, name + b"short") for name in names))
            assert values == names
            assert calls_of(alone().primaries(), "mget") - before == 1

    run(look())


def test_many_reads_are_answered_in_their_order_however_often_a_key_is_named(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            await done(engine, Set(b"one", b"1"))
            await done(engine, Set(b"two", b"22"))
            names = [b"two", b"none", b"one", b"two", b"two", b"none"]
            records = await engine.get_many(names)
            values = [record and record.value for record in records]
            assert values == [b"22", None, b"1", b"22", b"22", None]
            assert await engine.get_many([]) == []
            sizes = await engine.sizes_of(names)
            assert sizes == [len(value) + 9 if value else 0 for value in values]
            assert await engine.sizes_of([]) == []

    run(look())


def test_who_gives_up_does_not_disturb_the_others(anywhere: str) -> None:
    async def look() -> None:
        chance = random.Random(3)
        async with opened(anywhere) as engine:
            for turn in range(30):
                names = [b"%d" % number for number in range(60)]
                writes = [
                    asyncio.ensure_future(engine.write([(Set(name, b"%d" % turn),)]))
                    for name in names
                ]
                if turn % 3:
                    await asyncio.sleep(0.0005 * (turn % 3))
                gone = set(chance.sample(range(60), 20))
                for number in gone:
                    writes[number].cancel()
                left = [number for number in range(60) if number not in gone]
                for number in left:
                    (outcome,) = await writes[number]
                    assert isinstance(outcome, tuple)
                reads = {
                    number: asyncio.ensure_future(engine.get(names[number])) for number in left
                }
                many = [asyncio.ensure_future(engine.get_many(names)) for _ in range(3)]
                await asyncio.sleep(0.0003 * (turn % 2))
                for number in left[::3]:
                    reads.pop(number).cancel()
                many[1].cancel()
                for read in reads.values():
                    record = await read
                    assert record is not None
                    assert record.value == b"%d" % turn
                for one in (many[0], many[2]):
                    records = await one
                    assert len(records) == 60

    run(look())


def test_a_record_that_cannot_be_read_fails_alone(own: Server) -> None:
    async def look() -> None:
        async with opened(f"valkey://127.0.0.1:{own.port}") as engine:
            names = [b"%d" % number for number in range(20)]
            await engine.write([(Set(name, name),) for name in names])
            own.ask("SET", engine.layout.records[0] + b"7", b"no record")
            found = await asyncio.wait_for(
                asyncio.gather(*map(engine.get, names), return_exceptions=True), 5
            )
            assert isinstance(found.pop(7), StoreError)
            assert [record.value for record in found] == names[:7] + names[8:]  # type: ignore[union-attr]
            with pytest.raises(StoreError, match="cannot be read"):
                await asyncio.wait_for(engine.get_many(names), 5)
            assert await value_of(engine, b"6") == b"6"

    run(look())


def test_a_name_that_is_of_another_kind_is_an_error_and_no_hang(own: Server) -> None:
    async def look() -> None:
        async with opened(f"valkey://127.0.0.1:{own.port}") as engine:
            await done(engine, Set(b"k", b"v"))
            own.ask("DEL", engine.layout.bases[0] + b"i")
            own.ask("SET", engine.layout.bases[0] + b"i", b"no index")
            outcomes = await asyncio.wait_for(engine.write([(Set(b"new", b"v"),)] * 3), 5)
            assert outcomes == [Refusal(Why.BROKEN)] * 3
            assert await value_of(engine, b"k") == b"v"

    run(look())


def test_whoever_waits_is_told_when_the_engine_is_closed(own: Server) -> None:
    async def look() -> None:
        async with opened(f"valkey://127.0.0.1:{own.port}", timeout=20.0) as engine:
            await done(engine, Set(b"k", b"v"))
            own.kill()
            asked = [
                *(asyncio.ensure_future(engine.get(b"%d" % number)) for number in range(5)),
                asyncio.ensure_future(engine.get_many([b"a", b"b"])),
                asyncio.ensure_future(engine.lock_of(b"a")),
                asyncio.ensure_future(engine.scan()),
            ]
            lock = Set(b"lock", b"me", space=Space.LOCKS)
            writing = asyncio.ensure_future(engine.write([(lock,), (Set(b"k", b"w"),)]))
            await asyncio.sleep(0.1)
            late = asyncio.ensure_future(engine.get(b"late"))
            await asyncio.sleep(0)
        answers = await asyncio.wait_for(asyncio.gather(*asked, late, return_exceptions=True), 2)
        assert all(isinstance(answer, StoreAway) for answer in answers), answers
        assert await asyncio.wait_for(writing, 2) == [Refusal(Why.AWAY)] * 2

    run(look())


def test_writes_are_refused_while_the_server_would_evict(own: Server) -> None:
    async def look() -> None:
        async with opened(f"valkey://127.0.0.1:{own.port}") as engine:
            await done(engine, Set(b"k", b"v"))
            own.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            with pytest.raises(StoreError, match="maxmemory-policy is allkeys-lru"):
                await engine.usage()
            assert await engine.write([(Set(b"k", b"w"),)] * 2) == [Refusal(Why.UNSAFE)] * 2
            assert await value_of(engine, b"k") == b"v"
            own.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await engine.usage()
            await done(engine, Set(b"k", b"w"))
            # It is noticed as well when nobody asks for it.
            own.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
            for _ in range(100):
                await asyncio.sleep(0.05)
                outcomes = await engine.write([(Set(b"k", b"x"),)])
                if outcomes == [Refusal(Why.UNSAFE)]:
                    break
            assert outcomes == [Refusal(Why.UNSAFE)]
        async with opened(f"valkey://127.0.0.1:{own.port}", may_evict=True) as engine:
            await asyncio.sleep(1.5)
            await done(engine, Set(b"k", b"y"))
            await engine.usage()

    run(look())
