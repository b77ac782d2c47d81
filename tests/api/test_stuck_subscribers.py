"""Watchers that never read cost a writer next to nothing, however long they stay."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from api_support import Client, Watch
from keyrack_server import Server, request

if TYPE_CHECKING:
    from collections.abc import Iterator

STUCK = 300
WRITES = 1500
LONG = "k" * 400
"""Its events fill the connections of those that do not read."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--send-timeout", "3600", "--max-connections", "2000", workers=1) as running:
        yield running


def worker_cpu(server: Server) -> float:
    """Return the seconds of processor time that the worker has taken."""
    main = server.process.pid
    (worker,) = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return int(Path(f"/proc/{worker}/schedstat").read_text().split()[0]) / 1e9


def cpu_of_writes(server: Server, client: Client, number: int = WRITES) -> float:
    """Return the processor time of a worker for a write (s), writes one after the other."""
    before = worker_cpu(server)
    for turn in range(number):
        client.put(f"{LONG}{turn % 10}")
    return (worker_cpu(server) - before) / number


@contextlib.contextmanager
def never_reading(server: Server, number: int) -> Iterator[None]:
    """Have so many watch, none of whom reads."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", server.port))
            one.sendall(request("GET", "/v1/watch"))
        yield


@pytest.mark.timing
def test_a_writer_is_not_slowed_by_watchers_that_never_read(server: Server) -> None:
    """At least 80 % of the rate without them, once what may wait for each is full."""
    with Client(server) as client:
        cpu_of_writes(server, client)
        alone = [cpu_of_writes(server, client) for _ in range(3)]
        with never_reading(server, STUCK):
            cpu_of_writes(server, client, 3000)
            beside = [cpu_of_writes(server, client) for _ in range(5)]
        # Once more without them: a machine that became slower meanwhile is not their fault.
        alone += [cpu_of_writes(server, client) for _ in range(3)]
    # The last of them: it must not get worse with time either.
    assert min(beside[2:]) <= 1.25 * max(alone), (alone, beside)


def test_one_that_reads_again_is_told_all_that_it_missed(server: Server) -> None:
    with Client(server) as client, Watch(server, "?prefix=stuck/") as watch:
        watch.synced()
        with never_reading(server, 20):
            for number in range(3000):
                client.put(f"stuck/{LONG}{number}")
            keys = [message.data["key"] for message in watch.changes(3000)]
            assert keys == [f"stuck/{LONG}{number}" for number in range(3000)]


def test_they_leave_nothing_behind_when_they_go(server: Server) -> None:
    with Client(server) as client:
        with never_reading(server, 50):
            cpu_of_writes(server, client, 2000)
        with Watch(server, "?prefix=afterwards") as watch:
            watch.synced()
            client.put("afterwards")
            assert watch.next().data["key"] == "afterwards"
