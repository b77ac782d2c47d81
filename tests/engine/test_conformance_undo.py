"""Every engine: keys that were deleted and can be put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.world import at, attempt, done, history, put, refused, value_of

from keyrack.engines.contract import (
    JSON,
    LEASE,
    MAX_KEY_BYTES,
    Change,
    Condition,
    Delete,
    Discard,
    Refusal,
    Remember,
    Restore,
    Set,
    Space,
    Why,
)

if TYPE_CHECKING:
    from engine_support.driven import Driven
    from engine_support.world import World

    from keyrack.engines.contract import Result, Undo

LONG = b"0123456789" * 2000
LONGEST_KEY = b"{k}" + b"x" * (MAX_KEY_BYTES - 3)
HOUR = 3_600_000


def discard(engine: Driven, key: bytes, for_ms: int = HOUR, undo: int = 0) -> Result:
    """Delete a key so that it can be put back."""
    return done(engine, Discard(key, engine.now() + for_ms, b"about", undo))[0]


def undo_of(engine: Driven, number: int) -> Undo:
    """Return an undo, which must be there."""
    undo: Undo | None = engine.undo_of(number)
    assert undo is not None
    return undo


def put_back(engine: Driven, number: int) -> dict[bytes, Result]:
    """Restore what there is of an undo, and return what came of each key."""
    results = {}
    after: bytes | None = b""
    while after is not None:
        found, after = engine.trashed(number, after, 2)
        for one in found:
            operation = Restore(one.key, number, one.revision, one.size)
            results[one.key] = done(engine, operation)[0]
    return results


@pytest.mark.parametrize(
    "value", [b"", b"v", b"x" * 3900, LONG], ids=["empty", "short", "page", "long"]
)
@pytest.mark.parametrize("key", [b"{k}", LONGEST_KEY], ids=["short key", "longest key"])
def test_a_key_that_was_discarded_is_gone_and_comes_back_as_it_was(
    world: World, key: bytes, value: bytes
) -> None:
    engine = world.engine
    done(engine, Set(key, value, JSON))
    before = engine.get(key)
    gone = discard(engine, key)
    assert (gone.existed, gone.number) == (True, engine.now() + HOUR)
    assert engine.get(key) is None
    assert engine.usage().keys == 0
    assert engine.usage().trash == 1
    assert engine.check() == []
    back = put_back(engine, gone.revision)[key]
    assert back.revision > gone.revision
    assert not back.existed
    record = engine.get(key)
    assert (record.value, record.media_type, record.revision) == (value, JSON, back.revision)
    assert before.value == record.value
    assert history(engine) == [(Change.SET, key), (Change.DELETE, key), (Change.SET, key)]
    assert (engine.usage().keys, engine.usage().trash) == (1, 0)
    assert undo_of(engine, gone.revision).restored == 1


def test_an_undo_says_what_it_is_about(engine: Driven) -> None:
    put(engine, b"k")
    now = engine.now()
    number = discard(engine, b"k").revision
    undo = undo_of(engine, number)
    assert (undo.number, undo.since, undo.until, undo.deleted, undo.left, undo.about) == (
        number, now, now + HOUR, 1, 1, b"about",
    )  # fmt: skip
    assert engine.undos(None, 10) == [undo]


def test_discards_of_one_write_are_one_undo(engine: Driven) -> None:
    for key in (b"{t}1", b"{t}2", b"{t}3"):
        put(engine, key)
    until = engine.now() + HOUR
    keys = (b"{t}1", b"{t}none", b"{t}2", b"{t}3")
    results = done(engine, *(Discard(key, until) for key in keys))
    assert [result.existed for result in results] == [True, False, True, True]
    number = results[0].revision
    assert undo_of(engine, number).deleted == 3
    back = put_back(engine, number)
    assert sorted(back) == [b"{t}1", b"{t}2", b"{t}3"]
    assert all(result.revision for result in back.values())


def test_an_undo_goes_on_in_later_writes(engine: Driven) -> None:
    keys = [b"%d" % number for number in range(5)]
    for key in keys:
        put(engine, key)
    number = discard(engine, keys[0]).revision
    for key in keys[1:]:
        discard(engine, key, undo=number)
    assert undo_of(engine, number).left == 5
    assert len(engine.undos(None, 10)) == 1
    put_back(engine, number)
    assert all(value_of(engine, key) == b"v" for key in keys)


def test_a_key_that_exists_by_now_is_kept_and_the_other_one_stays_in_the_trash(
    world: World,
) -> None:
    engine = world.engine
    put(engine, b"k", b"old")
    number = discard(engine, b"k").revision
    newer = put(engine, b"k", b"new").revision
    result = put_back(engine, number)[b"k"]
    assert (result.revision, result.existed) == (0, True)
    assert engine.get(b"k").revision == newer
    assert undo_of(engine, number).left == 1
    done(engine, Delete(b"k"))
    put_back(engine, number)
    assert value_of(engine, b"k") == b"old"
    assert undo_of(engine, number).left == 0


def test_what_was_put_back_is_not_put_back_again(engine: Driven) -> None:
    put(engine, b"k")
    number = discard(engine, b"k").revision
    ((one,), _) = engine.trashed(number, b"", 10)
    first = done(engine, Restore(b"k", number, one.revision))[0]
    again = done(engine, Restore(b"k", number, one.revision))[0]
    assert first.revision
    assert (again.revision, again.existed) == (0, False)
    assert undo_of(engine, number).restored == 1


def test_a_ttl_goes_on_in_the_trash(world: World) -> None:
    engine = world.engine
    put(engine, b"soon", ttl_ms=100)
    put(engine, b"later", ttl_ms=1000)
    end = engine.get(b"later").expires_at
    number = discard(engine, b"soon").revision
    discard(engine, b"later", undo=number)
    world.clock.advance(200)
    assert put_back(engine, number).keys() >= {b"later"}
    assert engine.get(b"soon") is None
    assert engine.get(b"later").expires_at == end
    engine.expire(100)
    undo = undo_of(engine, number)
    assert (undo.restored, undo.ended, undo.left) == (1, 1, 0)
    assert engine.usage().trash == 0
    assert (Change.EXPIRE, b"soon") not in history(engine)
    assert engine.check() == []


def test_a_restored_key_ends_when_it_would_have_ended(world: World) -> None:
    engine = world.engine
    done(engine, Set(b"k", LONG, ttl_ms=1000, stale_ms=500))
    before = engine.get(b"k")
    put_back(engine, discard(engine, b"k").revision)
    record = engine.get(b"k")
    assert (record.expires_at, record.stale_until, record.stored_at) == (
        before.expires_at, before.stale_until, before.stored_at,
    )  # fmt: skip
    assert engine.usage().keys_with_ttl == 1
    world.clock.advance(1000)
    engine.expire(100)
    assert engine.get(b"k") is None
    assert engine.get_stale(b"k").value == LONG


def test_the_trash_is_empty_when_the_undo_ends(world: World) -> None:
    engine = world.engine
    put(engine, b"k", LONG)
    put(engine, b"ends", ttl_ms=500)
    number = discard(engine, b"k", 100).revision
    discard(engine, b"ends", 100, number)
    world.clock.advance(99)
    engine.expire(100)
    assert undo_of(engine, number).left == 2
    world.clock.advance(1)
    assert engine.undo_of(number) is None
    assert engine.undos(None, 10) == []
    assert not any(result.revision for result in put_back(engine, number).values())
    engine.expire(100)
    assert engine.usage().trash == 0
    assert engine.trashed(number, b"", 10) == ([], None)
    assert engine.check() == []


def test_the_sweep_knows_when_the_trash_is_due(world: World) -> None:
    engine = world.engine
    put(engine, b"k")
    discard(engine, b"k", 100)
    due = engine.now() + 100
    assert engine.expire(100).next_due == due
    world.clock.advance(100)
    engine.expire(100)
    assert engine.expire(100).next_due is None


def test_an_undo_that_has_ended_keeps_nothing(engine: Driven) -> None:
    put(engine, b"k")
    result = done(engine, Discard(b"k", engine.now()))[0]
    assert (result.existed, result.number) == (True, 0)
    assert engine.usage().trash == 0
    assert engine.undo_of(result.revision) is None


def test_what_cannot_be_kept_is_gone_and_the_undo_says_so(engine: Driven) -> None:
    put(engine, b"1", LONG)
    put(engine, b"2", LONG)
    number = discard(engine, b"1").revision
    until = engine.now() + HOUR
    result = done(engine, Discard(b"2", until, b"", number, keep=False))[0]
    assert (result.existed, result.number) == (True, 0)
    undo = undo_of(engine, number)
    assert (undo.deleted, undo.gone, undo.left) == (2, 1, 1)


def test_a_missing_key_and_one_that_has_ended_are_no_part_of_an_undo(world: World) -> None:
    engine = world.engine
    put(engine, b"ended", ttl_ms=10)
    world.clock.advance(10)
    for key in (b"missing", b"ended"):
        result = discard(engine, key)
        assert (result.existed, result.number) == (False, None)
    assert engine.undos(None, 10) == []
    assert history(engine) == [(Change.SET, b"ended"), (Change.EXPIRE, b"ended")]
    assert engine.usage().trash == 0


def test_a_stale_copy_is_removed_for_good(world: World) -> None:
    engine = world.engine
    done(engine, Set(b"k", b"v", ttl_ms=10, stale_ms=100))
    world.clock.advance(10)
    engine.expire(10)
    assert not discard(engine, b"k").existed
    assert engine.get_stale(b"k") is None
    assert engine.usage().trash == 0


def test_what_has_ended_in_the_keys_place_makes_way(world: World) -> None:
    engine = world.engine
    put(engine, b"k", b"first")
    number = discard(engine, b"k").revision
    done(engine, Set(b"k", b"second", ttl_ms=10))
    world.clock.advance(10)
    assert put_back(engine, number)[b"k"].revision
    assert value_of(engine, b"k") == b"first"
    assert history(engine)[-2:] == [(Change.EXPIRE, b"k"), (Change.SET, b"k")]
    assert engine.usage().keys_with_ttl == 0


def test_a_stale_copy_makes_way_for_what_is_put_back(world: World) -> None:
    engine = world.engine
    put(engine, b"k", b"first")
    number = discard(engine, b"k").revision
    done(engine, Set(b"k", b"second", ttl_ms=10, stale_ms=1000))
    world.clock.advance(10)
    engine.expire(10)
    put_back(engine, number)
    assert engine.get_stale(b"k").value == b"first"
    assert engine.usage().stale_copies == 0


def test_a_discard_ends_the_lease_of_its_key(engine: Driven) -> None:
    put(engine, b"k")
    done(engine, Set(LEASE + b"k", b"me", ttl_ms=1000, space=Space.LOCKS))
    number = discard(engine, b"k").revision
    assert engine.lock_of(LEASE + b"k") is None
    put_back(engine, number)
    assert engine.lock_of(LEASE + b"k") is None


def test_the_condition_of_a_discard_counts(engine: Driven) -> None:
    revision = put(engine, b"k").revision
    until = engine.now() + HOUR
    refusal = refused(engine, Discard(b"k", until, condition=at(revision + 1)))
    assert (refusal.why, refusal.revision) == (Why.CONDITION, revision)
    assert engine.usage().trash == 0
    done(engine, Discard(b"k", until, condition=at(revision)))
    assert engine.usage().trash == 1


@pytest.mark.parametrize("value", [b"v", b"x" * 3900, LONG], ids=["short", "page", "long"])
def test_a_refused_write_throws_nothing_away(engine: Driven, value: bytes) -> None:
    key = LONGEST_KEY
    put(engine, key, value, ttl_ms=5000)
    before = engine.get(key)
    until = engine.now() + HOUR
    never = Condition(match=frozenset((1,)))
    refused(engine, Discard(key, until), Set(key, b"2"), Delete(key, never))
    assert engine.get(key) == before
    assert engine.usage().trash == 0
    assert engine.undos(None, 10) == []
    assert engine.check() == []


def test_what_is_set_in_the_same_write_can_be_discarded_and_put_back(engine: Driven) -> None:
    put(engine, b"k", b"1")
    until = engine.now() + HOUR
    results = done(
        engine, Discard(b"k", until), Set(b"k", LONG), Discard(b"k", until), Set(b"k", b"3")
    )
    assert engine.check() == []
    number = results[0].revision
    assert undo_of(engine, number).deleted == 2
    assert value_of(engine, b"k") == b"3"
    done(engine, Delete(b"k"))
    put_back(engine, number)
    assert value_of(engine, b"k") == LONG
    assert undo_of(engine, number).restored == 1


def test_a_discard_that_is_sent_again_is_done_once(engine: Driven) -> None:
    put(engine, b"k")
    name = Remember(b"again", b"print", 10_000)
    first = done(engine, name, Discard(b"k", engine.now() + HOUR))
    put(engine, b"k", b"newer")
    assert done(engine, name, Discard(b"k", engine.now() + 2 * HOUR)) == first
    assert value_of(engine, b"k") == b"newer"
    assert first[0].number == undo_of(engine, first[0].revision).until


def test_undos_are_listed_newest_first_and_in_pages(engine: Driven) -> None:
    numbers = []
    for number in range(5):
        put(engine, b"%d" % number)
        numbers.append(discard(engine, b"%d" % number).revision)
    newest = sorted(numbers, reverse=True)
    first = [undo.number for undo in engine.undos(None, 3)]
    assert first == newest[:3]
    assert [undo.number for undo in engine.undos(first[-1], 3)] == newest[3:]


def test_undos_outlive_a_restart(world: World) -> None:
    put(world.engine, LONGEST_KEY, b"x" * 3900)
    put(world.engine, b"long", LONG, ttl_ms=HOUR)
    number = discard(world.engine, LONGEST_KEY).revision
    discard(world.engine, b"long", undo=number)
    world.restart()
    assert world.engine.usage().trash == 2
    assert world.engine.check() == []
    put_back(world.engine, number)
    world.restart()
    assert value_of(world.engine, LONGEST_KEY) == b"x" * 3900
    assert value_of(world.engine, b"long") == LONG
    assert world.engine.usage().trash == 0


def test_a_write_of_many_discards_is_one(engine: Driven) -> None:
    keys = [b"{t}%d" % number for number in range(300)]
    for key in keys:
        put(engine, key, b"x" * 500)
    until = engine.now() + HOUR
    outcome = attempt(engine, *(Discard(key, until) for key in keys))
    assert not isinstance(outcome, Refusal)
    assert engine.usage().keys == 0
    number = min(result.revision for result in outcome)
    assert len(put_back(engine, number)) == 300
    assert engine.usage().keys == 300
