"""`python -m bench.full`: what setting new keys costs in a full store, beside one with room.

Two services on the server's core, one that evicts in a full store and one that has as many keys and
room for many more. New keys, scattered over their order, are set in the one and in the other, in
turn, over 64 connections; what counts is the CPU time that the server takes for each. The same once
more with the engine alone, in this process, by how many writes a commit has.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.request import urlopen

from bench import wire
from bench.errors import BenchError
from bench.peers.keyrack import SHARED_MEMORY
from bench.service import CLIENT_CORE, Service, machine
from keyrack.engines.contract import Set, WhenFull
from keyrack.engines.embedded import EmbeddedEngine
from keyrack.http.eager import at_once

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20
TARGET: Final = 0.6
BATCHES: Final = (1, 8, 64)
VALUE: Final = bytes(32)
_SCRIPT: Final = Path(__file__).with_name("lua") / "insert.lua"
_prefixes = (f"p{number}" for number in itertools.count())
_chance = random.Random(3)


@dataclass(frozen=True)
class Cost:
    """Medians in microseconds of CPU time for a new key; the ratio is the median of ratios."""

    what: str
    keys: int
    room_us: float
    full_us: float
    rate: float


def insert(server: Service, seconds: int) -> float:
    """Set new keys for so long; return the microseconds of the server's CPU time for each."""
    command = [
        "taskset",
        "-c",
        str(CLIENT_CORE),
        "wrk",
        "-t1",
        "-c64",
        f"-d{seconds}",
        "--timeout",
        "30s",
    ]
    command += ["-s", str(_SCRIPT), f"http://127.0.0.1:{server.port}", "--", next(_prefixes)]
    before = server.cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    used = server.cpu_seconds() - before
    words = done.stdout.partition("INSERTED ")[2].split()
    if len(words) < 3 or words[2] != "0":
        raise BenchError(f"setting new keys failed: {done.stdout[-200:]} {done.stderr[-200:]}")
    return used * 1e6 / int(words[0])


def usage(server: Service) -> tuple[int, int]:
    """Return how many keys a service holds, and how many it has evicted."""
    with urlopen(f"http://{wire.HOST}:{server.port}/v1/info", timeout=20) as answer:
        found = json.load(answer)
    return found["keys"], found["evicted"]


def over_http(memory: int, seconds: int, rounds: int) -> Cost:
    """Measure services."""
    evicting = ("--when-full", "evict")
    with (
        Service(memory=f"{memory}m", options=evicting) as full,
        Service(memory=f"{16 * memory}m") as room,
    ):
        while (held := usage(full))[1] < 1.2 * held[0] or not held[1]:
            insert(full, seconds)
        while usage(room)[0] < held[0]:
            insert(room, 1)
        pairs = [(insert(room, seconds), insert(full, seconds)) for _ in range(rounds)]
    return _cost("over HTTP, 64 connections", held[0], pairs)


def in_process(memory: int, batch: int, keys: int, rounds: int) -> Cost:
    """Measure the engine, with `batch` writes in a call."""
    with _engine(memory, WhenFull.EVICT) as full, _engine(16 * memory, WhenFull.REJECT) as room:
        while (held := at_once(full.usage())).evicted < 1.2 * held.keys or not held.evicted:
            _set_new(full, batch, keys)
        while at_once(room.usage()).keys < held.keys:
            _set_new(room, 64, keys)
        pairs = [(_set_new(room, batch, keys), _set_new(full, batch, keys)) for _ in range(rounds)]
    return _cost(f"engine alone, {batch} in a call", held.keys, pairs)


@contextmanager
def _engine(memory: int, when_full: WhenFull) -> Iterator[EmbeddedEngine]:
    folder = tempfile.mkdtemp(prefix="bench-of-keyrack-", dir=SHARED_MEMORY)
    engine = EmbeddedEngine(folder, memory * MIB, when_full=when_full)
    engine.begin_life()
    try:
        yield engine
    finally:
        engine.close()
        shutil.rmtree(folder)


def _set_new(engine: EmbeddedEngine, batch: int, keys: int) -> float:
    writes = [(Set(b"key:%012d" % _chance.randrange(10**12), VALUE),) for _ in range(keys)]
    began = time.thread_time_ns()
    for start in range(0, keys, batch):
        engine.apply(writes[start : start + batch])
    return (time.thread_time_ns() - began) / 1000 / keys


def _cost(what: str, keys: int, pairs: list[tuple[float, float]]) -> Cost:
    room, full = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Cost(what, keys, room, full, statistics.median(one / two for one, two in pairs))


def report(costs: list[Cost]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# Setting new keys in a full store"
    yield ""
    yield "Made by `python -m bench.full`. CPU time for a new key with a value of 32 bytes, in"
    yield "microseconds; the rate is that of a store with room, divided by the other."
    yield ""
    yield "| | keys | with room | full, evicting | rate |"
    yield "|---|--:|--:|--:|--:|"
    for cost in costs:
        yield (
            f"| {cost.what} | {cost.keys:,} | {cost.room_us:.1f} | {cost.full_us:.1f} "
            f"| {cost.rate:.2f} |"
        )
    yield ""
    verdict = "met" if costs[0].rate >= TARGET else "missed"
    yield f"Target: at least {TARGET} over HTTP: {costs[0].rate:.2f}, {verdict}."


def main() -> int:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=64, help="MiB of the full store")
    parser.add_argument("--seconds", type=int, default=3, help="how long a sample over HTTP lasts")
    parser.add_argument("--keys", type=int, default=20_000, help="keys of a sample of the engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    costs = [over_http(options.memory, options.seconds, options.rounds)]
    costs += [in_process(options.memory, n, options.keys, options.rounds) for n in BATCHES]
    options.output.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(), "costs": [asdict(cost) for cost in costs]}
    (options.output / "full.json").write_text(json.dumps(found, indent=1) + "\n")
    page = "\n".join(report(costs)) + "\n"
    (options.output / "full.md").write_text(page)
    print(page)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(str(error))
