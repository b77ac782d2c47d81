"""What Keyrack promises to be, each promise beside the figure that this run measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.results import of, ratio
from bench.scenarios import LIKE, MEANING

if TYPE_CHECKING:
    from bench.measure import Sample
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
        *_differing_heads(results),
        *_against_files(results),
        *_large_writes(results),
        *_workers(results),
        *_held_up(results),
        *_kept(results),
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
    limits = {"get": 0.8, "set": 0.95}
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


def _in_traffic(results: Results, load: str, peer: str, other: str) -> float | None:
    ours, theirs = of(results.traffic, "traffic", load), of(results.traffic, peer, other)
    return ratio(ours, theirs, "server_cpu_us")


def _differing_heads(results: Results) -> list[Target]:
    return [
        at_most(
            f"CPU of {MEANING[load]}, against the same section each time",
            1.15,
            _in_traffic(results, load, "traffic", same),
            "x",
        )
        for load, same in LIKE.items()
    ]


def _against_files(results: Results) -> list[Target]:
    limits = {"get-close": 1.5, "get-10k": 1.0, "get-100k": 1.2, "get-1m": 1.2}
    return [
        at_most(
            f"CPU of {MEANING[load]}, against a file from nginx",
            limit,
            _in_traffic(results, load, "nginx-static", load),
            "x",
        )
        for load, limit in limits.items()
    ]


def _large_writes(results: Results) -> list[Target]:
    """CPU time of ours against the time that Redis, at its full rate, takes for a SET."""
    limits = {"put-10k": 1.2, "put-100k": 1.0, "put-1m": 1.0}
    return [
        at_most(
            f"CPU of {MEANING[load]}, against the time of a SET by redis-benchmark",
            limit,
            _by_rate(
                of(results.traffic, "traffic", load), of(results.traffic, "redis-values", load)
            ),
            "x",
        )
        for load, limit in limits.items()
    ]


def _by_rate(ours: list[Sample], theirs: list[Sample]) -> float | None:
    rates = {sample.round: sample.requests_per_second for sample in theirs}
    pairs = [s.server_cpu_us * rates[s.round] / 1e6 for s in ours if s.round in rates]
    return statistics.median(pairs) if pairs else None


def _held_up(results: Results) -> list[Target]:
    waiting, batches = results.waiting, results.batches
    worst, busy = (waiting.worst_ms, waiting.busy * 100) if waiting else (None, None)
    median, p99 = (batches.median_ms, batches.p99_ms) if batches else (None, None)
    return [
        under("hold while 5,000 clients come that wait", 10, worst, " ms"),
        under("CPU for 10,000 that wait", 0.5, busy, " % of a core"),
        under("hold by a batch of 1,000 sets, median", 5, median, " ms"),
        under("p99 of writes beside such batches", 5, p99, " ms"),
    ]


def _kept(results: Results) -> list[Target]:
    sets = {
        server: [one.sets for one in results.commits if one.server == server]
        for server in ("keyrack", "redis")
    }
    pairs = [ours / theirs for ours, theirs in zip(*sets.values(), strict=True)]
    bulk = results.bulk
    return [
        no_less(
            "SETs per second on disk before they are answered, against Redis",
            1.0,
            statistics.median(pairs) if pairs else None,
        ),
        at_most(
            "time of an import into Redis, against redis-cli --pipe",
            2,
            bulk.keyrack_seconds / bulk.redis_seconds if bulk else None,
            "x",
        ),
    ]


def _workers(results: Results) -> list[Target]:
    one, two = ("1 worker", "2 workers")
    return [
        at_most(
            f"CPU per request of the load {load!r}, two workers against one",
            1.05 if load == "get" else 1.1,
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
        at_most("memory per key of 16 + 32 bytes, a million keys", 105, memory, " bytes"),
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
