"""`python -m bench.watch`: how long after a change is answered its watchers know of it.

A writer changes keys at a fixed rate on one connection, open loop: a change that is late is sent at
once and not skipped. Watchers are connections that one process reads as fast as it can. A lag
counts from when the writer had its answer, or (`from sent`) from when the change was sent, to when
the watcher had the event; negative lags, where the event was there before the answer was read,
count as they are. Every watcher's events are counted: each change once, or the run fails.

Two loads: in `all` every watcher watches everything, which is a delivery of watchers x rate events
a second; in `own` each has a prefix of its own, so that each change goes to one of them.

The writer and the reader share the client's core and are part of what is measured: where
`reader busy` is near 100 % the lag is the reader's.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import os
import select
import socket
import sys
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench import procstat, wire
from bench.errors import BenchError
from bench.service import CLIENT_CORE, SERVER_CORE, Service, machine

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

RESOLUTION_NS = 10_000
READY = b"event: synced"
LOADS = ("all", "own")
END = "end"
Sent = tuple[int, int, int]
"""A change: its revision, when it was sent and when it was answered (ns)."""


@dataclass(frozen=True)
class Lag:
    """Lags of all deliveries in milliseconds, and shares of a core."""

    load: str
    workers: int
    watchers: int
    rate: int
    changes: int
    deliveries: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    sent_p50_ms: float
    sent_p99_ms: float
    server_busy: float
    reader_busy: float
    others_busy: float
    seconds: float


class Reader:
    """Connections that watch: `pieces` are, for each, when something came and up to where."""

    def __init__(self, port: int, prefixes: list[str]) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._rest: dict[int, bytes] = {}
        # One for all: making 256 KiB anew for each piece costs more than reading it.
        self._buffer = bytearray(1 << 18)
        self.pieces: dict[int, list[tuple[int, int]]] = {}
        self.events: Counter[int] = Counter()
        for prefix in prefixes:
            self._open(port, prefix)

    def _open(self, port: int, prefix: str) -> None:
        made = socket.create_connection((wire.HOST, port), timeout=20)
        made.sendall(wire.http_request("GET", f"/v1/watch?prefix={prefix}&prefix={END}"))
        seen = b""
        while READY not in seen or not seen.endswith(b"\n\n\r\n"):
            seen += made.recv(1 << 16) or _closed()
        made.setblocking(False)
        number = made.fileno()
        self._sockets[number], self._rest[number], self.pieces[number] = made, b"", []
        self._epoll.register(number, select.EPOLLIN)

    def read(self, last: Connection) -> None:
        """Read until every watcher has the revision that comes out of the pipe at the end."""
        end, done = math.inf, 0
        while done < len(self._sockets):
            for number, _ in self._epoll.poll(0.2):
                revision = self._take(number)
                if revision >= end:
                    done += 1
                    self._epoll.unregister(number)
            if end == math.inf and last.poll():
                end = last.recv()
                for number, pieces in self.pieces.items():
                    if pieces and pieces[-1][1] >= end:
                        done += 1
                        self._epoll.unregister(number)

    def _take(self, number: int) -> int:
        size = self._sockets[number].recv_into(self._buffer) or _closed()
        now = time.perf_counter_ns()
        data = bytes(memoryview(self._buffer)[:size])
        text = self._rest[number] + data
        end = text.rfind(b"\n\n")
        self._rest[number] = text[end:] if end >= 0 else text
        start = text.rfind(b"id: ", 0, max(end, 0))
        if start < 0:
            return 0
        if b"event: reset" in data:
            raise BenchError("a watcher was too far behind")
        revision = int(text[start + 4 : text.index(b"\n", start)])
        self.events[number] += text.count(b"event: set", 0, end)
        self.pieces[number].append((now, revision))
        return revision

    def close(self) -> None:
        """Close all connections."""
        self._epoll.close()
        for one in self._sockets.values():
            one.close()


def _closed() -> NoReturn:
    raise BenchError("the server closed a watcher's connection")


def _write(port: int, keys: list[str], rate: int, seconds: float, end: Connection) -> None:
    """Change keys at a fixed rate; tell the last revision, then all that was sent."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    gc.disable()
    done: list[Sent] = []
    with socket.create_connection((wire.HOST, port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = time.perf_counter_ns()
        for number in range(int(rate * seconds)):
            due = begin + number * 1_000_000_000 // rate
            if (left := due - time.perf_counter_ns()) > 0:
                time.sleep(left / 1e9)
            done.append(_change(connection, keys[number % len(keys)], number))
        end.send(_change(connection, END, 0)[0])
    end.send(done)


def _change(connection: socket.socket, key: str, number: int) -> Sent:
    request = wire.http_request("PUT", f"/v1/keys/{key}", wire.value(number), "text/plain")
    sent = time.perf_counter_ns()
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(4096) or _closed()
    answered = time.perf_counter_ns()
    start = answer.index(b'ETag: "') + 7
    return int(answer[start : answer.index(b'"', start)]), sent, answered


def measure(load: str, workers: int, watchers: int, rate: int, seconds: float) -> Lag:
    """Start a server, put the load on it, and return the lags."""
    cores = [SERVER_CORE] if workers == 1 else [SERVER_CORE, CLIENT_CORE]
    names = [f"w/{number:05d}/" for number in range(watchers)]
    prefixes = ["w/"] * watchers if load == "all" else names
    with Service(cores, workers, options=("--events", "1000000")) as server:
        reader = Reader(server.port, prefixes)
        end, writer_end = multiprocessing.Pipe()
        arguments = (server.port, [f"{name}k" for name in names], rate, seconds, writer_end)
        writer = multiprocessing.get_context("fork").Process(target=_write, args=arguments)
        gc.collect()
        gc.disable()
        core, cpu = procstat.core_busy_seconds(cores[0]), server.cpu_seconds()
        own, wall = time.process_time(), time.monotonic()
        writer.start()
        try:
            reader.read(end)
            wall = time.monotonic() - wall
            cpu, own = server.cpu_seconds() - cpu, time.process_time() - own
            core = procstat.core_busy_seconds(cores[0]) - core
            changes: list[Sent] = end.recv()
        finally:
            writer.kill()  # does nothing to one that has ended
            writer.join()
            reader.close()
            gc.enable()
    _check_all_came(load, reader, len(changes), watchers)
    answered, sent = _lags(reader, changes, load)
    return Lag(
        load=load,
        workers=workers,
        watchers=watchers,
        rate=rate,
        changes=len(changes),
        deliveries=sum(answered.values()),
        p50_ms=_share(answered, 0.5),
        p99_ms=_share(answered, 0.99),
        max_ms=_share(answered, 1.0),
        sent_p50_ms=_share(sent, 0.5),
        sent_p99_ms=_share(sent, 0.99),
        server_busy=cpu / wall,
        reader_busy=own / wall,
        others_busy=max(0.0, core - cpu) / wall if workers == 1 else 0.0,
        seconds=wall,
    )


def _check_all_came(load: str, reader: Reader, changes: int, watchers: int) -> None:
    """Each watcher has each of its changes once, and the last one, which ended the run."""
    for number, watcher in enumerate(reader.pieces):
        mine = changes if load == "all" else len(range(number, changes, watchers))
        if reader.events[watcher] != mine + 1:
            raise BenchError(f"a watcher was told of {reader.events[watcher]} of {mine + 1}")


def _lags(reader: Reader, changes: list[Sent], load: str) -> tuple[Counter[int], Counter[int]]:
    """How often each lag occurred, in steps of RESOLUTION_NS: from the answer, from sending."""
    from_answer: Counter[int] = Counter()
    from_sent: Counter[int] = Counter()
    for number, pieces in enumerate(reader.pieces.values()):
        position = 0
        mine = changes if load == "all" else changes[number :: len(reader.pieces)]
        for moment, revision in pieces:
            end = bisect_right(mine, revision, position, key=itemgetter(0))
            came = mine[position:end]
            from_answer.update([(moment - answered) // RESOLUTION_NS for _, _, answered in came])
            from_sent.update([(moment - sent) // RESOLUTION_NS for _, sent, _ in came])
            position = end
    return from_answer, from_sent


def _share(lags: Counter[int], share: float) -> float:
    """The lag in ms that this share of deliveries does not exceed."""
    left = math.ceil(sum(lags.values()) * share)
    for lag in sorted(lags):
        left -= lags[lag]
        if left <= 0:
            return lag * RESOLUTION_NS / 1e6
    return 0.0


def line(lag: Lag) -> str:
    """A measurement for the terminal."""
    return (
        "{load:<4} {workers} worker(s) {watchers} watchers {rate}/s: {deliveries:>10,} deliveries, "
        "lag p50 {p50_ms:.2f} p99 {p99_ms:.2f} max {max_ms:.2f} ms (from sent: p50 "
        "{sent_p50_ms:.2f} p99 {sent_p99_ms:.2f}), server {server_busy:.0%}, "
        "reader {reader_busy:.0%}, others {others_busy:.0%}, {seconds:.1f} s"
    ).format(**asdict(lag))


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.watch", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--watchers", type=int, default=1000)
    add("--rate", type=int, default=1000, help="changes a second (default: %(default)s)")
    add("--seconds", type=float, default=10.0)
    add("--workers", type=int, nargs="+", default=[1, 2])
    add("--loads", nargs="+", default=LOADS, choices=LOADS)
    add("--rounds", type=int, default=1)
    add("--out", type=Path, help="write the figures to this file, as JSON")
    given = parser.parse_args(arguments)
    os.sched_setaffinity(0, {CLIENT_CORE})
    print(machine())
    found = []
    for _ in range(given.rounds):
        for workers in given.workers:
            for load in given.loads:
                found.append(measure(load, workers, given.watchers, given.rate, given.seconds))
                print(line(found[-1]), flush=True)
    if given.out:
        given.out.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
