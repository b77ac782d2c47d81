"""Clients that trickle, do not read, or go away: bounded in time and memory, and harmless."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server, Wire, chunked, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JSON = "application/json"
MIB = 1 << 20


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server that waits a second for everything, and two for the next request."""
    flags = (
        "--head-timeout",
        "1",
        "--body-timeout",
        "1",
        "--send-timeout",
        "1",
        "--keep-alive",
        "2",
    )
    with Server(*flags, workers=1) as running:
        yield running


def trickled(wire: Wire, data: bytes, seconds: float) -> tuple[float, bytes]:
    """Send a byte now and then until the server ends it; return when it did, and its answer."""
    began = time.monotonic()
    wire.socket.settimeout(0.1)
    for byte in data:
        if time.monotonic() - began > seconds:
            break
        try:
            wire.send(bytes((byte,)))
            answer = wire.socket.recv(1000)
        except TimeoutError:
            continue
        except ConnectionError:
            return time.monotonic() - began, b""
        return time.monotonic() - began, answer
    return time.monotonic() - began, b"still open"


def together(*jobs: Callable[[], None]) -> None:
    """Do what mostly waits at the same time."""
    failures: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.time_limits
def test_time_limits_are_for_the_whole_and_no_byte_extends_them(strict: Server) -> None:
    """A deadline of a second, looked at once a second: up to 3, and the machine is shared."""
    put = request("PUT", "/v1/keys/slow", Content_Length="200")
    chunky = request("PUT", "/v1/keys/slow", Transfer_Encoding="chunked")

    def trickle(first: bytes, data: bytes) -> Callable[[], None]:
        def job() -> None:
            with strict.connect() as wire:
                wire.send(first)
                took, answer = trickled(wire, data, 9.0)
                assert answer.startswith(b"HTTP/1.1 408 "), (first, took, answer)
                assert b"Connection: close\r\n" in answer
                assert 0.9 < took < 8.0, (first, took)

        return job

    def silent(first: bytes, delay: float) -> Callable[[], None]:
        def job() -> None:
            with strict.connect() as wire:
                time.sleep(delay)
                began = time.monotonic()
                wire.send(first)
                assert wire.answer().status == 408
                assert 0.9 < time.monotonic() - began < 9.0
                assert wire.rest() == b""

        return job

    def behind_another() -> None:
        with strict.connect() as wire:
            assert wire.ask(request()).status == 200
            wire.send(b"GET /get/a HT")
            assert wire.answer().status == 408

    together(
        trickle(b"G", b"ET /" + b"x" * 100),
        trickle(b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-Y: " + b"z" * 100),
        trickle(put, b"v" * 100),
        trickle(chunky, b"1\r\nx\r\n" * 30),
        trickle(chunky + b"1;", b"e" * 100),
        trickle(chunky + b"1\r\nx\r\n0\r\n", b"T: " + b"t" * 100),
        *(silent(b"GET", delay / 10) for delay in range(10)),
        silent(b"GET / HTTP/1.1\r\nHost: x\r\n", 0.0),
        *(silent(put, delay / 10) for delay in range(10)),
        silent(put + b"v" * 199, 0.0),
        behind_another,
    )
    assert not strict.has("slow")


@pytest.mark.time_limits
def test_a_connection_that_is_not_used_is_closed_in_time(strict: Server) -> None:
    def unused(first: bytes) -> Callable[[], None]:
        def job() -> None:
            with strict.connect() as wire:
                if first:
                    assert wire.ask(first).status in (200, 404)
                began = time.monotonic()
                assert wire.rest() == b""
                assert 1.8 < time.monotonic() - began < 9.0

        return job

    def used() -> None:
        with strict.connect() as wire:
            for _ in range(7):
                assert wire.ask(request("GET", "/get/a")).status == 404
                time.sleep(0.5)

    together(unused(b""), unused(request()), unused(request("GET", "/readyz")), used)


def test_an_idle_connection_outlives_what_proxies_keep_theirs_for(server: Server) -> None:
    limits = server.ask("GET", "/v1/limits").json
    assert limits["keep_alive_seconds"] > 75
    with server.connect() as wire:
        assert wire.ask(request()).status == 200
        assert wire.nothing_comes(2.5)
        assert wire.ask(request()).status == 200


# Clients that do not read


@pytest.mark.timing
def test_a_client_that_does_not_read_costs_little_and_holds_up_nobody(server: Server) -> None:
    server.put("large", b"x" * MIB, Content_Type="a/b")
    with server.connect() as deaf, server.connect() as other:
        other.ask(request("GET", "/v1/keys/large"))
        before = server.worker_memory()
        deaf.send(request("GET", "/v1/keys/large") * 200)
        slowest, grown = 0.0, 0
        for number in range(200):
            began = time.monotonic()
            assert other.ask(request("PUT", "/v1/keys/other", b"%d" % number)).status in (201, 204)
            slowest = max(slowest, time.monotonic() - began)
            grown = max(grown, server.worker_memory() - before)
        assert grown < 20 * MIB
        assert slowest < 1.0
        # It reads after all: nothing is lost.
        for _ in range(200):
            assert len(deaf.answer().body) == MIB


@pytest.mark.time_limits
def test_a_client_that_does_not_read_is_not_read_from(server: Server) -> None:
    """What it sends waits in the kernel: sending stops to be possible."""
    server.put("large", b"x" * MIB, Content_Type="a/b")
    before = server.worker_memory()
    with server.connect() as deaf:
        deaf.socket.settimeout(0.5)
        sent, one = 0, request("GET", "/v1/keys/large", X="y" * 2000)
        with contextlib.suppress(TimeoutError):
            while sent < 200 * MIB:
                sent += deaf.socket.send(one)
        assert sent < 30 * MIB
        assert server.worker_memory() - before < 20 * MIB


@pytest.mark.time_limits
@pytest.mark.parametrize("target", ["/v1/keys/large", "/get/large"])
def test_a_client_that_never_reads_is_let_go(strict: Server, target: str) -> None:
    strict.put("large", b"x" * MIB)
    with strict.connect() as deaf:
        deaf.send(request("GET", target) * 20)
        time.sleep(3.5)
        received = len(deaf.rest())
        assert received < 18 * MIB


def test_a_slow_reader_that_reads_gets_everything(strict: Server) -> None:
    strict.put("large", bytes(range(256)) * 4096, Content_Type="a/b")
    with strict.connect() as wire:
        wire.send(request("GET", "/v1/keys/large") * 8 + request("GET", "/readyz") * 3)
        for _ in range(8):
            time.sleep(0.3)
            assert wire.answer().body == bytes(range(256)) * 4096
        assert [wire.answer().status for _ in range(3)] == [200] * 3


# Clients that go away


def everything(key: str) -> list[bytes]:
    body = f'{{"key":"{key}","value":"x"}}'.encode()
    return [
        request("POST", "/set", body, Content_Type=JSON),
        request("GET", f"/get/{key}"),
        request("PUT", f"/v1/keys/{key}", Transfer_Encoding="chunked") + chunked(b"ab", b"c"),
        request("GET", "/readyz"),
        request("PUT", f"/v1/keys/{key}", b"x", Expect="100-continue"),
        request("DELETE", f"/v1/keys/{key}"),
    ]


@pytest.mark.parametrize("ending", ["close", "reset", "half close"])
def test_a_client_may_go_away_at_any_byte_of_its_request(
    server: Server, key: str, ending: str
) -> None:
    for one in everything(key):
        for size in range(len(one) + 1):
            wire = server.connect()
            wire.send(one[:size])
            leave(wire, ending)
    assert server.complaints() == []
    assert server.ask("GET", "/healthz").status == 200


def leave(wire: Wire, ending: str) -> None:
    if ending == "half close":
        wire.half_close()
    if ending == "reset":
        wire.reset()
    else:
        wire.close()


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_client_may_go_away_at_any_byte_of_its_answers(
    server: Server, key: str, ending: str
) -> None:
    data = b"".join(everything(key)) + request("GET", "/v1/limits") + request("GET", f"/get/{key}")
    with server.connect() as wire:
        whole = len(wire.send(data).half_close().rest())
    for size in range(0, whole, 5):
        wire = server.connect()
        wire.send(data)
        left = size
        while left and (got := wire.socket.recv(left)):
            left -= len(got)
        leave(wire, ending)
    assert server.complaints() == []
    assert server.ask("GET", "/healthz").status == 200


def test_clients_that_vanish_with_writes_under_way_take_no_other_answer_with_them(
    server: Server, key: str
) -> None:
    """Writes of many connections are done together; those of lost ones are just not answered."""
    source = random.Random(7)
    put = request("PUT", f"/v1/keys/{key}", b"x")
    body = f'{{"key":"{key}","value":"x"}}'.encode()
    hot = request("POST", "/set", body, Content_Type=JSON)
    wide = request("GET", "/readyz")
    for _ in range(60):
        wires = [server.connect() for _ in range(12)]
        lost = source.sample(range(12), 6)
        for number, wire in enumerate(wires):
            wire.send(source.choice((put, hot, put + wide + put, hot + hot + wide + hot)))
            if number in lost:
                wire.reset()
        for number, wire in enumerate(wires):
            if number not in lost:
                assert wire.answer().status in (200, 201, 204)
                wire.close()
    assert server.complaints() == []


def test_connections_that_ended_are_forgotten(server: Server) -> None:
    def opened() -> float:
        text = server.ask("GET", "/metrics").body.decode()
        return float(text.split("\nkeyrack_connections ")[1].split("\n")[0])

    # The one that asks is counted.
    deadline = time.monotonic() + 30
    while opened() > 1.0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert opened() == 1.0


def test_requests_under_way_are_answered_when_the_service_ends(key: str) -> None:
    with Server(workers=1) as ending:
        idle, busy = ending.connect(), ending.connect()
        assert idle.ask(request()).status == 200
        busy.send(request("PUT", f"/v1/keys/{key}", Content_Length="5") + b"va")
        time.sleep(0.2)
        ending.tell_to_end()
        assert idle.rest() == b""
        busy.send(b"lue")
        answer = busy.answer()
        assert (answer.status, answer.closes) == (201, True)
        assert busy.rest() == b""
        idle.close()
        busy.close()
