"""Each answer goes to the request that it belongs to, whatever happens around it."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server, parse, request

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 20
REQUESTS = 2000


def echoing(source: random.Random, client: int, number: int) -> tuple[bytes, bytes]:
    """Return a request, and what only its own answer contains."""
    name = f"c{client}.n{number}."
    match source.randrange(8):
        case 0 | 1:
            # Its key is in the answer.
            return request("GET", f"/get/shared-{client % 5}"), f"shared-{client % 5}".encode()
        case 2:
            return request("GET", f"/v1/keys/own-{client}"), f"value of {client}".encode()
        case 3:
            target = f"/v1/keys/{name}?{name}=1"
            return request("GET", target), name.encode()
        case 4:
            # By way of the wide lane.
            return request("GET", f"/v1/events/{name}"), f'"key":"{name}"'.encode()
        case 5:
            return request("PUT", f"/v1/keys/own-{client}", f"value of {client}".encode()), b""
        case 6:
            body = f'{{"key":"x","value":"x","{name}":1}}'.encode()
            return request("POST", "/set", body, Content_Type="application/json"), name.encode()
        case _:
            # A key of its own: what a client that left had sent may still be done after it is back.
            body = f'{{"key":"set-{name}","value":"{name}"}}'.encode()
            data = request("POST", "/set", body, Content_Type="application/json")
            return data + request("GET", f"/get/set-{name}"), f'"value":"{name}"'.encode()


def bursts(source: random.Random, client: int) -> Iterator[list[tuple[bytes, bytes]]]:
    number = 0
    while number < REQUESTS:
        size = min(source.choice((1, 1, 2, 10, 60)), REQUESTS - number)
        yield [echoing(source, client, number + one) for one in range(size)]
        number += size


async def one_client(port: int, client: int, crossed: list[object]) -> int:
    """Send 2,000 requests in bursts; leave in the middle of some of them and come back."""
    source = random.Random(client)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    checked = 0
    for burst in bursts(source, client):
        writer.write(b"".join(data for data, _ in burst))
        leave_after = source.randrange(len(burst)) if source.random() < 0.1 else None
        received = b""
        for position, (data, echo) in enumerate(burst):
            if position == leave_after:
                break
            for last in [False, True] if data.count(b" HTTP/1.1\r\n") == 2 else [True]:
                while (found := parse(received)) is None:
                    more = await asyncio.wait_for(reader.read(1 << 16), 60)
                    assert more, "the server closed the connection"
                    received += more
                answer, received = found
                if last and (echo not in answer.body or (echo == b"") != (answer.body == b"")):
                    crossed.append((client, data, answer))
            checked += 1
        if leave_after is not None:
            # With answers on their way: they must not be anybody else's.
            if source.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()
    return checked


async def all_clients(port: int, crossed: list[object]) -> int:
    clients = (one_client(port, client, crossed) for client in range(CONNECTIONS))
    return sum(await asyncio.gather(*clients))


@pytest.mark.time_limits
def test_no_answer_is_crossed_by_many_clients_that_come_and_go() -> None:
    with Server(workers=2) as both:
        for client in range(CONNECTIONS):
            both.put(f"own-{client}", f"value of {client}".encode())
            both.put(f"shared-{client % 5}", b"shared")
        crossed: list[object] = []
        began = time.monotonic()
        checked = asyncio.run(all_clients(both.port, crossed))
        assert crossed == []
        assert checked > CONNECTIONS * REQUESTS * 0.8
        assert both.complaints() == []
        assert time.monotonic() - began < 90
