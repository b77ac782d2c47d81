"""Reads what /metrics says: numbers by name and labels, and what happened between two looks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Series(NamedTuple):
    """A name and its labels, which are sorted."""

    name: str
    labels: tuple[tuple[str, str], ...]

    def label(self, name: str) -> str:
        """Return a label, empty if it has none of that name."""
        return dict(self.labels).get(name, "")


class Look:
    """All numbers of one moment."""

    def __init__(self, text: str, moment: float) -> None:
        self.moment = moment
        self.numbers: dict[Series, float] = {}
        for line in text.splitlines():
            match = None if line.startswith("#") else _LINE.match(line)
            if match is not None:
                labels = tuple(sorted(_LABEL.findall(match[2] or "")))
                self.numbers[Series(match[1], labels)] = float(match[3])

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of all series of a name that have these labels."""
        return sum(
            number
            for series, number in self.numbers.items()
            if series.name == name and labels.items() <= dict(series.labels).items()
        )

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the sums of the series of a name, by one of their labels."""
        found: dict[str, float] = {}
        for series, number in self.numbers.items():
            if series.name == name:
                found[series.label(label)] = found.get(series.label(label), 0.0) + number
        return found


class Between:
    """What happened between two looks, by the second."""

    def __init__(self, before: Look, after: Look) -> None:
        self._before = before
        self._after = after
        self.seconds = max(after.moment - before.moment, 1e-6)

    def rate(self, name: str, **labels: str) -> float:
        """Return how often something happened a second."""
        return (self._after.sum(name, **labels) - self._before.sum(name, **labels)) / self.seconds

    def rates(self, name: str, label: str) -> dict[str, float]:
        """Return how often something happened a second, by one of its labels; what did at all."""
        before = self._before.by(name, label)
        rates = {
            value: (number - before.get(value, 0.0)) / self.seconds
            for value, number in self._after.by(name, label).items()
        }
        return {value: rate for value, rate in rates.items() if rate > 0}

    def quantile(self, share: float, histogram: str, **labels: str) -> float | None:
        """Return the bound below which a share of what happened was; None where nothing was."""
        buckets = self._buckets(f"{histogram}_bucket", labels)
        total = buckets.get(float("inf"), 0.0)
        if total <= 0:
            return None
        return next(bound for bound in sorted(buckets) if buckets[bound] >= share * total)

    def _buckets(self, name: str, labels: Mapping[str, str]) -> dict[float, float]:
        found: dict[float, float] = {}
        for series, number in self._after.numbers.items():
            if series.name == name and labels.items() <= dict(series.labels).items():
                bound = float(series.label("le").replace("+Inf", "inf"))
                change = number - self._before.numbers.get(series, 0.0)
                found[bound] = found.get(bound, 0.0) + change
        return found
