"""More connections than there may be: each is answered and closed, and the log stays short."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from consistency.storm import until
from keyrack_server import Server, Wire, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connect = Callable[[Server, int], list[Wire]]

pytestmark = pytest.mark.timeout(60)


class Crowded(Server):
    """A server that may complain that there are too many."""

    def complaints(self) -> list:
        return [
            line
            for line in super().complaints()
            if line.get("event") not in ("turned_away", "dropped")
        ]

    def turned_away(self) -> list[str]:
        return [line["message"] for line in self.log_lines() if line.get("event") == "turned_away"]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes many connections, which are closed in the end."""
    with contextlib.ExitStack() as stack:
        yield lambda server, number: [stack.enter_context(server.connect()) for _ in range(number)]


def refused(wire: Wire) -> bool:
    """Ask for something; tell whether the answer is that there are too many."""
    answer = wire.ask(request())
    if answer.status == 200:
        return False
    assert (answer.status, answer.closes, answer["Retry-After"]) == (503, True, "1")
    assert answer.json["type"] == "/docs/problems/too-many-connections"
    assert wire.rest() == b""
    return True


@pytest.mark.parametrize("workers", [1, 3])
def test_one_too_many_is_answered_503_and_closed_while_the_others_go_on(
    workers: int, connect: Connect
) -> None:
    with Crowded("--max-connections", "20", workers=workers) as server:
        held = connect(server, 20)
        assert [refused(wire) for wire in held] == [False] * 20
        more = connect(server, 30)
        assert [refused(wire) for wire in more] == [True] * 30
        assert [refused(wire) for wire in held] == [False] * 20
        for wire in (*held[10:], *more):
            wire.close()
        until(lambda: _open(held[0]) == 10, 5, "the others are gone")
        with server.connect() as again:
            assert not refused(again)
        metrics = held[0].ask(request("GET", "/metrics")).body.decode()
        assert "keyrack_connections_refused_total 30.0" in metrics
        until(lambda: server.turned_away() != [], 5, "the log says so")
        assert len(server.turned_away()) <= workers
        assert "(--max-connections)" in server.turned_away()[0]


def _open(wire: Wire) -> int:
    metrics = wire.ask(request("GET", "/metrics")).body.decode()
    return int(float(metrics.partition("\nkeyrack_connections ")[2].partition("\n")[0]))


def test_one_too_many_that_says_nothing_is_closed_soon() -> None:
    with Crowded("--max-connections", "1") as server, server.connect() as held:
        assert not refused(held)
        with server.connect() as silent:
            began = time.monotonic()
            assert silent.rest() == b""
            assert time.monotonic() - began < 5


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_small_limit_of_open_files_is_kept_by_itself(connect: Connect) -> None:
    """The default for the connections comes from it."""
    with Crowded(workers=1, prefix=("prlimit", "--nofile=128")) as server:
        held = connect(server, 60)
        assert [refused(wire) for wire in held] == [False] * 60
        more = connect(server, 40)
        kept = [wire for wire in more if not refused(wire)]
        assert len(kept) == 128 - 48 - 2 - 60
        for wire in (*held, *more):
            wire.close()
        time.sleep(0.5)
        with server.connect() as again:
            assert not refused(again)


def test_no_descriptor_left_at_all_is_survived_without_a_busy_loop(connect: Connect) -> None:
    """Somebody takes away what the worker had counted on."""
    with Crowded(workers=1) as server:
        (worker,) = server.worker_pids()
        held = connect(server, 40)
        assert [refused(wire) for wire in held] == [False] * 40
        limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (40, limits[1]))
        waiting = connect(server, 50)
        for wire in waiting:
            wire.send(request())
        began = processor_seconds(worker)
        time.sleep(3)
        used = processor_seconds(worker) - began
        assert all(not refused(wire) for wire in held)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        until(lambda: _accepts(server), 5, "new connections are accepted again")
        for wire in (*held, *waiting):
            wire.close()
        print(f"{used:.2f} s of processor time in 3 s, {len(server.log_lines())} log lines")
        assert used < 0.3
        (line,) = [line for line in server.log_lines() if line["event"] == "dropped"]
        assert "no file can be opened (Too many open files)" in line["message"]
        assert len(server.log_lines()) < 20
        assert "Traceback" not in server.log()


def _accepts(server: Server) -> bool:
    try:
        with server.connect(1) as wire:
            return wire.ask(request()).status == 200
    except (OSError, EOFError):
        return False
