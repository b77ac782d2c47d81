"""Every engine: keys that end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.world import (
    done,
    drop,
    follows,
    history,
    needs_all_keys_together,
    put,
    value_of,
)

from keyrack.engines.contract import (
    KEEP_END,
    MAX_TTL_MS,
    TEXT,
    Add,
    Change,
    Delete,
    Record,
    Result,
    Set,
    Sweep,
)

if TYPE_CHECKING:
    from engine_support.world import World

    from keyrack.engines.contract import Operation

TEN_YEARS = MAX_TTL_MS


def test_a_key_is_served_until_its_last_millisecond_and_not_after(world: World) -> None:
    put(world.engine, b"k", ttl_ms=5)
    world.clock.advance(4)
    assert value_of(world.engine, b"k") == b"v"
    world.clock.advance(1)
    assert world.engine.get(b"k") is None


def test_a_key_set_within_a_millisecond_never_lives_longer(world: World) -> None:
    world.clock.advance(0.9)
    put(world.engine, b"k", ttl_ms=1)
    world.clock.advance(1)
    assert world.engine.get(b"k") is None


def test_a_record_says_when_it_ends(world: World) -> None:
    result = put(world.engine, b"k", ttl_ms=TEN_YEARS)
    ends = world.engine.now() + TEN_YEARS
    assert world.engine.get(b"k") == Record(b"v", TEXT, result.revision, ends)
    world.clock.advance(TEN_YEARS - 1)
    assert world.engine.get(b"k") is not None
    world.clock.advance(1)
    assert world.engine.get(b"k") is None


@pytest.mark.parametrize("operation", [Set(b"k", b"2", ttl_ms=KEEP_END), Add(b"k", 1)])
def test_what_keeps_a_ttl_keeps_its_end(world: World, operation: Operation) -> None:
    put(world.engine, b"k", b"1", ttl_ms=100)
    record = world.engine.get(b"k")
    assert record is not None
    for _ in range(3):
        world.clock.advance(30)
        done(world.engine, operation)
        present = world.engine.get(b"k")
        assert present is not None
        assert present.expires_at == record.expires_at
    world.clock.advance(9)
    assert value_of(world.engine, b"k") is not None
    world.clock.advance(1)
    assert world.engine.get(b"k") is None
    assert world.engine.check() == []


def test_a_key_that_keeps_no_end_has_none(world: World) -> None:
    put(world.engine, b"ended", b"1", ttl_ms=5)
    put(world.engine, b"without", b"1")
    world.clock.advance(10)
    for key in (b"ended", b"without", b"new"):
        done(world.engine, Set(key, b"2", ttl_ms=KEEP_END))
        record = world.engine.get(key)
        assert record is not None
        assert record.expires_at == 0


def test_an_end_is_kept_within_a_batch(world: World) -> None:
    done(
        world.engine,
        Set(b"{t}k", b"1", ttl_ms=50),
        Set(b"{t}k", b"2", ttl_ms=KEEP_END),
        Delete(b"{t}other"),
        Add(b"{t}k", 1),
    )
    world.clock.advance(49)
    assert value_of(world.engine, b"{t}k") == b"3"
    world.clock.advance(1)
    assert world.engine.get(b"{t}k") is None


def test_a_ttl_goes_on_over_a_restart(world: World) -> None:
    put(world.engine, b"k", ttl_ms=100)
    world.clock.advance(60)
    world.restart()
    world.clock.advance(39)
    assert value_of(world.engine, b"k") == b"v"
    world.clock.advance(1)
    assert world.engine.get(b"k") is None


@pytest.mark.parametrize(("ttl_ms", "lives"), [(0, True), (1000, True), (5, False)])
def test_the_last_set_decides_when_a_key_ends(world: World, ttl_ms: int, lives: bool) -> None:
    put(world.engine, b"k", ttl_ms=10)
    put(world.engine, b"k", ttl_ms=ttl_ms)
    world.clock.advance(10)
    world.engine.expire(10)
    assert (world.engine.get(b"k") is not None) is lives


# The sweep


def test_a_sweep_removes_what_has_ended_and_nothing_else(world: World) -> None:
    for key, ttl in ((b"a", 5), (b"b", 6), (b"c", 0)):
        put(world.engine, key, ttl_ms=ttl)
    due = world.engine.now() + 5
    assert world.engine.expire(10) == Sweep(0, due)
    world.clock.advance(5)
    assert world.engine.expire(10) == Sweep(1, due + 1)
    assert history(world.engine)[3:] == [(Change.EXPIRE, b"a")]
    assert [world.engine.usage().keys, world.engine.usage().keys_with_ttl] == [2, 1]


def test_a_sweep_of_nothing_says_that_nothing_is_due(world: World) -> None:
    put(world.engine, b"k")
    assert world.engine.expire(10) == Sweep(0, None)
    put(world.engine, b"k", ttl_ms=5)
    world.clock.advance(5)
    assert world.engine.expire(10) == Sweep(1, None)


def test_a_sweep_takes_the_longest_ended_first_and_no_more_than_it_may(world: World) -> None:
    for ttl in (30, 10, 20, 10, 50):
        put(world.engine, b"%d-%d" % (ttl, world.engine.usage().keys), ttl_ms=ttl)
    due = world.engine.now()
    world.clock.advance(40)
    sweeps = [world.engine.expire(2), world.engine.expire(2), world.engine.expire(2)]
    assert sweeps == [Sweep(2, due + 20), Sweep(2, due + 50), Sweep(0, due + 50)]
    swept = [key for change, key in history(world.engine) if change is Change.EXPIRE]
    assert {*swept[:2]} == {b"10-1", b"10-3"}
    assert {*swept[2:]} == {b"20-2", b"30-0"}
    if world.engine.capabilities.atomic_across_keys:
        assert swept == [b"10-1", b"10-3", b"20-2", b"30-0"]


def test_a_key_that_was_set_anew_is_not_swept_at_its_old_time(world: World) -> None:
    put(world.engine, b"k", ttl_ms=5)
    put(world.engine, b"k", ttl_ms=50)
    put(world.engine, b"gone", ttl_ms=5)
    drop(world.engine, b"gone")
    world.clock.advance(5)
    assert world.engine.expire(10) == Sweep(0, world.engine.now() + 45)


def test_an_expiry_is_a_change_with_a_revision_of_its_own(world: World) -> None:
    before = put(world.engine, b"k", ttl_ms=5).revision
    world.clock.advance(7)
    world.engine.expire(1)
    (event,) = world.engine.events(before)
    assert event.time == world.engine.now()
    assert follows(world.engine, event.revision, before)
    assert follows(world.engine, put(world.engine, b"k").revision, event.revision)


# A key that has ended and is still there


def test_a_set_over_an_ended_key_logs_its_end_first_and_makes_it_anew(world: World) -> None:
    before = put(world.engine, b"k", ttl_ms=5).revision
    world.clock.advance(5)
    result = put(world.engine, b"k", b"new")
    first, second = world.engine.events(before)
    assert [(event.change, event.key) for event in (first, second)] == [
        (Change.EXPIRE, b"k"),
        (Change.SET, b"k"),
    ]
    assert follows(world.engine, first.revision, before)
    assert follows(world.engine, second.revision, first.revision)
    assert result == Result(second.revision, existed=False)
    assert world.engine.expire(10) == Sweep(0, None)
    assert value_of(world.engine, b"k") == b"new"


def test_a_set_with_a_ttl_over_an_ended_key_ends_at_its_own_time(world: World) -> None:
    put(world.engine, b"k", ttl_ms=5)
    world.clock.advance(5)
    put(world.engine, b"k", b"new", ttl_ms=7)
    assert world.engine.expire(10) == Sweep(0, world.engine.now() + 7)
    world.clock.advance(6)
    assert value_of(world.engine, b"k") == b"new"


def test_a_delete_of_an_ended_key_is_its_expiry(world: World) -> None:
    before = put(world.engine, b"k", ttl_ms=5).revision
    world.clock.advance(5)
    assert drop(world.engine, b"k") == Result(0, existed=False)
    assert history(world.engine, before) == [(Change.EXPIRE, b"k")]
    assert world.engine.usage().keys == 0


def test_ended_keys_among_many_operations_get_their_events_in_order(world: World) -> None:
    needs_all_keys_together(world.engine)
    for key in (b"a", b"b", b"c"):
        before = put(world.engine, key, ttl_ms=5).revision
    world.clock.advance(5)
    results = done(
        world.engine,
        Set(b"x", b""),
        Set(b"a", b"1"),
        Delete(b"b"),
        Set(b"c", b"1", ttl_ms=9),
        Set(b"c", b"2"),
    )
    assert [result.existed for result in results] == [False, False, False, False, True]
    assert history(world.engine, before) == [
        (Change.SET, b"x"),
        (Change.EXPIRE, b"a"),
        (Change.SET, b"a"),
        (Change.EXPIRE, b"b"),
        (Change.EXPIRE, b"c"),
        (Change.SET, b"c"),
        (Change.SET, b"c"),
    ]
    for key, result in ((b"x", results[0]), (b"a", results[1]), (b"c", results[4])):
        record = world.engine.get(key)
        assert record is not None
        assert record.revision == result.revision


def test_ended_keys_count_as_keys_until_they_are_swept(world: World) -> None:
    put(world.engine, b"k", ttl_ms=5)
    world.clock.advance(5)
    assert world.engine.usage().keys == 1
    world.engine.expire(1)
    assert world.engine.usage().keys == 0
