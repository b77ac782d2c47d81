"""Spans of a client's calls, by OpenTelemetry itself. KEYRACK_URL is the service."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import keyrack
import keyrack.telemetry

URL = os.environ["KEYRACK_URL"]


@pytest.fixture
def spans() -> Any:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(spans))
    return made


def test_each_call_is_a_client_span_without_its_key(spans: Any, provider: Any) -> None:
    with keyrack.Client(URL) as client:
        keyrack.telemetry.instrument(client, provider)
        client.set("secret-key", "v")
        client.get("secret-key")
        with pytest.raises(keyrack.Conflict):
            client.set("secret-key", "v", if_match='"1"')
        keyrack.telemetry.uninstrument(client)
        client.get("secret-key")
    done = spans.get_finished_spans()
    assert [span.name for span in done] == ["set", "get", "set"]
    assert [span.attributes["http.response.status_code"] for span in done] == [201, 200, 412]
    assert done[0].attributes["db.system.name"] == "keyrack"
    assert done[0].attributes["server.address"] == "127.0.0.1"
    assert done[2].attributes["error.type"] == "Conflict"
    assert not done[2].status.is_ok
    assert "secret-key" not in "".join(span.to_json() for span in done)


def test_an_async_client_is_traced_too(spans: Any, provider: Any) -> None:
    async def main() -> None:
        async with keyrack.AsyncClient(URL) as client:
            keyrack.telemetry.instrument(client, provider)
            await client.get("a")

    asyncio.run(main())
    assert [span.name for span in spans.get_finished_spans()] == ["get"]


def test_the_trace_goes_to_the_server(spans: Any, provider: Any) -> None:
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            seen.append(connection.recv(65536).decode())
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            keyrack.Client(f"http://127.0.0.1:{server.getsockname()[1]}", retries=0) as client,
            provider.get_tracer("test").start_as_current_span("outer") as outer,
        ):
            keyrack.telemetry.instrument(client, provider)
            with pytest.raises(keyrack.Ambiguous):
                client.get("a")
        thread.join()
    inner = spans.get_finished_spans()[0]
    trace = format(outer.get_span_context().trace_id, "032x")
    assert f"traceparent: 00-{trace}-{format(inner.context.span_id, '016x')}-" in seen[0]
    assert inner.parent.span_id == outer.get_span_context().span_id


def test_without_it_nothing_of_opentelemetry_is_loaded() -> None:
    import subprocess
    import sys

    code = "import sys, keyrack; keyrack.Client('http://h').close(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "opentelemetry" not in done.stdout
