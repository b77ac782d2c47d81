"""Trace Context: what a `traceparent` says, and which spans are recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from keyrack.access.grant import OPEN
from keyrack.http import trace_context
from keyrack.http.protocol.request import Request
from keyrack.http.spans import MOST, SpanRecorder
from keyrack.http.trace_context import TraceContext, trace_of, wants_timing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def parent(flags: str = "01", version: str = "00", end: str = "") -> bytes:
    return f"{version}-{TRACE}-{SPAN}-{flags}{end}".encode()


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (parent(), True),
        (parent("00"), False),
        (parent("03"), True),
        (parent("fe"), False),
        (parent(version="cc"), True),
        (parent(version="cc", end="-more"), True),
    ],
)
def test_a_traceparent_is_read(value: bytes, sampled: bool) -> None:
    found = trace_of(((b"traceparent", value),))
    assert found == TraceContext(TRACE, SPAN, sampled)
    line = b"\r\nTraceParent: " + value + b"\r\n\r\n"
    assert trace_context.is_sampled(b"Host: a" + line) == sampled


@pytest.mark.parametrize(
    "value",
    [
        b"", b"00", parent(version="ff"), parent(end="-more"), parent("0g"), parent().upper(),
        f"00-{'0' * 32}-{SPAN}-01".encode(), f"00-{TRACE}-{'0' * 16}-01".encode(),
        parent() + b"\n", b" " + parent(),
    ],
)  # fmt: skip
def test_a_traceparent_that_is_malformed_is_none(value: bytes) -> None:
    assert trace_of(((b"traceparent", value),)) is None


def test_two_traceparents_are_none() -> None:
    assert trace_of(((b"traceparent", parent()), (b"traceparent", parent()))) is None
    assert trace_of(((b"host", b"a"),)) is None


@pytest.mark.parametrize(
    ("prefer", "wanted"),
    [
        (b"timing", True), (b"wait=5, Timing", True), (b"timing;x=1", True),
        (b"", False), (b"timings", False), (b"wait=5", False),
    ],
)  # fmt: skip
def test_timing_is_a_preference(prefer: bytes, wanted: bool) -> None:
    assert wants_timing(prefer) == wanted


# Recording


def request(*fields: tuple[bytes, bytes], target: bytes = b"/v1/keys/secret?a=1") -> Request:
    head: Any = SimpleNamespace(fields=fields, http_1_0=False)
    return Request(b"GET", target, head, b"", OPEN, keep_alive=True)


def recorder(share: float = 0.0, shows_keys: bool = False, chance: float = 0.5) -> SpanRecorder:
    paths = {"key_get": "/v1/keys/{key}"}
    return SpanRecorder(share, paths, shows_keys, chance=lambda: chance)


def note(one: SpanRecorder, *fields: tuple[bytes, bytes], status: int = 200) -> None:
    one.note("key_get", request(*fields), status, 1_000_000, "127.0.0.1:5000", secure=False)


def test_a_request_is_recorded_as_its_sender_does() -> None:
    one = recorder(share=1.0)
    note(one, (b"traceparent", parent("00")))
    assert one.take() == []
    note(one, (b"traceparent", parent()), (b"user-agent", b"curl"))
    (span,) = one.take()
    assert (span.name, span.trace_id, span.parent_id) == ("GET /v1/keys/{key}", TRACE, SPAN)
    assert span.end - span.start == 1_000_000
    assert len(span.span_id) == 16
    attributes = dict(span.attributes)
    assert attributes["url.path"] == attributes["http.route"] == "/v1/keys/{key}"
    assert attributes["client.address"] == "127.0.0.1"
    assert attributes["user_agent.original"] == "curl"
    assert not any("secret" in str(value) for value in attributes.values())
    assert one.take() == []


def test_a_share_of_those_without_a_trace_is_recorded() -> None:
    for share, chance, number in ((0.0, 0.0, 0), (0.5, 0.4, 1), (0.5, 0.6, 0), (1.0, 0.99, 1)):
        one = recorder(share, chance=chance)
        note(one)
        assert len(one.take()) == number


def test_a_request_that_was_chosen_before_is_recorded_once() -> None:
    one = recorder(share=0.01)
    one.choose()
    note(one)
    note(one)
    assert len(one.take()) == 1


def test_keys_are_shown_where_that_is_wanted() -> None:
    one = recorder(share=1.0, shows_keys=True)
    note(one)
    assert dict(one.take()[0].attributes)["url.path"] == "/v1/keys/secret"


@pytest.mark.parametrize(("status", "failed"), [(200, False), (404, False), (503, True)])
def test_only_failures_of_the_service_are_errors(status: int, failed: bool) -> None:
    one = recorder(share=1.0)
    note(one, status=status)
    (span,) = one.take()
    assert span.failed == failed
    assert ("error.type", str(status)) in span.attributes or not failed


def test_spans_that_nobody_takes_are_dropped_and_counted() -> None:
    one = recorder(share=1.0)
    for _ in range(MOST + 3):
        note(one)
    assert (len(one.take()), one.dropped) == (MOST, 3)


def test_the_gap_between_two_that_are_chosen_is_one_by_the_share_on_average() -> None:
    one = recorder(share=0.1)
    gaps = [one.gap for _ in range(5000)]
    assert set(gaps) <= set(range(1, 20))
    assert abs(sum(gaps) / len(gaps) - 10) < 1
