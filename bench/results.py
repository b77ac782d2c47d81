"""Everything that one run found: written to JSON as it is, read by targets and report."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.batches import Holds
    from bench.bulk import Import
    from bench.durable import Commits
    from bench.measure import Sample
    from bench.storm import Storm
    from bench.waiting import Waiting


@dataclass
class Results:
    """Samples of all rounds, memory in bytes per key by peer, and why anything is missing."""

    environment: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    probe_us: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    traffic: list[Sample] = field(default_factory=list)
    workers: list[Sample] = field(default_factory=list)
    commits: list[Commits] = field(default_factory=list)
    waiting: Waiting | None = None
    batches: Holds | None = None
    bulk: Import | None = None
    start_seconds: list[float] = field(default_factory=list)
    storm: Storm | None = None
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, peer: str, load: str) -> list[Sample]:
        """The samples of one peer under one load, in the order of the rounds."""
        return of(self.samples, peer, load)

    def median(self, peer: str, load: str, figure: str) -> float | None:
        """Median over the rounds of one figure of `Sample`; None when it was not measured."""
        values = [getattr(sample, figure) for sample in self.of(peer, load)]
        return statistics.median(values) if values else None


def of(samples: Sequence[Sample], peer: str, load: str) -> list[Sample]:
    """The samples of one peer under one load."""
    return [sample for sample in samples if (sample.peer, sample.load) == (peer, load)]


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample], figure: str) -> float | None:
    """Median over the rounds of ours / theirs.

    Each round is compared with itself, because a shared machine is faster in one minute than in
    the next, for both.
    """
    other: dict[int, Sample] = {sample.round: sample for sample in theirs}
    get: Callable[[Sample], float] = lambda sample: float(getattr(sample, figure))  # noqa: E731 - typed, and used once
    pairs = [get(s) / get(other[s.round]) for s in ours if s.round in other]
    return statistics.median(pairs) if pairs else None
