"""Every engine: reading, writing, and revisions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from engine_support.world import (
    MIB,
    at,
    attempt,
    done,
    drop,
    follows,
    history,
    needs_all_keys_together,
    put,
    refused,
    value_of,
)

from keyrack.engines.contract import (
    ANY,
    JSON,
    MAX_KEY_BYTES,
    TEXT,
    Change,
    Condition,
    Delete,
    Record,
    Refusal,
    Result,
    Set,
    Space,
)

if TYPE_CHECKING:
    from engine_support.driven import Driven
    from engine_support.world import World

    from keyrack.engines.contract import Operation

ODD_KEYS = [
    b"\x00",
    b"\xff",
    bytes(range(256)),
    b"a" * MAX_KEY_BYTES,
    b"\x00" * MAX_KEY_BYTES,
    b"\xff" * MAX_KEY_BYTES,
    b"keyrack:state",
    b"records",
]


def test_a_missing_key_reads_as_none(engine: Driven) -> None:
    assert engine.get(b"k") is None


def test_a_set_is_read_back_with_its_type_and_revision(engine: Driven) -> None:
    (result,) = done(engine, Set(b"k", b"[1]", JSON))
    assert engine.get(b"k") == Record(b"[1]", JSON, result.revision)


def test_text_is_the_type_of_a_value_that_names_none(engine: Driven) -> None:
    done(engine, Set(b"k", b"v"))
    record = engine.get(b"k")
    assert record is not None
    assert record.media_type == TEXT


def test_a_media_type_nobody_foresaw_is_kept(engine: Driven) -> None:
    media_type = "application/" + "x" * 243
    done(engine, Set(b"k", b"v", media_type, ttl_ms=5))
    record = engine.get(b"k")
    assert record is not None
    assert record.media_type == media_type


def test_a_result_says_whether_the_key_existed(engine: Driven) -> None:
    assert [put(engine, b"k").existed, put(engine, b"k").existed] == [False, True]
    assert [drop(engine, b"k").existed, put(engine, b"k").existed] == [True, False]


def test_a_second_set_replaces_the_first_wholly(engine: Driven) -> None:
    done(engine, Set(b"k", b"[1]", JSON, ttl_ms=1000))
    result = put(engine, b"k", b"v")
    assert engine.get(b"k") == Record(b"v", TEXT, result.revision, expires_at=0)


def test_a_deleted_key_is_missing(engine: Driven) -> None:
    put(engine, b"k")
    put(engine, b"other")
    drop(engine, b"k")
    assert engine.get(b"k") is None
    assert value_of(engine, b"other") == b"v"


def test_deleting_a_missing_key_changes_nothing(engine: Driven) -> None:
    put(engine, b"other")
    before = engine.usage()
    assert drop(engine, b"k") == Result(0, existed=False)
    assert engine.usage() == before
    assert history(engine) == [(Change.SET, b"other")]


@pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
def test_a_key_may_be_any_bytes(world: World, key: bytes) -> None:
    put(world.engine, key, b"here", ttl_ms=1000)
    world.restart()
    assert value_of(world.engine, key) == b"here"
    assert history(world.engine) == [(Change.SET, key)]
    assert drop(world.engine, key).existed


def test_keys_that_begin_alike_are_different_keys(engine: Driven) -> None:
    keys = [b"a", b"a\x00", b"a\x00\x00", b"aa", b"A", b"a" * 510, b"a" * 511]
    for key in keys:
        put(engine, key, b"of " + key)
    assert [value_of(engine, key) for key in keys] == [b"of " + key for key in keys]


@pytest.mark.parametrize("size", [0, 1, 2020, 2048, 4096, 4097, 65_536, MIB, 5 * MIB])
def test_a_value_may_be_of_any_size(engine: Driven, size: int) -> None:
    value = bytes(i * 31 & 255 for i in range(997)) * (size // 997 + 1)
    put(engine, b"k", value[:size])
    assert value_of(engine, b"k") == value[:size]
    put(engine, b"k", b"small")
    assert value_of(engine, b"k") == b"small"


# Several writes in one call


def test_a_call_without_writes_does_nothing(engine: Driven) -> None:
    assert engine.write([]) == []
    assert history(engine) == []


def test_a_write_without_operations_is_done_at_once(engine: Driven) -> None:
    assert engine.write([(), (Set(b"k", b"v"),)])[0] == ()
    assert value_of(engine, b"k") == b"v"


def test_three_hundred_writes_in_one_call_are_all_done_in_order(engine: Driven) -> None:
    outcomes = engine.write([(Set(b"%03d" % i, b"%d" % i),) for i in range(300)])
    revisions = [outcome[0].revision for outcome in outcomes if isinstance(outcome, tuple)]
    assert len(set(revisions)) == 300
    if engine.capabilities.atomic_across_keys:
        assert revisions == sorted(revisions)
    assert [value_of(engine, b"%03d" % i) for i in range(300)] == [b"%d" % i for i in range(300)]


def test_big_values_in_one_call_are_all_done(engine: Driven) -> None:
    engine.write([(Set(b"%d" % i, b"%d" % i * MIB),) for i in range(8)])
    assert all(value_of(engine, b"%d" % i) == b"%d" % i * MIB for i in range(8))


def test_the_last_of_several_sets_of_a_key_in_one_call_counts(engine: Driven) -> None:
    outcomes = engine.write([(Set(b"k", b"%d" % i, ttl_ms=i % 2 * 100),) for i in range(9)])
    assert value_of(engine, b"k") == b"8"
    assert engine.get(b"k") == Record(b"8", TEXT, outcomes[8][0].revision)  # type: ignore[index]


def test_a_refused_write_leaves_the_others_of_the_call_alone(engine: Driven) -> None:
    first, second, third = engine.write(
        [
            (Set(b"a", b"1"),),
            (Set(b"a", b"2", condition=Condition(none_match=ANY)), Set(b"b", b"2")),
            (Set(b"c", b"3"),),
        ]
    )
    assert isinstance(second, Refusal)
    assert isinstance(first, tuple)
    assert isinstance(third, tuple)
    assert [value_of(engine, key) for key in (b"a", b"b", b"c")] == [b"1", None, b"3"]


def test_a_refused_write_takes_no_revision_from_the_others_of_the_call(engine: Driven) -> None:
    """Its first operation was done and is undone, between writes that stay."""
    needs_all_keys_together(engine)
    refusing = Set(b"a", b"2", condition=Condition(none_match=ANY))
    first, second, third = engine.write(
        [(Set(b"a", b"1"),), (Set(b"b", b"2"), refusing), (Set(b"c", b"3"),)]
    )
    assert isinstance(second, Refusal)
    events = [(event.revision, event.key) for event in engine.events()]
    assert isinstance(first, tuple)
    assert isinstance(third, tuple)
    assert events == [(first[0].revision, b"a"), (third[0].revision, b"c")]
    assert follows(engine, third[0].revision, first[0].revision)


def test_a_write_sees_the_writes_before_it_in_the_call(engine: Driven) -> None:
    only_new = Condition(none_match=ANY)
    outcomes = engine.write([(Set(b"k", b"%d" % i, condition=only_new),) for i in range(3)])
    assert [type(outcome) for outcome in outcomes] == [tuple, Refusal, Refusal]
    assert value_of(engine, b"k") == b"0"


@pytest.mark.parametrize("others", [(), ((Delete(b"nothing"),),)], ids=["alone", "with others"])
def test_sets_in_one_call_replace_whatever_was_there(
    world: World, others: tuple[tuple[Operation, ...], ...]
) -> None:
    """A call of nothing but plain sets may be done in a way of its own, and means the same."""
    engine = world.engine
    put(engine, b"ended", ttl_ms=5)
    put(engine, b"ends", ttl_ms=1000)
    put(engine, b"long", b"v" * 100_000)
    before = put(engine, b"usual").revision
    world.clock.advance(10)
    keys = [b"usual", b"ended", b"long", b"ends", b"new", b"usual"]
    outcomes = engine.write([*((Set(key, b"w"),) for key in keys), *others])
    results = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)][: len(keys)]
    assert [result.existed for result in results] == [True, False, True, True, False, True]
    if not engine.capabilities.atomic_across_keys:
        assert sorted(history(engine, before)) == sorted(
            [(Change.EXPIRE, b"ended"), *((Change.SET, key) for key in keys)]
        )
        return
    # The end of `ended` is an event of its own, before the one that noticed it.
    assert [result.revision - before for result in results] == [1, 3, 4, 5, 6, 7]
    assert history(engine, before) == [
        (Change.SET, b"usual"),
        (Change.EXPIRE, b"ended"),
        *((Change.SET, key) for key in keys[1:]),
    ]
    world.clock.advance(2000)
    assert engine.expire(10).expired == 0
    assert {key: value_of(engine, key) for key in keys} == dict.fromkeys(keys, b"w")


def test_a_lock_is_no_key(engine: Driven) -> None:
    done(engine, Set(b"name", b"owner", space=Space.LOCKS))
    lock = engine.lock_of(b"name")
    assert lock is not None
    assert lock.value == b"owner"
    assert engine.get(b"name") is None
    assert history(engine) == [(Change.LOCK, b"name")]


# Several operations in one write


def test_a_write_of_many_operations_gives_a_result_for_each(engine: Driven) -> None:
    needs_all_keys_together(engine)
    put(engine, b"gone")
    results = done(engine, Set(b"a", b"1"), Delete(b"gone"), Delete(b"never"), Set(b"a", b"2"))
    assert [result.existed for result in results] == [False, True, False, True]
    assert value_of(engine, b"a") == b"2"


def test_a_write_of_three_hundred_operations_is_done_as_one(engine: Driven) -> None:
    needs_all_keys_together(engine)
    results = done(engine, *(Set(b"%03d" % i, b"v" * i, ttl_ms=i) for i in range(300)))
    first = results[0].revision
    assert [result.revision for result in results] == list(range(first, first + 300))
    assert engine.usage().keys == 300


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_refused_operation_undoes_its_whole_write(engine: Driven, position: int) -> None:
    """Nothing is changed: no record, no revision, no event."""
    needs_all_keys_together(engine)
    put(engine, b"old", b"kept", ttl_ms=1000)
    before, told = engine.usage(), history(engine)
    operations: list[Operation] = [Set(b"new", b"1"), Delete(b"old")]
    operations.insert(position, Set(b"missing", b"2", condition=Condition(match=ANY)))
    assert refused(engine, *operations).index == position
    # Pages are copied and given back all the same: what was used before is used anew.
    assert msgspec.structs.replace(engine.usage(), reclaimable=before.reclaimable) == before
    assert history(engine) == told
    assert value_of(engine, b"old") == b"kept"


# Revisions


def test_every_change_takes_a_greater_revision(engine: Driven) -> None:
    seen = [put(engine, b"k").revision, put(engine, b"k").revision, drop(engine, b"k").revision]
    seen += [result.revision for result in done(engine, Set(b"a", b""), Set(b"a", b"b"))]
    seen += [put(engine, b"%d" % number).revision for number in range(20)]
    assert seen == sorted(set(seen))
    assert engine.usage().revision == seen[-1]


def test_a_key_made_again_has_a_greater_revision(engine: Driven) -> None:
    first = put(engine, b"k").revision
    drop(engine, b"k")
    assert put(engine, b"k").revision > first
    assert isinstance(attempt(engine, Set(b"k", b"", condition=at(first))), Refusal)


def test_data_and_revision_survive_a_restart(world: World) -> None:
    result = put(world.engine, b"k", b"v")
    world.restart()
    assert world.engine.get(b"k") == Record(b"v", TEXT, result.revision)
    assert put(world.engine, b"k").revision > result.revision


def test_a_lost_store_never_gives_a_revision_again(world: World) -> None:
    for _ in range(5):
        last = put(world.engine, b"k").revision
        world.lose()
        assert world.engine.get(b"k") is None
        assert world.engine.usage().revision > last


def test_a_life_begins_at_the_wall_clocks_microseconds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time_ns() + 10**15
    monkeypatch.setattr(time, "time_ns", lambda: later)
    world.restart()
    assert follows(world.engine, put(world.engine, b"k").revision, later // 1000)


def test_a_life_goes_on_from_its_last_revision_when_the_wall_clock_is_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = put(world.engine, b"k").revision
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    world.restart()
    assert put(world.engine, b"k").revision > last


def test_locks_are_listed_in_pages_by_their_prefix(world: World) -> None:
    engine = world.engine
    for number in range(25):
        done(engine, Set(b"a/%02d" % number, b"owner", ttl_ms=60_000, space=Space.LOCKS))
    done(engine, Set(b"b", b"another", ttl_ms=60_000, space=Space.LOCKS))
    done(engine, Set(b"a/ends", b"short", ttl_ms=1000, space=Space.LOCKS))
    put(engine, b"a/key")
    world.clock.advance(2000)
    names, after = [], None
    while True:
        page = engine.scan_locks(b"a/", after, 10)
        assert len(page.entries) <= 10
        names += [name for name, _ in page.entries]
        after = page.next
        if after is None:
            break
    assert names == [b"a/%02d" % number for number in range(25)]
    ((name, record),) = engine.scan_locks(b"b").entries
    assert name == b"b"
    assert record == engine.lock_of(b"b")
    assert [name for name, _ in engine.scan_locks(after=b"a/23").entries] == [b"a/24", b"b"]
