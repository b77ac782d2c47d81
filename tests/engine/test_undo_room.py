"""The trash counts as memory, and makes way for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.world import MIB, EmbeddedWorld, attempt, done, history

from keyrack.engines.contract import (
    Change,
    Delete,
    Discard,
    Refusal,
    Remember,
    Restore,
    Set,
    Space,
    WhenFull,
    Why,
)
from keyrack.engines.embedded.memory import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine_support.driven import Driven

HOUR = 3_600_000
MEMORY = 8 * MIB
VALUE = b"v" * 3000
BOTH = [WhenFull.REJECT, WhenFull.EVICT]


@pytest.fixture(params=BOTH, ids=["reject", "evict"])
def world(request: pytest.FixtureRequest, shm: Path) -> Iterator[EmbeddedWorld]:
    world = EmbeddedWorld(shm, MEMORY, 1_000_000, request.param)
    yield world
    problems = world.engine.check()
    world.close()
    assert problems == []


def fill(engine: Driven, name: str, bytes_: int = MEMORY // 2, value: bytes = VALUE) -> list[bytes]:
    """Set keys that take about so many bytes together."""
    taken = -(-len(value) // PAGE) * PAGE + 100 if len(value) > PAGE // 2 else len(value) * 3 + 100
    keys = [f"{name}{number}".encode() for number in range(bytes_ // taken)]
    for key in keys:
        done(engine, Set(key, value))
    return keys


def throw_away(engine: Driven, keys: list[bytes], for_ms: int = HOUR) -> int:
    """Delete keys with one undo, and return its number."""
    number = 0
    for key in keys:
        result = done(engine, Discard(key, engine.now() + for_ms, undo=number))[0]
        number = number or result.revision
    return number


def evicted(engine: Driven) -> list[bytes]:
    return [key for change, key in history(engine) if change is Change.EVICT]


def test_the_trash_counts_as_memory(world: EmbeddedWorld) -> None:
    empty = world.engine.usage()
    keys = fill(world.engine, "old")
    full = world.engine.usage()
    throw_away(world.engine, keys)
    usage = world.engine.usage()
    assert usage.trash == len(keys)
    assert usage.trash_bytes > len(keys) * len(VALUE)
    assert usage.used - empty.used > (full.used - empty.used) * 0.9


@pytest.mark.parametrize("value", [VALUE, b"v" * 200_000, b"v" * 40], ids=["page", "long", "short"])
def test_the_trash_goes_before_any_key_does(world: EmbeddedWorld, value: bytes) -> None:
    old = fill(world.engine, "old", MEMORY // 2, value)
    kept = fill(world.engine, "kept", MEMORY // 10)
    number = throw_away(world.engine, old)
    new = fill(world.engine, "new", MEMORY // 2)
    assert evicted(world.engine) == []
    assert all(world.engine.get(key) is not None for key in kept + new)
    undo = world.engine.undo_of(number)
    assert undo is None or (undo.gone > 0 and undo.left == world.engine.usage().trash)


def test_the_oldest_of_the_trash_goes_first(world: EmbeddedWorld) -> None:
    first = throw_away(world.engine, fill(world.engine, "first", MEMORY // 3))
    second = throw_away(world.engine, fill(world.engine, "second", MEMORY // 3))
    number = 0
    while not world.engine.undo_of(second).gone:
        assert number < MEMORY // len(VALUE)
        done(world.engine, Set(b"new%d" % number, VALUE))
        number += 1
    assert world.engine.undo_of(first).left == 0
    assert world.engine.undo_of(first).gone > 0
    assert evicted(world.engine) == []


def test_what_is_left_comes_back_and_the_undo_says_how_many_are_gone(world: EmbeddedWorld) -> None:
    keys = fill(world.engine, "old", MEMORY // 2)
    number = throw_away(world.engine, keys)
    new = fill(world.engine, "new", MEMORY // 2)
    for key in new:
        done(world.engine, Delete(key))
    names, _ = world.engine.trashed(number, b"", 10_000)
    for one in names:
        done(world.engine, Restore(one.key, number, one.revision, one.size))
    undo = world.engine.undo_of(number)
    assert undo.restored == len(names) == world.engine.usage().keys
    assert undo.gone == len(keys) - len(names) > 0
    assert undo.left == 0
    assert evicted(world.engine) == []


def test_locks_and_remembered_answers_come_before_the_trash(world: EmbeddedWorld) -> None:
    throw_away(world.engine, fill(world.engine, "old"))
    for number in range(400):
        name = Remember(number.to_bytes(8, "big") * 2, b"print", HOUR)
        lock = Set(b"lock%d" % number, b"me" * 100, ttl_ms=HOUR, space=Space.LOCKS)
        done(world.engine, name, lock)
    assert evicted(world.engine) == []


def test_a_store_that_is_full_can_be_emptied_with_undos(shm: Path) -> None:
    world = EmbeddedWorld(shm, MEMORY, 1_000_000)
    number = 0
    while not isinstance(attempt(world.engine, Set(b"%d" % number, VALUE)), Refusal):
        number += 1
    undo = throw_away(world.engine, [b"%d" % one for one in range(number)])
    assert world.engine.usage().keys == 0
    known = world.engine.undo_of(undo)
    assert known is None or known.left == world.engine.usage().trash
    for one in range(number - 50):
        done(world.engine, Set(b"%d" % one, VALUE))
    assert world.engine.check() == []
    world.close()


def test_a_full_store_evicts_nothing_for_what_it_throws_away(shm: Path) -> None:
    world = EmbeddedWorld(shm, MEMORY, 1_000_000, WhenFull.EVICT)
    fill(world.engine, "old", MEMORY * 2)
    before = evicted(world.engine)
    present = [key for key, _ in world.engine.scan(limit=10_000).entries]
    throw_away(world.engine, present[: len(present) // 2])
    assert evicted(world.engine) == before
    assert all(world.engine.get(key) is not None for key in present[len(present) // 2 :])
    assert world.engine.check() == []
    world.close()


def test_undos_of_which_nothing_is_left_make_way_too(world: EmbeddedWorld) -> None:
    until = world.engine.now() + HOUR
    about = b"a" * 2000
    for _ in range(2 * MEMORY // 3 // 2000):
        done(world.engine, Set(b"k", b""))
        done(world.engine, Discard(b"k", until, about))
    fill(world.engine, "new", MEMORY // 2)
    assert evicted(world.engine) == []
    assert world.engine.usage().trash == 0


def test_a_value_that_is_longer_than_the_room_there_is_makes_all_of_it_go(shm: Path) -> None:
    world = EmbeddedWorld(shm, MEMORY, 1_000_000)
    throw_away(world.engine, fill(world.engine, "old"))
    done(world.engine, Set(b"long", b"v" * (MEMORY // 2)))
    refusal = attempt(world.engine, Set(b"longer", b"v" * MEMORY))
    assert isinstance(refusal, Refusal)
    assert refusal.why is Why.FULL
    assert world.engine.usage().trash == 0
    world.close()
