"""Traces of a running service: what its collector gets, and where trace ids are shown."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from keyrack_server import Server, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(60)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
NOT_SAMPLED = f"00-{TRACE}-{SPAN}-00"


class Collector(HTTPServer):
    """Takes spans, as OTLP over HTTP has them. `status` is what it answers."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.resources: list[dict[str, Any]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Taker)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Taker(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/json")
        for one in body["resourceSpans"]:
            self.server.resources.append(_attributes(one["resource"]))
            for scope in one["scopeSpans"]:
                self.server.spans += scope["spans"]
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *about: Any) -> None:
        """Say nothing."""


def _attributes(of: dict[str, Any]) -> dict[str, str]:
    """Return attributes by their names; each value is a text in this encoding."""
    return {one["key"]: next(iter(one["value"].values())) for one in of["attributes"]}


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    thread = threading.Thread(target=one.serve_forever, args=(0.02,))
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


@contextmanager
def traced(collector: Collector, *flags: str) -> Iterator[Server]:
    with Server("--traces", collector.url, *flags) as server:
        yield server


def eventually(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


HOT = (
    request("GET", "/get/a"),
    request("GET", "/v1/keys/a"),
    request("PUT", "/v1/keys/a", b"x"),
    request("POST", "/set", b'{"key":"a","value":"b"}', Content_Type="application/json"),
)
NAMES = {"GET /get/{key}", "GET /v1/keys/{key}", "PUT /v1/keys/{key}", "POST /set"}


def test_a_request_of_a_recorded_trace_is_recorded_whatever_its_shape(
    collector: Collector,
) -> None:
    with traced(collector, "--trace-share", "0") as server, server.connect() as wire:
        for data in HOT:
            for _ in range(3):  # recognised from the second time on
                wire.ask(data)
        for data in HOT:
            traced_data = data.replace(
                b"\r\n\r\n", f"\r\ntraceparent: {SAMPLED}\r\n\r\n".encode(), 1
            )
            for _ in range(2):
                wire.ask(traced_data)
            wire.ask(traced_data.replace(SAMPLED.encode(), NOT_SAMPLED.encode()))
        wire.ask(request("GET", "/v1/info", traceparent=SAMPLED))
        eventually(lambda: len(collector.spans) >= 9)
    assert len(collector.spans) == 9
    assert {one["name"] for one in collector.spans} == NAMES | {"GET /v1/info"}
    for span in collector.spans:
        assert (span["traceId"], span["parentSpanId"], span["kind"]) == (TRACE, SPAN, 2)
        assert 0 < int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) < 60e9
        assert _attributes(span)["http.response.status_code"] in ("200", "201", "204")
    assert len({span["spanId"] for span in collector.spans}) == 9
    assert all(one["service.name"] == "keyrack" for one in collector.resources)


def test_a_share_of_the_most_frequent_requests_is_recorded(collector: Collector) -> None:
    with traced(collector, "--trace-share", "0.5") as server, server.connect() as wire:
        wire.ask(HOT[2])
        for data in HOT:
            for _ in range(50):
                assert wire.ask(data).status in (200, 201, 204)
        eventually(lambda: {one["name"] for one in collector.spans} >= NAMES)
    # Of 200 requests a half, give or take six times the standard deviation.
    assert 60 < len(collector.spans) < 140
    assert all("parentSpanId" not in span for span in collector.spans)
    assert not any("/a" in _attributes(span)["url.path"] for span in collector.spans)


def test_pipelined_requests_that_are_chosen_are_answered_in_order(collector: Collector) -> None:
    with traced(collector, "--trace-share", "0.5") as server, server.connect() as wire:
        for number in range(40):
            wire.ask(request("PUT", f"/v1/keys/{number}", b"%d" % number))
        for _ in range(5):
            wire.send(b"".join(request("GET", f"/v1/keys/{number}") for number in range(40)))
            assert [wire.answer().body for _ in range(40)] == [b"%d" % n for n in range(40)]


def test_a_collector_that_is_away_costs_one_line_of_the_log(collector: Collector) -> None:
    collector.status = 500

    class Troubled(Server):
        def complaints(self) -> list[dict[str, Any]]:
            return []

    with Troubled("--traces", collector.url, "--trace-share", "1") as server:
        for _ in range(3):
            assert server.ask("GET", "/v1/info").status == 200
        eventually(lambda: collector.spans)
        server.ask("GET", "/v1/info")
        eventually(lambda: "traces_dropped" in server.log())
        lines = [one for one in server.log_lines() if one.get("event") == "traces_dropped"]
        assert len(lines) == 1
        assert "it answers 500" in lines[0]["message"]


def test_the_id_of_a_trace_is_in_the_access_log_and_in_problems() -> None:
    with Server("--access-log") as server:
        answer = server.ask("GET", "/v1/keys/none", traceparent=SAMPLED)
        assert (answer.status, answer.json["trace_id"]) == (404, TRACE)
        # Of the wide lane, where a route finds out by itself.
        answer = server.ask("GET", "/v1/big?limit=0", traceparent=SAMPLED)
        assert (answer.status, answer.json["trace_id"]) == (400, TRACE)
        server.ask("GET", "/v1/keys/other")
        lines = [one for one in server.log_lines() if one["logger"] == "keyrack.access"]
        found = {one["path"]: one.get("trace_id") for one in lines}
        assert found["/v1/keys/none"] == TRACE
        assert found["/v1/keys/other"] is None


@pytest.mark.parametrize("target", ["/v1/keys/a", "/v1/info", "/v1/keys", "/get/a"])
def test_how_long_it_took_is_told_to_whoever_asks(target: str) -> None:
    with Server() as server, server.connect() as wire:
        wire.ask(request("PUT", "/v1/keys/a", b"x"))
        told = wire.ask(request("GET", target, Prefer="timing"))
        assert told["Preference-Applied"] == "timing"
        name, _, took = told["Server-Timing"].partition(";dur=")
        assert name == "turn"
        assert 0 < float(took) < 60_000
        assert wire.ask(request("GET", target)).get("Server-Timing") is None
        put = wire.ask(request("PUT", "/v1/keys/a", b"y", Prefer="timing"))
        assert put.get("Server-Timing") is not None
