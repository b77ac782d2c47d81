"""What a second worker costs: CPU time per request with two workers against one."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench import measure
from bench.peers import Keyrack

if TYPE_CHECKING:
    from bench.measure import Sample
    from bench.peers import Bench

LOADS = ("get", "set", "mixed")


def worker_samples(bench: Bench) -> list[Sample]:
    """Keyrack with one and with two workers in turn, wrk and servers sharing both cores.

    With wrk competing for the same cores the requests per second say little; the CPU time that the
    server uses per request says what workers cost each other (locks, revisions, wake-ups).
    """
    samples = []
    with ExitStack() as running:
        servers = [_started(bench, workers, running) for workers in (1, 2)]
        for number in range(bench.settings.worker_rounds):
            for load in LOADS:
                for server in servers:
                    samples.append(measure.sample(server, load, number))
                    print(measure.line(samples[-1]), flush=True)
    return samples


def _started(bench: Bench, workers: int, running: ExitStack) -> Keyrack:
    cores = [bench.settings.server_core, bench.settings.client_core]
    server = Keyrack(bench, cores, label=f"{workers} worker{'s'[: workers - 1]}", workers=workers)
    server.client_cores, server.keys = cores, bench.settings.keys // 10
    running.callback(server.stop)
    server.start()
    server.preload()
    return server
