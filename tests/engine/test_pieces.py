"""Long values are stored in pieces of a page each, which nobody sees but who has little room."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from engine_support.world import MIB, EmbeddedWorld, attempt, done, drop, put, value_of

from keyrack.engines import record as wire
from keyrack.engines.contract import (
    ANY,
    TEXT,
    Check,
    Condition,
    Delete,
    Get,
    Record,
    Refusal,
    Remember,
    Set,
    Touch,
    Why,
)
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine_support.driven import Driven


FULL = Refusal(Why.FULL)
MISSING_FAILS = Check(b"missing", Condition(match=ANY))
PAGE = 4096


@pytest.fixture
def world(shm: Path) -> Iterator[EmbeddedWorld]:
    """A store whose audit is clean at the end, and that holds no piece that nobody knows."""
    world = EmbeddedWorld(shm)
    yield world
    problems = world.engine.check()
    world.close()
    assert problems == []


@pytest.fixture
def engine(world: EmbeddedWorld) -> Driven:
    return world.engine


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def pieces(engine: Driven) -> int:
    with engine.database.read() as txn:
        return txn.entries(engine.database.pieces)


SIZES = [LONGEST_WHOLE, LONGEST_WHOLE + 1, PIECE, PIECE + 1, 2 * PIECE, 100_000, MIB]


@pytest.mark.parametrize("media_type", [TEXT, "a/" + "b" * 253])
@pytest.mark.parametrize("ttl_ms", [0, 1000])
@pytest.mark.parametrize("size", SIZES)
def test_a_value_of_any_length_comes_back(
    engine: Driven, size: int, ttl_ms: int, media_type: str
) -> None:
    value = noise(size)
    stored = done(engine, Set(b"k", value, media_type, ttl_ms))[0]
    ends = engine.now() + ttl_ms if ttl_ms else 0
    expected = Record(value, media_type, stored.revision, ends)
    assert engine.get(b"k") == expected
    assert engine.scan().entries == [(b"k", expected)]
    assert done(engine, Get(b"k"))[0].record == expected
    assert pieces(engine) == (-(-size // PIECE) if size > LONGEST_WHOLE else 0)


def test_values_that_are_replaced_or_removed_leave_no_piece(world: EmbeddedWorld) -> None:
    engine = world.engine
    put(engine, b"replaced", noise(50_000))
    put(engine, b"replaced", noise(9_000, 2))
    assert value_of(engine, b"replaced") == noise(9_000, 2)
    put(engine, b"replaced", b"short")
    put(engine, b"deleted", noise(50_000))
    drop(engine, b"deleted")
    put(engine, b"swept", noise(50_000), ttl_ms=10)
    put(engine, b"ended and replaced", noise(50_000), ttl_ms=10)
    world.clock.advance(10)
    put(engine, b"ended and replaced", noise(8_000))
    assert engine.expire(10).expired == 1
    assert value_of(engine, b"ended and replaced") == noise(8_000)
    assert pieces(engine) == 2


def test_a_long_value_that_ended_is_not_read(world: EmbeddedWorld) -> None:
    put(world.engine, b"k", noise(50_000), ttl_ms=10)
    world.clock.advance(9)
    assert value_of(world.engine, b"k") == noise(50_000)
    world.clock.advance(1)
    assert world.engine.get(b"k") is None


def test_a_touch_changes_the_end_of_a_long_value_and_nothing_else(engine: Driven) -> None:
    value = noise(50_000)
    revision = put(engine, b"k", value).revision
    done(engine, Touch(b"k", 500))
    assert engine.get(b"k") == Record(value, TEXT, revision, engine.now() + 500)
    done(engine, Touch(b"k", 0))
    assert engine.get(b"k") == Record(value, TEXT, revision)


@pytest.mark.parametrize(
    "operations",
    [
        (Set(b"old", b"short"),),
        (Set(b"old", noise(60_000, 3)), Set(b"old", noise(70_000, 4))),
        (Delete(b"old"), Set(b"new", noise(60_000, 3))),
        (Touch(b"old", 500), Set(b"old", noise(60_000, 3)), Touch(b"old", 0)),
        (Touch(b"old", 500),),
    ],
)
def test_a_refused_write_leaves_long_values_as_they_were(
    engine: Driven, operations: tuple[Set | Delete | Touch, ...]
) -> None:
    put(engine, b"old", noise(50_000))
    before, count = engine.get(b"old"), pieces(engine)
    assert isinstance(attempt(engine, *operations, MISSING_FAILS), Refusal)
    assert (engine.get(b"old"), pieces(engine)) == (before, count)
    done(engine, *operations)
    assert engine.check() == []


def test_a_refused_write_harms_no_other_in_its_commit(engine: Driven) -> None:
    put(engine, b"old", noise(50_000))
    doing = (Set(b"a", noise(50_000, 2)), Set(b"b", b"v"))
    refused = (Set(b"c", noise(50_000, 3)), Set(b"old", noise(50_000, 4)), MISSING_FAILS)
    outcomes = engine.write([doing, refused, (Set(b"d", b"v"), Set(b"e", b"v"))])
    assert [isinstance(outcome, Refusal) for outcome in outcomes] == [False, True, False]
    assert value_of(engine, b"a") == noise(50_000, 2)
    assert value_of(engine, b"old") == noise(50_000)


def test_a_long_outcome_is_remembered(world: EmbeddedWorld) -> None:
    engine = world.engine
    put(engine, b"k", noise(50_000))
    name = Remember(b"name", b"fingerprint", 1000)
    first = done(engine, name, Get(b"k"), Set(b"after", b"v"))
    put(engine, b"k", noise(50_000, 2))
    put(engine, b"k2", noise(50_000, 2))
    assert done(engine, name, Get(b"k"), Set(b"after", b"v")) == first
    before = pieces(engine)
    world.clock.advance(1000)
    assert engine.expire(10).expired == 1
    assert pieces(engine) < before


def test_what_is_free_can_be_had_by_a_long_value_wherever_it_is(shm: Path) -> None:
    """No two pages next to one another are free here: every second value has gone."""
    world = EmbeddedWorld(shm, 16 * MIB)
    keys = [b"%05d" % number for number in range(3300)]
    assert FULL not in world.engine.write([(Set(key, b"x" * 3000),) for key in keys])
    assert attempt(world.engine, Set(b"long", noise(3 * MIB))) == FULL
    world.engine.write([(Delete(key),) for key in keys[::2]])
    for number in range(4):
        assert attempt(world.engine, Set(b"long-%d" % number, noise(MIB, number))) != FULL
        assert value_of(world.engine, b"long-%d" % number) == noise(MIB, number)
    problems = world.engine.check()
    world.close()
    assert problems == []


def test_a_long_value_takes_little_more_than_its_length(engine: Driven) -> None:
    before = engine.usage().used
    for number in range(100):
        put(engine, b"%d" % number, noise(20_000))
    assert engine.usage().used - before < 1.1 * 100 * 20_000


def test_a_store_of_format_1_keeps_its_long_values(world: EmbeddedWorld) -> None:
    """There they stand in their records; new ones are made in pieces."""
    engine, value = world.engine, noise(50_000)
    put(engine, b"old", b"short")
    put(engine, b"gone", b"short")
    records = engine.database.spaces[0]
    with engine.database.load(0) as txn:
        for key in (b"old", b"gone"):
            raw = txn.get(key, records)
            assert raw is not None
            txn.put(key, wire.pack(wire.revision(raw), value), records)
        txn.put_note(b"keyrack:format", b"keyrack 1")
    world.restart()
    assert value_of(world.engine, b"old") == value
    drop(world.engine, b"gone")
    put(world.engine, b"old", noise(60_000))
    assert value_of(world.engine, b"old") == noise(60_000)
    with world.engine.database.read() as txn:
        assert txn.note(b"keyrack:format") == b"keyrack 4"
