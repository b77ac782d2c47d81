"""Expiry storm: what readers notice when very many keys end at the same moment.

All the keys of the run are stored with a TTL that ends at one instant (each request computes what
is left until then), so that they do not merely end in the same second but together. A reader asks
for other keys, at a fixed rate on one connection, first in calm and then from just before that
instant until seconds after it.

The reader runs open loop: a read's latency counts from when it was due, so that a server that
stops for 20 ms shows 40 late reads, not one. It spins on the client's core instead of sleeping.

On a shared machine most slow reads have nothing to do with the server, so causes are told apart:

- where the reader itself was off its core for over a millisecond (it watches its own clock), the
  read is counted as interrupted, and the schedule starts anew;
- where a process of the server was ready to run and had no core (the kernel counts that time), the
  neighbours had it. What is left of the time between request and answer is the server's own: work,
  locks, sleep. Over 5 ms of it make a read slow by the server, and the reads that it made late.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import random
import socket
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from bench import procstat, wire
from bench.errors import BenchError
from bench.load import fill
from bench.peers import Keyrack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.peers import Bench

RATE = 2000  # reads per second
LASTING_KEYS = 1000
TRIAL_KEYS = 10_000
ENDING = "end"
OWN_GAP_NS = 1_000_000
LATE_NS = 1_000_000
SLOW_NS = 5_000_000
STORED = b"HTTP/1.1 20"


@dataclass(frozen=True)
class Readings:
    """Latencies of one window, in milliseconds from when a read was due.

    `interrupted` counts the reads during which the reader itself did not run; the other figures
    are of the rest. `slow` reads took over 5 ms, `slow_by_server` of them without a neighbour's
    help; `worst_own_ms` is the most time that the server itself took for a read. `server_cpu` is in
    seconds for each full second of the window.
    """

    reads: int
    interrupted: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    worst_ms: float
    worst_own_ms: float
    slow: int
    slow_by_server: int
    server_cpu: list[float]


@dataclass(frozen=True)
class Storm:
    """A window without expiry and one with it; what was left of the keys afterwards."""

    keys: int
    calm: Readings
    storm: Readings
    served_after_end: int
    left_in_count: int | None


def expiry_storm(bench: Bench) -> Storm:
    """Start a server, fill it, watch it through the storm."""
    server = Keyrack(bench, label="storm")
    try:
        server.start()
        return _watch(server)
    finally:
        server.stop()


def _watch(server: Keyrack) -> Storm:
    settings, keys = server.bench.settings, server.keys
    wire.pipeline(server.port, _lasting(), STORED)
    end = _fill(server)
    calm = _watch_reads(server, settings.storm_calm)
    if time.monotonic() > end - 0.2:
        raise BenchError("the machine became too slow to fill the store before the keys ended")
    time.sleep(end - 0.2 - time.monotonic())
    storm = _watch_reads(server, settings.storm_window)
    return Storm(keys, calm, storm, _served(server.port, keys), _counted(server.port))


def _fill(server: Keyrack) -> float:
    """Store all keys; returns the moment on the monotonic clock at which they end."""
    core, begin = server.bench.settings.client_core, time.monotonic()
    fill(server.port, TRIAL_KEYS, core, prefix="try")
    a_key = (time.monotonic() - begin) / TRIAL_KEYS
    end = time.monotonic() + a_key * server.keys * 2 + server.bench.settings.storm_calm + 1
    fill(server.port, server.keys, core, prefix=ENDING, ends=end)
    return end


def _lasting() -> Iterator[bytes]:
    for number in range(LASTING_KEYS):
        path = f"/v1/keys/{wire.key(number)}"
        yield wire.http_request("PUT", path, wire.value(number), "text/plain")


@dataclass(frozen=True)
class Read:
    """One answered read, in nanoseconds: from due to sent, to answered; what the server took."""

    sent_ns: int
    answered_ns: int
    own_ns: int
    interrupted: bool


class Reader:
    """One connection that reads when told to, and knows when it was itself held up."""

    def __init__(self, server: Keyrack) -> None:
        self._pids = server.pids()
        self._queue = procstat.RunQueue(self._pids)
        self._socket = socket.create_connection((wire.HOST, server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._now = time.perf_counter_ns()
        self._worst_gap = 0

    def read(self, request: bytes, due: int) -> Read:
        """Send at the due time (of perf_counter_ns) and spin until the answer is complete."""
        self._worst_gap = 0
        while self._tick() < due:
            pass
        waited, sent = self._queue.waited_ns(), self._tick()
        self._socket.send(request)
        self._await_answer()
        answered = self._now
        held_up = max(b - a for a, b in zip(waited, self._queue.waited_ns(), strict=True))
        own = answered - sent - held_up
        return Read(sent - due, answered - due, own, self._worst_gap > OWN_GAP_NS)

    def start_now(self) -> int:
        """The present, without counting the time since the last read as a gap."""
        self._now = time.perf_counter_ns()
        return self._now

    def server_cpu(self) -> float:
        """CPU seconds that the server has used so far."""
        return procstat.cpu_seconds(self._pids)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        self._queue.close()

    def _await_answer(self) -> None:
        answer, end = b"", self._now + 10_000_000_000
        while not answer.endswith(b"}"):
            with contextlib.suppress(BlockingIOError):
                answer += self._socket.recv(4096) or _closed()
            if self._tick() > end:
                raise BenchError("a read was not answered within ten seconds")

    def _tick(self) -> int:
        now = time.perf_counter_ns()
        self._worst_gap = max(self._worst_gap, now - self._now)
        self._now = now
        return now


def _closed() -> bytes:
    raise BenchError("the server closed the reader's connection")


def _watch_reads(server: Keyrack, seconds: float) -> Readings:
    reader = Reader(server)
    gc.collect()
    gc.disable()  # a collection of this process' own garbage must not count as the server's latency
    try:
        return _summary(*_paced(reader, seconds))
    finally:
        gc.enable()
        reader.close()


def _paced(reader: Reader, seconds: float) -> tuple[list[Read], list[float]]:
    """The reads of a window, one every 1 / RATE seconds, and the server's CPU time by second."""
    requests = [wire.http_request("GET", f"/get/{wire.key(n)}") for n in range(LASTING_KEYS)]
    random.Random(20).shuffle(requests)
    done: list[Read] = []
    cpu = [reader.server_cpu()]
    begin = due = reader.start_now()
    while due < begin + seconds * 1e9:
        done.append(reader.read(requests[len(done) % LASTING_KEYS], due))
        due = reader.start_now() if done[-1].interrupted else due + 1_000_000_000 // RATE
        if due - begin > len(cpu) * 1_000_000_000:
            cpu.append(reader.server_cpu())
    return done, cpu


def _summary(reads: list[Read], cpu: list[float]) -> Readings:
    kept = [read for read in reads if not read.interrupted]
    if not kept:
        raise BenchError("the reader never ran for as long as one read took")
    times = sorted(read.answered_ns / 1e6 for read in kept)
    p50, p99, p999 = (times[math.ceil(len(times) * share) - 1] for share in (0.5, 0.99, 0.999))
    slow, by_server = _slow(reads)
    used = [round(b - a, 4) for a, b in pairwise(cpu)]
    interrupted, own = len(reads) - len(kept), max(read.own_ns for read in kept) / 1e6
    return Readings(len(reads), interrupted, p50, p99, p999, times[-1], own, slow, by_server, used)


def _slow(reads: list[Read]) -> tuple[int, int]:
    """How many reads were slow, and how many of those by the server."""
    slow = by_server = 0
    blame = False
    for read in reads:
        # A read that was sent in time has itself to blame, a late one also what made it late.
        blame = read.own_ns > SLOW_NS or (blame and read.sent_ns > LATE_NS)
        if not read.interrupted and read.answered_ns > SLOW_NS:
            slow += 1
            by_server += blame
    return slow, by_server


def _served(port: int, keys: int) -> int:
    """How many of 200 ended keys are still answered: must be none."""
    numbers = random.Random(20).sample(range(keys), 200)
    answers = (wire.exchange(port, "GET", f"/get/{ENDING}:{number:012d}") for number in numbers)
    return sum(status != 404 for status, _ in answers)


def _counted(port: int) -> int | None:
    status, answer = wire.exchange(port, "GET", f"/v1/keys?prefix={ENDING}%3A&count_only=true")
    return int(json.loads(answer)["count"]) if status == 200 else None
