"""`python -m bench.access`: what access control costs the four hot requests.

One service without access control and one with it, on the server's core, and with `--base REV` a
third: another commit without it. Within a round each kind of request is sent in turn, there and
back, so that a machine whose speed drifts favours nobody. Told are the medians over the rounds of
the CPU time for a request, and of its difference from the same request without access control.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from bench import measure
from bench.compare import Version, access_options, checked_out
from bench.errors import BenchError
from bench.peers.base import Bench
from bench.scenarios import HOT, MEANING
from bench.service import machine
from bench.settings import ROOT, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEYS: Final = 100_000


class Kind(NamedTuple):
    """A way of sending a hot request: to which service, and what its load's name ends with."""

    service: str
    ends: str
    told: str


OPEN: Final = Kind("open", "", "no access control")
KINDS: Final = (
    OPEN,
    Kind("open", "-prefix", "no access control, token sent"),
    Kind("guarded", "-full", "full rights"),
    Kind("guarded", "-prefix", "one prefix"),
    Kind("guarded", "-denials", "5 rules, 3 denials"),
)
BEFORE: Final = Kind("base", "", "the other commit")


def main(arguments: list[str]) -> int:
    """Measure and print a table."""
    given = _parser().parse_args(arguments)
    settings = Settings(keys=_KEYS, rounds=given.rounds, seconds=given.seconds)
    os.sched_setaffinity(0, {settings.client_core})
    kinds = (*KINDS, BEFORE) if given.base else KINDS
    try:
        base = checked_out(given.base) if given.base else None
        costs = _measured(settings, base, kinds, given.loads.split(","))
    except (BenchError, subprocess.SubprocessError) as error:
        print(f"bench: {error}")
        return 1
    print(machine())
    print(_table(costs))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bench.access", description="Measure access control.")
    add = parser.add_argument
    add("--base", help="a commit to measure as well, without access control")
    add("--loads", default=",".join(HOT), help="names (default: %(default)s)")
    add("--rounds", type=int, default=5, help="rounds there and back (5)")
    add("--seconds", type=int, default=1, help="seconds of each load (1)")
    return parser


def _measured(
    settings: Settings, base: Path | None, kinds: Sequence[Kind], loads: Sequence[str]
) -> dict[tuple[str, Kind], list[float]]:
    """Return the CPU time (µs) of a request in each round, by load and kind."""
    costs: dict[tuple[str, Kind], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="keyrack-bench-") as scratch, ExitStack() as running:
        bench = Bench(settings, Path(scratch))
        services = {
            "open": Version(bench, "open", ROOT),
            "guarded": Version(bench, "guarded", ROOT, access_options(bench)),
        }
        if base is not None:
            services["base"] = Version(bench, "base", base)
        for service in services.values():
            running.callback(service.stop)
            service.start()
            service.preload()
        for load in loads:
            for number in range(settings.rounds):
                there = [(kind, services[kind.service], load + kind.ends) for kind in kinds]
                seen: dict[Kind, list[float]] = {}
                for kind, service, name in (*there, *reversed(there)):
                    found = measure.sample(service, name, number)
                    if found.failed:
                        raise BenchError(f"{found.failed} requests of {name} failed")
                    seen.setdefault(kind, []).append(found.server_cpu_us)
                for kind, both in seen.items():
                    costs.setdefault((load, kind), []).append(sum(both) / 2)
    return costs


def _table(costs: dict[tuple[str, Kind], list[float]]) -> str:
    lines = [
        "",
        "| request | who | CPU, µs | more than without, µs | share |",
        "|---|---|---|---|---|",
    ]
    for (load, kind), found in costs.items():
        without = costs[load, OPEN]
        pairs = list(zip(found, without, strict=True))
        more = statistics.median(ours - theirs for ours, theirs in pairs)
        share = statistics.median(ours / theirs for ours, theirs in pairs)
        cost = statistics.median(found)
        lines.append(f"| {MEANING[load]} | {kind.told} | {cost:.2f} | {more:+.2f} | {share:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
