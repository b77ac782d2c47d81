"""`python -m bench.sharing`: what writers share, and so where more workers stop to help.

Processes write to one store as workers do: for so long they serve requests, which is counted out
here, then they commit the sets that have come meanwhile, one process at a time. How many commits
two of them manage is held against a model of one queue that all of them stand in (mean value
analysis), which takes two times measured with one process: of the commit, and of all else. The
model says what four and eight would do; it knows of the lock, and not of caches or the network.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Final

from bench import wire
from bench.peers.keyrack import SHARED_MEMORY
from bench.service import machine
from keyrack.engines.contract import Set
from keyrack.engines.embedded import EmbeddedEngine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.synchronize import Barrier

_MEMORY: Final = 1 << 30
_STEP: Final = 2_654_435_761
"""Prime to every number of keys here: the next key lies anywhere among the others."""
COUNTS: Final = (1, 2, 4, 8)


def main() -> int:
    """Measure one and two processes, and print them beside the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--sets", type=int, nargs="*", default=(8, 32, 64), help="in a commit")
    parser.add_argument("--request-us", type=float, default=7.6, help="of CPU beside the commit")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-of-keyrack-", dir=SHARED_MEMORY)
    try:
        _fill(folder, given.keys)
        print(machine())
        print("| sets in a commit | commit, µs | one | two | two, model | four | eight | most |")
        print("|--:|--:|--:|--:|--:|--:|--:|--:|")
        for sets in given.sets:
            print(_row(folder, given, sets), flush=True)
    finally:
        shutil.rmtree(folder)
    return 0


def _row(folder: str, given: argparse.Namespace, sets: int) -> str:
    busy = sets * given.request_us / 1e6
    samples: dict[int, list[float]] = {1: [], 2: []}
    holds = []
    for _ in range(given.rounds):
        for processes, found in samples.items():
            rates = _rates(folder, processes, sets, busy, given)
            found.append(sum(rate for rate, _ in rates))
            if processes == 1:
                holds.append(rates[0][1])
    hold = statistics.median(holds)
    one, two = (sets * statistics.median(found) for found in samples.values())
    model = [sets * rate for rate in modelled(max(COUNTS), hold, busy)]
    figures = [two, *(model[count - 1] for count in COUNTS[1:]), sets / hold]
    times = " | ".join(f"{rate:,.0f} ({rate / one:.2f} x)" for rate in figures)
    return f"| {sets} | {hold * 1e6:.0f} | {one:,.0f} | {times} |"


def modelled(most: int, hold: float, busy: float) -> list[float]:
    """Return the commits a second of one process to `most`.

    Each is `busy` for so many seconds, and then has the lock for `hold`, one after the other.
    """
    rates, waiting = [], 0.0
    for processes in range(1, most + 1):
        takes = hold * (1 + waiting)
        rates.append(processes / (busy + takes))
        waiting = rates[-1] * takes
    return rates


def _rates(
    folder: str, processes: int, sets: int, busy: float, given: argparse.Namespace
) -> Sequence[tuple[float, float]]:
    """Return the commits a second of each process, and the median time of one (seconds)."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, _begin, (barrier, folder, given.keys)) as pool:
        about = [(sets, busy, given.seconds, number) for number in range(processes)]
        return pool.starmap(_work, about, chunksize=1)


_barrier: Barrier
_engine: EmbeddedEngine
_keys: int


def _begin(barrier: Barrier, folder: str, keys: int) -> None:
    global _barrier, _engine, _keys
    _barrier, _keys = barrier, keys
    _engine = EmbeddedEngine(folder, _MEMORY)


def _work(sets: int, busy: float, seconds: float, number: int) -> tuple[float, float]:
    os.sched_setaffinity(0, {number % (os.cpu_count() or 1)})
    value = wire.value(7).encode()
    _barrier.wait()
    at, commits, took = number * 7919, 0, []  # each at another place of the keys
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        some = range(at, at + sets)
        writes = [(Set(wire.key(n * _STEP % _keys).encode(), value),) for n in some]
        at += sets
        while time.perf_counter() - now < busy:
            pass
        asked = time.perf_counter()
        _engine.apply(writes)
        took.append(time.perf_counter() - asked)
        commits += 1
    return commits / (time.perf_counter() - began), statistics.median(took)


def _fill(folder: str, keys: int) -> None:
    engine = EmbeddedEngine(folder, _MEMORY)
    engine.begin_life()
    value = wire.value(0).encode()
    for start in range(0, keys, 100):
        some = range(start, min(keys, start + 100))
        engine.apply([(Set(wire.key(n * _STEP % keys).encode(), value),) for n in some])
    engine.close()


if __name__ == "__main__":
    sys.exit(main())
