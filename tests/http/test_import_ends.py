"""How an import ends early, and what is said then; and texts that Windows has written."""

from __future__ import annotations

import contextlib
import select
import time
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server, chunked, request

if TYPE_CHECKING:
    from collections.abc import Iterator

NDJSON = "application/x-ndjson"


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    with Server("--body-timeout", "2") as running:
        yield running


def line(number: int) -> bytes:
    return b'{"key":"import-%d","value":"x"}\n' % number


@pytest.mark.time_limits
def test_steady_progress_is_no_timeout(hasty: Server) -> None:
    """A few bytes now and then, for more than three times the time that a body may take."""
    with hasty.connect() as wire:
        wire.send(request("POST", "/v1/import", Content_Type=NDJSON, Transfer_Encoding="chunked"))
        for number in range(20):
            wire.send(b"%x\r\n%b\r\n" % (len(line(number)), line(number)))
            time.sleep(0.35)
        wire.send(b"0\r\n\r\n")
        answer = wire.answer()
    assert (answer.status, answer.json["imported"]) == (200, 20)


def test_a_body_that_trickles_is_ended_and_told_what_was_done(hasty: Server) -> None:
    """A byte now and then is no progress, though none of the pauses is long."""
    with hasty.connect() as wire:
        wire.send(request("POST", "/v1/import", Content_Type=NDJSON, Content_Length="1000000"))
        wire.send(line(1) + line(2))
        began = time.monotonic()
        with contextlib.suppress(OSError):  # what is sent after the end finds it closed
            while time.monotonic() - began < 60 and not select.select([wire.socket], [], [], 0)[0]:
                wire.send(b" ")
                time.sleep(0.2)
        answer = wire.answer()
    assert (answer.status, answer.closes) == (408, True)
    assert answer.json["imported"] == 2
    assert "16 a second" in answer.json["detail"]


def test_an_import_that_stops_arriving_is_told_what_was_done(hasty: Server) -> None:
    with hasty.connect() as wire:
        wire.send(request("POST", "/v1/import", Content_Type=NDJSON, Content_Length="1000"))
        wire.send(line(1) + b"nonsense\n" + line(2) + b'{"key":')
        answer = wire.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert (answer.json["imported"], answer.json["failed"]) == (2, 1)
        assert "2 lines were imported" in answer.json["detail"]
        assert wire.rest() == b""
    assert hasty.has("import-2")


def test_an_import_whose_framing_is_broken_is_told_what_was_done(hasty: Server) -> None:
    with hasty.connect() as wire:
        wire.send(request("POST", "/v1/import", Content_Type=NDJSON, Transfer_Encoding="chunked"))
        wire.send(b"%x\r\n%b\r\n" % (len(line(4)), line(4)))
        deadline = time.monotonic() + 30
        while not hasty.has("import-4"):
            assert time.monotonic() < deadline
        wire.send(b"nonsense\r\n")
        answer = wire.answer()
        assert (answer.status, answer.json["imported"], answer.closes) == (400, 1, True)
        assert wire.rest() == b""


def test_an_endless_line_ends_with_what_was_done(hasty: Server) -> None:
    body = line(1) + b"x" * (9 << 20)
    answer = hasty.ask("POST", "/v1/import", body, Content_Type=NDJSON)
    assert (answer.status, answer.json["imported"]) == (400, 1)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_byte_order_mark_is_passed_over(server: Server, pieces: int) -> None:
    body = b"\xef\xbb\xbf" + line(1) + line(2)
    with server.connect() as wire:
        wire.send(request("POST", "/v1/import", Content_Type=NDJSON, Transfer_Encoding="chunked"))
        size = len(body) // pieces
        for start in range(0, len(body), size):
            wire.send(chunked(body[start : start + size]).removesuffix(b"0\r\n\r\n"))
            time.sleep(0.05)
        wire.send(b"0\r\n\r\n")
        report = wire.answer().json
    assert (report["imported"], report["failed"]) == (2, 0)
    pair = b'\xef\xbb\xbf{"key":"marked","value":"x"}'
    assert server.ask("POST", "/set", pair, Content_Type="application/json").status == 200
    assert server.has("marked")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named_as_that(server: Server, encoding: str) -> None:
    text = line(1).decode().encode(encoding)
    for target, kind in (("/v1/import", NDJSON), ("/v1/batch", "application/json")):
        answer = server.ask("POST", target, text, Content_Type=kind)
        assert answer.status == 400
        assert "UTF-16" in answer.json["detail"]
        assert "UTF-8" in answer.json["detail"]


def test_an_array_is_told_to_come_line_by_line(server: Server) -> None:
    answer = server.ask("POST", "/v1/import", b' [{"key":"a","value":"b"}]', Content_Type=NDJSON)
    assert answer.status == 400
    assert "JSON array" in answer.json["detail"]
