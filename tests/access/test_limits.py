"""Rates and watches of tokens, over all workers; and wrong log-ins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from access_support import Guarded
from api_support import Client, Watch
from keyrack_server import request

from keyrack.access import tokens
from keyrack.access.model import Rate

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def service() -> Iterator[Guarded]:
    made = Guarded(workers=2)
    made.metered = made.add("read keys:*", rate=Rate(5, 10))  # type: ignore[attr-defined]  # of this test
    made.watcher = made.add("watch keys:*", watches=2)  # type: ignore[attr-defined]  # of this test
    made.maker = made.add("read keys:*", rate=Rate(0.01, 40))  # type: ignore[attr-defined]  # of this test
    with made as running:
        yield running


@pytest.mark.timing
def test_a_token_s_rate_counts_over_all_workers(service: Guarded) -> None:
    field = service.metered.field  # type: ignore[attr-defined]  # of this test
    clients = [Client(service.server) for _ in range(6)]
    began = time.monotonic()
    answers = [client.get("/get/a", **field) for _ in range(10) for client in clients]
    took = time.monotonic() - began
    let_in = [answer for answer in answers if answer.status == 404]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(let_in) + len(refused) == 60
    assert 10 <= len(let_in) <= 10 + 5 * took + 2
    assert refused[0].json["status"] == "error"  # the seed API's own shape
    assert int(refused[0]["Retry-After"]) >= 1
    assert let_in[0]["RateLimit-Policy"] == '"token";q=10;w=2'
    assert let_in[0]["RateLimit"].startswith('"token";r=')
    assert clients[0].get("/get/a", **service.admin.field).status == 404
    time.sleep(1.1)
    assert clients[0].get("/get/a", **field).status == 404
    for client in clients:
        client.close()


def test_a_ticket_s_requests_count_as_its_token_s(service: Guarded) -> None:
    with Client(service.server) as client:
        field = service.maker.field  # type: ignore[attr-defined]  # of this test
        asked = {"rules": ["read keys:a"]}
        made = [client.post("/v1/auth/tickets", asked, **field).json["ticket"] for _ in range(3)]
        statuses = [
            client.get("/get/a", Authorization=f"Bearer {ticket}").status
            for ticket in made
            for _ in range(20)
        ]
    assert 30 <= statuses.count(404) <= 40
    assert statuses[-1] == 429


def test_a_token_holds_so_many_watches_at_once(service: Guarded) -> None:
    field = service.watcher.field  # type: ignore[attr-defined]  # of this test
    with Watch(service.server, **field) as one, Client(service.server) as client:
        with Watch(service.server, **field) as two:
            assert {one.next().event, two.next().event} == {"synced"}
            refused = client.get("/v1/watch", **field)
            assert (refused.status, refused.json["type"]) == (429, "/docs/problems/rate-limited")
        deadline = time.monotonic() + 30
        while status_of_watch(service, field) != 200:
            assert time.monotonic() < deadline, "the server sees that the other one has left"
            time.sleep(0.05)


def status_of_watch(service: Guarded, field: dict[str, str]) -> int:
    with service.server.connect() as wire:
        wire.send(request("GET", "/v1/watch", **field))
        return int(wire.socket.recv(12).split()[1])


def test_who_guesses_is_told_to_wait_and_others_from_there_are_not(service: Guarded) -> None:
    with Client(service.server) as client:
        statuses = [
            client.get("/v1/info", Authorization=f"Bearer {tokens.new().text}").status
            for _ in range(60)
        ]
        assert statuses[0] == 401
        assert 429 in statuses
        assert client.get("/v1/info", **service.admin.field).status == 200
