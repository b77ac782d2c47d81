"""A worker that lives and does not work is killed and replaced, and `/healthz` tells the truth."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import lmdb
import pytest
from consistency.storm import until
from keyrack_server import Server, request

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(60)

PATIENCE = ("--worker-timeout", "2")


class Troubled(Server):
    """A server in which workers are expected to be killed for being stuck."""

    def complaints(self) -> list:
        return [
            line
            for line in super().complaints()
            if line.get("event") not in ("worker_stuck", "worker_ended")
        ]

    def stuck(self) -> list[int]:
        """Return the process ids of the workers that were killed for it."""
        return [line["worker_pid"] for line in self.log_lines() if line["event"] == "worker_stuck"]

    def is_well(self) -> bool:
        """Tell whether one that answers says that all is well."""
        return self.ask("GET", "/healthz").status == 200


@pytest.fixture
def server() -> Iterator[Troubled]:
    with Troubled(*PATIENCE, workers=2) as running:
        yield running


def test_a_stopped_worker_is_killed_and_replaced(server: Troubled) -> None:
    first, second = server.worker_pids()
    os.kill(first, signal.SIGSTOP)
    took = until(lambda: server.stuck() == [first], 6, "it is killed")
    assert took > 1.5
    until(lambda: len(set(server.worker_pids()) - {first, second}) == 1, 3, "it is replaced")
    (line,) = [line for line in server.log_lines() if line["event"] == "worker_stuck"]
    assert "(it was stopped by a signal): it is killed" in line["message"]
    until(lambda: server.ask("GET", "/v1/info").json["workers"] == 2, 5, "both serve")
    assert second in server.worker_pids()


@pytest.fixture
def locked() -> Iterator[Troubled]:
    """A server of three workers that all wait for the store's write lock, which this test has."""
    with Troubled(*PATIENCE, workers=3) as server, contextlib.ExitStack() as stack:
        (directory,) = {line["store"] for line in server.log_lines() if "store" in line}
        options = {"max_dbs": 5, "map_size": 120 << 20, "writemap": True, "lib_version": 0}
        store = stack.enter_context(lmdb.open(directory, **options))
        holding = store.begin(write=True)
        wires = [stack.enter_context(server.connect()) for _ in range(30)]
        for wire in wires:
            wire.send(request("PUT", "/v1/keys/k", b"v"))
        yield server
        holding.abort()
        until(lambda: server.ask("PUT", "/v1/keys/k", b"w").status in (201, 204), 5, "all goes on")


def test_of_workers_that_wait_for_each_other_one_is_killed_at_a_time(locked: Troubled) -> None:
    until(lambda: locked.stuck() != [], 6, "one is killed")
    time.sleep(1)
    assert len(locked.stuck()) == 1
    until(lambda: len(locked.stuck()) == 2, 3, "then the next one")


def test_a_stopped_worker_is_the_first_to_be_suspected(locked: Troubled) -> None:
    time.sleep(1)
    stopped = locked.worker_pids()[2]
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: locked.stuck() != [], 6, "one is killed")
    assert locked.stuck() == [stopped]


def test_a_stopped_service_that_goes_on_kills_nobody(server: Troubled) -> None:
    pids = [server.process.pid, *server.worker_pids()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.5)
    assert server.stuck() == []
    assert server.is_well()
    assert server.worker_pids() == pids[1:]


def test_workers_that_go_on_after_a_while_are_left_alone(server: Troubled) -> None:
    pids = server.worker_pids()
    for _ in range(3):
        os.kill(pids[0], signal.SIGSTOP)
        time.sleep(1)
        os.kill(pids[0], signal.SIGCONT)
        time.sleep(1)
    assert server.worker_pids() == pids


def test_a_stopped_supervisor_is_told_by_healthz(server: Troubled) -> None:
    assert server.is_well()
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        until(lambda: not any(server.is_well() for _ in range(10)), 8, "all workers tell")
        problem = server.ask("GET", "/healthz")
        assert problem.status == 503
        assert "the supervisor has given no sign of life for" in problem.json["detail"]
        assert problem["Retry-After"] == "1"
        assert server.ask("PUT", "/v1/keys/k", b"v").status in (201, 204)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    until(lambda: all(server.is_well() for _ in range(10)), 3, "all tell that it is over")


def test_without_a_limit_a_stopped_worker_stays() -> None:
    with Server("--worker-timeout", "0", workers=2) as server:
        pids = server.worker_pids()
        os.kill(pids[0], signal.SIGSTOP)
        time.sleep(3)
        os.kill(pids[0], signal.SIGCONT)
        assert server.worker_pids() == pids
