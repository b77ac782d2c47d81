"""`python -m bench.scale`: what operations cost with 10^5, 10^6, 10^7 keys, and what follows.

One engine in this process, filled in steps with keys of 16 bytes and values of 32, in no order.
After each step everything is timed in CPU time of this thread, median of some rounds: a read of a
random key, a set of a key that is there (alone, and 64 in a commit), a page of 100 keys, the
removal of ended keys, a snapshot. Then another store of as many keys is full, and each new key
evicts others. Nothing is sent over HTTP: that part of a request does not know how many keys there
are.

An operation that walks down a tree takes longer by a step for each factor of about a hundred. The
last column carries the line through what was measured, over the logarithm of the keys, to 10^8.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import procstat, wire
from bench.peers.keyrack import SHARED_MEMORY
from bench.service import machine
from keyrack.engines.contract import Set, WhenFull
from keyrack.engines.embedded import EmbeddedEngine
from keyrack.engines.embedded.durability import DurabilityConfig
from keyrack.engines.embedded.durability.data_directory import DataDirectory, write_head
from keyrack.engines.embedded.durability.take_snapshot import take
from keyrack.http.eager import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS: Final = (100_000, 1_000_000, 10_000_000)
FAR: Final = 100_000_000
ROUNDS: Final = 5
_READS: Final = 20_000
_WRITES: Final = 6_400
_PAGES: Final = 300
_ENDED: Final = 20_000
_TTL_MS: Final = 3_600_000
_chance = random.Random(7)


@dataclass(frozen=True)
class Costs:
    """CPU microseconds of each; `snapshot_us` and `bytes` are for one key."""

    keys: int
    get_us: float
    set_us: float
    set_of_64_us: float
    page_us: float
    expire_us: float
    evict_us: float
    snapshot_us: float
    bytes: float


WHAT: Final = {
    "get_us": "GET, µs",
    "set_us": "SET, one in a commit, µs",
    "set_of_64_us": "SET, 64 in a commit, µs",
    "page_us": "page of 100 keys, µs",
    "expire_us": "removal of an ended key, µs",
    "evict_us": "new key in a full store, µs",
    "snapshot_us": "snapshot, µs a key",
    "bytes": "memory, bytes a key",
}


class Clock:
    """A steady clock that can be moved, in ns."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return time.monotonic_ns() + self.ahead


def _key(number: int, keys: int) -> bytes:
    """Return a key that lies anywhere among the others, whatever the order of the numbers."""
    return wire.key(number * 2_654_435_761 % keys).encode()


def _cpu_us(work: Callable[[], object], count: int) -> float:
    """Return the median CPU time of the work for one of `count` things."""
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        work()
        times.append((time.thread_time_ns() - began) / 1000 / count)
    return statistics.median(times)


class Store:
    """An engine of its own, on a disk for its snapshots; gone at the end of the block."""

    def __init__(self, memory: int, when_full: WhenFull, disk: Path | None = None) -> None:
        self.folder = tempfile.mkdtemp(prefix="bench-of-keyrack-", dir=SHARED_MEMORY)
        self._disk = tempfile.mkdtemp(prefix="bench-of-keyrack-", dir=disk)
        name = secrets.token_bytes(16)
        write_head(self._disk, name)
        self.data = DataDirectory(self._disk, name)
        self.clock = Clock()
        self.engine = EmbeddedEngine(
            self.folder,
            memory,
            steady=self.clock,
            kept=DurabilityConfig(self.data, strict=False),
            when_full=when_full,
        )
        self.engine.begin_life()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.engine.close()
        shutil.rmtree(self.folder)
        shutil.rmtree(self._disk)

    def fill(self, first: int, keys: int, of: int) -> None:
        """Store the keys with the numbers from `first` on."""
        for start in range(first, keys, 100):
            some = range(start, min(keys, start + 100))
            self.engine.apply([(Set(_key(n, of), wire.value(n).encode()),) for n in some])


def _gets(store: Store, keys: int) -> Callable[[], None]:
    def get() -> None:
        for key in names:
            look(key)

    look = store.engine.get_now
    names = [_key(_chance.randrange(keys), keys) for _ in range(_READS)]
    return get


def _sets(store: Store, keys: int, batch: int) -> Callable[[], None]:
    def write() -> None:
        for start in range(0, _WRITES, batch):
            store.engine.apply(writes[start : start + batch])

    names = (_key(_chance.randrange(keys), keys) for _ in range(_WRITES))
    writes = [(Set(name, bytes(32)),) for name in names]
    return write


def _pages(store: Store, keys: int) -> Callable[[], None]:
    def page() -> None:
        for after in starts:
            at_once(store.engine.scan(after=after, limit=100))

    starts = [_key(_chance.randrange(keys), keys) for _ in range(_PAGES)]
    return page


def _expire(store: Store, keys: int) -> float:
    """Give keys a TTL, let it end, and time the sweep; all have a place among the others."""
    times = []
    for _ in range(ROUNDS):
        names = [_key(_chance.randrange(keys), keys) for _ in range(_ENDED)]
        for start in range(0, _ENDED, 64):
            some = names[start : start + 64]
            store.engine.apply([(Set(name, bytes(32), ttl_ms=_TTL_MS),) for name in some])
        store.clock.ahead += (_TTL_MS + 1000) * 1_000_000
        gone, began = 0, time.thread_time_ns()
        while number := at_once(store.engine.expire(1000)).expired:
            gone += number
        times.append((time.thread_time_ns() - began) / 1000 / gone)
        for start in range(0, _ENDED, 64):
            store.engine.apply([(Set(name, bytes(32)),) for name in names[start : start + 64]])
    return statistics.median(times)


def _snapshot(store: Store) -> float:
    began = time.thread_time_ns()
    taken = take(store.engine.database, store.data)
    used = (time.thread_time_ns() - began) / 1000
    os.remove(store.data.snapshot(taken.number))
    return used


def _evict(keys: int, memory: int) -> float:
    """Fill a store until it evicts, and time new keys."""
    with Store(memory, WhenFull.EVICT) as store:
        number = 0
        while at_once(store.engine.usage()).evicted < keys // 10:
            store.fill(number, number + 10_000, FAR)
            number += 10_000

        def insert() -> None:
            nonlocal number
            store.fill(number, number + _WRITES, FAR)
            number += _WRITES

        return _cpu_us(insert, _WRITES)


def measure(store: Store, keys: int, before: int) -> Costs:
    """Measure everything at one number of keys."""
    blocks = procstat.stored_bytes(Path(store.folder))
    live = at_once(store.engine.usage()).used
    return Costs(
        keys,
        _cpu_us(_gets(store, keys), _READS),
        _cpu_us(_sets(store, keys, 1), _WRITES),
        _cpu_us(_sets(store, keys, 64), _WRITES),
        _cpu_us(_pages(store, keys), _PAGES),
        _expire(store, keys),
        _evict(keys, live),
        _snapshot(store) / keys,
        (blocks - before) / keys,
    )


def measured(steps: tuple[int, ...]) -> Iterator[Costs]:
    """Yield what everything costs at each number of keys."""
    memory = max(64 << 20, steps[-1] * 240)
    for keys in steps:
        with Store(memory, WhenFull.REJECT) as store:
            before = procstat.stored_bytes(Path(store.folder))
            store.fill(0, keys, keys)
            yield measure(store, keys, before)


def at(keys: int, found: list[Costs], name: str) -> float:
    """Return where the line through what was measured is, over the logarithm of the keys."""
    places = [math.log10(costs.keys) for costs in found]
    line = statistics.linear_regression(places, [getattr(costs, name) for costs in found])
    return line.slope * math.log10(keys) + line.intercept


def table(found: list[Costs]) -> str:
    """Return the figures, and where they lead."""
    head = "".join(f" {costs.keys:,} |" for costs in found)
    lines = [f"| |{head} {FAR:,} (extrapolated) |", f"|---|{'--:|' * (len(found) + 1)}"]
    for name, title in WHAT.items():
        cells = "".join(f" {getattr(costs, name):.2f} |" for costs in found)
        lines.append(f"| {title} |{cells} {at(FAR, found, name):.2f} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--out", type=Path, help="write the figures to this file, as JSON")
    given = parser.parse_args(arguments)
    print(machine(), flush=True)
    found = []
    for costs in measured(tuple(given.steps)):
        found.append(costs)
        print(costs, flush=True)
    if len(found) > 1:
        print(table(found))
    if given.out:
        given.out.write_text(json.dumps([asdict(costs) for costs in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
