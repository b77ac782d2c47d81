"""The supervisor with stand-ins for workers, each in a process of its own (see stand_in.py)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import keyrack

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)

SCRIPT = Path(__file__).with_name("stand_in.py")
SOURCE = Path(keyrack.__file__).parents[1]


class Service:
    """A running supervisor and what it told so far."""

    def __init__(self, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        self.told: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(SCRIPT), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            start_new_session=True,
        )

    def wait_for(self, message: str) -> dict[str, Any]:
        """Return the next record with that message."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told.append(json.loads(line))
            if self.told[-1]["message"] == message:
                return self.told[-1]
        raise AssertionError(f"never said {message!r}: {self.told}")

    def ready(self) -> list[int]:
        """Wait until it is ready and return the workers' process ids, by slot."""
        self.address = urlsplit(self.wait_for("ready")["urls"][0])
        started = sorted((one["slot"], one["pid"]) for one in self.all("started"))
        return [pid for _, pid in started]

    def all(self, message: str) -> list[dict[str, Any]]:
        return [one for one in self.told if one["message"] == message]

    def connect(self) -> socket.socket:
        return socket.create_connection((self.address.hostname, self.address.port), timeout=10)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, read all that is told, and return the exit code."""
        self.process.send_signal(number)
        return self.rest()

    def rest(self) -> int:
        """Read all that is told until the end, and return the exit code."""
        assert self.process.stderr is not None
        self.told += map(json.loads, self.process.stderr)
        return self.process.wait(10)

    def close(self) -> None:
        """Make sure that nothing is left, also when a test failed half-way."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def is_running(pid: int) -> bool:
    """Tell whether a process exists and has not ended; one that has no parent counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.fixture
def start() -> Iterator[Any]:
    services: list[Service] = []

    def start(*arguments: str, prefix: tuple[str, ...] = ()) -> Service:
        services.append(Service(*arguments, prefix=prefix))
        return services[-1]

    yield start
    for service in services:
        service.close()


# Replacing


def test_a_killed_worker_is_replaced_at_once_and_the_others_stay(start: Any) -> None:
    service = start("serve", "2")
    first, second = service.ready()
    killed = time.monotonic()
    os.kill(first, signal.SIGKILL)
    ended = service.wait_for("worker 0 was killed by SIGKILL; it is replaced")
    replaced = service.wait_for("started")
    assert time.monotonic() - killed < 10
    assert (ended["level"], ended["worker_pid"]) == ("warning", first)
    assert "when memory runs out" in ended["hint"]
    assert 0 <= ended["seconds"] < 10
    assert (replaced["slot"], replaced["life"]) == (0, 2)
    assert is_running(second)
    assert service.end() == 0


def test_a_connection_that_waits_for_a_killed_worker_is_answered_by_the_next(start: Any) -> None:
    service = start("deaf_at_first", "1")
    (deaf,) = service.ready()
    with service.connect() as client:
        os.kill(deaf, signal.SIGKILL)
        replaced = service.wait_for("started")
        assert client.recv(100) == b"%d" % replaced["pid"]


def test_a_worker_that_was_told_to_end_by_someone_else_is_replaced(start: Any) -> None:
    service = start("serve", "1")
    (worker,) = service.ready()
    os.kill(worker, signal.SIGTERM)
    ended = service.wait_for("worker 0 ended with exit status 0; it is replaced")
    assert ended["level"] == "info"
    assert service.wait_for("started")["life"] == 2


@pytest.mark.time_limits
def test_a_worker_that_keeps_dying_is_replaced_more_and_more_slowly(start: Any) -> None:
    service = start("ailing", "1")
    service.ready()
    began = time.monotonic()
    while len(service.all("started")) < 6:
        service.wait_for("started")
    # No delay after the first death, then 0.05, 0.1, 0.2, 0.2 (the longest).
    assert 0.5 < time.monotonic() - began < 20
    assert service.end() == 0


def test_a_worker_in_a_loop_without_end_is_killed_and_replaced(start: Any) -> None:
    service = start("looping", "1", "8", "1")
    (worker,) = service.ready()
    service.wait_for("worker 0 was killed by SIGKILL; it is replaced")
    stuck, ended = service.told[-2:]
    assert "hint" not in ended
    assert (stuck["level"], stuck["worker_pid"]) == ("error", worker)
    assert "(it is busy): it is killed" in stuck["message"]
    assert service.wait_for("started")["life"] == 2
    time.sleep(3)
    assert service.end() == 0
    assert len(service.all("started")) == 2


# Starting


def test_a_service_whose_workers_end_at_once_ends_too(start: Any) -> None:
    service = start("broken", "1")
    assert service.rest() == 1
    assert len(service.all("started")) == 3
    failed = service.all("worker 0 failed: RuntimeError: this worker is broken")
    assert "stand_in.py" in failed[0]["exception"]
    assert service.told[-1]["level"] == "error"
    assert "end as soon as they are started" in service.told[-1]["message"]


def test_a_service_that_never_gets_ready_ends(start: Any) -> None:
    service = start("silent", "2")
    assert service.rest() == 1
    assert service.told[-1]["message"] == "no worker got ready within 0.5 seconds"
    assert not any(is_running(one["pid"]) for one in service.all("started"))


# Ending


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_after_draining(start: Any, number: signal.Signals) -> None:
    service = start("serve", "2")
    workers = service.ready()
    assert service.end(number) == 0
    told = service.all("told to end")
    assert [one["draining"] for one in told] == [True, True]
    assert [one["numbers"] for one in told] == [[signal.SIGTERM]] * 2
    assert not any(map(is_running, workers))
    with pytest.raises(ConnectionRefusedError):
        service.connect()


def test_ctrl_c_on_a_terminal_reaches_the_workers_only_once(start: Any) -> None:
    service = start("serve", "2")
    service.ready()
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.rest() == 0
    assert [one["numbers"] for one in service.all("told to end")] == [[signal.SIGTERM]] * 2


@pytest.mark.time_limits
def test_workers_that_do_not_end_are_killed_when_their_time_is_up(start: Any) -> None:
    service = start("stubborn", "2", "1")
    workers = service.ready()
    began = time.monotonic()
    assert service.end() == 0
    assert 1.0 < time.monotonic() - began < 15
    assert "they are cut off" in service.told[-2]["message"]
    assert not any(map(is_running, workers))


@pytest.mark.time_limits
def test_a_second_signal_kills_the_workers_and_is_exit_code_1(start: Any) -> None:
    service = start("stubborn", "2")
    workers = service.ready()
    service.process.send_signal(signal.SIGTERM)
    service.wait_for("SIGTERM: the service ends")
    began = time.monotonic()
    assert service.end(signal.SIGINT) == 1
    assert time.monotonic() - began < 10
    assert not any(map(is_running, workers))


def test_a_signal_before_the_service_is_ready_ends_it(start: Any) -> None:
    service = start("silent", "1")
    service.wait_for("started")
    assert service.end() == 0


def test_a_hang_up_is_ignored_by_all(start: Any) -> None:
    service = start("serve", "1")
    (worker,) = service.ready()
    os.killpg(service.process.pid, signal.SIGHUP)
    service.wait_for("SIGHUP is ignored; settings change with a restart")
    with service.connect() as client:
        assert client.recv(100) == b"%d" % worker
    assert service.end() == 0
    assert len(service.all("started")) == 1


def test_workers_end_when_the_supervisor_is_killed(start: Any) -> None:
    service = start("serve", "2")
    service.ready()
    assert service.end(signal.SIGKILL) == -signal.SIGKILL
    assert [one["end"] for one in service.all("lifeline")] == [True, True]


# Process 1


def can_make_process_1() -> str | None:
    """Return why no process 1 can be made here, None if one can."""
    if shutil.which("unshare") is None:
        return "the program unshare is not installed"
    command = ["unshare", "-p", "-f", "--mount-proc", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"unshare is not allowed: {done.stderr.strip()}"


def test_as_process_1_it_collects_orphans_and_ends_on_a_signal(start: Any) -> None:
    if (reason := can_make_process_1()) is not None:
        pytest.skip(reason)
    service = start("parent", "1", prefix=("unshare", "-p", "-f", "--mount-proc"))
    orphans = service.wait_for("orphans")
    assert (orphans["supervisor"], orphans["zombies"]) == (1, 0)
    assert service.wait_for("ready")["pid"] == 1
    outside = service.process.pid
    (supervisor,) = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
    os.kill(int(supervisor), signal.SIGTERM)
    assert service.rest() == 0
    assert service.told[-1]["message"] == "the service has ended"
