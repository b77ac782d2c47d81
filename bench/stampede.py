"""Many processes that want one hot key, which takes long to compute.

    python -m bench.stampede [--processes 200] [--seconds 60] [--compute 0.5] [--kill]

Each process reads the key over and over through the Python client's `get_or_compute`. What is
asked: how often it was computed for each of its ends, and how long anybody waited at most. With
`--kill` the process that computes is killed now and then.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from bench import wire
from bench.service import Service
from keyrack.client import Client

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Barrier

_KEY: Final = "hot"
_STALE: Final = 60.0
_PAUSE: Final = 0.2
"""Between two reads of one process, on average: 200 of them ask a thousand times a second, which
leaves two cores time for nothing but waiting."""
_KILL_EVERY: Final = 5.0


class StampedeResult(NamedTuple):
    """What came of a run. Times in seconds."""

    reads: int
    computed: int
    ends: int
    """How often the key has ended, its first computation included."""
    longest: float
    """The longest that a read took which computed nothing."""
    slowest: float
    """The longest that a read took which computed the value."""
    killed: int

    @property
    def is_shared(self) -> bool:
        """Whether the key was computed once for each of its ends, and not more often."""
        return self.computed <= self.ends


class Shared(NamedTuple):
    """What the processes count together."""

    reads: Synchronized[int]
    computed: Synchronized[int]
    longest: Synchronized[float]
    slowest: Synchronized[float]
    computing: Synchronized[int]
    """The process that computes now, 0 for none."""


def run(
    url: str,
    processes: int,
    seconds: float,
    compute: float,
    ttl: float,
    lease: float,
    kills: bool = False,
) -> StampedeResult:
    """Let processes read a key for some seconds, and return what came of it."""
    context = multiprocessing.get_context("fork")
    reads, computed, computing = (context.Value("q", 0) for _ in range(3))
    longest, slowest = (context.Value("d", 0.0) for _ in range(2))
    shared = Shared(reads, computed, longest, slowest, computing)
    ready = context.Barrier(processes)
    arguments = (url, seconds, compute, ttl, lease, shared, ready)
    started = [context.Process(target=_work, args=arguments) for _ in range(processes)]
    for process in started:
        process.start()
    killed = _kill_some(seconds, shared) if kills else 0
    for process in started:
        process.join()
    with Client(url) as client:
        # What it was before it was stored for the first time counts as an end, too.
        ends = 1 + sum(event.kind == "expire" for event in client.history(_KEY, limit=1000))
    return StampedeResult(
        shared.reads.value,
        shared.computed.value,
        ends,
        shared.longest.value,
        shared.slowest.value,
        killed,
    )


def _kill_some(seconds: float, shared: Shared) -> int:
    """Kill the process that computes, now and then; say how many were killed."""
    stop, killed = time.monotonic() + seconds - 2 * _KILL_EVERY, 0
    while time.monotonic() < stop:
        time.sleep(_KILL_EVERY)
        deadline = time.monotonic() + _KILL_EVERY
        while not shared.computing.value and time.monotonic() < deadline:
            time.sleep(0.005)
        if victim := shared.computing.value:
            os.kill(victim, signal.SIGKILL)
            shared.computing.value = 0
            killed += 1
    return killed


def _work(
    url: str,
    seconds: float,
    compute: float,
    ttl: float,
    lease: float,
    shared: Shared,
    ready: Barrier,
) -> None:
    mine = [False]

    def computed() -> str:
        mine[0] = True
        shared.computing.value = os.getpid()
        time.sleep(compute)
        shared.computing.value = 0
        with shared.computed.get_lock():
            shared.computed.value += 1
        return "value"

    with Client(url, timeout=60) as client:
        client.get(_KEY)
        ready.wait()
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            mine[0] = False
            began = time.monotonic()
            client.get_or_compute(_KEY, computed, ttl=ttl, stale=_STALE, lease=lease, wait=30)
            took = time.monotonic() - began
            longest = shared.slowest if mine[0] else shared.longest
            with longest.get_lock():
                longest.value = max(longest.value, took)
            with shared.reads.get_lock():
                shared.reads.value += 1
            time.sleep(random.uniform(0, 2 * _PAUSE))


def main() -> int:
    """Run it against a service of its own, and say what came of it."""
    parser = argparse.ArgumentParser("bench.stampede", description=__doc__)
    add = parser.add_argument
    add("--processes", type=int, default=200)
    add("--seconds", type=float, default=60.0)
    add("--compute", type=float, default=0.5, help="seconds that computing the value takes")
    add("--ttl", type=float, default=2.0, help="seconds that it is fresh")
    add("--lease", type=float, default=3.0, help="seconds that others leave it to one")
    add("--kill", action="store_true", help="kill who computes, every few seconds")
    given = parser.parse_args()
    with Service() as service:
        result = run(
            f"http://{wire.HOST}:{service.port}",
            given.processes,
            given.seconds,
            given.compute,
            given.ttl,
            given.lease,
            given.kill,
        )
    print(
        f"{given.processes} processes, {given.seconds:g} s, {result.reads} reads: computed "
        f"{result.computed} times for {result.ends} ends, {result.killed} killed; "
        f"longest read {result.longest:.3f} s, of who computed {result.slowest:.3f} s"
    )
    late = not given.kill and result.longest > given.compute + 0.05
    return 1 if late or not result.is_shared else 0


if __name__ == "__main__":
    raise SystemExit(main())
