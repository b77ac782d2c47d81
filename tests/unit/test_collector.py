"""When a worker looks for cycles: never while that would hold up many clients."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from keyrack.server.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator


class World:
    """A collector with a clock that is moved, and so many connections."""

    def __init__(self, connections: int) -> None:
        self.now = 0.0
        self.full = 0
        self.collector = Collector(range(connections), lambda: self.now, self._collect)

    def _collect(self) -> int:
        self.full += 1
        return 0

    def look(self, after: float) -> int:
        """Let time pass, with work for the middle generation; return the collections so far."""
        self.now += after
        gc.collect(1)
        self.collector.look()
        return self.full


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_few_clients_are_held_up_once_a_minute_at_most() -> None:
    world = World(connections=3)
    assert [world.look(after) for after in (59.0, 1.0, 1.0, 58.0, 1.0)] == [0, 1, 1, 1, 2]


def test_many_clients_are_not_held_up() -> None:
    world = World(connections=101)
    assert [world.look(61.0) for _ in range(3)] == [0, 0, 0]


def test_where_nothing_was_done_nothing_is_looked_at() -> None:
    world = World(connections=0)
    assert world.look(61.0) == 1
    world.now += 61.0
    world.collector.look()
    assert world.full == 1


def test_growing_by_a_quarter_million_objects_collects_nothing_old() -> None:
    World(connections=5_000).collector.begin()
    before = gc.get_stats()[2]["collections"]
    grown = [[] for _ in range(250_000)]
    assert gc.get_stats()[2]["collections"] == before
    assert len(grown) == 250_000
