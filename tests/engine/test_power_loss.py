"""The power goes at any moment: what was acknowledged is there, and nothing is there in half.

What is done to the files of a store is recorded. Then, for every beginning of the record, what may
be on the disk is made anew in several ways, and a service is started on it: with an empty memory.
"""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from engine_support.contents import contents
from engine_support.kept import KeptStore
from engine_support.power import (
    RecordingFiles,
    after_power_loss,
    by_chance,
    everything,
    nothing,
)
from engine_support.world import attempt, drop, put, rounds

from keyrack.engines.contract import Remember, Set, Space, Touch
from keyrack.engines.embedded.durability import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine_support.power import Done


class Recording:
    """What was done to a store: its files, its states, and what was promised when."""

    def __init__(self, store: KeptStore, files: RecordingFiles) -> None:
        self.store = store
        self.done = files.done
        self.states = [contents(store.engine)]
        self.promises: list[tuple[int, int]] = [(len(self.done), 0)]
        """From so many things done on, at least this state must be there."""

    def wrote(self) -> None:
        self.states.append(contents(self.store.engine))

    def promised(self) -> None:
        self.promises.append((len(self.done), len(self.states) - 1))

    def least(self, things: int) -> int:
        return max(state for since, state in self.promises if since <= things)


def some_write(store: KeptStore, step: int) -> None:
    """Do one of many kinds of writes."""
    engine = store.engine
    key = b"%d" % (step % 5)
    if step % 7 == 3:
        drop(engine, key)
    elif step % 7 == 4:
        attempt(engine, Touch(key, 60_000))
    elif step % 7 == 5:
        attempt(engine, Set(key, b"owner", ttl_ms=1000, space=Space.LOCKS))
    elif step % 7 == 6:
        attempt(engine, Remember(b"%d" % step, b"print", 60_000), Set(key, b"once"), Set(b"x", b""))
    else:
        put(engine, key, os.urandom(step * 997 % 9000), ttl_ms=step % 2 * 50_000)


def committing(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write and sync in groups, with snapshots between, and writes while those are taken."""
    store, step = recording.store, 0
    original = take_snapshot._Taking._records

    def group() -> None:
        nonlocal step
        for _ in range(step % 3 + 1):
            step += 1
            some_write(store, step)
            recording.wrote()
        if step % 4:
            assert store.sync()
            recording.promised()

    def records(self: take_snapshot._Taking, space: Space, after: bytes) -> object:
        group()
        return original(self, space, after)

    monkeypatch.setattr(take_snapshot._Taking, "_records", records)
    for _ in range(4):
        for _ in range(4):
            group()
        store.take()
    group()
    monkeypatch.undo()


def snapshotting(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take snapshots, with writes between them."""
    for step in range(1, 25):
        some_write(recording.store, step)
        recording.wrote()
        if step % 4 == 0:
            recording.store.take()
            recording.promised()


def lives(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write over several lives of the service, of which each begins a journal."""
    store = recording.store
    for step in range(1, 16):
        some_write(store, step)
        recording.wrote()
        assert store.sync()
        recording.promised()
        if step % 5 == 0:
            store.lose_memory()
        elif step % 5 == 3:
            store.restart()


def found_after(done: list[Done], survives: Any, strict: bool, room: Path) -> dict[str, Any]:
    """Lose power, start a service on what is left, and return what it holds."""
    disk, memory = room / "disk", room / "memory"
    disk.mkdir(parents=True)
    memory.mkdir()
    after_power_loss(done, disk / "data", survives)
    store = KeptStore(memory, disk, strict)
    try:
        found = contents(store.engine)
        assert store.engine.check() == []
        put(store.engine, b"after", b"all")
        if strict:
            # What the next life writes is not mixed with what was torn.
            assert store.sync()
            later = contents(store.engine)
            store.lose_memory()
            assert contents(store.engine) == later
    finally:
        store.close()
        shutil.rmtree(room)
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("work", "strict"), [(committing, True), (lives, True), (snapshotting, False)]
)
def test_whenever_the_power_goes_what_was_promised_is_there(
    shm: Path,
    work: Callable[[Recording, pytest.MonkeyPatch], None],
    strict: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = RecordingFiles()
    recorded = KeptStore(shm / "recorded", shm / "recorded", strict, files=files, keep=1)
    recording = Recording(recorded, files)
    work(recording, monkeypatch)
    recorded.close()
    chance = random.Random(work.__name__)
    losses = 0
    ways = [nothing, everything, *(by_chance(chance) for _ in range(rounds(2)))]
    for things in range(recording.promises[0][0], len(recording.done) + 1):
        for survives in ways:
            found = found_after(recording.done[:things], survives, strict, shm / "found")
            least = recording.least(things)
            assert found in recording.states[least:], (
                f"after {things} things, {survives.__name__}: not one of the states from {least}"
            )
            losses += 1
    print(f"{losses} losses of power in {len(recording.done)} things done")


def test_the_first_start_can_be_cut_off_anywhere(shm: Path) -> None:
    files = RecordingFiles()
    KeptStore(shm / "recorded", shm / "recorded", True, files=files).close()
    chance = random.Random(3)
    for things in range(len(files.done) + 1):
        for survives in (nothing, everything, by_chance(chance)):
            found = found_after(files.done[:things], survives, True, shm / "found")
            assert found["KEYS"] == {}
