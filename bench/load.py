"""The load generator `wrk`, and what one timed run of it tells."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

FILL_SCRIPT = Path(__file__).parent / "lua" / "fill.lua"
FILL_SECONDS = 240
SCRIPT = Path(__file__).parent / "lua" / "load.lua"
# So many different requests are sent in turn. More would cost wrk cache misses that redis-benchmark
# does not have; fewer would let a server live in its caches.
REQUESTS = 10_000


@dataclass(frozen=True)
class Request:
    """A request in which `$k` stands for a key and `$v` for a value of 32 bytes.

    `$b(N)` stands for N bytes. `fields` are header lines, separated by `|`, in which `$n` is
    another number in each request and `$c` one of 2,000.
    """

    method: str
    path: str
    body: str = ""
    media_type: str = ""
    fields: str = ""

    def words(self) -> list[str]:
        """The five arguments that load.lua takes for a request."""
        return [self.method, self.path, self.media_type, self.body, self.fields]


@dataclass(frozen=True)
class Load:
    """Reads, writes, or `read_percent` of the one mixed with the other."""

    read: Request
    write: Request
    read_percent: int
    requests: int = REQUESTS
    """How many different requests are made; few where each is large."""
    keys: int | None = None
    """Over how many keys, where not over all that were stored."""


def reads(request: Request, requests: int = REQUESTS, keys: int | None = None) -> Load:
    """A load of nothing but this read."""
    return Load(request, request, 100, requests, keys)


def writes(request: Request, requests: int = REQUESTS, keys: int | None = None) -> Load:
    """A load of nothing but this write."""
    return Load(request, request, 0, requests, keys)


@dataclass(frozen=True)
class Run:
    """What a load generator saw: a count of answers, seconds, milliseconds, shares of a core."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    client_busy: float


def wrk(
    port: int, load: Load, *, keys: int, seconds: int, connections: int, cores: Sequence[int]
) -> Run:
    """Run wrk with one thread against a local port.

    `client_busy` leaves out the making of the requests: it is the share of a core that wrk used
    while it measured. Near 1.0 it is wrk that is measured, not the server.
    """
    command = ["taskset", "-c", ",".join(map(str, cores)), "wrk", "-t1", f"-c{connections}"]
    command += [f"-d{seconds}", "--latency", "-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--"]
    command += [str(load.keys or keys), str(load.requests), str(load.read_percent)]
    command += [*load.read.words(), *load.write.words()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    return _parse(done.stdout, done.stderr)


def fill(
    port: int, keys: int, core: int, *, prefix: str = "key", ends: float | None = None
) -> None:
    """Store `prefix`:0 to `prefix`:`keys` - 1 with `POST /set`, as fast as wrk and server can.

    With `ends`, a moment of time.monotonic(), every key gets the TTL that is left until then.
    """
    command = ["taskset", "-c", str(core), "wrk", "-t1", "-c64", f"-d{FILL_SECONDS}"]
    command += ["-s", str(FILL_SCRIPT), f"http://127.0.0.1:{port}", "--", str(keys), prefix]
    command += [] if ends is None else [f"{ends:.3f}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        try:
            filled = any(line.startswith("FILLED") for line in running.stdout)
            running.send_signal(signal.SIGINT)
            rest = running.stdout.read()
        finally:
            running.kill()  # does nothing to a program that has ended
    if not filled or "FAILED 0" not in rest:
        raise BenchError(f"the preload through POST /set failed: {rest[-200:]}")


def _parse(output: str, errors: str) -> Run:
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), "")
    if not line:
        raise BenchError(f"wrk gave no result: {output[-300:]} {errors[-300:]}")
    requests, microseconds, p50, p99, failed, cpu = line.split()[1:]
    seconds = int(microseconds) / 1e6
    return Run(int(requests), seconds, int(p50) / 1e3, int(p99) / 1e3, int(failed),
               float(cpu) / seconds)  # fmt: skip
