"""What replays requests through real caches: Keyrack's engine, and redis-server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.errors import BenchError
from bench.peers.keyrack import SHARED_MEMORY
from keyrack.engines.contract import Refusal, Set, WhenFull
from keyrack.engines.embedded import EmbeddedEngine
from keyrack.http.eager import at_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MIB: Final = 1 << 20
FAST_CLOCK: Final = 1000
_LOOK_EVERY: Final = 50
_PAGE: Final = 4096
_A_PAGE_EACH: Final = 3000
"""A value of a page of its own, so that the number of keys that fit does not depend on which."""
_CLOCK_SOURCE: Final = Path(__file__).with_name("fast_clock.c")


@dataclass(frozen=True)
class Replay:
    """Hits among all requests, and how many keys were held on average once the cache was full."""

    hits: int
    resident: float


class _Residents:
    """The average number of keys, looked at now and then."""

    def __init__(self) -> None:
        self._looks = self._sum = 0

    def add(self, keys: int) -> None:
        self._looks += 1
        self._sum += keys

    @property
    def average(self) -> float:
        if not self._looks:
            raise BenchError("the cache never became full: there is nothing to compare")
        return self._sum / self._looks


def keyrack_size(room: int) -> tuple[int, int]:
    """Return memory and size of values with which about `room` keys fit.

    The least memory is 8 MiB, so few keys means long values.
    """
    memory = max(8 * MIB, room * 4700)
    for_values = memory * 0.8 - 300 * _PAGE
    size = int(for_values / room) - 200
    return memory, _A_PAGE_EACH if size < _PAGE else size


def keyrack(requests: Sequence[int], room: int) -> Replay:
    """Replay through the embedded engine: a get, and a set where it found nothing."""
    memory, size = keyrack_size(room)
    folder = tempfile.mkdtemp(prefix="bench-of-keyrack-", dir=SHARED_MEMORY)
    try:
        engine = EmbeddedEngine(folder, memory, when_full=WhenFull.EVICT)
        engine.begin_life()
        replay = _replayed(engine, requests, bytes(size))
        problems = at_once(engine.check())
        engine.close()
    finally:
        shutil.rmtree(folder)
    if problems:
        raise BenchError(f"the store is damaged: {problems}")
    return replay


def _replayed(engine: EmbeddedEngine, requests: Sequence[int], value: bytes) -> Replay:
    hits, residents, get = 0, _Residents(), engine.get_now
    for at, number in enumerate(requests):
        key = b"%d" % number
        if get(key) is not None:
            hits += 1
        elif isinstance(engine.apply([(Set(key, value),)])[0], Refusal):
            raise BenchError("a store that evicts refused a write")
        if at % _LOOK_EVERY == 0:
            usage = at_once(engine.usage())
            if usage.evicted:
                residents.add(usage.keys)
    return Replay(hits, residents.average)


class Redis:
    """A redis-server that evicts, on a Unix socket. Its clock runs `FAST_CLOCK` times if `fast`."""

    def __init__(self, policy: str, fast: bool, folder: Path, core: int) -> None:
        path = folder / "redis.sock"
        environment = dict(os.environ)
        if fast:
            environment |= {"LD_PRELOAD": str(_clock(folder)), "FAST_CLOCK": str(FAST_CLOCK)}
        options = {"port": "0", "unixsocket": str(path), "save": "", "appendonly": "no",
                   "dir": str(folder), "maxmemory-policy": policy, "hz": "500",
                   "dynamic-hz": "no"}  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), "redis-server", *words],
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        self._socket = socket.socket(socket.AF_UNIX)
        self._file = self._socket.makefile("rb")
        self._connect(path)

    def _connect(self, path: Path) -> None:
        for _ in range(200):
            try:
                self._socket.connect(str(path))
                return
            except OSError:
                time.sleep(0.05)
        raise BenchError("redis-server did not start")

    def close(self) -> None:
        """End the server."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=20)

    def fit(self, room: int) -> None:
        """Set its memory so that `room` keys fit, by filling it until that is what it holds."""
        self._value = os.urandom(max(400, min(50_000, 16 * MIB // room)))
        memory = 0
        for _ in range(6):
            self._ask(b"FLUSHALL")
            self._ask(b"CONFIG", b"SET", b"maxmemory", b"%d" % memory)
            for number in range(room if not memory else 3 * room):
                self._ask(b"SET", b"%d" % (10_000_000 + number), self._value)
            held = self._number(b"DBSIZE")
            if memory and abs(held - room) <= room // 200:
                return
            memory = (memory or self._used()) + (room - held) * len(self._value)
        raise BenchError(f"redis-server could not be made to hold {room} keys, but {held}")

    def replay(self, requests: Sequence[int]) -> Replay:
        """Replay: a GET, and a SET where it found nothing."""
        self._ask(b"FLUSHALL")
        hits, residents = 0, _Residents()
        for at, number in enumerate(requests):
            key = b"%d" % number
            if self._ask(b"GET", key) is not None:
                hits += 1
            else:
                self._ask(b"SET", key, self._value)
            if at % (10 * _LOOK_EVERY) == 0 and at > len(requests) // 2:
                residents.add(self._number(b"DBSIZE"))
        return Replay(hits, residents.average)

    def _used(self) -> int:
        lines = (self._ask(b"INFO", b"memory") or b"").split(b"\r\n")
        return int(next(line for line in lines if line.startswith(b"used_memory:"))[12:])

    def _number(self, *words: bytes) -> int:
        return int(self._ask(*words) or b"0")

    def _ask(self, *words: bytes) -> bytes | None:
        parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)]
        self._socket.sendall(b"".join(parts))
        kind, rest = (line := self._file.readline())[:1], line[1:-2]
        if kind == b"-":
            raise BenchError(f"redis-server says {rest!r}")
        if kind != b"$":
            return rest
        return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]


def _clock(folder: Path) -> Path:
    library = folder / "fast_clock.so"
    if not library.exists():
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_CLOCK_SOURCE)]
        subprocess.run(command, check=True)
    return library


@contextmanager
def redis(policy: str, fast: bool, core: int) -> Iterator[Redis]:
    """Run a redis-server for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="bench-of-keyrack-") as folder:
        server = Redis(policy, fast, Path(folder), core)
        try:
            yield server
        finally:
            server.close()
