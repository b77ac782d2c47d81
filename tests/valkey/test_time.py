"""Time is Valkey's: keys end by its clock, and tell of it whoever removed them."""

from __future__ import annotations

import asyncio

from valkey_support.engines import attempt, changes, done, opened, run, value_of
from valkey_support.servers import alone

from keyrack.engines.contract import Delete, Set, Space, Touch
from keyrack.engines.valkey.clock import StoreClock


async def passed(ms: float) -> None:
    await asyncio.sleep(ms / 1000)


def names_of(key: str) -> list[bytes]:
    found: list[bytes] = alone().server.ask("KEYS", f"*{key}")
    return found


def test_a_key_is_never_served_in_or_after_the_millisecond_of_its_end(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            for number in range(60):
                await done(engine, Set(b"%d" % number, b"v", ttl_ms=10 + number))
            served = 0
            for _ in range(200):
                # In one piece and in this order: what is served was there after the time was told.
                clock = engine.calls.ask(0, b"TIME")
                reads = [engine.get(b"%d" % number) for number in range(60)]
                seconds, us = await clock
                now = int(seconds) * 1000 + int(us) // 1000
                for record in await asyncio.gather(*reads):
                    if record is not None:
                        served += 1
                        assert record.expires_at > now
            assert served > 60
            await passed(80)
            assert [await value_of(engine, b"%d" % number) for number in range(60)] == [None] * 60

    run(look())


def test_a_key_lives_until_its_end(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            await done(engine, Set(b"k", b"v", ttl_ms=60_000))
            record = await engine.get(b"k")
            assert record is not None
            left = alone().server.ask("PTTL", names_of("k")[0])
            assert abs(record.expires_at - engine.now() - left) < 50
            assert 59_000 < left < 60_000

    run(look())


def test_valkey_removes_what_has_ended_and_the_sweep_tells_of_it(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            start = (await done(engine, Set(b"gone", b"v", ttl_ms=5), Set(b"stays", b"v")))[0]
            await passed(30)
            assert await value_of(engine, b"gone") is None
            assert not any(name.endswith(b"kgone") for name in names_of("gone"))
            assert (await engine.usage()).keys == 2
            assert await engine.check() == []
            assert (await engine.expire(10)).expired == 1
            assert (await engine.usage()).keys == 1
            assert await changes(engine, start.revision) == [("SET", b"stays"), ("EXPIRE", b"gone")]

    run(look())


def test_a_set_over_what_valkey_has_removed_tells_of_the_end_first(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            first = (await done(engine, Set(b"k", b"v", ttl_ms=5)))[0]
            await passed(20)
            (second,) = await done(engine, Set(b"k", b"new"))
            assert not second.existed
            assert await changes(engine, first.revision) == [("EXPIRE", b"k"), ("SET", b"k")]
            await passed(20)
            assert await value_of(engine, b"k") == b"new"
            assert (await engine.expire(10)).expired == 0

    run(look())


def test_a_delete_of_what_valkey_has_removed_is_its_end(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            first = (await done(engine, Set(b"k", b"v", ttl_ms=5)))[0]
            await passed(20)
            assert not (await done(engine, Delete(b"k")))[0].existed
            assert await changes(engine, first.revision) == [("EXPIRE", b"k")]
            assert await engine.check() == []

    run(look())


def test_another_ttl_counts_from_now(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            await done(engine, Set(b"longer", b"v", ttl_ms=40), Set(b"for ever", b"v", ttl_ms=40))
            await done(engine, Touch(b"longer", 60_000), Touch(b"for ever", 0))
            await passed(60)
            assert await value_of(engine, b"longer") == b"v"
            assert await value_of(engine, b"for ever") == b"v"
            assert (await engine.expire(10)).expired == 0
            assert await engine.check() == []

    run(look())


def test_a_lock_that_ended_is_given_up_with_an_event(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            take = Set(b"lock", b"me", ttl_ms=5, space=Space.LOCKS)
            first = (await done(engine, take))[0]
            await passed(20)
            assert await engine.lock_of(b"lock") is None
            assert (await engine.expire(10)).expired == 1
            assert await changes(engine, first.revision) == [("UNLOCK", b"lock")]

    run(look())


def test_one_process_sweeps_and_the_others_leave_it_to_that(server: str) -> None:
    async def look() -> None:
        async with opened(server) as one, opened(server) as other:
            for number in range(4):
                await attempt(one, Set(b"%d" % number, b"v", ttl_ms=5))
            await passed(20)
            assert (await one.expire(2)).expired == 2
            assert (await other.expire(2)).expired == 0
            await passed(250)  # the lease of one that does not go on ends
            assert (await other.expire(2)).expired == 2

    run(look())


def test_the_clock_is_known_to_a_few_milliseconds(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            await done(engine, Set(b"k", b"v"))
            seconds, us = alone().server.ask("TIME")
            assert abs(engine.now() - (int(seconds) * 1000 + int(us) // 1000)) < 50

    run(look())


def test_a_key_with_a_stale_copy_is_never_served_in_or_after_the_millisecond_of_its_end(
    server: str,
) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            keys = [b"%d" % number for number in range(60)]
            for number, key in enumerate(keys):
                # Late enough that all are there by the first look, also on a busy machine.
                await done(engine, Set(key, b"v", ttl_ms=500 + 5 * number, stale_ms=60_000))
            served = 0
            while True:
                # The time was told before the reads were sent: what is served then was fresh.
                seconds, us = await engine.calls.ask(0, b"TIME")
                now = int(seconds) * 1000 + int(us) // 1000
                alone_read = await asyncio.gather(*map(engine.get, keys))
                for record in (*alone_read, *await engine.get_many(keys)):
                    if record is not None:
                        served += 1
                        assert record.expires_at > now
                if not any(alone_read):
                    break
            assert served > 60
            stale = await asyncio.gather(*map(engine.get_stale, keys))
            assert [record is not None for record in stale] == [True] * 60

    run(look())


def test_a_clock_that_was_not_looked_at_tells_nothing() -> None:
    clock = StoreClock()
    assert clock.is_over(clock.now() + 60_000) is None
    asked = clock.steady()
    clock.learn(1_000_000, asked)
    assert clock.is_over(1_060_000) is False
    assert clock.is_over(990_000) is True
    assert clock.is_over(1_000_001) is None
    clock.forget_bounds()
    assert clock.is_over(1_060_000) is None
