"""Hours of churn, in short: memory stays, the store keeps its limit, nobody is left behind.

wrk works at the service with all it has for four fifths of the time, with values of all sizes that
end, are overwritten, deleted and evicted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import lmdb
import pytest
from consistency.storm import ROUNDS, Service, audit, store

from faults.load import Load, PlainClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack_server import Server

SECONDS = 120 * ROUNDS
MEMORY = 64 << 20
LOAD = Path(__file__).with_name("churn.lua")
ON, OFF = 4, 1
"""Seconds of load, and of rest after it."""
_WARM_UP = 0.2
"""The part of the time before memory is compared."""
_DRIFT = 0.02
_FILE_SYSTEM_SLACK = 1.05
_PATIENCE = 20
"""Seconds that a request may take."""


class Sample(NamedTuple):
    """What was seen at one moment, in bytes."""

    resident: int
    """Of all processes of the service, the store counted once."""
    private: int
    """Of all workers, without the store."""
    held: int
    """What the store takes of its file system."""


def serving(directory: str) -> Service:
    """Serve from a store that evicts when it is full."""
    flags = ("--store", directory, "--when-full", "evict")
    return Service(*flags, workers=2, memory=str(MEMORY))


def sample(server: Server, directory: str) -> Sample:
    """Look at it from outside."""
    held = sum(entry.stat().st_blocks * 512 for entry in os.scandir(directory))
    private = server.worker_memory()
    return Sample(private + held, private, held)


def stale_readers(server: Server, directory: str) -> set[int]:
    """Return the processes in the store's table of readers that are no workers."""
    options = {"max_dbs": 5, "max_readers": 1022, "create": False, "lib_version": 0}
    with lmdb.open(directory, **options) as environment:
        lines = environment.readers().splitlines()[1:]
    return {int(line.split()[0]) for line in lines} - {os.getpid(), *server.worker_pids()}


@contextlib.contextmanager
def load(server: Server) -> Iterator[None]:
    """Have wrk at work while the block lasts; no connection may break.

    Whether answers come in time is for plain clients to say: wrk counts what it reads late itself.
    """
    tool = ["wrk", "-t1", "-c16", f"-d{ON}", "--timeout", f"{_PATIENCE}", "-s", str(LOAD)]
    command = [*tool, f"http://127.0.0.1:{server.port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield
            said, _ = running.communicate(timeout=ON + 2 * _PATIENCE)
        finally:
            running.kill()
    assert "Socket errors" not in said, said
    assert "requests in" in said, said


def total(server: Server, name: str) -> int:
    """Return a counter of the service."""
    metrics = server.ask("GET", "/metrics").body.decode()
    lines = (line for line in metrics.splitlines() if line.startswith(name))
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def drift(values: list[int]) -> float:
    """Return by how much the last quarter is above the first after the warm-up, as a part of it."""
    settled = values[int(len(values) * _WARM_UP) :]
    quarter = max(1, len(settled) // 4)
    first, last = statistics.median(settled[:quarter]), statistics.median(settled[-quarter:])
    return last / first - 1


@pytest.mark.timeout(SECONDS + 120)
def test_memory_stays_where_it_is_under_churn() -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed: apt-get install wrk")
    samples: list[Sample] = []
    stale: set[int] = set()
    with store() as directory:
        with serving(directory) as server:
            pids = server.worker_pids()
            over = time.monotonic() + SECONDS
            clients = [PlainClient(server, one, pauses=(0.05,), forgets=True) for one in range(4)]
            with Load(*clients) as plain:
                while time.monotonic() < over:
                    with load(server):
                        time.sleep(ON / 2)
                        samples.append(sample(server, directory))
                        stale |= stale_readers(server, directory)
                    time.sleep(OFF)
            assert plain.failures == []
            slowest = plain.latencies()[-1]
            assert server.worker_pids() == pids
            # That it evicts is told once a minute; nothing else happens that is worth a line.
            told = [line["event"] for line in server.log_lines()]
            assert set(told) <= {"ready", "store_evicts", "store_full"}, server.log()
            expired = total(server, "keyrack_keys_expired_total")
            requests = total(server, "keyrack_http_requests_total")
            evicted = total(server, "keyrack_keys_evicted_total")
            full = total(server, 'keyrack_http_requests_total{code="507"')
        assert audit(directory) == []
    resident, private = (
        drift([getattr(one, name) for one in samples]) for name in Sample._fields[:2]
    )
    most = max(one.held for one in samples)
    print(f"\n{SECONDS} s: {requests} requests, {expired} keys ended, {evicted} evicted, ", end="")
    print(f"{full} answers 507; of {plain.requests} plain requests the slowest {slowest:.2f} s")
    print(f"resident {samples[-1].resident / 1e6:.1f} MB, drift {resident:+.2%}; ", end="")
    print(f"without the store {samples[-1].private / 1e6:.1f} MB, drift {private:+.2%}; ", end="")
    print(f"the store held {most / MEMORY:.1%} of its limit at most")
    assert expired > 20 * SECONDS
    assert evicted > 20 * SECONDS
    assert full == 0
    assert stale == set()
    assert most <= MEMORY * _FILE_SYSTEM_SLACK
    assert resident < _DRIFT
    assert private < _DRIFT
