"""Many processes have one store open, and any of them may be killed at any moment."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from engine_support.children import SLOTS, slot_after
from engine_support.processes import Child
from engine_support.world import EmbeddedWorld, history, put, rounds, value_of

from keyrack.engines.contract import Change, Sweep
from keyrack.engines.embedded.shared_words import open_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine_support.driven import Driven


@pytest.fixture
def shared(shm: Path) -> Iterator[EmbeddedWorld]:
    """A store for several processes; every test ends with its audit."""
    world = EmbeddedWorld(shm, events=1_000_000)
    yield world
    problems = world.engine.check()
    world.close()
    assert problems == []


def test_a_write_is_seen_by_another_process_at_once(shared: EmbeddedWorld) -> None:
    with Child("serve", shared.directory, shared.memory) as child:
        assert child.hear() == "open"
        revision = put(shared.engine, b"k", b"here").revision
        assert child.call("get", b"k") == b"here"
        assert child.call("set", b"k", b"there") == revision + 1
        assert value_of(shared.engine, b"k") == b"there"


@pytest.mark.timing
def test_every_process_reads_the_same_time(shm: Path) -> None:
    with (
        Child("serve", shm, 8 << 20) as one,
        Child("serve", shm, 8 << 20) as two,
    ):
        assert (one.hear(), two.hear()) == ("open", "open")
        times = [child.call("now") for child in (one, two, one, two)]
        assert times == sorted(times)
        assert times[-1] - times[0] < 5000


def test_no_increment_by_compare_and_set_is_lost(shared: EmbeddedWorld) -> None:
    processes, times = 3, 500
    arguments = (shared.directory, shared.memory, "counter", times)
    with ExitStack() as stack:
        children = [stack.enter_context(Child("count", *arguments)) for _ in range(processes)]
        assert [child.hear() for child in children] == ["open"] * processes
        for child in children:
            child.tell()
        assert [child.hear() for child in children] == ["done"] * processes
    assert value_of(shared.engine, b"counter") == b"%d" % (processes * times)
    changes = history(shared.engine)
    assert changes == [(Change.SET, b"counter")] * processes * times


# Sweeping


def lease(world: EmbeddedWorld, owner: int, ms: int) -> None:
    """Say in the shared words that a process sweeps for so many ms more."""
    words = open_words(str(world.directory))
    words.sweeper, words.sweep_until = owner, world.clock.ns + ms * 1_000_000


def test_a_process_leaves_the_sweep_to_the_one_that_is_at_it(shared: EmbeddedWorld) -> None:
    put(shared.engine, b"k", ttl_ms=5)
    shared.clock.advance(5)
    due = shared.engine.now()
    lease(shared, owner=1, ms=200)
    assert shared.engine.expire(10) == Sweep(0, due)
    shared.clock.advance(201)
    assert shared.engine.expire(10) == Sweep(1, None)


def test_a_sweep_that_is_done_leaves_the_next_to_anybody(shm: Path) -> None:
    with (
        Child("serve", shm, 8 << 20) as one,
        Child("serve", shm, 8 << 20) as two,
    ):
        assert (one.hear(), two.hear()) == ("open", "open")
        for child in (one, two, one):
            child.call("set", b"k", b"v", "text/plain", 1)
            time.sleep(0.002)
            assert child.call("expire", 10) == "Sweep(expired=1, next_due=None)"


# Killed processes


@pytest.mark.timing
@pytest.mark.parametrize("when", ["made", "not made"])
def test_a_process_killed_inside_a_write_leaves_no_trace_and_no_lock(
    shared: EmbeddedWorld, when: str
) -> None:
    put(shared.engine, b"k", b"before")
    before = shared.engine.usage()
    with Child("die_writing", shared.directory, shared.memory, when) as child:
        assert child.hear_all() == ["dying"]
    began = time.monotonic()
    assert shared.engine.get(b"never") is None
    assert shared.engine.usage() == before
    put(shared.engine, b"k", b"after")
    assert time.monotonic() - began < 10


def states_after(acknowledged: int) -> list[dict[bytes, bytes | None]]:
    """Return what a writer's keys may hold: the step that nobody heard of was done, or not."""
    state: dict[bytes, bytes | None] = {}
    for step in range(max(0, acknowledged - SLOTS), acknowledged + 1):
        slot, value = slot_after(step)
        state[slot] = value
    slot, value = slot_after(acknowledged + 1)
    return [state, {**state, slot: value}]


def kept_by(engine: Driven, name: str) -> dict[bytes, bytes | None]:
    slots = [b"%d" % number for number in range(SLOTS)]
    found = {slot: value_of(engine, name.encode() + b"-" + slot) for slot in slots}
    return {slot: value for slot, value in found.items() if value is not None}


def without_missing(state: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    return {slot: value for slot, value in state.items() if value is not None}


@pytest.mark.time_limits
def test_no_acknowledged_write_is_lost_when_writers_are_killed(shm: Path) -> None:
    """At random moments of a loop that hardly does anything but write; the others go on."""
    chance = random.Random(rounds(0))
    world = EmbeddedWorld(shm, events=1000)
    with ExitStack() as stack:
        writers: list[tuple[str, Child]] = []
        for number in range(rounds(30) + 2):
            name = f"writer{number}"
            child = Child("write", world.directory, world.memory, name)
            writers.append((name, stack.enter_context(child)))
            if len(writers) < 3:
                continue
            name, victim = writers.pop(0)
            told = [victim.hear()]
            time.sleep(chance.random() / 20)
            victim.kill()
            told += victim.hear_all()
            began = time.monotonic()
            put(world.engine, b"another", b"process writes")
            assert time.monotonic() - began < 10
            assert kept_by(world.engine, name) in map(without_missing, states_after(int(told[-1])))
            assert world.engine.check() == []
            while world.engine.trim(256):
                pass
    world.close()
