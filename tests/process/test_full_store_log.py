"""What an operator reads in the log of a store that is full."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(60)

VALUE = b"v" * 100_000


def fill(server: Server, writes: int) -> list[int]:
    return [server.ask("PUT", f"/v1/keys/{n}", VALUE).status for n in range(writes)]


def said(server: Server, event: str) -> list[dict[str, Any]]:
    return [line for line in server.log_lines() if line.get("event") == event]


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def end(server: Server) -> None:
    server.tell_to_end()
    assert server.process.wait(15) == 0


def test_a_store_that_is_full_says_so_once_and_what_to_do() -> None:
    server = Server(memory="8m", workers=2)
    statuses = fill(server, 200)
    assert statuses[-1] == 507
    until(lambda: said(server, "store_full"), "it is said")
    fill(server, 100)
    time.sleep(1.5)
    (line,) = said(server, "store_full")
    assert line["level"] == "warning"
    assert line["message"].startswith("the store is full (8m): ")
    assert "--memory" in line["message"]
    assert 0 < line["refused"] <= statuses.count(507)
    end(server)


def test_a_quota_that_is_used_up_is_not_taken_for_a_full_store() -> None:
    server = Server(memory="64m", workers=2)
    quota = b'{"prefix":"a/","max_keys":1}'
    made = server.ask("PUT", "/v1/quotas/a", quota, Content_Type="application/json")
    assert made.status == 201
    assert [server.ask("PUT", f"/v1/keys/a/{n}", b"v").status for n in range(3)] == [201, 507, 507]
    until(lambda: said(server, "quota_full"), "it is said")
    (line,) = said(server, "quota_full")
    assert "GET /v1/quotas" in line["message"]
    assert said(server, "store_full") == []
    end(server)


def test_a_store_that_evicts_says_so_once() -> None:
    server = Server("--when-full", "evict", memory="8m", workers=2)
    assert set(fill(server, 200)) == {201}
    until(lambda: said(server, "store_evicts"), "it is said")
    fill(server, 100)
    time.sleep(1.5)
    (line,) = said(server, "store_evicts")
    assert line["level"] == "info"
    assert line["evicted"] > 0
    end(server)


def test_a_store_with_room_says_nothing() -> None:
    with Server(memory="16m") as server:
        fill(server, 10)
        time.sleep(1.2)
        assert said(server, "store_full") == said(server, "store_evicts") == []
