"""What Keyrack promises to be, each promise beside the figure that this run measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.results import of, ratio

if TYPE_CHECKING:
    from bench.results import Results
    from bench.storm import Storm

MANY_KEYS = 1_000_000


@dataclass(frozen=True)
class Target:
    """A bound and what was measured; `measured` is None when the run did not measure it."""

    title: str
    bound: str
    limit: float
    measured: float | None
    unit: str = "x"
    at_least: bool = False
    below: bool = False

    @property
    def verdict(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.measured is None:
            return "not measured"
        return "met" if self._holds(self.measured) else "missed"

    def _holds(self, measured: float) -> bool:
        if self.at_least:
            return measured >= self.limit
        return measured < self.limit if self.below else measured <= self.limit


def targets(results: Results) -> list[Target]:
    """All targets, in the order of the report."""
    return [
        *_cpu_against_nginx(results),
        *_rates(results),
        *_on_valkey(results),
        *_tails(results),
        *_workers(results),
        *_start_and_memory(results),
        *_expiry(results),
    ]


def at_most(title: str, limit: float, measured: float | None, unit: str) -> Target:
    """A bound that may be reached."""
    return Target(title, f"≤ {limit:g}{unit}", limit, measured, unit)


def under(title: str, limit: float, measured: float | None, unit: str) -> Target:
    """A bound that may not be reached."""
    return Target(title, f"< {limit:g}{unit}", limit, measured, unit, below=True)


def no_less(title: str, limit: float, measured: float | None) -> Target:
    """A ratio that must be reached."""
    return Target(title, f"≥ {limit:g}x", limit, measured, at_least=True)


def _against(results: Results, peer: str, load: str, figure: str) -> float | None:
    return ratio(results.of("keyrack", load), results.of(peer, load), figure)


def _cpu_against_nginx(results: Results) -> list[Target]:
    limits = {"get": 0.95, "set": 1.0}
    return [
        at_most(
            f"CPU per {load.upper()} against nginx + Lua",
            limit,
            _against(results, "nginx", load, "server_cpu_us"),
            "x",
        )
        for load, limit in limits.items()
    ]


def _rates(results: Results) -> list[Target]:
    limits = {"redis": 1.0, "webdis": 1.8, "flask": 40.0}
    names = {"redis": "redis-benchmark", "webdis": "Webdis", "flask": "Flask + gunicorn"}
    return [
        no_less(
            f"{load.upper()}s per second on one core against {names[peer]}",
            limit,
            _against(results, peer, load, "requests_per_second"),
        )
        for peer, limit in limits.items()
        for load in ("get", "set")
    ]


def _on_valkey(results: Results) -> list[Target]:
    """Another front of the same server, on the same core."""
    return [
        no_less(
            f"{load.upper()}s per second with a store in Redis, against Webdis",
            1.0,
            ratio(
                results.of("keyrack-valkey", load),
                results.of("webdis", load),
                "requests_per_second",
            ),
        )
        for load in ("get", "set")
    ]


def _tails(results: Results) -> list[Target]:
    connections = results.settings["connections"]
    return [
        under(
            f"p99 of {load.upper()} at {connections} connections",
            1.0,
            results.median("keyrack", load, "p99_ms"),
            " ms",
        )
        for load in ("get", "set")
    ]


def _workers(results: Results) -> list[Target]:
    one, two = ("1 worker", "2 workers")
    return [
        at_most(
            f"CPU per request of the load {load!r}, two workers against one",
            1.1,
            ratio(of(results.workers, two, load), of(results.workers, one, load), "server_cpu_us"),
            "x",
        )
        for load in ("get", "set", "mixed")
    ]


def _start_and_memory(results: Results) -> list[Target]:
    starts = results.start_seconds
    start = statistics.median(starts) if starts else None
    # What does not grow with the keys, the history of events above all, is in the figure too:
    # with few keys it is most of it, and the target is about a million.
    enough = results.settings["keys"] >= MANY_KEYS
    memory = results.memory.get("keyrack") if enough else None
    return [
        under("start to first answer", 0.5, start, " s"),
        at_most("memory per key of 16 + 32 bytes, a million keys", 115, memory, " bytes"),
    ]


def _expiry(results: Results) -> list[Target]:
    slow = _slow_by_expiry(results.storm) if results.storm else None
    return [at_most("reads over 5 ms because keys expire", 0, slow, "")]


def _slow_by_expiry(found: Storm) -> float:
    """Slow reads of the storm by the server, less as many as its calm window would have had.

    A hypervisor that stops the server's core is seen by nobody in it, and is in both windows.
    """
    usual = found.calm.slow_by_server / found.calm.reads * found.storm.reads
    return float(max(0, round(found.storm.slow_by_server - usual)))
