"""Sets that are done together inside Valkey leave the same behind as one by one."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from valkey_support.engines import changes, done, opened, run, value_of
from valkey_support.servers import alone

from keyrack.engines.contract import Delete, Refusal, Set

if TYPE_CHECKING:
    from valkey_support.servers import Server

    from keyrack.engines.valkey.engine import ValkeyEngine

    Pairs = list[tuple[int, bool]]


def calls_of(server: Server, command: str) -> int:
    """Return how often a server did a command."""
    for line in server.ask("INFO", "commandstats").decode().splitlines():
        if line.startswith(f"cmdstat_{command}:calls="):
            return int(line.partition("=")[2].partition(",")[0])
    return 0


async def set_all(engine: ValkeyEngine, *sets: Set) -> Pairs:
    """Set keys in one tick; return revision and whether the key existed, of each."""
    found: Pairs = []
    for outcome in await engine.write([(one,) for one in sets]):
        assert not isinstance(outcome, Refusal), outcome
        found.append((outcome[0].revision, outcome[0].existed))
    return found


def keys(number: int, beginning: bytes = b"k") -> list[bytes]:
    return [b"%b%d" % (beginning, one) for one in range(number)]


def test_a_run_is_a_few_commands_whatever_its_length(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            place = alone().primaries()[0]
            before = [calls_of(place, name) for name in ("set", "mset", "zadd")]
            await set_all(engine, *(Set(key, b"v") for key in keys(100)))
            after = [calls_of(place, name) for name in ("set", "mset", "zadd")]
            assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]  # 1 for state

    run(look())


def test_each_set_of_a_run_has_its_revision_its_event_and_its_place_in_lists(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            names = keys(50)
            start = (await engine.history())[1]
            found = await set_all(engine, *(Set(key, b"of " + key) for key in names))
            revisions = [revision for revision, _ in found]
            assert len(set(revisions)) == 50
            assert min(revisions) > start
            assert not any(existed for _, existed in found)
            for key, revision in zip(names, revisions, strict=True):
                record = await engine.get(key)
                assert record is not None
                assert (record.value, record.revision) == (b"of " + key, revision)
            page = await engine.scan()
            assert [key for key, _ in page.entries] == sorted(names)
            told = await changes(engine, start)
            assert sorted(told) == sorted(("SET", key) for key in names)
            assert await engine.check() == []

    run(look())


def test_a_run_tells_which_of_its_keys_existed(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            names = keys(40)
            await set_all(engine, *(Set(key, b"1") for key in names[::3]))
            found = await set_all(engine, *(Set(key, b"2") for key in names))
            assert [existed for _, existed in found] == [n % 3 == 0 for n in range(40)]
            found = await set_all(engine, *(Set(key, b"3") for key in names))
            assert all(existed for _, existed in found)
            assert await engine.check() == []

    run(look())


def test_a_key_that_comes_twice_is_set_twice_in_order(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            sets = Set(b"a", b"1"), Set(b"b", b"1"), Set(b"a", b"2"), Set(b"c", b"1")
            found = await set_all(engine, *sets)
            assert [existed for _, existed in found] == [False, False, True, False]
            assert sorted(found) == found
            assert await value_of(engine, b"a") == b"2"
            told = await changes(engine)
            assert told == [("SET", b"a"), ("SET", b"b"), ("SET", b"a"), ("SET", b"c")]

    run(look())


def test_ends_are_set_and_cleared_by_a_run(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            names = keys(30)
            ttls = [60_000 * (n % 2) for n in range(30)]
            both = list(zip(names, ttls, strict=True))
            for order in (both, [(key, 60_000 - ttl) for key, ttl in both]):
                await set_all(engine, *(Set(key, b"v", ttl_ms=ttl) for key, ttl in order))
                for key, ttl in order:
                    record = await engine.get(key)
                    assert record is not None
                    left = record.expires_at - engine.now() if record.expires_at else 0
                    assert (left > 0) == (ttl > 0)
                    assert left <= ttl
                assert await engine.check() == []

    run(look())


@pytest.mark.parametrize("others", [[], [b"other"]])
def test_a_key_that_has_ended_is_new_behind_the_event_of_its_end(
    server: str, others: list[bytes]
) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            await set_all(
                engine, Set(b"short", b"1", ttl_ms=1), *(Set(key, b"1") for key in others)
            )
            await asyncio.sleep(0.01)
            start = (await engine.history())[1]
            found = await set_all(engine, *(Set(key, b"2") for key in [*others, b"short", b"new"]))
            assert [existed for _, existed in found] == [True for _ in others] + [False, False]
            told = await changes(engine, start)
            ended = [("EXPIRE", b"short"), ("SET", b"short")]
            assert told == [*(("SET", key) for key in others), *ended, ("SET", b"new")]
            assert await engine.check() == []

    run(look())


@pytest.mark.parametrize("others", [[], [b"new"]])
def test_a_run_replaces_stale_copies(server: str, others: list[bytes]) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            names = keys(3)
            for key in names:
                await engine.write([(Set(key, b"1", ttl_ms=1, stale_ms=60_000),)])
            await asyncio.sleep(0.01)
            await engine.expire(100)
            assert await engine.get_stale(names[0]) is not None
            found = await set_all(engine, *(Set(key, b"2") for key in names + others))
            assert not any(existed for _, existed in found)
            assert (await engine.stale_copies(b"", None, 10))[0] == []
            page = await engine.scan()
            assert [key for key, _ in page.entries] == names + others
            assert await engine.check() == []

    run(look())


def test_runs_among_other_writes_give_each_its_own_outcome(anywhere: str) -> None:
    """Held against a dictionary, with sets and deletes in any order."""

    async def look() -> None:
        order = random.Random(7)
        async with opened(anywhere) as engine:
            known: dict[bytes, bytes] = {}
            for turn in range(20):
                writes: list[tuple[Set | Delete]] = []
                expected = []
                for _ in range(order.randrange(1, 300)):
                    key = b"%d" % order.randrange(60)
                    expected.append(key in known)
                    if order.random() < 0.1:
                        writes.append((Delete(key),))
                        known.pop(key, None)
                    else:
                        value = b"%d" % turn * order.choice((1, 1, 1, 3000))
                        writes.append((Set(key, value),))
                        known[key] = value
                found = []
                for outcome in await engine.write(writes):
                    assert not isinstance(outcome, Refusal)
                    found.append(outcome[0].existed)
                assert found == expected
            names = keys(60, b"")
            records = await engine.get_many(names)
            assert [one and one.value for one in records] == [known.get(key) for key in names]
            assert await engine.check() == []

    run(look())


@pytest.mark.parametrize("number", [1, 2, 30])
def test_a_batch_of_sets_is_done_together_and_tells_of_each(anywhere: str, number: int) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            names = keys(number, b"{one}")
            await set_all(engine, *(Set(key, b"1") for key in names[::2]))
            start = (await engine.history())[1]
            results = await done(engine, *(Set(key, b"2") for key in names))
            assert [one.existed for one in results] == [n % 2 == 0 for n in range(number)]
            records = await engine.get_many(names)
            assert [one and one.revision for one in records] == [one.revision for one in results]
            assert await changes(engine, start) == [("SET", key) for key in names]
            assert await engine.check() == []

    run(look())


def test_a_batch_of_a_thousand_sets_is_a_few_commands(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            place = alone().primaries()[0]
            before = calls_of(place, "mset"), calls_of(place, "zadd")
            results = await done(engine, *(Set(key, b"v") for key in keys(1000)))
            assert len({one.revision for one in results}) == 1000
            assert (calls_of(place, "mset"), calls_of(place, "zadd")) == tuple(
                n + 1 for n in before
            )

    run(look())


def test_a_batch_that_names_a_key_twice_does_both_in_order(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            results = await done(engine, Set(b"a", b"1"), Set(b"b", b"1"), Set(b"a", b"2"))
            assert [one.existed for one in results] == [False, False, True]
            assert await value_of(engine, b"a") == b"2"

    run(look())


@pytest.mark.parametrize("number", [1023, 1024, 1025, 3000])
def test_runs_of_any_length_are_sent(server: str, number: int) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            found = await set_all(engine, *(Set(key, b"v") for key in keys(number)))
            assert sorted(found) == found
            assert len(found) == number
            assert (await engine.count(b"", None, 5000))[0] == number

    run(look())


@pytest.mark.parametrize("evicted", [1, 10])
def test_a_record_that_was_evicted_is_new_again_to_a_run(server: str, evicted: int) -> None:
    """The server has removed it, and its name is in the index yet."""

    async def look() -> None:
        async with opened(server, may_evict=True) as engine:
            names = keys(10)
            await set_all(engine, *(Set(key, b"1") for key in names))
            gone = [engine.layout.records[0] + key for key in names[:evicted]]
            alone().primaries()[0].ask("UNLINK", *gone)
            found = await set_all(engine, *(Set(key, b"2") for key in names))
            assert [existed for _, existed in found] == [n >= evicted for n in range(10)]
            assert (await engine.count(b"", None, 5000))[0] == 10

    run(look())
