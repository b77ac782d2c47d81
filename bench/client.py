"""`python -m bench.client`: what a get and a set cost in the process of the client.

`keyrack.Client` beside redis-py, and `keyrack.AsyncClient` beside redis-py's asyncio with 32 calls
at a time on uvloop. The figure is CPU time of the client's process for an operation, user and
system, kernel's share of the sockets included; the servers are on the other core. All are measured
in turn, round by round, and the ratio is the median of the ratios within the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import packages
from bench.peers.redis import server_command
from bench.process import Process, free_port
from bench.service import CLIENT_CORE, SERVER_CORE, Service, machine

if TYPE_CHECKING:
    from collections.abc import Mapping

LOAD: Final = Path(__file__).parent / "apps" / "client_load.py"
SOURCE: Final = Path(__file__).resolve().parent.parent / "src"
PAIRS: Final = (("keyrack", "redis-py"), ("keyrack-async", "redis-py-async"))
OPERATIONS: Final = ("get", "set")

Samples = dict[tuple[str, str], list[float]]
"""CPU time in µs by client and operation, a figure for each round."""


def _cost(who: str, port: int, operation: str, count: int) -> float:
    python = str(packages.environment() / "python")
    command = [python, str(LOAD), who, str(port), operation, str(count)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return float(done.stdout)


def measure(ports: Mapping[str, int], rounds: int, count: int) -> Samples:
    """Give each client and operation its turn, round by round."""
    found: Samples = {}
    for _ in range(rounds):
        for operation in OPERATIONS:
            for who in (one for pair in PAIRS for one in pair):
                port = ports["keyrack" if who.startswith("keyrack") else "redis"]
                found.setdefault((who, operation), []).append(_cost(who, port, operation, count))
    return found


def table(found: Samples) -> str:
    """The medians, and the ratio of each pair."""
    lines = ["| operation | client | µs | beside | µs | ratio |", "|---|---|---|---|---|---|"]
    for ours, theirs in PAIRS:
        for operation in OPERATIONS:
            mine, other = found[ours, operation], found[theirs, operation]
            ratio = median(a / b for a, b in zip(mine, other, strict=True))
            cells = (ours, f"{median(mine):.1f}", theirs, f"{median(other):.1f}", f"{ratio:.2f}")
            lines.append(f"| {operation} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.client", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=32_000, help="operations in a measurement")
    parser.add_argument("--out", type=Path, help="write the figures to this file, as JSON")
    given = parser.parse_args(arguments)
    packages.require(("redis-server",), install=False)
    os.sched_setaffinity(0, {CLIENT_CORE})
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="keyrack-bench-") as scratch, Service() as server:
        port = free_port()
        command = server_command(port, Path(scratch))
        redis = Process(command, (SERVER_CORE,), Path(scratch, "redis.log"))
        try:
            redis.wait_for_port(port)
            found = measure({"keyrack": server.port, "redis": port}, given.rounds, given.count)
        finally:
            redis.stop()
    print(table(found))
    if given.out:
        figures = {" ".join(key): samples for key, samples in found.items()}
        given.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
