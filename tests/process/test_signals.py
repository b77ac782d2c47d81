"""What signals do to a service, from its first moment on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server
from keyrack_server.server import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

ENDS_ITSELF = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{number})

sys.meta_path.insert(0, Finder())
"""
IGNORED = ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGSTKFLT",
           "SIGXCPU", "SIGRTMIN", "SIGRTMAX")  # fmt: skip


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGQUIT"])
@pytest.mark.parametrize(
    "module",
    [
        "keyrack.cli",
        "keyrack.cli.serve",
        "keyrack.server.signals",
        "keyrack.system",
        "keyrack.server.supervisor",
        "keyrack.http",
    ],
)
def test_a_signal_to_end_while_the_service_starts_is_a_stop(
    module: str, number: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ENDS_ITSELF.format(module=module, number=number))
    environment = clean_environment()
    environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "keyrack", "serve", "--port", "0", "--memory", "16m"],
        env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr


def test_a_signal_to_end_while_the_store_is_waited_for_is_a_stop() -> None:
    """Valkey may take ten seconds to be there; nobody has to wait for that to stop."""
    pytest.importorskip("libvalkey")
    command = [sys.executable, "-m", "keyrack", "serve", "--port", "0"]
    service = subprocess.Popen(
        [*command, "--engine", "valkey://127.0.0.1:1"],
        env=clean_environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(2.5)
    assert service.poll() is None
    service.send_signal(signal.SIGTERM)
    _, told = service.communicate(timeout=5)
    assert service.returncode == 0, told
    assert "SIGTERM: the service ends before it was ready" in told


def test_signals_that_mean_nothing_end_neither_the_service_nor_a_worker() -> None:
    with Server(workers=1) as server:
        server.put("k", b"v")
        (worker,) = server.worker_pids()
        for name in IGNORED:
            number = getattr(signal, name)
            os.kill(server.process.pid, number)
            os.kill(worker, number)
        deadline = time.monotonic() + 30
        while len(ignored(server)) < len(IGNORED) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sorted(ignored(server)) == sorted(f"{name} is ignored" for name in IGNORED)
        assert server.ask("GET", "/v1/keys/k").body == b"v"
        assert server.worker_pids() == [worker]


def ignored(server: Server) -> list[str]:
    lines = server.log_lines()
    return [line["message"] for line in lines if line.get("event") == "signal_ignored"]
