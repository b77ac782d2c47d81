"""The access log: what was asked and answered, as members of a JSON line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from keyrack_server import Server, request

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--access-log") as server:
        yield server


def logged(server: Server, marked: str) -> dict[str, Any]:
    """Return the one line about a request whose path has a mark in it."""
    lines = [line for line in server.log_lines() if marked in str(line.get("path"))]
    assert len(lines) == 1, lines
    return lines[0]


def test_a_request_is_told_in_members(server: Server) -> None:
    fields = {"User-Agent": "probe/1 (x)", "X-Request-Id": "0a1b-2"}
    answer = server.ask("PUT", "/v1/keys/members?ttl=60", b"hello", **fields)
    assert answer.status == 201
    line = logged(server, "members")
    assert line["logger"] == "keyrack.access"
    assert line["message"] == "PUT /v1/keys/members?ttl=60 201"
    assert (line["method"], line["path"], line["query"]) == ("PUT", "/v1/keys/members", "ttl=60")
    assert (line["status"], line["bytes"]) == (201, 0)
    assert 0 < line["microseconds"] < 10_000_000
    assert (line["user_agent"], line["request_id"]) == ("probe/1 (x)", "0a1b-2")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", line["peer"])


@pytest.mark.parametrize(
    ("method", "target", "size"),
    [
        ("GET", "/get/nothing-1", len(b'{"status":"error","message":"Key not found"}')),
        ("HEAD", "/v1/keys/nothing-2", 0),
        ("GET", "/v1/keys?prefix=x&limit=1", None),
        ("GET", "/no/such/path", None),
    ],
)
def test_bytes_are_those_of_the_body(
    server: Server, method: str, target: str, size: int | None
) -> None:
    answer = server.ask(method, target)
    lines = [line for line in server.log_lines() if "microseconds" in line]
    assert lines[-1]["status"] == answer.status
    assert lines[-1]["bytes"] == (len(answer.body) if size is None else size)


def test_a_member_that_a_request_has_not_is_left_out(server: Server) -> None:
    server.ask("GET", "/v1/keys/without")
    assert {"query", "user_agent", "request_id"}.isdisjoint(logged(server, "without"))


def test_the_time_is_the_client_s_wait(server: Server) -> None:
    server.put("waited-2", b"v")
    with server.connect() as wire:
        fields = {"Prefer": "wait=1", "If-None-Match": "*"}
        answer = wire.ask(request("GET", "/v1/keys/waited-2", **fields))
    assert answer.status == 304
    line = [one for one in server.log_lines() if one.get("path") == "/v1/keys/waited-2"][-1]
    assert 900_000 < line["microseconds"] < 5_000_000


def test_a_message_that_is_refused_is_told_as_well(server: Server) -> None:
    server.raw(b"GET /refused HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    line = logged(server, "/refused")
    assert (line["method"], line["status"]) == ("GET", 400)
    assert line["bytes"] > 0


def test_what_a_client_sends_is_cut_to_a_bound(server: Server) -> None:
    server.ask("GET", "/v1/keys/long", **{"User-Agent": "x" * 5000})
    assert len(logged(server, "long")["user_agent"]) <= 256


def test_pipelined_requests_are_told_each(server: Server) -> None:
    server.raw(request("GET", "/v1/keys/pipe-a") + request("GET", "/v1/keys/pipe-b"))
    assert logged(server, "pipe-a")["status"] == logged(server, "pipe-b")["status"] == 404
