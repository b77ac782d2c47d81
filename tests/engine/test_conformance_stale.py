"""Every engine: stale copies of keys that have ended, and the leases to recompute them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.world import attempt, done, drop, history, put, refused, value_of

from keyrack.engines.contract import (
    ANY,
    KEEP_END,
    LEASE,
    TEXT,
    Add,
    Change,
    Check,
    Condition,
    Delete,
    Get,
    Record,
    Refusal,
    Remember,
    Set,
    Space,
    Touch,
    Why,
)

if TYPE_CHECKING:
    from engine_support.world import World

    from keyrack.engines.contract import Operation, Result

LONG = b"0123456789" * 2000
FREE = Condition(none_match=ANY)


def keep(world: World, key: bytes = b"k", value: bytes = b"v", ttl: int = 10) -> Result:
    """Set a key that ends, and is kept as a stale copy for 100 ms more."""
    return done(world.engine, Set(key, value, ttl_ms=ttl, stale_ms=100))[0]


def pass_on(world: World, ms: float) -> None:
    """Let time pass, and remove what is over then."""
    world.clock.advance(ms)
    world.engine.expire(100)
    assert world.engine.check() == []


@pytest.mark.parametrize("value", [b"v", LONG], ids=["short", "long"])
@pytest.mark.parametrize("swept", [False, True])
def test_a_stale_copy_is_read_by_who_asks_for_it_and_by_nobody_else(
    world: World, value: bytes, swept: bool
) -> None:
    stored_at = world.engine.now()
    revision = keep(world, value=value).revision
    record = Record(value, TEXT, revision, stored_at + 10, stored_at + 110, stored_at)
    assert world.engine.get(b"k") == world.engine.get_stale(b"k") == record
    world.clock.advance(10)
    if swept:
        pass_on(world, 0)
    assert world.engine.get_stale(b"k") == record
    assert world.engine.get(b"k") is None
    assert world.engine.get_many([b"k"]) == [None]
    assert world.engine.get_part(b"k", (0, 1)) is None
    assert world.engine.sizes_of([b"other"]) == [0]
    assert world.engine.scan().entries == []
    assert world.engine.count(b"", None, 100) == (0, None)
    assert done(world.engine, Get(b"k"))[0].record is None
    assert world.engine.check() == []


@pytest.mark.parametrize("swept", [False, True])
def test_a_stale_copy_is_gone_in_its_last_millisecond(world: World, swept: bool) -> None:
    keep(world)
    pass_on(world, 10)
    world.clock.advance(99)
    assert world.engine.get_stale(b"k") is not None
    world.clock.advance(1)
    if swept:
        pass_on(world, 0)
        assert world.engine.usage().stale_copies == 0
    assert world.engine.get_stale(b"k") is None


def test_a_record_whose_sweep_came_too_late_leaves_no_copy(world: World) -> None:
    keep(world)
    pass_on(world, 200)
    assert world.engine.get_stale(b"k") is None
    assert world.engine.usage().stale_copies == 0
    assert history(world.engine)[-1] == (Change.EXPIRE, b"k")


def test_a_key_ends_once_and_is_counted_no_more(world: World) -> None:
    keep(world)
    put(world.engine, b"other")
    pass_on(world, 10)
    usage = world.engine.usage()
    assert (usage.keys, usage.keys_with_ttl, usage.stale_copies) == (1, 0, 1)
    pass_on(world, 100)
    assert world.engine.usage().stale_copies == 0
    assert [change for change, key in history(world.engine) if key == b"k"] == [
        Change.SET,
        Change.EXPIRE,
    ]


@pytest.mark.parametrize(
    "operation",
    [
        Set(b"k", b"2"),
        Set(b"k", b"2", ttl_ms=1000),
        Set(b"k", b"2", ttl_ms=KEEP_END),
        Set(b"k", b"2", ttl_ms=1000, stale_ms=1),
        Set(b"k", LONG, condition=FREE),
        Add(b"k", 1),
        Delete(b"k"),
    ],
    ids=str,
)
@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_what_is_written_takes_the_place_of_a_stale_copy(
    world: World, operation: Operation, swept: bool, together: bool
) -> None:
    keep(world, value=LONG)
    world.clock.advance(10)
    if swept:
        pass_on(world, 0)
    results = done(world.engine, operation, *[Get(b"k")] * together)
    assert not results[0].existed
    assert world.engine.get_stale(b"k") == world.engine.get(b"k")
    if isinstance(operation, Delete):
        assert world.engine.get_stale(b"k") is None
    assert world.engine.usage().stale_copies == 0
    assert [change for change, _ in history(world.engine)][:2] == [Change.SET, Change.EXPIRE]
    assert len(history(world.engine)) == 2 + (not isinstance(operation, Delete))
    assert world.engine.check() == []


def test_a_refused_write_leaves_a_stale_copy_as_it_was(world: World) -> None:
    keep(world, value=LONG)
    pass_on(world, 10)
    before = world.engine.get_stale(b"k")
    never = Condition(match=ANY)
    refused(world.engine, Set(b"k", b"2"), Delete(b"k"), Check(b"k", never))
    assert world.engine.get_stale(b"k") == before
    assert world.engine.usage().stale_copies == 1
    assert world.engine.check() == []


def test_what_has_ended_can_be_touched_by_nobody(world: World) -> None:
    keep(world)
    pass_on(world, 10)
    assert refused(world.engine, Touch(b"k", 1000)).why is Why.MISSING
    assert world.engine.get(b"k") is None


@pytest.mark.parametrize(
    ("touch", "ends", "stale_until"),
    [
        (Touch(b"k", 50), 50, 150),
        (Touch(b"k", 50, stale_ms=7), 50, 57),
        (Touch(b"k", 50, stale_ms=0), 50, 0),
        (Touch(b"k", 0), 0, 0),
        (Add(b"k", 1, ttl_ms=50), 50, 150),
        (Add(b"k", 1), 10, 110),
        (Set(b"k", b"2", ttl_ms=KEEP_END), 10, 110),
        (Set(b"k", b"2", ttl_ms=50), 50, 0),
    ],
    ids=str,
)
def test_another_end_moves_the_stale_copys_with_it(
    world: World, touch: Operation, ends: int, stale_until: int
) -> None:
    now = world.engine.now()
    keep(world, value=b"1")
    done(world.engine, touch)
    record = world.engine.get(b"k")
    assert record is not None
    at = [moment and moment - now for moment in (record.expires_at, record.stale_until)]
    assert at == [ends, stale_until]
    assert world.engine.check() == []


def test_a_touch_makes_a_record_keep_a_copy_that_kept_none(world: World) -> None:
    put(world.engine, b"k", b"1")
    done(world.engine, Touch(b"k", 5, stale_ms=5))
    pass_on(world, 5)
    assert world.engine.get(b"k") is None
    assert world.engine.get_stale(b"k") is not None


def test_the_names_of_stale_copies_are_listed_by_their_prefix(world: World) -> None:
    for key in (b"a/2", b"a/1", b"b/1"):
        keep(world, key)
    put(world.engine, b"a/3")
    pass_on(world, 10)
    found: list[bytes] = []
    after: bytes | None = None
    while True:
        some, after = world.engine.stale_copies(b"a/", after, 1)
        found += some
        if after is None:
            break
    assert found == [b"a/1", b"a/2"]


def test_stale_copies_outlive_a_restart(world: World) -> None:
    keep(world, value=LONG)
    pass_on(world, 10)
    world.restart()
    record = world.engine.get_stale(b"k")
    assert record is not None
    assert record.value == LONG
    pass_on(world, 100)
    assert world.engine.get_stale(b"k") is None


# Conditions on the newest revision


def test_a_condition_can_ask_for_no_newer_revision(world: World) -> None:
    first = put(world.engine, b"k").revision
    not_newer = Condition(newest=first)
    done(world.engine, Check(b"missing", not_newer))
    second = done(world.engine, Set(b"k", b"2", condition=not_newer))[0].revision
    assert refused(world.engine, Set(b"k", b"3", condition=not_newer)).revision == second
    done(world.engine, Set(b"k", b"3", condition=Condition(newest=second)), Get(b"k"))
    assert value_of(world.engine, b"k") == b"3"


# Leases


def lease(world: World, key: bytes = b"k", ttl: int = 50) -> int:
    """Take the lease of a key, and return its token."""
    return done(world.engine, Set(LEASE + key, b"me", TEXT, ttl, FREE, Space.LOCKS))[0].revision


def fill(token: int, key: bytes = b"k") -> tuple[Operation, ...]:
    held = Condition(match=frozenset((token,)))
    return (
        Delete(LEASE + key, held, Space.LOCKS),
        Check(key, Condition(newest=token)),
        Set(key, b"new"),
    )


def test_who_holds_the_lease_fills_the_key(world: World) -> None:
    keep(world)
    pass_on(world, 10)
    token = lease(world)
    done(world.engine, *fill(token))
    assert value_of(world.engine, b"k") == b"new"
    assert world.engine.lock_of(LEASE + b"k") is None
    assert refused(world.engine, *fill(token)).index == 0
    assert world.engine.check() == []


def test_a_lease_is_older_than_what_is_written_after_it(world: World) -> None:
    token = lease(world)
    put(world.engine, b"k", b"newer")
    refusal = refused(world.engine, *fill(token))
    assert (refusal.why, refusal.index) == (Why.CONDITION, 1)
    assert value_of(world.engine, b"k") == b"newer"


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_a_delete_ends_the_lease_of_its_key(world: World, exists: bool, together: bool) -> None:
    if exists:
        put(world.engine, b"k")
    token = lease(world)
    done(world.engine, Delete(b"k"), *[Get(b"k")] * together)
    assert world.engine.lock_of(LEASE + b"k") is None
    assert refused(world.engine, *fill(token)).index == 0
    assert (Change.UNLOCK, LEASE + b"k") in history(world.engine)
    assert world.engine.check() == []


def test_the_lease_and_its_key_are_written_together(world: World) -> None:
    for number in range(20):
        key = b"key/%d" % number
        done(world.engine, *fill(lease(world, key), key))
    assert world.engine.count(b"key/", None, 100)[0] == 20


def test_the_longest_key_with_a_lease(world: World) -> None:
    key = b"k" * 510
    done(world.engine, *fill(lease(world, key), key))
    drop(world.engine, key)
    drop(world.engine, b"k" * 511)


def test_leases_are_the_last_of_the_locks(world: World) -> None:
    lease(world)
    done(world.engine, Set(b"z", b"me", TEXT, 100, FREE, Space.LOCKS))
    names = [name for name, _ in world.engine.scan_locks().entries]
    assert names == [b"z", LEASE + b"k"]


# Counters, and outcomes that are remembered only where something was done


def test_a_counter_gets_an_end_when_it_is_made_and_keeps_it(world: World) -> None:
    now = world.engine.now()
    done(world.engine, Add(b"k", 1, new_ttl_ms=50))
    world.clock.advance(20)
    done(world.engine, Add(b"k", 1, new_ttl_ms=50))
    record = world.engine.get(b"k")
    assert record is not None
    assert (record.value, record.expires_at) == (b"2", now + 50)
    world.clock.advance(30)
    done(world.engine, Add(b"k", 1, new_ttl_ms=50))
    assert value_of(world.engine, b"k") == b"1"


def test_a_refusal_that_is_not_remembered_is_tried_again(world: World) -> None:
    name = Remember(b"n" * 32, b"f" * 32, 1000, only_done=True)
    add = Set(b"k", b"v", condition=FREE)
    put(world.engine, b"k")
    assert isinstance(attempt(world.engine, name, add), Refusal)
    drop(world.engine, b"k")
    first = done(world.engine, name, add)
    assert done(world.engine, name, add) == first
