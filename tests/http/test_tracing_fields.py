"""Fields that differ in each request: recognised without them, and never for more than they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyrack_server import Wire, request

from keyrack.http import tracing_fields
from keyrack.http.protocol.guard import Guard
from keyrack.http.protocol.head import read
from keyrack.http.protocol.request import Head

if TYPE_CHECKING:
    from keyrack_server import Server

OTHERS = (b"Host", b"Accept", b"User-Agent", b"Authorization", b"X-Forwarded-Proto", b"X-Request")
VALUES = st.binary(max_size=20).map(
    lambda text: bytes(32 + byte % 95 for byte in text)  # what may be printed
)


def spelt(name: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from((name, name.title(), name.upper())).map(str.encode)


TRACING = st.tuples(st.sampled_from(tracing_fields.NAMES).flatmap(spelt), VALUES)
FIELDS = st.lists(st.tuples(st.sampled_from(OTHERS), VALUES), max_size=6)


def section(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n"


@given(FIELDS, st.lists(TRACING, min_size=1, max_size=6), st.randoms())
def test_a_section_is_left_with_its_other_fields_in_their_order(
    others: list[tuple[bytes, bytes]], tracing: list[tuple[bytes, bytes]], chance: object
) -> None:
    mixed = list(others)
    for field in tracing:
        mixed.insert(chance.randint(0, len(mixed)), field)  # type: ignore[attr-defined]  # a Random
    assert tracing_fields.without(section(mixed)) == b"\r\n" + section(others)


@given(FIELDS)
def test_a_section_without_such_fields_is_left_alone(others: list[tuple[bytes, bytes]]) -> None:
    assert tracing_fields.without(section(others)) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"Host: a\r\nX-Request-Id: \xff\r\n\r\n",
        b"Host: a\r\nX-Request-Id: \x00\r\n\r\n",
        b"Host: a\r\nX-Request-Id : x\r\n\r\n",
        b"Host: a\r\n X-Request-Id: x\r\n\r\n",
        b"Host: a\r\nX-Request-Idx: x\r\n\r\n",
        b"Host: a\r\nX-Request-Id: x\r\n",
        b"Host: a\r\n\r\nX-Request-Id: x\r\n",
        b"Host: a\r\n\r\nX-Request-Id: x\r\n\r\n",
        b"Host: a\r\nX-Request-Id: x\r\n\r\nX-Request-Id: y\r\n",
        b"Host: a\r\n" + b"X-Request-Id: x\r\n" * (tracing_fields.MOST + 1) + b"\r\n",
        b"Host: a\r\nX-Request-Id: " + b"x" * 9000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_plainly_such_a_line_is_not_cut(raw: bytes) -> None:
    assert tracing_fields.without(raw) is None


@pytest.mark.parametrize("name", tracing_fields.NAMES)
def test_no_such_field_means_anything_to_the_server(name: str) -> None:
    plain = [(b"host", b"localhost"), (b"user-agent", b"Mozilla/5.0 Gecko")]
    for value in (b"x", b"1.2.3.4", b"00-00-00-01", b'"1"', b"close", b"100-continue"):
        heads = [
            read(fields, False, Guard(), None)
            for fields in (plain, [*plain, (name.encode(), value)])
        ]
        for slot in set(Head.__slots__) - {"fields", "known_since"}:
            assert getattr(heads[0], slot) == getattr(heads[1], slot), slot


REQUESTS = (
    ("GET", "/get/{key}", None, {}),
    ("POST", "/set", b'{"key":"{key}","value":"again"}', {"Content_Type": "application/json"}),
    ("GET", "/v1/keys/{key}", None, {}),
    ("PUT", "/v1/keys/{key}", b"again", {"Content_Type": "text/plain; charset=utf-8"}),
    ("GET", "/v1/keys?prefix={key}", None, {}),
    ("DELETE", "/v1/keys/{key}", None, {}),
)


@pytest.mark.parametrize(("method", "target", "body", "fields"), REQUESTS)
def test_each_request_is_answered_as_without_them(
    wire: Wire, key: str, method: str, target: str, body: bytes | None, fields: dict[str, str]
) -> None:
    target = target.replace("{key}", key)
    body = body and body.replace(b"{key}", key.encode())
    statuses = []
    for number in range(4):
        wire.ask(request("PUT", f"/v1/keys/{key}", b"value"))
        traced = {"X_Request_Id": f"id-{number}", "Traceparent": f"00-{number}"} if number else {}
        answer = wire.ask(request(method, target, body, **fields, **traced))
        statuses.append((answer.status, answer.body.partition(b'"revision"')[0]))
    assert len(set(statuses)) == 1


def test_pipelined_requests_with_another_id_each_are_answered_in_order(
    wire: Wire, server: Server, key: str
) -> None:
    for number in range(50):
        server.put(f"{key}{number}", b"%d" % number)
    ids = ({"X_Request_Id": f"{number}"} for number in range(50))
    wire.send(b"".join(request("GET", f"/get/{key}{n}", **one) for n, one in enumerate(ids)))
    for number in range(50):
        assert wire.answer().json["value"] == str(number)


def test_bytes_behind_a_message_are_not_taken_for_a_part_of_it(wire: Wire, key: str) -> None:
    for number in range(3):
        assert wire.ask(request("GET", f"/get/{key}", X_Request_Id=str(number))).status == 404
    wire.send(request("GET", f"/get/{key}") + b"X-Request-Id: swallowed\r\n")
    assert wire.answer().status == 404
    assert wire.answer().status == 400
