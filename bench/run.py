"""One run from the first start to the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench import (
    batches,
    bulk,
    durable,
    environment,
    measure,
    packages,
    report,
    startup,
    storm,
    traffic,
    waiting,
    workers,
)
from bench.errors import BenchError
from bench.peers import PEERS, Bench, Peer, Redis
from bench.probe import probe_us
from bench.results import Results
from bench.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import Callable

# A peer that fails is left out and named in the report; the others are measured all the same.
FAILURES = (BenchError, OSError, subprocess.SubprocessError)


def main(arguments: list[str]) -> int:
    """Measure what the arguments ask for and write the report; the exit status."""
    settings = parse(arguments)
    # A bench that is told to end takes its servers along: SystemExit unwinds what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin = time.monotonic()
    try:
        results = _measured(settings)
    except BenchError as error:
        print(f"bench: {error}")
        return 1
    print("\n".join(report.verdicts(results)))
    for path in report.write(results, settings.out):
        print(f"bench: {path}")
    for name, reason in results.missing.items():
        print(f"bench: not measured: {name}: {reason}")
    print(f"bench: {time.monotonic() - begin:.0f} s")
    return 0


def _measured(settings: Settings) -> Results:
    _check_machine(settings)
    chosen = asdict(settings) | {"out": settings.out.name}
    results = Results(environment.describe(), chosen)
    with tempfile.TemporaryDirectory(prefix="keyrack-bench-") as scratch:
        bench = Bench(settings, Path(scratch))
        for part in settings.parts:
            _attempt(results, part, bench)
    return results


def _attempt(results: Results, part: str, bench: Bench) -> None:
    print(f"bench: {part}", flush=True)
    begin = time.monotonic()
    try:
        PARTS[part](results, bench)
    except FAILURES as error:
        results.missing[part] = str(error)
    print(f"bench: {part} took {time.monotonic() - begin:.0f} s", flush=True)


def _check_machine(settings: Settings) -> None:
    """Need wrk and two cores; bind this process, and so its children, to the client's core."""
    packages.require(("wrk",), install=settings.install)
    try:
        os.sched_setaffinity(0, {settings.server_core, settings.client_core})
    except (AttributeError, OSError) as error:
        raise BenchError("this needs Linux and two cores: server and client") from error
    os.sched_setaffinity(0, {settings.client_core})


def _load(results: Results, bench: Bench) -> None:
    """Start and fill all peers, then give each its turn, round by round."""
    with ExitStack() as running:
        peers = []
        for name in bench.settings.peers:
            peer = PEERS[name](bench)
            running.callback(peer.stop)
            if _prepared(results, peer):
                peers.append(peer)
        for number in range(bench.settings.rounds):
            _round(results, peers, number)


def _prepared(results: Results, peer: Peer) -> bool:
    try:
        _prepare(results, peer)
    except FAILURES as error:
        results.missing[peer.name] = str(error)
    return peer.name not in results.missing


def _prepare(results: Results, peer: Peer) -> None:
    """Start a peer, fill it, and take the difference in memory."""
    packages.require(peer.packages, install=peer.bench.settings.install)
    results.versions[peer.name] = peer.version()
    peer.start()
    peer.check()
    before, begin = peer.memory(), time.monotonic()
    peer.preload()
    results.memory[peer.name] = (peer.memory() - before) / peer.keys
    print(
        f"  {peer.name:<11} {results.memory[peer.name]:.0f} bytes/key, "
        f"filled in {time.monotonic() - begin:.1f} s",
        flush=True,
    )


def _round(results: Results, peers: list[Peer], number: int) -> None:
    """Every load, and under it every peer that has it: neighbours in time are what is compared."""
    results.probe_us.append(probe_us())
    for load in report.LOADS:
        for peer in list(peers):
            if load in peer.loads:
                _sample(results, peers, peer, load, number)


def _sample(results: Results, peers: list[Peer], peer: Peer, load: str, number: int) -> None:
    try:
        results.samples.append(measure.sample(peer, load, number))
    except FAILURES as error:
        results.missing[peer.name] = f"stopped in round {number + 1} under {load}: {error}"
        peers.remove(peer)
        return
    print(measure.line(results.samples[-1]), flush=True)


def _workers(results: Results, bench: Bench) -> None:
    results.workers = workers.worker_samples(bench)


def _traffic(results: Results, bench: Bench) -> None:
    results.traffic = traffic.traffic_samples(bench)


def _commit(results: Results, bench: Bench) -> None:
    packages.require(Redis.packages, install=bench.settings.install)
    settings = bench.settings
    os.sched_setaffinity(0, {settings.server_core, settings.client_core})
    try:
        _, results.commits = durable.compare_commits(
            bench.scratch, settings.commit_rounds, settings.seconds, workers=2
        )
    finally:
        os.sched_setaffinity(0, {settings.client_core})


def _waiting(results: Results, bench: Bench) -> None:
    results.waiting = waiting.waiting_clients(bench)


def _batches(results: Results, bench: Bench) -> None:
    results.batches = batches.batch_holds(bench)


def _import(results: Results, bench: Bench) -> None:
    results.bulk = bulk.valkey_import(bench)


def _start(results: Results, bench: Bench) -> None:
    results.start_seconds = startup.start_seconds(bench)


def _storm(results: Results, bench: Bench) -> None:
    results.storm = storm.expiry_storm(bench)


PARTS: dict[str, Callable[[Results, Bench], None]] = {
    "load": _load,
    "traffic": _traffic,
    "workers": _workers,
    "commit": _commit,
    "waiting": _waiting,
    "batches": _batches,
    "import": _import,
    "start": _start,
    "storm": _storm,
}
