"""`python -m bench.pages`: what costs the same however much is stored, and what holds nobody up.

- `page`: ten keys of a store of very many, beside ten keys of a store of a hundred; both servers
  share the server's core and are asked in turn, a few hundred requests at a time.
- `delete`: a prefix with very many keys is deleted while another client reads.
- `expiry`: very many keys end, spread over one second, while another client reads.

The stores of `page` and `expiry` are filled through the engine before the servers start. The reader
of `delete` and `expiry` is that of the expiry storm (see `bench.storm`): open loop, and it tells
what the server took of a read's time from what neighbours on its core took.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import wire
from bench.errors import BenchError
from bench.peers.keyrack import SHARED_MEMORY
from bench.service import CLIENT_CORE, Service, machine
from bench.storm import LASTING_KEYS, RATE, STORED, Read, Reader
from keyrack.engines.contract import Set
from keyrack.engines.embedded import EmbeddedEngine
from keyrack.http.eager import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FEW = 100
ASKED = 10
A_GROUP = 100
SAMPLE = 300
SLOW_NS = 5_000_000
PARTS = ("page", "delete", "expiry")
DOOMED = "doomed:"


@dataclass(frozen=True)
class Cost:
    """What a request for a page costs, in microseconds: of wall and of the server's CPU."""

    keys: int
    p50_us: float
    p99_us: float
    cpu_us: float


@dataclass(frozen=True)
class Window:
    """Reads while something else was done: `own` leaves out what neighbours took of the core."""

    name: str
    keys: int
    seconds: float
    reads: int
    interrupted: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    worst_own_ms: float
    slow: int
    slow_own: int


# Filling


def fill(store: Path, keys: int, memory: int, prefix: str, end: Callable[[int], int]) -> float:
    """Put keys into a store through the engine; `end(number)` is a key's TTL in ms, 0 for none."""
    store.mkdir()
    engine = EmbeddedEngine(str(store), memory)
    began = time.monotonic()
    try:
        for start in range(0, keys, A_GROUP):
            outcomes = engine.apply(
                [
                    (
                        Set(
                            f"{prefix}{number:012d}".encode(),
                            wire.value(number).encode(),
                            ttl_ms=end(number),
                        ),
                    )
                    for number in range(start, min(keys, start + A_GROUP))
                ]
            )
            if not all(isinstance(outcome, tuple) for outcome in outcomes):
                raise BenchError(f"the store of {memory >> 20} MiB is too small for {keys} keys")
            while at_once(engine.trim(100)):
                pass
    finally:
        engine.close()
    return time.monotonic() - began


def _memory(keys: int) -> int:
    """Enough for so many small keys, with or without TTL."""
    return (64 << 20) + keys * 320


# Pages


def pages(keys: int, rounds: int) -> list[Cost]:
    """Fill two stores, and return what a page costs of each."""
    with tempfile.TemporaryDirectory(prefix="keyrack-bench-", dir=SHARED_MEMORY) as folder:
        return _in_turn(Path(folder), (FEW, keys), rounds)


def _in_turn(folder: Path, sizes: tuple[int, int], rounds: int) -> list[Cost]:
    for size in sizes:
        fill(folder / str(size), size, _memory(size), "key:", lambda _: 0)
    servers = [
        Service(memory=f"{_memory(size) >> 20}m", store=folder / str(size)) for size in sizes
    ]
    times: list[list[float]] = [[], []]
    cpu = [0.0, 0.0]
    with servers[0], servers[1]:
        for _ in range(rounds):
            for number, server in enumerate(servers):
                before = server.cpu_seconds()
                times[number] += _asked(server.port, sizes[number])
                cpu[number] += server.cpu_seconds() - before
    return [
        Cost(size, *_shares(took), used / len(took) * 1e6)
        for size, took, used in zip(sizes, times, cpu, strict=True)
    ]


def _shares(times: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


def _asked(port: int, keys: int) -> list[float]:
    """Microseconds of each of some requests for ten keys from the middle of the store."""
    took = []
    with socket.create_connection((wire.HOST, port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(SAMPLE):
            after = f"key:{number * 7919 % (keys - ASKED - 1):012d}"
            path = f"/v1/keys?prefix=key:&after={after}&limit={ASKED}"
            request = wire.http_request("GET", path)
            began = time.perf_counter_ns()
            connection.sendall(request)
            answer = connection.recv(1 << 16)
            took.append((time.perf_counter_ns() - began) / 1e3)
            if answer.count(b'"revision"') != ASKED + 1:
                raise BenchError(f"no page of {ASKED} keys: {answer[:200]!r}")
    return took


# Reads while something else is done


def deletion(keys: int) -> list[Window]:
    """Delete a prefix of many keys while another client reads."""
    with (
        tempfile.TemporaryDirectory(prefix="keyrack-bench-", dir=SHARED_MEMORY) as folder,
        _filled(Path(folder, "store"), keys, lambda _: 0) as server,
    ):
        calm = _read_until("calm", 0, server, _seconds(2.0))
        over = threading.Event()
        deleted: list[int] = []

        def delete() -> None:
            try:
                path = f"/v1/keys?prefix={DOOMED}"
                status, answer = _patiently(server.port, "DELETE", path)
                if status == 200:
                    deleted.append(int(json.loads(answer)["deleted"]))
            finally:
                over.set()

        thread = threading.Thread(target=delete)
        thread.start()
        window = _read_until("delete", keys, server, over.is_set)
        thread.join()
    if deleted != [keys]:
        raise BenchError(f"deleted {deleted} of {keys} keys")
    return [calm, window]


def _patiently(port: int, method: str, path: str) -> tuple[int, bytes]:
    with socket.create_connection((wire.HOST, port), timeout=600) as connection:
        connection.sendall(wire.http_request(method, path))
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(1 << 16) or _closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def _closed() -> bytes:
    raise BenchError("the server closed the connection")


def expiry(keys: int) -> list[Window]:
    """Let many keys end, spread over one second, while another client reads."""
    a_key = 12e-6 if keys > 100_000 else 40e-6
    begin = time.monotonic() + keys * a_key * 2 + 8

    def end(number: int) -> int:
        return max(1, int((begin + number / keys - time.monotonic()) * 1000))

    with (
        tempfile.TemporaryDirectory(prefix="keyrack-bench-", dir=SHARED_MEMORY) as folder,
        _filled(Path(folder, "store"), keys, end) as server,
    ):
        calm = _read_until("calm", 0, server, _seconds(2.0))
        if time.monotonic() > begin:
            raise BenchError("the machine became too slow to fill the store before the keys ended")
        time.sleep(begin - time.monotonic())
        window = _read_until("expiry", keys, server, lambda: _ended(server.port))
    return [calm, window]


def _filled(store: Path, keys: int, end: Callable[[int], int]) -> Service:
    fill(store, keys, _memory(keys), DOOMED, end)
    return Service(memory=f"{_memory(keys) >> 20}m", store=store)


def _seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _ended(port: int) -> bool:
    info = json.loads(wire.exchange(port, "GET", "/v1/info")[1])
    return bool(info["keys_with_ttl"] == 0)


def _read_until(name: str, keys: int, server: Service, over: Callable[[], bool]) -> Window:
    """Read at a fixed rate until it is over, which is asked for every tenth of a second."""
    wire.pipeline(server.port, _lasting(), STORED)
    requests = [wire.http_request("GET", f"/get/{wire.key(n)}") for n in range(LASTING_KEYS)]
    reader = Reader(server)  # type: ignore[arg-type]  # it asks for `port` and `pids` only
    done: list[Read] = []
    gc.collect()
    gc.disable()
    began = time.monotonic()
    try:
        due = reader.start_now()
        while True:
            done.append(reader.read(requests[len(done) % LASTING_KEYS], due))
            due = reader.start_now() if done[-1].interrupted else due + 1_000_000_000 // RATE
            if len(done) % (RATE // 10) == 0:
                if over():
                    break
                due = reader.start_now()
    finally:
        gc.enable()
        reader.close()
    return _window(name, keys, time.monotonic() - began, done)


def _lasting() -> Iterator[bytes]:
    for number in range(LASTING_KEYS):
        path = f"/v1/keys/{wire.key(number)}"
        yield wire.http_request("PUT", path, wire.value(number), "text/plain")


def _window(name: str, keys: int, seconds: float, reads: list[Read]) -> Window:
    kept = [read for read in reads if not read.interrupted]
    if len(kept) < 2:
        raise BenchError("the reader never ran for as long as one read took")
    p50, p99 = _shares([read.answered_ns / 1e6 for read in kept])
    return Window(
        name, keys, seconds, len(reads), len(reads) - len(kept), p50, p99,
        max(read.answered_ns for read in kept) / 1e6,
        max(read.own_ns for read in kept) / 1e6,
        sum(read.answered_ns > SLOW_NS for read in kept),
        sum(read.own_ns > SLOW_NS for read in kept),
    )  # fmt: skip


# The terminal


def _cost_line(cost: Cost) -> str:
    return (
        "page of 10 of {keys:>10,} keys: p50 {p50_us:.0f} µs, p99 {p99_us:.0f} µs, "
        "{cpu_us:.1f} µs of the server's CPU"
    ).format(**asdict(cost))


def _window_line(window: Window) -> str:
    return (
        "{name:<6} {keys:>9,} keys {seconds:5.1f} s: {reads:>6,} reads, p50 {p50_ms:.2f} p99 "
        "{p99_ms:.2f} worst {worst_ms:.2f} ms, most by the server {worst_own_ms:.2f} ms, over "
        "5 ms {slow}, of these by the server {slow_own}, interrupted {interrupted}"
    ).format(**asdict(window))


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.pages", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--keys", type=int, default=10_000_000, help="keys of the large store of `page`")
    add("--doomed", type=int, default=1_000_000, help="keys that are deleted, and that end")
    add("--rounds", type=int, default=10, help="turns of `page`, of 300 requests each")
    add("--parts", nargs="+", default=PARTS, choices=PARTS)
    add("--out", type=Path, help="write the figures to this file, as JSON")
    given = parser.parse_args(arguments)
    os.sched_setaffinity(0, {CLIENT_CORE})
    print(machine())
    work: dict[str, Callable[[], Sequence[Cost | Window]]] = {
        "page": lambda: pages(given.keys, given.rounds),
        "delete": lambda: deletion(given.doomed),
        "expiry": lambda: expiry(given.doomed),
    }
    found: list[Cost | Window] = []
    for part in given.parts:
        for one in work[part]():
            found.append(one)
            print(_cost_line(one) if isinstance(one, Cost) else _window_line(one), flush=True)
    if given.out:
        given.out.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
