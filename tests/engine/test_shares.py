"""What locks and remembered answers may take of the memory: neither is ever evicted."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import pytest
from engine_support.kept import KeptStore
from engine_support.world import MIB, EmbeddedWorld, attempt, done, put, refused, value_of

from keyrack.engines.contract import (
    ANY,
    MAX_TTL_MS,
    Condition,
    Delete,
    Refusal,
    Remember,
    Set,
    Space,
    WhenFull,
    Why,
)
from keyrack.engines.embedded.database import count_taken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine_support.driven import Driven

MEMORY = 32 * MIB
SHARE = MEMORY // 8
FREE = Condition(none_match=ANY)


@pytest.fixture(params=[WhenFull.REJECT, WhenFull.EVICT], ids=["reject", "evict"])
def world(request: pytest.FixtureRequest, shm: Path) -> Iterator[EmbeddedWorld]:
    """A store of 32 MiB; every test ends with its audit."""
    world = EmbeddedWorld(shm, MEMORY, events=1000, when_full=request.param)
    yield world
    problems = world.engine.check()
    world.close()
    assert problems == []


def lock(name: bytes, owner: bytes = b"me") -> Set:
    return Set(name, owner, ttl_ms=MAX_TTL_MS, condition=FREE, space=Space.LOCKS)


def remember(number: int) -> Remember:
    """Return the name of a write: a hash, as the engine expects."""
    return Remember(blake2b(b"%d" % number, digest_size=16).digest(), b"fingerprint", 600_000)


def lock_until_refused(engine: Driven, owner: bytes = b"me") -> tuple[int, Refusal]:
    """Take locks until one is refused; return how many, and the refusal."""
    for number in range(1_000_000):
        outcome = attempt(engine, lock(b"%08d" % number, owner))
        if isinstance(outcome, Refusal):
            return number, outcome
    raise AssertionError("locks are not bounded")


@pytest.mark.parametrize("size", [2, 20_000])
def test_locks_take_a_share_of_the_memory_and_no_more(world: EmbeddedWorld, size: int) -> None:
    number, refusal = lock_until_refused(world.engine, b"x" * size)
    assert refusal.why is Why.LOCKS_FULL
    assert refusal.available == SHARE < refusal.needed
    assert world.engine.usage().used < 2 * SHARE + 3 * MIB
    done(world.engine, Delete(b"%08d" % (number // 2), space=Space.LOCKS))
    done(world.engine, lock(b"another", b"x" * size))
    assert refused(world.engine, lock(b"one more", b"x" * size)).why is Why.LOCKS_FULL


def test_locks_leave_room_for_keys(world: EmbeddedWorld) -> None:
    put(world.engine, b"before")
    lock_until_refused(world.engine)
    for number in range(30_000):
        put(world.engine, b"%06d" % number, bytes(100))
    assert value_of(world.engine, b"before") == b"v"


def test_remembered_answers_take_a_share_and_beyond_it_a_write_is_not_done(
    world: EmbeddedWorld,
) -> None:
    engine, outcome = world.engine, None
    for number in range(1_000_000):
        name = remember(number)
        outcome = attempt(engine, name, Set(b"key-%d" % (number % 100), b"%d" % number))
        if isinstance(outcome, Refusal):
            break
    assert isinstance(outcome, Refusal)
    assert outcome.why is Why.ANSWERS_FULL
    assert outcome.available == SHARE < outcome.needed
    assert value_of(engine, b"key-%d" % (number % 100)) == b"%d" % (number - 100)
    assert number > 10_000
    # One that is remembered is given again, however full it is.
    done(engine, remember(0), Set(b"key-0", b"0"))
    world.clock.advance(600_001)
    while engine.expire(1000).expired:
        pass
    done(engine, remember(number), Set(b"key-0", b"0"))


def test_a_lock_that_is_refused_in_a_write_of_several_is_named(world: EmbeddedWorld) -> None:
    lock_until_refused(world.engine)
    refusal = refused(world.engine, Set(b"key", b"v"), lock(b"a lock"))
    assert (refusal.why, refusal.index) == (Why.LOCKS_FULL, 1)
    assert value_of(world.engine, b"key") is None


def test_what_is_rolled_back_is_not_counted(world: EmbeddedWorld) -> None:
    """Every test here ends with an audit, which counts anew."""
    done(world.engine, lock(b"held"))
    refused(world.engine, lock(b"a"), Delete(b"held", space=Space.LOCKS), lock(b"a"))
    world.restart()


def test_a_store_of_a_version_that_did_not_count_is_counted(world: EmbeddedWorld) -> None:
    done(world.engine, lock(b"held", b"x" * 10_000))
    database = world.engine.database
    with database.maintain() as txn:
        txn.drop_note(b"keyrack:taken")
    world.restart()
    with world.engine.database.read() as txn:
        assert 10_000 < txn.taken(world.engine.database.spaces[Space.LOCKS]) < 10_300


def test_what_is_loaded_from_a_disk_is_counted(shm: Path, tmp_path: Path) -> None:
    store = KeptStore(shm, tmp_path, strict=True)
    for number in range(200):
        done(store.engine, lock(b"%d" % number, b"x" * number * 50))
    store.take()
    for number in range(0, 200, 3):
        done(store.engine, Delete(b"%d" % number, space=Space.LOCKS))
    done(store.engine, Remember(b"a name", b"f", 600_000), Set(b"key", b"v"))
    assert store.sync()
    store.lose_memory()
    database = store.engine.database
    with database.read() as txn:
        for space in (Space.LOCKS, Space.ANSWERS):
            tree = database.spaces[space]
            assert txn.taken(tree) == count_taken(txn, tree) > 0
    assert store.engine.check() == []
    store.close()
