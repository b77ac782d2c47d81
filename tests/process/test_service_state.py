"""What a service says of itself as a whole: its age, and why it is not well."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(60)


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def end(server: Server) -> None:
    server.tell_to_end()
    assert server.process.wait(15) == 0


def test_info_tells_the_age_of_the_service_and_not_of_a_worker() -> None:
    server = Server(workers=1)
    time.sleep(1.5)
    before = server.ask("GET", "/v1/info").json["uptime_seconds"]
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    until(lambda: server.worker_pids() not in ([], [worker]), "it is replaced")
    after = server.ask("GET", "/v1/info").json["uptime_seconds"]
    assert 1.0 < before < after
    end(server)


def test_probes_say_what_is_wrong_with_the_service() -> None:
    server = Server("--worker-timeout", "1", "--drain-delay", "5", workers=1)
    os.kill(server.process.pid, signal.SIGSTOP)
    until(lambda: server.ask("GET", "/healthz").status == 503, "it is noticed")
    answer = server.ask("GET", "/healthz")
    os.kill(server.process.pid, signal.SIGCONT)
    assert answer.json["title"] == "The service does not work as it should"
    assert "the supervisor has given no sign of life" in answer.json["detail"]
    server.tell_to_end()
    until(lambda: server.ask("GET", "/readyz").status == 503, "it drains")
    assert server.ask("GET", "/readyz").json["title"] == "The service is about to end"
    assert server.process.wait(20) == 0
