"""Two commits of Keyrack, the same loads in turn: `python -m bench.compare BASE`.

The base is checked out beside the working tree and served by the same Python with the same
dependencies. Each load goes to base, head, head, base within a round, so that a machine whose speed
drifts favours nobody. What counts is the median of the rounds' ratios of CPU time per request.
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
from typing import TYPE_CHECKING, Final, TypeAlias

from bench import measure
from bench.errors import BenchError
from bench.peers.base import Bench
from bench.peers.keyrack import Keyrack
from bench.scenarios import HOT, LOADS, MEANING, TOKEN_MEANING, access_file
from bench.settings import ROOT, WORKPLACE, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Sample

_KEYS: Final = 100_000
MEANINGS: Final = {**MEANING, **TOKEN_MEANING}
_FIGURES: Final = ("server_cpu_us", "requests_per_second")


Row: TypeAlias = tuple[str, float, float, float, float]
"""The load's name, CPU µs a request of base and head, and head : base of CPU and of the rate."""


class Version(Keyrack):
    """Keyrack as some source tree has it."""

    def __init__(self, bench: Bench, label: str, tree: Path, options: Sequence[str] = ()) -> None:
        super().__init__(bench, label=label)
        self._tree = tree
        self._options = options

    def command(self, store: str) -> list[str | Path]:
        """The command line of the server, with the source of its own tree."""
        _, *words = super().command(store)
        python = ["env", f"PYTHONPATH={self._tree / 'src'}", sys.executable, "-m", "keyrack"]
        return [*python, *words, *self._options]


def main(arguments: list[str]) -> int:
    """Compare and print a table; return 1 when a hot request costs more than `--allow`."""
    given = _parser().parse_args(arguments)
    names = list(LOADS) if given.loads == "all" else given.loads.split(",")
    unknown = [name for name in names if name not in MEANINGS]
    if unknown:
        print(f"bench: unknown {', '.join(unknown)}; known are all, {', '.join(MEANINGS)}")
        return 2
    settings = Settings(keys=_KEYS, rounds=given.rounds, seconds=given.seconds)
    os.sched_setaffinity(0, {settings.client_core})
    try:
        base = checked_out(given.base)
        samples = _measured(settings, base, names, given.options.split())
    except (BenchError, subprocess.SubprocessError) as error:
        print(f"bench: {error}")
        return 1
    rows = [_row(name, samples) for name in names]
    print(_table(rows))
    worse = [name for name, *_, cost, _ in rows if name in HOT and cost > 1 + given.allow / 100]
    for name in worse:
        print(f"bench: {MEANING[name]} costs over {given.allow:g} % more than at {given.base}")
    return 1 if worse else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bench.compare", description="Compare two commits.")
    add = parser.add_argument
    add("base", help="the commit that the working tree is compared with")
    add("--loads", default=",".join(HOT), help="names, or all (default: %(default)s)")
    add("--rounds", type=int, default=5, help="rounds of base, head, head, base (5)")
    add("--seconds", type=int, default=2, help="seconds of each load (2)")
    add("--allow", type=float, default=2.0, help="per cent that a hot request may cost more (2)")
    add("--options", default="", help="more flags of `keyrack serve`, for both")
    return parser


def checked_out(revision: str) -> Path:
    """Return a work tree of the revision, made at the first time."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    found = subprocess.run(asked, capture_output=True, text=True)
    commit = found.stdout.strip()
    if not commit:
        raise BenchError(f"there is no commit {revision!r}")
    tree = WORKPLACE / "trees" / commit
    if not tree.is_dir():
        tree.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", commit, "src"], capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    return tree


def _measured(
    settings: Settings, base: Path, names: Sequence[str], options: Sequence[str]
) -> list[Sample]:
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="keyrack-bench-") as scratch, ExitStack() as running:
        bench = Bench(settings, Path(scratch))
        if not TOKEN_MEANING.keys().isdisjoint(names):
            options = [*options, *access_options(bench)]
        versions = [Version(bench, "base", base, options), Version(bench, "head", ROOT, options)]
        for version in versions:
            running.callback(version.stop)
            version.start()
            version.check()
            version.preload()
            version.store_large()
        for name in names:
            for number in range(settings.rounds):
                there_and_back = [*versions, *reversed(versions)]
                twice = [measure.sample(version, name, number) for version in there_and_back]
                samples += twice
                for one in twice[:2]:
                    print(measure.line(one), flush=True)
    return samples


def access_options(bench: Bench) -> list[str]:
    """Return the flags of a service that knows the tokens of `TOKENS`."""
    path = bench.scratch / "auth.toml"
    path.write_text(access_file(), encoding="utf-8")
    path.chmod(0o600)
    return ["--auth", str(path)]


def _row(name: str, samples: Sequence[Sample]) -> Row:
    base, head = (
        [s for s in samples if (s.peer, s.load) == (label, name)] for label in ("base", "head")
    )
    costs = [statistics.median(s.server_cpu_us for s in version) for version in (base, head)]
    cost, rate = (_ratio(head, base, figure) for figure in _FIGURES)
    return name, costs[0], costs[1], cost, rate


def _ratio(head: Sequence[Sample], base: Sequence[Sample], figure: str) -> float:
    """Median over the rounds of head / base; each has two samples in a round."""
    sums: dict[int, list[float]] = {}
    for place, version in enumerate((base, head)):
        for one in version:
            sums.setdefault(one.round, [0.0, 0.0])[place] += getattr(one, figure)
    return statistics.median(ours / theirs for theirs, ours in sums.values())


def _table(rows: Sequence[Row]) -> str:
    lines = ["", "| load | base, CPU µs | head, CPU µs | CPU, head : base | rate, head : base |"]
    lines.append("|---|---|---|---|---|")
    for name, base, head, cost, rate in rows:
        lines.append(f"| {MEANINGS[name]} | {base:.2f} | {head:.2f} | {cost:.3f} | {rate:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
