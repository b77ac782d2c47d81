"""What is held for clients that send slowly or take nothing is bounded for all together."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server, Wire, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
BUDGET = 16 * MIB
VALUE = b"x" * 1_000_000
KEYS = 24
PATIENCE = 5.0
"""Seconds: what others may be held up on a machine on which other tests run."""
USED = "keyrack_client_memory_used_bytes"


@pytest.fixture(scope="module")
def seeded() -> Iterator[Server]:
    """A service with the least budget, and values of a megabyte."""
    with Server("--client-memory", "16m", workers=2) as running:
        for number in range(KEYS):
            assert running.ask("PUT", f"/v1/keys/large/{number}", VALUE).status == 201
        yield running


@pytest.fixture
def bounded(seeded: Server) -> Server:
    """The same, when nothing is held for clients of other tests any more."""
    eventually(lambda: figure(seeded, USED) == 0)
    return seeded


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def deaf(server: Server) -> socket.socket:
    """Return a connection whose client takes next to nothing."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(10)
    one.connect(("127.0.0.1", server.port))
    return one


def settled_memory(server: Server, most: float, seconds: float = 10.0) -> int:
    """Wait until the workers hold no more than `most` bytes; return what they hold."""
    deadline = time.monotonic() + seconds
    while (held := server.worker_memory()) > most and time.monotonic() < deadline:
        time.sleep(0.2)
    return held


class Neighbour:
    """Another client, who reads and writes all the time. `slowest` in seconds."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.slowest = 0.0
        self.requests = 0

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._server.connect() as wire:
            while not self._stop.is_set():
                began = time.monotonic()
                assert wire.ask(request("PUT", "/v1/keys/neighbour", b"x")).status in (201, 204)
                assert wire.ask(request("GET", "/get/neighbour")).status == 200
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.requests += 1
                time.sleep(0.005)


def figure(server: Server, name: str) -> float:
    """Return a metric."""
    text = server.ask("GET", "/metrics").body.decode()
    assert name in text, text[:300]
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


@pytest.mark.timing
def test_exports_that_nobody_reads_hold_no_more_than_the_budget(bounded: Server) -> None:
    before = bounded.worker_memory()
    pids = bounded.worker_pids()
    with contextlib.ExitStack() as stack, Neighbour(bounded) as neighbour:
        for _ in range(100):
            one = stack.enter_context(deaf(bounded))
            one.sendall(request("GET", "/v1/export"))
        time.sleep(1.5)
        held = bounded.worker_memory() - before
        assert figure(bounded, USED) <= BUDGET + len(VALUE)
    assert held < 3 * BUDGET, f"{held / MIB:.0f} MiB"
    assert neighbour.requests > 20
    assert neighbour.slowest < PATIENCE
    after = settled_memory(bounded, before * 1.5)
    assert after <= before * 1.5, f"{before / MIB:.0f}, then {after / MIB:.0f} MiB"
    assert bounded.worker_pids() == pids


@pytest.mark.timing
def test_large_answers_that_nobody_reads_hold_no_more_than_the_budget(bounded: Server) -> None:
    before = bounded.worker_memory()
    with contextlib.ExitStack() as stack, Neighbour(bounded) as neighbour:
        for number in range(200):
            one = stack.enter_context(deaf(bounded))
            path = (
                f"/v1/keys/large/{number % KEYS}" if number % 2 else f"/get/large/{number % KEYS}"
            )
            one.sendall(request("GET", path) * 4)
        time.sleep(1.5)
        held = bounded.worker_memory() - before
        assert figure(bounded, USED) <= BUDGET + len(VALUE)
        assert figure(bounded, "keyrack_client_memory_refused_total") > 0
    assert held < 3 * BUDGET, f"{held / MIB:.0f} MiB"
    assert neighbour.slowest < PATIENCE
    after = settled_memory(bounded, before * 1.5)
    assert after <= before * 1.5, f"{before / MIB:.0f}, then {after / MIB:.0f} MiB"
    eventually(lambda: figure(bounded, USED) == 0)


def test_who_takes_nothing_makes_room_for_who_does(bounded: Server) -> None:
    cut = figure(bounded, "keyrack_client_memory_cut_total")
    with contextlib.ExitStack() as stack, bounded.connect() as wire:
        for number in range(KEYS):
            one = stack.enter_context(deaf(bounded))
            one.sendall(request("GET", f"/v1/keys/large/{number}"))
        deadline = time.monotonic() + 30
        while (refused := wire.ask(request("GET", "/v1/keys/large/1"))).status == 200:
            assert time.monotonic() < deadline
        assert (refused.status, refused["retry-after"]) == (503, "1")
        assert refused.json["type"] == "/docs/problems/client-memory-full"
        assert not refused.closes
        deadline = time.monotonic() + 30
        while (answer := wire.ask(request("GET", "/v1/keys/large/1"))).status == 503:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert answer.body == VALUE
    assert figure(bounded, "keyrack_client_memory_cut_total") > cut


@pytest.mark.timing
def test_bodies_under_way_hold_no_more_than_the_budget(bounded: Server) -> None:
    before = bounded.worker_memory()
    pids = bounded.worker_pids()
    text = "y" * 900_000
    operation = f'{{"op":"set","key":"body","value":"{text}"}}'
    body = ('{"operations":[' + ",".join([operation] * 8) + "]}").encode()
    data = request("POST", "/v1/batch", body, Content_Type="application/json")
    half = len(data) // 2
    peak = 0
    statuses = []
    with contextlib.ExitStack() as stack, Neighbour(bounded) as neighbour:
        clients = [stack.enter_context(Wire(bounded.port, 20)) for _ in range(30)]
        for part in (data[:half], data[half:]):
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    client.send(part)
                peak = max(peak, bounded.worker_memory())
        for client in clients:
            with contextlib.suppress(ConnectionError):
                answer = client.answer()
                statuses.append(answer.status)
                assert answer.status == 200 or answer["retry-after"] == "1"
    assert set(statuses) == {200, 503}
    # Besides what is counted, each worker takes one body apart at a time.
    assert peak - before < BUDGET + 2 * 4 * len(data), f"{(peak - before) / MIB:.0f} MiB"
    assert neighbour.slowest < PATIENCE
    after = settled_memory(bounded, before * 1.5)
    assert after <= before * 1.5, f"{before / MIB:.0f}, then {after / MIB:.0f} MiB"
    assert bounded.worker_pids() == pids
    eventually(lambda: figure(bounded, USED) == 0)


def test_who_announces_more_than_there_is_room_for_is_refused_at_once(bounded: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            one = stack.enter_context(bounded.connect())
            one.send(request("POST", "/v1/batch", Content_Length="8000000") + b" " * 4_000_000)
        eventually(lambda: figure(bounded, USED) > 8_000_000)
        with bounded.connect() as wire:
            expecting = {"Expect": "100-continue", "Content_Length": "8000000"}
            answer = wire.ask(request("POST", "/v1/batch", **expecting))
            assert (answer.status, answer["retry-after"], answer.closes) == (503, "1", True)
        assert bounded.ask("PUT", "/v1/keys/small", b"x").status in (201, 204)


def test_the_budget_is_shown(bounded: Server) -> None:
    assert bounded.ask("GET", "/v1/info").json["client_memory"]["limit"] == BUDGET
    assert bounded.ask("GET", "/v1/limits").json["client_memory_bytes"] == BUDGET
    assert figure(bounded, "keyrack_client_memory_limit_bytes") == BUDGET
