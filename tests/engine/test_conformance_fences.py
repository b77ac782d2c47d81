"""Every engine: writes of some keys are done only by who holds a lock, checked with the write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.world import attempt, done, put, refused

from keyrack.engines.contract import (
    ANY,
    TEXT,
    Add,
    Check,
    Condition,
    Delete,
    Discard,
    Get,
    Refusal,
    Remember,
    Set,
    Space,
    Touch,
    Why,
)
from keyrack.engines.fences import Fence, Fences

if TYPE_CHECKING:
    from engine_support.world import World

    from keyrack.engines.contract import Operation

# One tag for all: in a cluster a lock and what needs it have to be in the same shard.
LOCK, KEY = b"{jobs}", b"{jobs}/1"
FREE = Condition(none_match=ANY)
FENCE = Fence(b"{jobs}/", True, LOCK)


@pytest.fixture
def world(world: World) -> World:
    world.engine.fence(Fences((FENCE,), lambda key: key.startswith(b"{jobs}/")).refusals)
    return world


def take(world: World, name: bytes = LOCK, ttl: int = 1000) -> int:
    """Take a lock, and return its token."""
    lock = Set(name, b"somebody", TEXT, ttl, FREE, Space.LOCKS)
    return done(world.engine, lock)[0].revision


def held(token: int, name: bytes = LOCK) -> Check:
    return Check(name, Condition(match=frozenset((token,))), Space.LOCKS)


WRITES: tuple[Operation, ...] = (
    Set(KEY, b"5"),
    Set(KEY, b"0123456789" * 2000),
    Set(KEY, b"5", ttl_ms=100, stale_ms=100, condition=Condition()),
    Add(KEY, 1),
    Touch(KEY, 100),
    Delete(KEY),
    Discard(KEY, 1 << 60),
)


@pytest.mark.parametrize("operation", WRITES, ids=lambda one: type(one).__name__)
def test_a_write_without_the_lock_is_refused(world: World, operation: Operation) -> None:
    token = take(world)
    done(world.engine, held(token), Set(KEY, b"1"))
    before = world.engine.get(KEY)
    for write in (
        (operation,),
        (Set(b"{jobs}elsewhere", b"1"), operation),
        (Check(LOCK, Condition(match=ANY), Space.LOCKS), operation),
        (Check(LOCK, Condition(match=frozenset()), Space.LOCKS), operation),
        (held(token, b"{jobs}other"), operation),
        (Remember(b"name", b"print", 1000), operation),
    ):
        refusal = refused(world.engine, *write)
        assert (refusal.why, refusal.lock) == (Why.FENCED, LOCK)
        own = [one for one in write if not isinstance(one, Remember)]
        assert own[refusal.index] == operation
    assert world.engine.get(KEY) == before
    assert world.engine.get(b"{jobs}elsewhere") is None
    done(world.engine, held(token), operation)


def test_writes_that_come_together_are_judged_one_by_one(world: World) -> None:
    token = take(world)
    writes = (
        (Set(b"a", b"1"),),
        (Set(KEY, b"2"),),
        (held(token), Set(KEY, b"3")),
        (Delete(KEY),),
        (Set(b"b", b"4"),),
    )
    outcomes = world.engine.write(writes)
    assert [isinstance(one, Refusal) for one in outcomes] == [False, True, False, True, False]
    values = [record.value for record in world.engine.get_many([b"a", KEY, b"b"])]
    assert values == [b"1", b"3", b"4"]


@pytest.mark.parametrize("operation", WRITES, ids=lambda one: type(one).__name__)
def test_a_token_that_is_old_or_wrong_changes_nothing(world: World, operation: Operation) -> None:
    first = take(world, ttl=10)
    done(world.engine, held(first), Set(KEY, b"1"))
    before = world.engine.get(KEY)
    world.clock.advance(10)
    for token in (first, first + 1):
        refusal = refused(world.engine, held(token), operation)
        assert (refusal.why, refusal.index) == (Why.CONDITION, 0)
    second = take(world)
    assert second > first
    assert refused(world.engine, held(first), operation).why is Why.CONDITION
    assert world.engine.get(KEY) == before
    done(world.engine, held(second), operation)
    assert world.engine.check() == []


def test_other_keys_reads_locks_and_the_end_of_a_ttl_need_none(world: World) -> None:
    token = take(world)
    done(world.engine, held(token), Set(KEY, b"1", ttl_ms=10))
    put(world.engine, b"{jobs}")
    put(world.engine, b"jobs/1")
    assert done(world.engine, Get(KEY))[0].record is not None
    done(world.engine, Set(KEY, b"me", TEXT, 1000, FREE, Space.LOCKS))
    world.clock.advance(10)
    world.engine.expire(100)
    assert world.engine.get(KEY) is None
    assert refused(world.engine, Set(KEY, b"2")).why is Why.FENCED


def test_a_remembered_write_gets_its_answer_again_when_the_lock_is_gone(world: World) -> None:
    token = take(world, ttl=10)
    write = (Remember(b"{jobs}name", b"print", 10_000), held(token), Set(KEY, b"1"))
    first = done(world.engine, *write)
    world.clock.advance(10)
    assert done(world.engine, *write) == first


def test_without_fences_everything_is_done_again(world: World) -> None:
    world.engine.fence(None)
    assert not isinstance(attempt(world.engine, Set(KEY, b"1")), Refusal)


def test_several_fences_need_all_of_their_locks(world: World) -> None:
    other = b"{jobs}all"
    world.engine.fence(Fences((FENCE, Fence(b"", True, other), Fence(KEY, False, LOCK))).refusals)
    one, two = take(world), take(world, other)
    assert refused(world.engine, Set(KEY, b"1")).lock == LOCK
    assert refused(world.engine, held(one), Set(KEY, b"1")).lock == other
    assert refused(world.engine, held(two, other), Set(b"{jobs}", b"1"), Set(KEY, b"1")).index == 2
    done(world.engine, held(one), held(two, other), Set(KEY, b"1"))


def test_which_locks_keys_below_a_prefix_need() -> None:
    fences = Fences((FENCE, Fence(b"a", False, b"exact"), Fence(b"a/b", True, b"inner")))
    assert fences.needed_below(b"") == [LOCK, b"exact", b"inner"]
    assert fences.needed_below(b"{jobs}/1") == [LOCK]
    assert fences.needed_below(b"a") == [b"exact", b"inner"]
    assert fences.needed_below(b"a/b/c") == [b"inner"]
    assert fences.needed_below(b"ab") == []
