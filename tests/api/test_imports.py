"""What an import takes, where it stops, and how it tells that nothing came of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client
from keyrack_server import ON_VALKEY, Server

if TYPE_CHECKING:
    from keyrack_server import Answer

NDJSON = "application/x-ndjson"


def imported(client: Client, body: bytes, query: str = "") -> Answer:
    return client.ask("POST", f"/v1/import{query}", body, Content_Type=NDJSON)


def lines(*members: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in members)


@pytest.mark.parametrize("query", ["", "?on_error=stop"])
def test_an_import_of_nothing_but_errors_is_no_success(client: Client, query: str) -> None:
    answer = imported(client, b'{"key":1}\n', query)
    assert answer.status == 422
    assert answer.json["type"] == "/docs/problems/nothing-imported"
    assert (answer.json["imported"], answer.json["failed"]) == (0, 1)
    assert answer.json["errors"][0]["line"] == 1


def test_an_import_of_nothing_is_one(client: Client) -> None:
    assert imported(client, b"\n\n").json == {
        "imported": 0, "failed": 0, "errors": [], "stopped": False,
    }  # fmt: skip


def test_an_import_in_part_is_reported(client: Client, key: str) -> None:
    body = lines({"key": key, "value": 1}, {"key": "", "value": 2})
    answer = imported(client, body)
    assert answer.status == 200
    assert (answer.json["imported"], answer.json["failed"]) == (1, 1)


@pytest.mark.skipif(ON_VALKEY, reason="the memory is Valkey's: tests/valkey tries it")
def test_what_stops_at_an_error_does_nothing_behind_it() -> None:
    """The fourth of ten lines has no room; the six behind it have."""
    flags = ("--max-value", "16m", "--max-body", "32m")
    with Server(*flags, memory="8m") as server, Client(server) as client:
        body = [{"key": f"k{number}", "value": "v"} for number in range(10)]
        body[3]["value"] = "v" * (9 << 20)
        answer = imported(client, lines(*body), "?on_error=stop")
        assert answer.status == 200
        report = answer.json
        assert (report["imported"], report["stopped"]) == (3, True)
        assert [one["line"] for one in report["errors"]] == [4]
        assert [one["key"] for one in client.get("/v1/keys").json["keys"]] == ["k0", "k1", "k2"]


def test_the_first_error_is_told_when_there_are_several(client: Client, key: str) -> None:
    body = lines({"key": key, "value": 1}, {"key": "", "value": 2}, {"value": 3})
    report = imported(client, body, "?on_error=stop").json
    assert [one["line"] for one in report["errors"]] == [2]


BAD = {
    "a number as base64": '{"key":"%s","value":1234,"encoding":"base64"}',
    "a member twice": '{"key":"%s","value":1,"value":2}',
    "an object twice": '{"key":"%s","value":{"a":1},"value":{"a":1}}',
}


@pytest.mark.parametrize("line", BAD.values(), ids=BAD)
def test_a_line_is_as_strict_as_a_batch(client: Client, key: str, line: str) -> None:
    assert imported(client, (line % key).encode()).json["failed"] == 1
    assert client.get(f"/v1/keys/{key}").status == 404


def test_a_value_that_was_stored_comes_back_whatever_is_in_it(client: Client, key: str) -> None:
    value = b'{"a":1,"a":{"key":"value","key":[]}}'
    line = b'{"key":"%b","value":%b}' % (key.encode(), value)
    assert imported(client, line).json["imported"] == 1
    assert client.get(f"/v1/keys/{key}").body == value


def test_a_ttl_of_null_is_none(client: Client, key: str) -> None:
    assert imported(client, lines({"key": key, "value": 1, "ttl": None})).json["imported"] == 1
    assert "Keyrack-TTL" not in dict(client.get(f"/v1/keys/{key}").fields)


def test_a_byte_order_mark_is_passed_over(client: Client, key: str) -> None:
    assert imported(client, b"\xef\xbb\xbf" + lines({"key": key, "value": 1})).status == 200
    assert client.get(f"/v1/keys/{key}").body == b"1"


@pytest.mark.parametrize(
    ("body", "word"), [('{"key":"k"}\n'.encode("utf-16"), "UTF-16"), (b' [{"key":"k"}]', "array")]
)
def test_what_is_no_lines_of_json_is_named(client: Client, body: bytes, word: str) -> None:
    answer = imported(client, body)
    assert answer.status == 400
    assert word in answer.json["detail"]


@pytest.mark.time_limits
def test_steady_progress_is_no_time_out() -> None:
    with Server("--body-timeout", "2") as server, server.connect() as wire:
        wire.send(
            b"POST /v1/import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/x-ndjson\r\n\r\n"
        )
        for number in range(15):
            line = lines({"key": f"k{number}", "value": 1})
            wire.send(b"%x\r\n%b\r\n" % (len(line), line))
            time.sleep(0.4)
        wire.send(b"0\r\n\r\n")
        assert wire.answer().json["imported"] == 15
