"""`python -m bench.moving`: import and export of many keys as NDJSON.

One connection sends the lines (keys of 16 bytes, values of 32) as one body, then another reads all
of them back. The lines are made before the clock starts, and the client only counts what it reads,
so that it takes as little of the time as it can; the server has a core of its own. `private` is the
most memory that the server's processes held beside the store itself, looked at every 50 ms, less
what they held before. With `--verify` each line that came back is looked up among those sent.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import procstat, wire
from bench.errors import BenchError
from bench.service import CLIENT_CORE, SERVER_CORE, Service, machine

if TYPE_CHECKING:
    from collections.abc import Callable

LINES_A_PIECE = 2000
TARGET_SECONDS = 15.0


@dataclass(frozen=True)
class Move:
    """One way: seconds of wall and of the server's CPU, bytes, and shares of the server's core."""

    way: str
    keys: int
    seconds: float
    server_cpu: float
    private: int
    stored: int
    others_busy: float


class Peak:
    """The most private memory that a server held in a block, beyond what it held before."""

    def __init__(self, server: Service) -> None:
        self._server = server
        self._before = server.private_bytes()
        self._most = self._before
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self._most = max(self._most, self._server.private_bytes())

    @property
    def bytes(self) -> int:
        """The most so far."""
        return self._most - self._before


def lines(keys: int) -> list[bytes]:
    """The body of an import, in pieces."""
    made = [
        b'{"key":"%b","value":"%b"}\n' % (wire.key(number).encode(), wire.value(number).encode())
        for number in range(keys)
    ]
    starts = range(0, keys, LINES_A_PIECE)
    return [b"".join(made[start : start + LINES_A_PIECE]) for start in starts]


def send(port: int, body: list[bytes]) -> int:
    """Import; return how many keys the report says."""
    size = sum(map(len, body))
    head = (
        f"POST /v1/import HTTP/1.1\r\nHost: {wire.HOST}\r\nContent-Type: application/x-ndjson\r\n"
        f"Content-Length: {size}\r\n\r\n"
    )
    with socket.create_connection((wire.HOST, port), timeout=300) as connection:
        connection.sendall(head.encode())
        for piece in body:
            connection.sendall(piece)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(1 << 16) or _closed()
    report = json.loads(answer.partition(b"\r\n\r\n")[2])
    if report["failed"]:
        raise BenchError(f"the import failed: {answer[-300:]!r}")
    return int(report["imported"])


def receive(port: int, keep: Callable[[bytes], object]) -> int:
    """Export; give every piece to `keep` and return how many lines came."""
    found = 0
    with socket.create_connection((wire.HOST, port), timeout=300) as connection:
        connection.sendall(wire.http_request("GET", "/v1/export"))
        end = b""
        while not end.endswith(b"0\r\n\r\n"):
            piece = connection.recv(1 << 20) or _closed()
            found += piece.count(b"}\n")
            keep(piece)
            end = end[-8:] + piece[-8:]
    return found


def _closed() -> bytes:
    raise BenchError("the server closed the connection")


def _timed(way: str, keys: int, server: Service, work: Callable[[], int]) -> Move:
    core, cpu = procstat.core_busy_seconds(SERVER_CORE), server.cpu_seconds()
    wall = time.monotonic()
    with Peak(server) as peak:
        done = work()
        wall = time.monotonic() - wall
    cpu, core = server.cpu_seconds() - cpu, procstat.core_busy_seconds(SERVER_CORE) - core
    if done != keys:
        raise BenchError(f"{way}: {done} of {keys} keys")
    used = int(json.loads(wire.exchange(server.port, "GET", "/v1/info")[1])["memory"]["used"])
    return Move(way, keys, wall, cpu, peak.bytes, used, max(0.0, core - cpu) / wall)


def measure(keys: int, body: list[bytes], verify: bool) -> list[Move]:
    """Start a server; import into it, then export from it."""
    pieces: list[bytes] = []
    with Service() as server:
        found = [
            _timed("import", keys, server, lambda: send(server.port, body)),
            _timed("export", keys, server, lambda: receive(server.port, _ignore)),
        ]
        if verify:
            receive(server.port, pieces.append)
    if verify:
        _verify(b"".join(pieces), body)
    return found


def _ignore(piece: bytes) -> None:
    """Keep nothing."""


def _verify(raw: bytes, body: list[bytes]) -> None:
    """Compare what came back, without the framing of its chunks, with what was sent."""
    found, rest = [], raw.partition(b"\r\n\r\n")[2]
    position = 0
    while size := int(rest[position : (start := rest.index(b"\r\n", position))], 16):
        found.append(rest[start + 2 : start + 2 + size])
        position = start + 2 + size + 2
    if b"".join(found) != b"".join(body):
        raise BenchError("the lines that came back are not the lines that were sent")


def line(move: Move) -> str:
    """A measurement for the terminal."""
    return (
        "{way} of {keys:,} keys: {seconds:.2f} s, {server_cpu:.2f} s of the server's CPU "
        "({each:.2f} µs a key), private memory +{private_mb:.1f} MB, store {stored_mb:.0f} MB, "
        "others {others_busy:.0%} of its core"
    ).format(
        **asdict(move),
        each=move.server_cpu / move.keys * 1e6,
        private_mb=move.private / 1e6,
        stored_mb=move.stored / 1e6,
    )


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 1 where the target is missed."""
    parser = argparse.ArgumentParser("bench.moving", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--keys", type=int, default=1_000_000)
    add("--rounds", type=int, default=2)
    add("--verify", action="store_true", help="compare what comes back with what was sent")
    add("--out", type=Path, help="write the figures to this file, as JSON")
    given = parser.parse_args(arguments)
    os.sched_setaffinity(0, {CLIENT_CORE})
    print(machine())
    body = lines(given.keys)
    found = []
    for _ in range(given.rounds):
        for move in measure(given.keys, body, given.verify):
            found.append(move)
            print(line(move), flush=True)
    if given.out:
        given.out.write_text(json.dumps([asdict(move) for move in found], indent=1) + "\n")
    return int(any(move.seconds > TARGET_SECONDS for move in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
