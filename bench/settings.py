"""What a run measures, and for how long: one row per command-line option."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKPLACE = ROOT / ".bench"
PARTS = ("load", "traffic", "workers", "commit", "waiting", "batches", "import", "start", "storm")
PEERS = ("keyrack", "nginx", "redis", "webdis", "keyrack-valkey", "flask", "fastapi")


@dataclass(frozen=True)
class Settings:
    """The options of one run, as a full one has them. Durations are seconds, `keys` a count."""

    keys: int = 1_000_000
    rounds: int = 5
    seconds: int = 3
    worker_rounds: int = 3
    starts: int = 5
    commit_rounds: int = 3
    idle_seconds: float = 5.0
    storm_calm: float = 4.0
    storm_window: float = 8.0
    quick: bool = False
    install: bool = False
    parts: tuple[str, ...] = PARTS
    peers: tuple[str, ...] = PEERS
    out: Path = ROOT / "bench" / "results"
    connections: int = 64
    server_core: int = 0
    client_core: int = 1


FULL = Settings()
# A quick run is for a look: it must not overwrite the figures of a full one.
QUICK = Settings(
    keys=30_000,
    rounds=1,
    seconds=1,
    worker_rounds=1,
    commit_rounds=1,
    idle_seconds=2.0,
    starts=3,
    storm_calm=1.5,
    storm_window=3.0,
    quick=True,
    out=WORKPLACE / "quick",
)


def parse(arguments: list[str]) -> Settings:
    """Settings from the command line; what is not given comes from FULL, or QUICK."""
    given = _parser().parse_args(arguments)
    chosen = {
        name: getattr(given, name)
        for name in ("keys", "rounds", "seconds", "out")
        if getattr(given, name) is not None
    }
    return replace(
        QUICK if given.quick else FULL,
        install=given.install,
        parts=_names(given.parts, PARTS),
        peers=_names(given.peers, PEERS),
        **chosen,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bench", description="Measure Keyrack and its peers.")
    add = parser.add_argument
    add("--quick", action="store_true", help="a look in under two minutes, written to .bench/quick")
    add("--keys", type=int, help="keys loaded into every server (1,000,000; quick: 30,000)")
    add("--rounds", type=int, help="rounds, each with every server and load (5; quick: 1)")
    add("--seconds", type=int, help="seconds of each load (3; quick: 1)")
    add("--parts", default=",".join(PARTS), help="what to measure (default: %(default)s)")
    add("--peers", default=",".join(PEERS), help="whom to measure (default: %(default)s)")
    add("--out", type=Path, help="folder of latest.json, latest.md, latest.svg")
    add("--install", action="store_true", help="install missing Debian packages (needs root)")
    return parser


def _names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    wanted = text.split(",")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"bench: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return tuple(name for name in known if name in wanted)
