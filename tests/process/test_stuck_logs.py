"""A log that nobody reads: lines are dropped and counted, and no process waits for a reader."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from keyrack_server import Wire, request
from keyrack_server.server import clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILLING = 2500
"""Requests of which more is logged than anything between two processes holds."""

pytestmark = pytest.mark.timeout(90)


def pipe() -> tuple[int, int]:
    return os.pipe()


def stream() -> tuple[int, int]:
    """What systemd gives a service."""
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def terminal() -> tuple[int, int]:
    """As one is on which somebody has pressed Ctrl-S."""
    return pty.openpty()


class Unread:
    """A service whose standard error is read only when a test says so."""

    def __init__(self, made: tuple[int, int], *flags: str, workers: int = 2) -> None:
        self.reader, writer = made
        command = [sys.executable, "-m", "keyrack", "serve", "--port", "0", "--memory", "16m"]
        self.process = subprocess.Popen(
            [*command, "--workers", str(workers), *flags],
            stderr=writer, stdin=subprocess.DEVNULL, env=clean_environment(),
        )  # fmt: skip
        os.close(writer)
        self.said = b""
        self.port = self._port()

    def _port(self) -> int:
        while b"http://127.0.0.1:" not in self.said:
            self.read(10)
        return int(self.said.partition(b"http://127.0.0.1:")[2].split(b"\r")[0].split(b'"')[0])

    def read(self, seconds: float) -> bool:
        """Read what is there, or comes within the time; tell whether anything did."""
        if not select.select([self.reader], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self.reader, 1 << 16)
        except OSError:
            return False
        self.said += piece
        return bool(piece)

    def fill(self, requests: int = FILLING) -> None:
        """Ask, and be answered though nobody reads the log."""
        with Wire(self.port, 5.0) as wire:
            for _ in range(requests):
                assert wire.ask(request("GET", "/v1/keys/" + "k" * 400)).status == 404

    def workers(self) -> list[int]:
        pid = self.process.pid
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def lines(self) -> list[dict[str, Any]]:
        while self.read(0.5):
            pass
        return [json.loads(line) for line in self.said.splitlines() if line]


@pytest.fixture(params=[pipe, stream, terminal], ids=lambda one: str(one.__name__))
def unread(request: pytest.FixtureRequest) -> Iterator[Unread]:
    made: Callable[[], tuple[int, int]] = request.param
    service = Unread(made(), "--access-log")
    yield service
    service.process.kill()
    service.process.wait()
    os.close(service.reader)


def test_every_worker_goes_on_serving(unread: Unread) -> None:
    for _ in range(6):
        unread.fill(FILLING // 6)


def test_the_supervisor_goes_on_replacing_and_ends_when_told(unread: Unread) -> None:
    unread.fill()
    for _ in range(3):
        before = unread.workers()
        os.kill(before[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while len(unread.workers()) < 2 or before[0] in unread.workers():
            assert time.monotonic() < deadline, "it is not replaced"
            time.sleep(0.05)
        unread.fill(1)
    unread.process.send_signal(signal.SIGTERM)
    assert unread.process.wait(15) == 0


def test_what_was_dropped_is_told_and_counted() -> None:
    unread = Unread(pipe(), "--access-log", workers=1)
    unread.fill()
    unread.read(1.0)
    told = 0
    deadline = time.monotonic() + 30
    while not told:
        assert time.monotonic() < deadline, unread.said[-2000:]
        told = sum(one["lines"] for one in unread.lines() if one.get("event") == "log_dropped")
    accesses = sum(one["logger"] == "keyrack.access" for one in unread.lines())
    assert accesses + told == FILLING
    with Wire(unread.port) as wire:
        metrics = wire.ask(request("GET", "/metrics")).body.decode()
    assert f"\nkeyrack_log_lines_dropped_total {float(told)}\n" in metrics
    unread.process.send_signal(signal.SIGTERM)
    assert unread.process.wait(15) == 0
    os.close(unread.reader)
