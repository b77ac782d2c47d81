"""redis-server spoken to by redis-benchmark: the same work without HTTP, for context."""

from __future__ import annotations

import csv
import io
import resource
import subprocess
from typing import TYPE_CHECKING, ClassVar

from bench import packages, wire
from bench.errors import BenchError
from bench.load import Run
from bench.peers.base import Peer
from bench.scenarios import LARGE_KEYS, LOADS, SEED_LOADS, SIZES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.load import Load
    from bench.peers.base import Bench

VALUE_BYTES = 32
TRIAL_REQUESTS = 20_000
TRIAL_BYTES = 200_000_000


class Redis(Peer):
    """Redis with its defaults and without persistence; one benchmark thread, no pipelining."""

    name = "redis"
    title = "Redis by redis-benchmark"
    packages = ("redis-server", "redis-tools")
    loads: ClassVar[Mapping[str, Load]] = {
        **SEED_LOADS,
        **{f"put-{size}": LOADS[f"put-{size}"] for size in SIZES},
    }
    """What the loads are is told to redis-benchmark in its own words; see `_benchmark`."""

    def __init__(self, bench: Bench, cores: Sequence[int] | None = None, label: str = "") -> None:
        super().__init__(bench, cores, label)
        self._rates: dict[str, float] = {}

    def start(self) -> None:
        self.launch(server_command(self.port, self.bench.scratch), self.port)

    def preload(self) -> None:
        """SET, pipelined on one connection."""
        preload(self.port, self.keys)

    def version(self) -> str:
        return f"redis-server {packages.version('redis-server')}"

    def check(self) -> None:
        """Nothing to do: redis-benchmark stops at an error by itself."""

    def run(self, load: str) -> Run:
        """As many requests as would fill the time at the rate of the run before, or of a trial."""
        if load not in self._rates:
            self._rates[load] = self._benchmark(load, self._trial(load))[0]
        requests = int(self._rates[load] * self.bench.settings.seconds)
        cpu = _children_cpu_seconds()
        rate, p50, p99 = self._benchmark(load, requests)
        cpu = _children_cpu_seconds() - cpu
        self._rates[load] = rate
        seconds = requests / rate
        return Run(requests, seconds, p50, p99, 0, cpu / seconds)

    def _trial(self, load: str) -> int:
        """Return how many requests tell the rate."""
        return min(TRIAL_REQUESTS, TRIAL_BYTES // _bytes_of(load))

    def _benchmark(self, load: str, requests: int) -> tuple[float, float, float]:
        """Requests per second, p50 and p99 in milliseconds."""
        settings = self.bench.settings
        size = _bytes_of(load)
        command, keys = ("set", LARGE_KEYS) if size > VALUE_BYTES else (load, self.keys)
        options = {"-h": wire.HOST, "-p": self.port, "-c": settings.connections, "-n": requests,
                   "-t": command, "-r": keys, "-d": size}  # fmt: skip
        words = ["taskset", "-c", str(settings.client_core), "redis-benchmark", "--csv"]
        words += [str(word) for option in options.items() for word in option]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        if not rows:
            raise BenchError(f"redis-benchmark gave no result: {done.stdout} {done.stderr}")
        row = rows[-1]
        return float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"])


def _bytes_of(load: str) -> int:
    return SIZES.get(load.removeprefix("put-"), VALUE_BYTES)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def server_command(port: int, folder: Path, *more: str) -> list[str]:
    """redis-server with its defaults, on loopback, without writing to disk."""
    options = {"port": str(port), "bind": wire.HOST, "save": "", "appendonly": "no",
               "dir": str(folder)}  # fmt: skip
    return ["redis-server", *(w for k, v in options.items() for w in (f"--{k}", v)), *more]


def preload(port: int, keys: int) -> None:
    """Store keys 0 to `keys` - 1 in a Redis."""
    commands = (wire.resp_command("SET", wire.key(i), wire.value(i)) for i in range(keys))
    wire.pipeline(port, commands, b"+OK\r\n", depth=500)
