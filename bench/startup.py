"""How long Keyrack takes from its command line to its first answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import wire
from bench.errors import BenchError
from bench.peers import Keyrack

if TYPE_CHECKING:
    from bench.peers import Bench


def start_seconds(bench: Bench) -> list[float]:
    """Seconds from starting the process to the answer of /healthz, once per start.

    Free to use both cores, as a service is; each time with a new store.
    """
    return [_one_start(bench, number) for number in range(bench.settings.starts)]


def _one_start(bench: Bench, number: int) -> float:
    cores = [bench.settings.server_core, bench.settings.client_core]
    server = Keyrack(bench, cores, label=f"start-{number}")
    begin = time.perf_counter()
    try:
        server.start()
        status, _ = wire.exchange(server.port, "GET", "/healthz")
        seconds = time.perf_counter() - begin
    finally:
        server.stop()
    if status != 200:
        raise BenchError(f"/healthz answered {status}")
    return seconds
