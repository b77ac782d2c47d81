"""One store, many processes: they agree about it, and hear of one another's changes."""

from __future__ import annotations

import asyncio

import pytest
from valkey_support.engines import changes, done, opened, run, value_of
from valkey_support.servers import alone, cluster

from keyrack.engines.contract import Delete, Set, StoreError, StoreFormatUnknown
from keyrack.engines.valkey.address import parse
from keyrack.engines.valkey.engine import ValkeyEngine
from keyrack.engines.valkey.layout import Layout
from keyrack.engines.valkey.servers import Login


def test_what_one_writes_another_reads(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as one, opened(anywhere) as other:
            assert one.store_id == other.store_id
            for number in range(100):
                await done(one, Set(b"%d" % number, b"of one"))
                assert await value_of(other, b"%d" % number) == b"of one"

    run(look())


def test_whoever_listens_hears_of_a_change_and_finds_it(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as one, opened(anywhere) as other:
            heard = asyncio.Event()
            other.listen(True, heard.set)
            await asyncio.wait_for(heard.wait(), 5)  # that it listens now
            await asyncio.sleep(0.2)
            since = (await other.history())[1]
            for number in range(30):
                heard.clear()
                (result,) = await done(one, Set(b"%d" % number, b"v"))
                await asyncio.wait_for(heard.wait(), 5)
                events = await other.events_after(since, 10)
                assert [event.key for event in events] == [b"%d" % number]
                since = events[-1].revision
                assert since == result.revision

    run(look())


def test_who_does_not_listen_hears_nothing(server: str) -> None:
    async def look() -> None:
        async with opened(server) as one, opened(server) as other:
            heard: list[int] = []
            other.listen(True, lambda: heard.append(1))
            await asyncio.sleep(0.2)
            other.listen(False, lambda: heard.append(2))
            await asyncio.sleep(0.1)
            heard.clear()
            await done(one, Set(b"k", b"v"))
            await asyncio.sleep(0.1)
            assert heard == []

    run(look())


def test_many_that_come_first_at_once_make_one_store(anywhere: str) -> None:
    for server in (*alone().primaries(), *cluster().primaries()):
        server.ask("FUNCTION", "FLUSH")

    async def one_of_many() -> str:
        async with opened(anywhere) as engine:
            await done(engine, Set(b"k", b"v"))
            return engine.store_id

    async def look() -> None:
        assert len(set(await asyncio.gather(*(one_of_many() for _ in range(12))))) == 1

    run(look())


def test_functions_that_were_removed_are_loaded_again(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            await done(engine, Set(b"k", b"1"))
            for server in (*alone().primaries(), *cluster().primaries()):
                server.ask("FUNCTION", "FLUSH")
            writes = [(Set(b"%d" % number, b"2"),) for number in range(50)]
            assert all(isinstance(one, tuple) for one in await engine.write(writes))
            assert await engine.check() == []

    run(look())


def test_an_emptied_server_begins_a_new_life(anywhere: str) -> None:
    """Positions of the earlier life are not reached back to, and no revision comes again."""

    async def look() -> None:
        async with opened(anywhere) as engine:
            old = [(await done(engine, Set(b"%d" % n, b"v")))[0].revision for n in range(20)]
            for server in (*alone().primaries(), *cluster().primaries()):
                server.ask("FLUSHALL")
            new = [(await done(engine, Set(b"%d" % n, b"v")))[0] for n in range(20)]
            assert min(result.revision for result in new) > max(old)
            assert not any(result.existed for result in new)
            assert (await engine.history())[0] > max(old)
            assert len(await changes(engine)) == 20

    run(look())


def test_stores_with_other_prefixes_are_other_stores(anywhere: str) -> None:
    async def look() -> None:
        address, _, _ = anywhere.partition("/?")
        async with opened(f"{address}/one:") as one, opened(f"{address}/other:") as other:
            await done(one, Set(b"k", b"of one"))
            await done(other, Set(b"k", b"of the other"))
            await done(other, Delete(b"k"))
            assert await value_of(one, b"k") == b"of one"
            assert (await one.usage()).keys == 1
            assert (await other.usage()).keys == 0
            assert await one.check() == []

    run(look())


# What is refused


def test_another_number_of_shards_is_refused(shards: str) -> None:
    async def look() -> None:
        async with opened(shards) as engine:
            await done(engine, Set(b"k", b"v"))
        with pytest.raises(StoreFormatUnknown, match=r"made with 64 shards.* use 8"):
            async with opened(f"{shards}/?shards=8"):
                pass

    run(look())


def test_a_store_from_before_stale_copies_is_used_and_marked(server: str) -> None:
    meta = Layout(b"", 1).meta

    async def look() -> None:
        async with opened(server) as engine:
            await done(engine, Set(b"k", b"v"))
        alone().server.ask("HSET", meta, "format", "1")
        async with opened(server) as engine:
            record = await engine.get(b"k")
            assert record is not None
        assert alone().server.ask("HGET", meta, "format") == b"3"

    run(look())


def test_an_unknown_format_is_refused(server: str) -> None:
    async def look() -> None:
        alone().server.ask("HSET", Layout(b"", 1).meta, "format", "9")
        with pytest.raises(StoreFormatUnknown, match=r"format 9.* knows format 3"):
            async with opened(server):
                pass

    run(look())


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused_unless_that_is_wanted(server: str, policy: str) -> None:
    async def look() -> None:
        with pytest.raises(StoreError, match=f"maxmemory-policy is {policy}.*--valkey-may-evict"):
            async with opened(server):
                pass
        async with opened(server, may_evict=True) as engine:
            await done(engine, Set(b"k", b"v"))

    alone().server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    try:
        run(look())
    finally:
        alone().server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (lambda: cluster().url.replace("-cluster", "").partition(",")[0], "valkey-cluster://"),
        (lambda: alone().url.replace("valkey", "valkey-cluster"), "cluster support disabled"),
        (lambda: "valkey://127.0.0.1:1", "Connection refused"),
    ],
)
def test_a_server_of_another_kind_is_refused_with_the_reason(address: object, why: str) -> None:
    async def look() -> None:
        parsed = parse(address())  # type: ignore[operator]  # a function, so that it starts late
        engine = ValkeyEngine(parsed, Login("", "", None, 0.5))
        with pytest.raises(StoreError, match=why):
            await engine.open()

    run(look())
