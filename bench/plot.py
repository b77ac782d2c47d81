"""latest.json to latest.svg. Runs in the bench's own environment, which has matplotlib."""

# matplotlib lives in the bench's own environment, out of the type checker's sight.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot

STYLE: Any = {"svg.hashsalt": "keyrack", "svg.fonttype": "none", "font.size": 9}

Samples = list[dict[str, Any]]

PEERS = {
    "keyrack": "Keyrack",
    "nginx": "nginx + Lua",
    "redis": "Redis (redis-benchmark)",
    "webdis": "Webdis + Redis",
    "keyrack-valkey": "Keyrack on Redis",
    "fastapi": "FastAPI + uvicorn",
    "flask": "Flask + gunicorn",
}
PANELS = (
    ("requests_per_second", "requests per second on one core", "{:,.0f}"),
    ("server_cpu_us", "server CPU per request, µs", "{:.1f}"),
    ("p99_ms", "p99 at 64 connections, ms", "{:.2f}"),
)
OURS, THEIRS = "#b3541e", "#9aa5b1"


def main(data: Path, plot: Path) -> None:
    """Draw one row per load and one panel per figure."""
    pyplot.switch_backend("svg")
    pyplot.rcParams.update(STYLE)
    samples = json.loads(data.read_text())["samples"]
    figure, rows = pyplot.subplots(2, len(PANELS), figsize=(12, 5.2), layout="constrained")
    for load, axes_row in zip(("get", "set"), rows, strict=True):
        for panel, axes in zip(PANELS, axes_row, strict=True):
            _bars(axes, samples, load, *panel)
    figure.supxlabel("medians over the rounds, logarithmic axes", fontsize=9)
    figure.savefig(plot, metadata={"Date": None, "Creator": None})


def _bars(axes: Any, samples: Samples, load: str, key: str, title: str, form: str) -> None:
    """Medians over the rounds, on a logarithmic axis: the peers lie two orders apart."""
    medians = _medians(samples, load, key)
    names = [PEERS[peer] for peer in medians]
    colours = [OURS if peer == "keyrack" else THEIRS for peer in medians]
    bars = axes.barh(names, medians.values(), color=colours)
    axes.bar_label(bars, [form.format(value) for value in medians.values()], padding=3)
    axes.set_title(f"{load.upper()}: {title}", loc="left", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(medians.values()) / 3, max(medians.values()) * 6)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _medians(samples: Samples, load: str, key: str) -> dict[str, float]:
    found = {
        peer: [s[key] for s in samples if s["peer"] == peer and s["load"] == load] for peer in PEERS
    }
    return {peer: statistics.median(values) for peer, values in found.items() if values}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
