"""A store that is spread over the shards of a cluster."""

from __future__ import annotations

import asyncio
import random

import pytest
from valkey_support.engines import attempt, changes, done, opened, run, value_of

from keyrack.engines.contract import (
    ANY,
    Add,
    Check,
    Condition,
    Delete,
    Get,
    Refusal,
    Remember,
    Set,
    Space,
    Why,
)
from keyrack.engines.valkey.layout import SLOTS, Layout, slot_of


def test_each_shard_has_its_slot_in_its_own_part_of_them() -> None:
    for shards in (1, 3, 64, 1024):
        slots = Layout(b"some:prefix/", shards).slots
        assert [slot * shards // SLOTS for slot in slots] == list(range(shards))


def test_the_slots_are_those_of_the_servers() -> None:
    # From the specification of clusters, and the servers' own CLUSTER KEYSLOT.
    assert slot_of(b"123456789") == 12739
    assert slot_of(b"{user1000}.following") == slot_of(b"user1000") == slot_of(b"x{user1000}")
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")
    assert slot_of(b"foo{bar}{zap}") == slot_of(b"bar")


def test_a_batch_over_shards_is_refused_as_a_whole(shards: str) -> None:
    async def look() -> None:
        async with opened(shards) as engine:
            outcome = await attempt(engine, Set(b"a", b""), Set(b"b", b""), Set(b"c", b""))
            assert outcome == Refusal(Why.SPREAD)
            assert (await engine.usage()).keys == 0

    run(look())


def test_keys_with_a_tag_in_common_are_changed_together(shards: str) -> None:
    async def look() -> None:
        async with opened(shards) as engine:
            write = [Set(b"{t}%d" % number, b"%d" % number, ttl_ms=9000) for number in range(50)]
            results = await done(engine, *write, Delete(b"{t}7"), Get(b"{t}8"), Add(b"{t}9", 5))
            revisions = [result.revision for result in results[:51]]
            assert revisions == sorted(set(revisions))
            assert results[51].record is not None
            assert results[52].number == 14
            told = [("SET", operation.key) for operation in write]
            assert await changes(engine) == [*told, ("DELETE", b"{t}7"), ("SET", b"{t}9")]

    run(look())


@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_a_refused_operation_undoes_its_whole_write(shards: str, position: int) -> None:
    async def look() -> None:
        async with opened(shards) as engine:
            await done(engine, Set(b"{t}old", b"kept", ttl_ms=9000), Set(b"{t}n", b"5"))
            before = await changes(engine)
            operations = [Set(b"{t}new", b"1"), Delete(b"{t}old"), Add(b"{t}n", 1)]
            operations.insert(position, Check(b"{t}missing", Condition(match=ANY)))
            assert await attempt(engine, *operations) == Refusal(Why.CONDITION, position, None)
            assert await changes(engine) == before
            assert await value_of(engine, b"{t}old") == b"kept"
            assert await value_of(engine, b"{t}n") == b"5"
            assert await engine.check() == []

    run(look())


def test_a_lock_guards_keys_that_share_its_tag(shards: str) -> None:
    async def look() -> None:
        async with opened(shards) as engine:
            take = Set(b"{t}lock", b"me", ttl_ms=9000, space=Space.LOCKS)
            token = (await done(engine, take))[0].revision
            held = Check(b"{t}lock", Condition(match=frozenset([token])), Space.LOCKS)
            await done(engine, held, Set(b"{t}k", b"guarded"))
            await done(engine, Delete(b"{t}lock", space=Space.LOCKS))
            assert (await attempt(engine, held, Set(b"{t}k", b"late"))) == Refusal(
                Why.CONDITION, 0, None
            )
            assert await value_of(engine, b"{t}k") == b"guarded"

    run(look())


def test_a_write_with_a_name_is_done_once(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            write = (Remember(b"name", b"print", 60_000), Add(b"n", 1))
            outcomes = await asyncio.gather(*(attempt(engine, *write) for _ in range(20)))
            assert all(outcome == outcomes[0] for outcome in outcomes)
            assert await value_of(engine, b"n") == b"1"
            other = (Remember(b"name", b"another", 60_000), Add(b"n", 1))
            assert await attempt(engine, *other) == Refusal(Why.REUSED)

    run(look())


@pytest.mark.parametrize("size", [0, 1, 65_536])
def test_what_was_read_is_remembered_as_well(anywhere: str, size: int) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            await done(engine, Set(b"{t}k", bytes(size), "odd/one"))
            write = (Remember(b"name", b"print", 60_000), Get(b"{t}k"), Get(b"{t}none"))
            first = await attempt(engine, *write)
            await done(engine, Set(b"{t}k", b"other"))
            assert await attempt(engine, *write) == first

    run(look())


# Order of events across shards


def test_events_of_all_shards_are_told_once_and_in_order_while_many_write(shards: str) -> None:
    """Read while several processes write: every event once, greater and greater, none missed."""

    async def look() -> None:
        written: list[int] = []
        told: list[int] = []
        over = asyncio.Event()

        async def write(seed: int) -> None:
            chance = random.Random(seed)
            async with opened(shards) as engine:
                for _ in range(150):
                    keys = {b"%d" % chance.randrange(1000) for _ in range(5)}
                    outcomes = await engine.write([(Set(key, b"v"),) for key in keys])
                    written.extend(outcome[0].revision for outcome in outcomes)  # type: ignore[union-attr]

        async def read() -> None:
            async with opened(shards) as engine:
                since = 0
                while True:
                    last_round = over.is_set()
                    events = await engine.events_after(since, 50)
                    told.extend(event.revision for event in events)
                    since = told[-1] if told else 0
                    if last_round and not events:
                        return

        reading = asyncio.ensure_future(read())
        await asyncio.gather(*(write(seed) for seed in range(3)))
        over.set()
        await reading
        assert told == sorted(written)
        assert len(set(told)) == len(told)

    run(look())


def test_what_a_process_does_after_it_saw_something_has_a_greater_revision(shards: str) -> None:
    async def look() -> None:
        async with opened(shards) as one, opened(shards) as other:
            last, told = 0, 0
            for number in range(100):
                engine = (one, other)[number % 2]
                for event in await engine.events_after(told, 100):
                    assert event.key == b"%d" % (number - 1)
                    told = event.revision
                assert told == last
                (result,) = await done(engine, Set(b"%d" % number, b"v"))
                assert result.revision > last
                last = result.revision

    run(look())


# Numbers of 64 bits, which Lua does not have


EDGES = [0, 1, -1, 9, 10**10 - 1, 10**10, 10**10 + 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]


def test_sums_are_those_of_64_bits(server: str) -> None:
    async def look() -> None:
        chance = random.Random(5)
        numbers = EDGES + [chance.randrange(-(2**63), 2**63) for _ in range(20)]
        async with opened(server) as engine:
            for before in numbers:
                writes = [
                    (Set(b"%d" % number, b"%d" % before), Add(b"%d" % number, number))
                    for number in numbers
                ]
                for delta, outcome in zip(numbers, await engine.write(writes), strict=True):
                    if -(2**63) <= before + delta < 2**63:
                        assert isinstance(outcome, tuple)
                        assert outcome[1].number == before + delta
                        assert await value_of(engine, b"%d" % delta) == b"%d" % (before + delta)
                    else:
                        assert isinstance(outcome, Refusal)
                        assert outcome.why is Why.OVERFLOW

    run(look())


BAD = [b"", b"-", b"+1", b"01", b"-0", b"-01", b"1 ", b" 1", b"1\n", b"1.0", b"1e3", b"0x1"]
BIG = [b"9223372036854775808", b"-9223372036854775809", b"1" * 20, b"1" * 500]


@pytest.mark.parametrize("text", [*BAD, *BIG])
def test_what_is_no_number_is_not_added_to(server: str, text: bytes) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            (result,) = await done(engine, Set(b"k", text))
            outcome = await attempt(engine, Add(b"k", 1))
            assert outcome == Refusal(Why.NUMBER, 0, result.revision)
            assert await value_of(engine, b"k") == text

    run(look())
