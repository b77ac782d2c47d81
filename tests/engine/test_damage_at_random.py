"""Random lives of a store, random damage to its files, and starts: nothing is lost in silence.

A start finds everything that was acknowledged, or is refused, or, where that is no failure, says
that something is missing. It is the same whether the memory is lost or not, and the next two starts
find the same.
"""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from engine_support.contents import contents
from engine_support.kept import KeptStore
from engine_support.world import drop, put, rounds

from keyrack.engines.contract import StoreError

if TYPE_CHECKING:
    from pathlib import Path

KEYS = 12


class Lives:
    """A store, what it held after each write, and from which of those on all was promised."""

    def __init__(self, room: Path, chance: random.Random, strict: bool) -> None:
        self.chance = chance
        self.room = room
        keep = chance.randint(1, 3)
        self.store = KeptStore(room, room, strict=strict, keep=keep)
        self.states = [contents(self.store.engine)]
        self.promised = 0
        self.versions: list[tuple[str, bytes]] = []
        """Files as they were at some time."""

    def live(self) -> None:
        """Do something."""
        store, chance = self.store, self.chance
        for _ in range(chance.randint(5, 60)):
            what = chance.random()
            if what < 0.7:
                key = b"%d" % chance.randrange(KEYS)
                if chance.random() < 0.2:
                    drop(store.engine, key)
                else:
                    put(store.engine, key, chance.randbytes(chance.choice((0, 10, 100, 5000))))
                self.states.append(contents(store.engine))
                if store.strict and chance.random() < 0.8:
                    assert store.sync()
                    self._promise()
            elif what < 0.85:
                store.take()
                self._promise()
            elif what < 0.92:
                store.restart()
            elif store.strict:
                store.lose_memory()
                assert contents(store.engine) == self.states[-1]
            if chance.random() < 0.1:
                self._remember_a_file()

    def _promise(self) -> None:
        self.promised = len(self.states) - 1

    def _remember_a_file(self) -> None:
        name = self.chance.choice(os.listdir(self.store.disk))
        self.versions.append((name, (self.store.disk / name).read_bytes()))

    def damage(self) -> str:
        """Damage a file, and say how."""
        chance, disk = self.chance, self.store.disk
        name = chance.choice(sorted(set(os.listdir(disk)) - {"lock"}))
        path = disk / name
        data = bytearray(path.read_bytes())
        size = len(data)
        first, last = sorted((chance.randrange(size + 1), chance.randrange(size + 1)))
        how = chance.randrange(9)
        if how == 0 and size:
            data[chance.randrange(size)] ^= 1 << chance.randrange(8)
        elif how == 1:
            data[first:last] = bytes(last - first)
        elif how == 2:
            data[first:last] = chance.randbytes(last - first)
        elif how == 3:
            del data[first:]
        elif how == 4:
            del data[first:last]
        elif how == 5:
            data += chance.randbytes(chance.randint(1, 200))
        elif how == 6:
            path.unlink()
            return f"{name} removed"
        elif how == 7 and self.versions:
            name, old = chance.choice(self.versions)
            (disk / name).write_bytes(old)
            return f"{name} as it was"
        else:
            other = chance.choice(sorted(os.listdir(disk)))
            data = bytearray((disk / other).read_bytes())
        path.write_bytes(data)
        return f"{name} damaged in way {how}"


def started(store: KeptStore, keeps_memory: bool) -> dict[str, Any] | None:
    """Start, and return what is there; None when that is refused."""
    if not keeps_memory:
        shutil.rmtree(store.memory, ignore_errors=True)
    try:
        store.open()
    except StoreError:
        return None
    found = contents(store.engine)
    assert store.engine.check() == []
    store.close()
    return found


def files_of(store: KeptStore) -> dict[str, bytes]:
    """Return the names and bytes of all files but the lock, in which each start signs."""
    names = set(os.listdir(store.disk)) - {"lock"}
    return {name: (store.disk / name).read_bytes() for name in names}


def what_is_wrong(lives: Lives, keeps_memory: bool, done: list[str]) -> str:
    """Start three times and say what should not be."""
    store, seen = lives.store, []
    for number in range(3):
        before = files_of(store)
        found = started(store, keeps_memory and number == 0)
        if found is None:
            # While the memory has it all, a snapshot is not read to its end.
            unread = keeps_memory and number == 1 and any("snapshot" in one for one in done)
            if seen and seen[-1] is not None and not unread:
                return f"start {number} is refused, and the one before was not: {done}"
            if files_of(store) != before:
                return f"a refused start changed something: {done}"
        elif found not in lives.states:
            return f"what was found was never there: {done}"
        elif found not in lives.states[lives.promised :]:
            said = [*store.started.troubles, *store.started.warnings]
            if number == 0 and not said:
                return f"something was lost in silence: {done}"
            if lives.store.strict and not any("high-water" in one for one in done):
                return f"something was lost that was promised: {done}, {said}"
        # What the memory had of it alone may be lost with it, in the mode `snapshot`.
        alone = keeps_memory and number == 1 and (not lives.store.strict or found is None)
        if number and found != seen[-1] and not alone:
            return f"start {number} found something else than the one before: {done}"
        seen.append(found)
    return ""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("strict", [True, False], ids=["commit", "snapshot"])
def test_whatever_is_damaged_nothing_is_lost_in_silence(shm: Path, strict: bool) -> None:
    first = int(os.environ.get("KEYRACK_TEST_SEED", "0"))
    refused = less = 0
    for seed in range(first, first + rounds(40)):
        chance = random.Random(seed)
        room = shm / str(seed)
        lives = Lives(room, chance, strict)
        lives.live()
        lives.store.close()
        keeps_memory = chance.random() < 0.3
        done = [lives.damage() for _ in range(chance.choice((1, 1, 1, 2)))]
        wrong = what_is_wrong(lives, keeps_memory, done)
        assert wrong == "", f"seed {seed}: {wrong}"
        found = started(lives.store, False)
        refused += found is None
        less += found is not None and found not in lives.states[lives.promised :]
        shutil.rmtree(room)
    assert refused > 0, "nothing was damaged that counts"
    print(f"{seed + 1 - first} damaged: {refused} refused, {less} told of less, the others had all")
