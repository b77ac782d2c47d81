"""The embedded engine's long work: each step ends by the clock, and asks for little memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from engine_support.world import MIB, EmbeddedWorld, SteadyClock, blocks, put

from keyrack.engines.contract import Set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS = 600
STEP_MS = 0.3


class RunningClock(SteadyClock):
    """A steady clock that goes on with every reading, once it is told by how much."""

    def __init__(self) -> None:
        super().__init__()
        self.reading_ms = 0.0

    def __call__(self) -> int:
        self.advance(self.reading_ms)
        return super().__call__()


@pytest.fixture
def clock() -> RunningClock:
    """The clock of `world`."""
    return RunningClock()


@pytest.fixture
def world(shm: Path, clock: RunningClock) -> Iterator[EmbeddedWorld]:
    """A store of few events, whose clock runs while it works; ends with the engine's audit."""
    one = EmbeddedWorld(shm, events=10)
    one.clock = clock
    one.restart()
    yield one
    clock.reading_ms = 0.0
    problems = one.engine.check()
    one.close()
    assert problems == []


def fill(world: EmbeddedWorld, ttl_ms: int = 0) -> None:
    for number in range(KEYS):
        put(world.engine, b"%d" % number, ttl_ms=ttl_ms)


def test_a_step_of_expiry_ends_by_the_clock(world: EmbeddedWorld, clock: RunningClock) -> None:
    fill(world, ttl_ms=1000)
    clock.advance(2000)
    clock.reading_ms = STEP_MS / 4
    expired = world.engine.expire(KEYS).expired
    assert 0 < expired <= STEP_MS / clock.reading_ms
    assert world.engine.usage().keys == KEYS - expired


def test_expiry_goes_on_where_the_last_step_ended(
    world: EmbeddedWorld, clock: RunningClock
) -> None:
    fill(world, ttl_ms=1000)
    clock.advance(2000)
    clock.reading_ms = STEP_MS / 4
    steps = 0
    while world.engine.expire(KEYS).expired:
        steps += 1
    assert steps >= KEYS // 64
    assert world.engine.usage().keys == 0


def test_a_step_of_trimming_ends_by_the_clock(world: EmbeddedWorld, clock: RunningClock) -> None:
    fill(world)
    before = world.engine.usage().events
    clock.reading_ms = STEP_MS / 2
    trimmed = world.engine.trim(KEYS)
    assert 0 < trimmed < 64
    assert world.engine.usage().events == before - trimmed


def test_a_step_of_searching_the_log_ends_by_the_clock(
    world: EmbeddedWorld, clock: RunningClock
) -> None:
    world.events = KEYS
    world.restart()
    fill(world)
    clock.reading_ms = STEP_MS / 2
    found, before = world.engine.events_of(b"0", None, 10)
    assert found == []
    steps = 1
    while before is not None:
        more, before = world.engine.events_of(b"0", before, 10)
        found += more
        steps += 1
    assert [event.key for event in found] == [b"0"]
    assert steps > 10


def test_a_sweep_claims_little_memory_at_a_time(shm: Path) -> None:
    """Memory is claimed with zeros under the write lock: 30 MiB at once took 7 ms."""
    world = EmbeddedWorld(shm, memory=256 * MIB, events=10)
    world.engine.write([(Set(b"%d" % number, b"", ttl_ms=5),) for number in range(KEYS)])
    before = blocks(world.directory)
    world.clock.advance(10)
    assert world.engine.expire(KEYS).expired == KEYS
    assert blocks(world.directory) - before <= 4 * MIB
    world.close()


@pytest.mark.timing
def test_counting_copies_no_values(shm: Path) -> None:
    """Copying 100 MiB takes 20 ms and more; to look at a hundred keys takes a twentieth of one."""
    world = EmbeddedWorld(shm, memory=256 * MIB)
    for number in range(100):
        put(world.engine, b"%d" % number, b"v" * MIB)
    took = []
    for _ in range(3):
        began = time.thread_time()
        assert world.engine.count(b"", None, 1000) == (100, None)
        took.append(time.thread_time() - began)
    assert min(took) < 0.002
    world.close()
