"""`python -m bench.durable`: what it costs to keep a store on a disk.

`commit`: SET/s at 64 connections with `--durability commit`, and of redis-server with
`appendfsync always` by redis-benchmark, in turn, on the same disk (the directory `--disk`). Servers
and clients share both cores, as on a small machine; CPU time per SET is what the server's
processes used, and the comparison that other programs disturb least. A raw `fdatasync` of 4 KiB
appended, timed before each run, says what the disk was like just then.

`snapshot`: a store of many keys, of which a snapshot is taken while one connection reads and writes
in turn, 500 times a second. Latency counts from when a request was due. The same window
without a snapshot comes first.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import procstat, wire
from bench.load import fill, writes, wrk
from bench.peers.redis import VALUE_BYTES, server_command
from bench.process import Process, free_port
from bench.scenarios import WRITE
from bench.service import Service, machine

if TYPE_CHECKING:
    from collections.abc import Callable

CORES = (0, 1)
CONNECTIONS = 64
RATE = 500
TARGET_RATIO = 1.0
TARGET_MS = 20.0


@dataclass(frozen=True)
class Commits:
    """One run: SETs a second, CPU microseconds a SET, microseconds of a sync just before."""

    server: str
    sets: float
    cpu_us: float
    sync_us: float


@dataclass(frozen=True)
class Window:
    """Latencies in ms of requests due in a window; what the snapshot took and held at most."""

    what: str
    requests: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    over_20_ms: int
    seconds: float
    most_private: int


def sync_us(disk: Path) -> float:
    """Return how long an `fdatasync` of 4 KiB that were appended takes, median of 200."""
    times = []
    with tempfile.NamedTemporaryFile(dir=disk, buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return median(times) * 1e6


def keyrack_commits(disk: Path, workers: int, seconds: int, keys: int) -> Commits:
    """Measure Keyrack."""
    sync = sync_us(disk)
    with tempfile.TemporaryDirectory(dir=disk) as scratch:
        options = ("--durability", "commit", "--data-dir", f"{scratch}/data")
        with Service(CORES, workers, "256m", options=options) as server:
            before = server.cpu_seconds()
            load = writes(WRITE)
            run = wrk(
                server.port, load, keys=keys, seconds=seconds, connections=CONNECTIONS, cores=CORES
            )
            cpu = server.cpu_seconds() - before
    assert run.failed == 0, "a write failed"
    return Commits("keyrack", run.requests / run.seconds, cpu / run.requests * 1e6, sync)


def redis_commits(disk: Path, seconds: int, keys: int, rate: float) -> Commits:
    """Measure Redis with as many requests as take so many seconds at a rate."""
    sync = sync_us(disk)
    port, requests = free_port(), int(rate * seconds)
    with tempfile.TemporaryDirectory(dir=disk) as scratch:
        command = server_command(port, Path(scratch))
        command[command.index("--appendonly") + 1] = "yes"
        process = Process([*command, "--appendfsync", "always"], CORES, Path(scratch, "log"))
        try:
            process.wait_for_port(port)
            before = procstat.cpu_seconds(process.tree())
            found = _redis_benchmark(port, requests, keys)
            cpu = procstat.cpu_seconds(process.tree()) - before
        finally:
            process.stop()
    return Commits("redis", found, cpu / requests * 1e6, sync)


def _redis_benchmark(port: int, requests: int, keys: int) -> float:
    options = {"-h": wire.HOST, "-p": port, "-c": CONNECTIONS, "-n": requests, "-t": "set",
               "-r": keys, "-d": VALUE_BYTES}  # fmt: skip
    words = [str(word) for option in options.items() for word in option]
    done = subprocess.run(
        ["redis-benchmark", "--csv", *words], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))


def compare_commits(
    disk: Path, rounds: int, seconds: int, workers: int
) -> tuple[float, list[Commits]]:
    """Measure both in turn, print, and return the ratio of the medians."""
    found: list[Commits] = []
    rate = 30_000.0
    for _ in range(rounds):
        found.append(keyrack_commits(disk, workers, seconds, 100_000))
        found.append(redis_commits(disk, seconds, 100_000, rate))
        rate = found[-1].sets
        for one in found[-2:]:
            print("{server}: {sets:,.0f} SET/s, {cpu_us:.1f} µs of CPU a SET, "
                  "a sync {sync_us:.0f} µs".format(**asdict(one)), flush=True)  # fmt: skip
    ratio = _median(found, "keyrack") / _median(found, "redis")
    print(f"keyrack to redis, medians: {ratio:.2f} (target {TARGET_RATIO})")
    return ratio, found


def _median(found: list[Commits], server: str) -> float:
    return median(one.sets for one in found if one.server == server)


# Snapshots


def watch(
    port: int, what: str, keys: int, work: Callable[[], None], pids: Callable[[], list[int]]
) -> Window:
    """Read and write at a steady rate for as long as some work takes, and measure."""
    over = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            over.set()

    connection = http.client.HTTPConnection(wire.HOST, port)
    before = most = _held(pids())
    latencies: list[float] = []
    thread = threading.Thread(target=run)
    began = time.monotonic()
    thread.start()
    while not over.is_set():
        due = began + len(latencies) / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        target = f"/v1/keys/key:{len(latencies) * 7919 % keys}"
        method, body = ("GET", None) if len(latencies) % 2 else ("PUT", b"x" * 32)
        connection.request(method, target, body, {"Content-Type": "text/plain"} if body else {})
        connection.getresponse().read()
        latencies.append((time.monotonic() - due) * 1e3)
        if len(latencies) % 50 == 0:
            most = max(most, _held(pids()))
    seconds = time.monotonic() - began
    thread.join()
    connection.close()
    if failures:
        raise failures[0]
    latencies.sort()
    return Window(
        what, len(latencies), latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100],
        latencies[-1], sum(one > TARGET_MS for one in latencies), seconds, most - before,
    )  # fmt: skip


def _held(pids: list[int]) -> int:
    """Bytes that processes hold for themselves; one that has just ended holds none."""
    held = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            held += procstat.private_bytes([pid], "Pss_Anon")
    return held


def snapshot_windows(disk: Path, keys: int) -> list[Window]:
    """Watch a store of many keys in calm, and while a snapshot of it is taken."""
    with tempfile.TemporaryDirectory(dir=disk) as scratch:
        options = ("--durability", "snapshot", "--data-dir", f"{scratch}/data",
                   "--snapshot-interval", "3600")  # fmt: skip
        with Service(CORES, 2, "1g", options=options) as server:
            fill(server.port, keys, CORES[1])

            def take() -> None:
                connection = http.client.HTTPConnection(wire.HOST, server.port, timeout=300)
                connection.request("HEAD", "/healthz")
                connection.getresponse().read()
                connection.request("GET", "/v1/snapshot")
                answer = connection.getresponse()
                assert answer.status == 200, answer.status
                # The file is the client's business: what was measured is the taking.
                connection.close()

            calm = watch(server.port, "calm", keys, lambda: time.sleep(4), server.pids)
            taking = watch(server.port, "taking a snapshot", keys, take, server.pids)
    for window in (calm, taking):
        text = (
            "{what}: {requests} requests in {seconds:.1f} s, p50 {p50_ms:.2f} ms, "
            "p99 {p99_ms:.2f}, worst {worst_ms:.1f}, {over_20_ms} over 20 ms; "
            "private memory +{mb:.1f} MB"
        )
        print(text.format(**asdict(window), mb=window.most_private / 1e6), flush=True)
    return [calm, taking]


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser("bench.durable", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a directory on the disk")
    add("--rounds", type=int, default=5)
    add("--seconds", type=int, default=4)
    add("--workers", type=int, default=2)
    add("--keys", type=int, default=1_000_000, help="of which a snapshot is taken")
    add("--out", type=Path, help="write the figures to this file, as JSON")
    given = parser.parse_args(arguments)
    print(machine())
    ratio, commits = compare_commits(given.disk, given.rounds, given.seconds, given.workers)
    windows = snapshot_windows(given.disk, given.keys)
    if given.out:
        figures = {
            "commits": [asdict(one) for one in commits],
            "windows": [asdict(one) for one in windows],
        }
        given.out.write_text(json.dumps(figures, indent=1) + "\n")
    return int(ratio < TARGET_RATIO or windows[1].worst_ms > TARGET_MS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
