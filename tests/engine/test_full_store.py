"""A store that is full to its limit: it can be read and emptied, and written again after that."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from engine_support.processes import Child
from engine_support.world import (
    MIB,
    EmbeddedWorld,
    attempt,
    blocks,
    drop,
    put,
    rounds,
    value_of,
)

from keyrack.engines.contract import Delete, Refusal, Set, Why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engine_support.driven import Driven


MEMORY = 8 * MIB
FULL = Refusal(Why.FULL)

SIZES = {
    "32 B": [32],
    "1 KiB": [1024],
    "3000 B": [3000],
    "64 KiB": [65_536],
    "1 MiB": [MIB],
    "mixed": [32, 32, 32, 200, 1024, 3000, 65_536, MIB],
}
ORDERS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "oldest first": lambda keys: keys,
    "newest first": lambda keys: keys[::-1],
    "at random": lambda keys: random.Random(7).sample(keys, len(keys)),
}


@pytest.fixture
def small(shm: Path) -> Iterator[EmbeddedWorld]:
    """A store of 8 MiB; every test ends with its audit, and with no more memory than that."""
    world = EmbeddedWorld(shm, MEMORY, events=100_000)
    yield world
    taken = blocks(world.directory)
    problems = world.engine.check()
    world.close()
    assert problems == []
    assert taken <= MEMORY


def value_for(key: bytes, size: int) -> bytes:
    return (key * (size // len(key) + 1))[:size]


def fill(
    engine: Driven, sizes: list[int], seed: int = 1, width: int = 8, ttl_ms: int = 0
) -> dict[bytes, int]:
    """Set keys of `width` bytes until none of the sizes fits; return each key's size of value."""
    chance = random.Random(seed)
    stored: dict[bytes, int] = {}
    left = sorted(set(sizes))
    while left:
        batch = []
        for _ in range(100):
            key = b"%08x" % chance.getrandbits(32)
            size = chance.choice([size for size in sizes if size in left])
            batch.append(Set(key * (width // 8), value_for(key, size), ttl_ms=ttl_ms))
        for operation, outcome in zip(
            batch, engine.write([(operation,) for operation in batch]), strict=True
        ):
            if outcome == FULL:
                # What is as big will not fit either, once nothing else is written.
                left = [size for size in left if size < len(operation.value)]
            else:
                stored[operation.key] = len(operation.value)
    return stored


def write_again(engine: Driven) -> None:
    """Set what an emptied store must have room for: an eighth of it, in any pages."""
    outcomes = engine.write([(Set(b"again-%d" % i, b"x" * 1000),) for i in range(1000)])
    assert FULL not in outcomes


@pytest.mark.parametrize(
    ("size", "order"),
    [
        *((size, "at random") for size in SIZES),
        ("3000 B", "oldest first"),
        ("3000 B", "newest first"),
        ("mixed", "newest first"),
    ],
)
def test_a_full_store_is_read_and_emptied_key_by_key(
    small: EmbeddedWorld, size: str, order: str
) -> None:
    stored = fill(small.engine, SIZES[size])
    assert blocks(small.directory) <= MEMORY
    for key, length in stored.items():
        assert value_of(small.engine, key) == value_for(key, length)
    for key in ORDERS[order](list(stored)):
        assert drop(small.engine, key).existed
    assert small.engine.usage().keys == 0
    write_again(small.engine)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_a_full_store_is_emptied_in_batches(small: EmbeddedWorld, sizes: list[int]) -> None:
    keys = ORDERS["at random"](list(fill(small.engine, sizes)))
    for start in range(0, len(keys), 200):
        outcomes = small.engine.write([(Delete(key),) for key in keys[start : start + 200]])
        assert FULL not in outcomes
    assert small.engine.usage().keys == 0
    write_again(small.engine)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_a_store_full_of_long_keys_is_emptied(
    small: EmbeddedWorld, order: Callable[[list[bytes]], list[bytes]]
) -> None:
    """The worst there is: the event of each delete takes about what the delete gives back."""
    stored = fill(small.engine, [1], width=504)
    for key in order(list(stored)):
        assert drop(small.engine, key).existed
    write_again(small.engine)


def test_a_full_store_whose_keys_end_is_emptied_by_sweeps(small: EmbeddedWorld) -> None:
    stored = fill(small.engine, [32, 3000], ttl_ms=1000)
    small.clock.advance(1000)
    swept = 0
    while expired := small.engine.expire(64).expired:
        swept += expired
    assert swept == len(stored)
    write_again(small.engine)


@pytest.mark.parametrize("seed", range(rounds(2)))
def test_a_store_is_filled_and_emptied_again_and_again(small: EmbeddedWorld, seed: int) -> None:
    """Holding about as much each time; the events of earlier rounds are trimmed."""
    chance = random.Random(seed)
    sizes = chance.sample(SIZES["mixed"][2:], 3)
    volumes = []
    for turn in range(3):
        stored = fill(small.engine, sizes, seed * 10 + turn)
        volumes.append(sum(stored.values()))
        assert blocks(small.directory) <= MEMORY
        for key in chance.sample(sorted(stored), len(stored)):
            drop(small.engine, key)
        while small.engine.trim(64):
            pass
    assert min(volumes) > max(volumes) / 2


def test_a_delete_is_done_though_a_set_in_the_same_call_found_no_room(
    small: EmbeddedWorld,
) -> None:
    """Wherever in the call it stands: work is cut into commits, and each has a first and a last."""
    keys = list(fill(small.engine, [1024]))
    for before in (1, 137, 138, 139, 140, 300):
        no_room = [(Set(b"new-%d" % i, b"x" * 4000),) for i in range(before)]
        first, last = keys.pop(), keys.pop()
        outcomes = small.engine.write([(Delete(first),), *no_room, (Delete(last),)])
        assert FULL not in (outcomes[0], outcomes[-1]), before
        assert small.engine.get(first) is None
        assert small.engine.get(last) is None


def test_many_deletes_in_one_write_are_done_though_a_set_comes_behind(
    small: EmbeddedWorld,
) -> None:
    keys = list(fill(small.engine, [1024]))
    deletes = tuple(Delete(key) for key in keys[:50])
    first, _ = small.engine.write([deletes, (Set(b"new", b"x" * 3 * MIB),)])
    assert first != FULL
    assert small.engine.get(keys[0]) is None


def test_a_write_that_does_not_fit_is_refused_and_smaller_ones_in_its_call_are_done(
    small: EmbeddedWorld,
) -> None:
    first, second, third = small.engine.write(
        [(Set(b"a", b"1"),), (Set(b"b", b"x" * 9 * MIB),), (Set(b"c", b"3"),)]
    )
    assert second == FULL
    assert FULL not in (first, third)
    assert [value_of(small.engine, key) for key in (b"a", b"b", b"c")] == [b"1", None, b"3"]


def test_a_write_of_several_operations_that_does_not_fit_changes_nothing(
    small: EmbeddedWorld,
) -> None:
    put(small.engine, b"old", b"kept")
    before = small.engine.usage().revision
    big = Set(b"new", b"x" * 5 * MIB)
    assert attempt(small.engine, Delete(b"old"), big, Set(b"newer", big.value)) == FULL
    assert small.engine.usage().revision == before
    assert value_of(small.engine, b"old") == b"kept"


def test_a_full_store_can_be_opened_again(small: EmbeddedWorld) -> None:
    stored = fill(small.engine, SIZES["mixed"])
    small.restart()
    assert attempt(small.engine, Set(b"new", b"x" * MIB)) == FULL
    for key in stored:
        assert drop(small.engine, key).existed


def test_trimming_a_full_store_never_fails(small: EmbeddedWorld) -> None:
    fill(small.engine, [1])
    while small.engine.trim(16):
        pass
    assert small.engine.usage().events < small.events + 200


# Somebody who reads the store as it was


def test_an_old_snapshot_in_another_process_breaks_nothing(small: EmbeddedWorld) -> None:
    """It keeps pages from being used again, so deletes may be refused until it is gone."""
    stored = fill(small.engine, [32, 3000, 65_536])
    with Child("hold_snapshot", small.directory, MEMORY, next(iter(stored)).decode()) as child:
        assert child.hear() == f"holding {len(stored)} True"
        outcomes = [attempt(small.engine, Delete(key)) for key in stored]
        small.engine.trim(16)
        small.engine.expire(16)
        put_again = small.engine.write([(Set(key, b"new"),) for key in list(stored)[:200]])
        assert small.engine.check() == []
        child.tell()
        assert child.hear() == "same"
        assert child.end() == 0
    kept = {key for key, outcome in zip(stored, outcomes, strict=True) if outcome == FULL}
    again = {key for key, out in zip(stored, put_again, strict=False) if out != FULL}
    assert small.engine.usage().keys == len(kept | again)
    for key in kept | again:
        assert drop(small.engine, key).existed
    write_again(small.engine)


def test_a_reader_that_was_killed_holds_nothing_once_another_process_comes(
    small: EmbeddedWorld,
) -> None:
    """As the worker does that is started in its place."""
    stored = fill(small.engine, [1024])
    with Child("hold_snapshot", small.directory, MEMORY, next(iter(stored)).decode()) as child:
        assert child.hear() == f"holding {len(stored)} True"
        child.kill()
    with Child("serve", small.directory, MEMORY) as child:
        assert child.hear() == "open"
    for key in stored:
        assert drop(small.engine, key).existed
    write_again(small.engine)
