"""`python -m bench.hit_ratio`: how often a full store still has what is asked for.

Replays traces through Keyrack's engine with `--when-full evict`, through redis-server with both of
its usual policies, and through textbook LRU, S3-FIFO and Belady's optimum. All of them get room for
the same number of keys: the number that Keyrack really held. See `bench/README.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import cached, traces
from bench.errors import BenchError
from bench.policies import POLICIES
from bench.service import CLIENT_CORE, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHARES: Final = (1, 5, 10, 20, 40)
REDIS: Final = {
    "Redis LRU": ("allkeys-lru", True),
    "Redis LFU": ("allkeys-lfu", False),
    "Redis LFU, fast clock": ("allkeys-lfu", True),
}
MADE_REQUESTS: Final = 100_000
FAR_FROM_S3: Final = 2.0


@dataclass
class Row:
    """One trace with room for one share of its keys. Ratios are hits among all requests."""

    trace: str
    requests: int
    distinct: int
    percent: int
    resident: float
    hits: dict[str, int] = field(default_factory=dict)
    redis_resident: float = 0.0

    def percent_of(self, name: str) -> float:
        """Return a cache's hit ratio in per cent."""
        return 100 * self.hits[name] / self.requests

    @property
    def best_redis(self) -> float | None:
        """The better of Redis' policies in per cent, None where Redis was left out."""
        found = [self.percent_of(name) for name in REDIS if name in self.hits]
        return max(found) if found else None


def measure(name: str, requests: Sequence[int], percent: int, with_redis: bool) -> Row:
    """Replay one trace through everything."""
    distinct = len(set(requests))
    replay = cached.keyrack(requests, max(2, distinct * percent // 100))
    row = Row(name, len(requests), distinct, percent, replay.resident)
    row.hits["Keyrack"] = replay.hits
    room = round(replay.resident)
    for policy, hits_of in POLICIES.items():
        row.hits[policy] = hits_of(requests, room)
    if with_redis:
        for title, (policy, fast) in REDIS.items():
            with cached.redis(policy, fast, CLIENT_CORE) as server:
                server.fit(room)
                replay = server.replay(requests)
            row.hits[title] = replay.hits
            row.redis_resident = replay.resident
    return row


def given(paths: Sequence[str], made: bool) -> Iterator[tuple[str, list[int]]]:
    """Yield name and requests of each trace: files, those of directories, and made ones."""
    for path in map(Path, paths):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.suffix in (".trace", ".txt", ".oracleGeneral"):
                yield file.stem, traces.read(file)
    if made:
        for name, make in traces.MADE.items():
            yield name, make(MADE_REQUESTS)


def report(rows: Sequence[Row]) -> str:
    """Return the page: each row, then what the targets ask."""
    names = ["Keyrack", *POLICIES, *(n for n in REDIS if n in rows[0].hits)]
    lines = [
        "# Hit ratios",
        "",
        "Made by `python -m bench.hit_ratio`. Hits in per cent of all requests, with room for the",
        "same number of keys each; the share is of the trace's distinct keys.",
        "",
        "| trace | share | keys | " + " | ".join(names) + " |",
        "|---|--:|--:|" + "--:|" * len(names),
    ]
    for row in rows:
        figures = " | ".join(f"{row.percent_of(name):.1f}" for name in names)
        lines.append(f"| {row.trace} | {row.percent} % | {row.resident:.0f} | {figures} |")
    return "\n".join([*lines, "", *_targets(rows), ""])


def _targets(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Targets"
    yield ""
    gains = [row.percent_of("Keyrack") - row.percent_of("S3-FIFO") for row in rows]
    average = sum(gains) / len(gains)
    yield (
        f"- Within {FAR_FROM_S3:.0f} points of S3-FIFO on average: {average:+.2f} points, "
        f"{_verdict(average >= -FAR_FROM_S3)}."
    )
    compared = [
        (row.percent_of("Keyrack") - best, row)
        for row in rows
        if (best := row.best_redis) is not None
    ]
    if not compared:
        yield "- Redis was left out."
        return
    below = [(gain, row) for gain, row in compared if gain < 0]
    yield (
        f"- At or above Redis' best policy: in {len(compared) - len(below)} of {len(compared)}, "
        f"{_verdict(not below)}."
    )
    for gain, row in below:
        yield f"  - {row.trace}, {row.percent} %: {gain:+.2f} points"


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def main() -> int:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", help="trace files, or directories of them")
    parser.add_argument("--made", action="store_true", help="replay made traces as well")
    parser.add_argument("--no-redis", action="store_true", help="leave Redis out")
    parser.add_argument("--share", type=int, nargs="*", default=SHARES, help="per cent of the keys")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    paths = options.paths or os.environ.get("KEYRACK_TRACES", "").split()
    with_redis = not options.no_redis and shutil.which("redis-server") is not None
    if not with_redis and not options.no_redis:
        print("Redis is left out: it needs redis-server (apt-get install redis-server).")
    rows: list[Row] = []
    for name, requests in given([path for path in paths if Path(path).exists()], options.made):
        for percent in options.share:
            rows.append(measure(name, requests, percent, with_redis))
            print(name, percent, rows[-1].hits, round(rows[-1].resident), flush=True)
    if not rows:
        print("There are no traces here: name files or directories, or set KEYRACK_TRACES.")
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    (options.output / "hit_ratio.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.output / "hit_ratio.md").write_text(report(rows))
    print(report(rows))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(str(error))
