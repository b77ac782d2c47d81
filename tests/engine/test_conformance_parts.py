"""Every engine: parts of a value are what slices of it are."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from engine_support.world import MIB, put

if TYPE_CHECKING:
    from engine_support.driven import Driven
    from engine_support.world import World

PAGE = 4096
SIZES = (0, 1, 100, PAGE - 17, PAGE - 16, PAGE - 15, 3 * PAGE, 100_003, MIB)


def edges(size: int) -> list[int]:
    """Return positions at which something could be off by one."""
    pieces = [piece * (PAGE - 16) + by for piece in (1, 17) for by in (-1, 0)]
    return sorted({n for n in (0, size - 1, size, *pieces) if n >= 0})


@pytest.mark.parametrize("size", SIZES)
def test_a_part_is_what_a_slice_is(engine: Driven, size: int) -> None:
    value = bytes(itertools.islice(itertools.cycle(range(251)), size))
    revision = put(engine, b"k", value).revision
    chosen = edges(size)
    for first, last in itertools.product(chosen, [*chosen, None]):
        if last is not None and last < first:
            continue
        found = engine.get_part(b"k", (first, last))
        assert found is not None
        assert found.record.value == value[first : None if last is None else last + 1]
        assert (found.size, found.record.revision) == (size, revision)
        assert found.start == first or not found.record.value


@pytest.mark.parametrize("size", SIZES)
def test_a_part_of_the_end_is_what_is_left_of_it(engine: Driven, size: int) -> None:
    value = bytes(itertools.islice(itertools.cycle(range(251)), size))
    put(engine, b"k", value)
    for length in edges(size):
        found = engine.get_part(b"k", (None, length))
        assert found is not None
        assert found.record.value == value[max(0, size - length) :]
        assert found.start + len(found.record.value) == size


def test_there_is_no_part_of_what_is_missing_or_over(world: World) -> None:
    assert world.engine.get_part(b"k", (0, 10)) is None
    put(world.engine, b"k", b"x" * 10_000, ttl_ms=5)
    assert world.engine.get_part(b"k", (0, 10)) is not None
    world.clock.advance(5)
    assert world.engine.get_part(b"k", (0, 10)) is None
