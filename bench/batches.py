"""What others notice of large batches: writes of one key beside batches of a thousand sets.

A batch is sent on one connection every 50 ms, and right behind each a write on another connection,
which shows how long the batch holds up everybody. Between batches there is a write every 2 ms, so
that a hundredth of all writes is less than what batches touch. One worker: it decodes, commits and
answers the batch in the same loop that serves the others.
"""

from __future__ import annotations

import gc
import json
import math
import random
import socket
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench import procstat, wire
from bench.errors import BenchError
from bench.peers import Keyrack

if TYPE_CHECKING:
    from bench.peers import Bench

OPERATIONS: Final = 1_000
_EVERY_NS: Final = 50_000_000
_BESIDE_NS: Final = 2_000_000
_KEYS: Final = 100_000


@dataclass(frozen=True)
class Holds:
    """Milliseconds: how long a batch holds up a write behind it, and how long writes take."""

    batches: int
    median_ms: float
    worst_ms: float
    p99_ms: float


class _Line:
    """A connection whose answers are awaited one by one."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((wire.HOST, port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> None:
        self._socket.sendall(request)

    def answer(self) -> bytes:
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        missing = int(length or 0) - len(body)
        while missing > 0:
            missing -= len(self._more())
        return head

    def _more(self) -> bytes:
        received = self._socket.recv(1 << 18)
        if not received:
            raise BenchError("the server closed a connection")
        return received

    def close(self) -> None:
        self._socket.close()


def batch_holds(bench: Bench) -> Holds:
    """Start a server, fill it, and send it batches."""
    server = Keyrack(bench, label="batches")
    try:
        server.keys = _KEYS
        server.start()
        server.preload()
        return _watch(server, bench.settings.storm_window)
    finally:
        server.stop()


def _watch(server: Keyrack, seconds: float) -> Holds:
    random.seed(20)
    batches = [_batch() for _ in range(8)]
    write = wire.http_request("PUT", f"/v1/keys/{wire.key(0)}", wire.value(0), "text/plain")
    bulk, other = _Line(server.port), _Line(server.port)
    queue = procstat.RunQueue(server.pids())
    held: list[float] = []
    times: list[float] = []
    gc.disable()
    try:
        end = time.perf_counter_ns() + int(seconds * 1e9)
        while (began := time.perf_counter_ns()) < end:
            bulk.send(batches[len(held) % len(batches)])
            held.append(_write(other, write, queue))
            if not bulk.answer().startswith(b"HTTP/1.1 200"):
                raise BenchError("a batch was refused")
            times.append(held[-1])
            while time.perf_counter_ns() < began + _EVERY_NS:
                time.sleep(_BESIDE_NS / 1e9)
                times.append(_write(other, write, queue))
    finally:
        gc.enable()
        bulk.close()
        other.close()
        queue.close()
    times.sort()
    p99 = times[math.ceil(len(times) * 0.99) - 1]
    return Holds(len(held), statistics.median(held), max(held), p99)


def _write(line: _Line, request: bytes, queue: procstat.RunQueue) -> float:
    """Return how many ms a write takes, without the time for which the server had no core."""
    waited, began = queue.waited_ns(), time.perf_counter_ns()
    line.send(request)
    if not line.answer().startswith(b"HTTP/1.1 20"):
        raise BenchError("a write was refused")
    took = time.perf_counter_ns() - began
    held_up = max(b - a for a, b in zip(waited, queue.waited_ns(), strict=True))
    return max(0, took - held_up) / 1e6


def _batch() -> bytes:
    numbers = random.sample(range(_KEYS), OPERATIONS)
    operations = [{"op": "set", "key": wire.key(n), "value": wire.value(n)} for n in numbers]
    body = json.dumps({"operations": operations})
    return wire.http_request("POST", "/v1/batch", body, "application/json")
