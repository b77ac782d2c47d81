"""Large bodies, of which the service reads the rest past its parser."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from keyrack_server import ON_VALKEY, Server, Wire, chunked, request

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1 << 10
FILLED = 600 * KIB
"""So long that some of it is missing when the first piece was read."""
USED = "keyrack_client_memory_used_bytes "


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """A service that waits a second for a body."""
    with Server("--body-timeout", "1", workers=1) as running:
        yield running


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def put(key: str, value: bytes) -> bytes:
    return request("PUT", f"/v1/keys/{key}", value, Content_Type="application/octet-stream")


def held(server: Server) -> int:
    metrics = server.ask("GET", "/metrics").body.decode()
    (line,) = [line for line in metrics.splitlines() if line.startswith(USED)]
    return int(float(line.split()[1]))


def nothing_is_held(server: Server) -> None:
    deadline = time.monotonic() + 20
    while held(server):
        assert time.monotonic() < deadline, f"{held(server)} bytes are still held"
        time.sleep(0.05)


@pytest.mark.parametrize("size", [256 * KIB, 257 * KIB, 300 * KIB, FILLED, 1 << 20])
@pytest.mark.parametrize("first", [0, 1, 70 * KIB])
def test_a_value_is_stored_as_it_was_sent(wire: Wire, key: str, size: int, first: int) -> None:
    value = noise(size)
    message = put(key, value)
    head = len(message) - size
    wire.send_pieces(message[: head + first], message[head + first :], pause=0.05)
    assert wire.answer().status == 201
    assert wire.ask(request("GET", f"/v1/keys/{key}")).body == value


def test_a_value_may_come_in_many_pieces(wire: Wire, key: str) -> None:
    message = put(key, noise(FILLED))
    cut = sorted(random.Random(2).sample(range(1, len(message)), 12))
    pieces = [message[a:b] for a, b in zip([0, *cut], [*cut, len(message)], strict=True)]
    wire.send_pieces(*pieces, pause=0.01)
    assert wire.answer().status == 201
    assert wire.ask(request("GET", f"/v1/keys/{key}")).body == noise(FILLED)


def test_what_follows_is_read_as_the_next_requests(wire: Wire, key: str) -> None:
    values = [noise(FILLED, seed) for seed in range(3)]
    read = request("GET", f"/v1/keys/{key}")
    wire.send(b"".join(put(key, value) + read + read for value in values))
    for number, value in enumerate(values):
        assert wire.answer().status == (204 if number else 201)
        assert wire.answer().body == value
        assert wire.answer().body == value


def test_a_body_that_is_not_a_value_is_read_so_as_well(wire: Wire, key: str) -> None:
    operations = [{"op": "set", "key": f"{key}{n}", "value": "v" * 700} for n in range(900)]
    body = json.dumps({"operations": operations}).encode()
    answer = wire.ask(request("POST", "/v1/batch", body, Content_Type="application/json"))
    assert (answer.status, len(answer.json["results"])) == (200, 900)
    assert wire.ask(request("GET", f"/v1/keys/{key}899")).body == b"v" * 700


def test_a_client_that_waits_to_be_asked_is_asked(wire: Wire, key: str) -> None:
    message = request("PUT", f"/v1/keys/{key}", noise(FILLED), Expect="100-continue")
    wire.send(message[:-FILLED])
    assert wire.answer().status == 100
    wire.send(message[-FILLED:])
    assert wire.answer().status == 201


def test_one_that_stops_in_the_middle_is_told_so(hasty: Server, key: str) -> None:
    with hasty.connect() as wire:
        wire.send(put(key, noise(FILLED))[: 100 * KIB])
        answer = wire.answer()
        assert (answer.status, answer.closes) == (408, True)
        # What still comes is no request.
        wire.send(noise(10 * KIB))
        assert wire.rest() == b""
    assert not hasty.has(key)
    nothing_is_held(hasty)


@pytest.mark.parametrize("sent", [70 * KIB, FILLED - 1])
def test_one_that_goes_in_the_middle_leaves_nothing(server: Server, key: str, sent: int) -> None:
    message = put(key, noise(FILLED))
    for reset in (False, True):
        with server.connect() as wire:
            wire.send(message[: len(message) - FILLED + sent])
            time.sleep(0.05)
            if reset:
                wire.reset()
    nothing_is_held(server)
    assert not server.has(key)
    assert server.complaints() == []


def test_a_closed_sending_side_ends_a_body_that_is_not_whole(wire: Wire, key: str) -> None:
    wire.send(put(key, noise(FILLED))[: 100 * KIB]).half_close()
    assert wire.rest() == b""


def test_the_room_for_all_of_it_is_counted_when_it_begins(server: Server, key: str) -> None:
    with server.connect() as wire:
        message = put(key, noise(1 << 20))
        wire.send(message[: 80 * KIB])
        deadline = time.monotonic() + 20
        while held(server) < 1 << 20:
            assert time.monotonic() < deadline, f"{held(server)} bytes are held"
            time.sleep(0.05)
        wire.send(message[80 * KIB :])
        assert wire.answer().status == 201
    nothing_is_held(server)


# Bodies of many megabytes, of which no room is taken before they come

LONG = 32 << 20


@pytest.fixture(scope="module")
def roomy() -> Iterator[Server]:
    """A service that takes long values."""
    with Server("--max-value", "40m", workers=1, memory="256m") as running:
        yield running


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_long_value_is_stored_as_it_was_sent(roomy: Server, is_chunked: bool) -> None:
    value = noise(10 << 20)
    with roomy.connect(60) as wire:
        message = put("long", value)
        if is_chunked:
            pieces = (value[start : start + 100_000] for start in range(0, len(value), 100_000))
            body = chunked(*pieces)
            message = request("PUT", "/v1/keys/long", body, Transfer_Encoding="chunked")
        read = request("GET", "/v1/keys/long")
        wire.send(message + read + put("short", b"behind it") + request("GET", "/v1/keys/short"))
        assert wire.answer().status in (201, 204)
        assert wire.answer().body == value
        assert wire.answer().status in (201, 204)
        assert wire.answer().body == b"behind it"


@pytest.mark.skipif(ON_VALKEY, reason="a command to Valkey holds the value as well")
def test_a_long_body_is_held_once() -> None:
    """A second copy, for however short a time, is memory that no limit counts."""
    refused = put("there", noise(LONG)).replace(b"\r\n", b"\r\nIf-None-Match: *\r\n", 1)
    with Server("--max-value", "40m", workers=1) as server, server.connect(60) as wire:
        server.put("there", b"value")
        (pid,) = server.worker_pids()
        before = memory_of(pid, "VmRSS")
        assert wire.ask(refused).status == 412
        assert LONG < memory_of(pid, "VmHWM") - before < 1.6 * LONG


def memory_of(pid: int, name: str) -> int:
    """Return a figure of a process's memory, in bytes."""
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith(f"{name}:")
    ]
    return int(line.split()[1]) * KIB
