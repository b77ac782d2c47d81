"""Sends spans to a collector: OTLP over HTTP, in its JSON encoding, from a thread of its own.

The encoding is a few dictionaries, and a library for it would bring Protocol Buffers and an HTTP
client into every worker (docs/decisions/traces.md). What cannot be sent is dropped: traces must
never cost more than they tell.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyrack.http.spans import Span, SpanRecorder

_SERVER: Final = 2
"""The kind of span of whoever answers."""
_ERROR: Final = 2
_SECONDS: Final = 5.0
_MOST_BATCHES: Final = 8
_SILENT_SECONDS: Final = 60.0

_log = logging.getLogger("keyrack.traces")


class SpanSender:
    """Sends to the collector at an address like `http://localhost:4318`."""

    def __init__(self, url: str, resource: dict[str, str]) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = f"{parts.path.rstrip('/')}/v1/traces"
        self._resource = resource
        self._queue: SimpleQueue[Sequence[Span] | None] = SimpleQueue()
        self._silent_until = 0.0
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def send(self, spans: Sequence[Span]) -> bool:
        """Send spans, soon; False where so many wait that these are dropped."""
        if not spans:
            return True
        if self._queue.qsize() >= _MOST_BATCHES:
            return False
        self._queue.put(spans)
        return True

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        self._queue.put(None)
        self._thread.join(_SECONDS)

    def _run(self) -> None:
        while (spans := self._queue.get()) is not None:
            try:
                self._post(encoded(spans, self._resource))
            except (OSError, http.client.HTTPException) as error:
                self._complain(str(error) or type(error).__name__)

    def _post(self, body: bytes) -> None:
        again = self._connection is not None
        if self._connection is None:
            self._connection = self._connect()
        try:
            fields = {"Content-Type": "application/json"}
            self._connection.request("POST", self._path, body, fields)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            if not again:
                raise
            self._post(body)  # it was idle for long, and has ended meanwhile
            return
        if answer.status >= 300:
            self._complain(f"it answers {answer.status}")

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=_SECONDS)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=_SECONDS, context=self._tls
        )

    def _complain(self, reason: str) -> None:
        if time.monotonic() < self._silent_until:
            return
        self._silent_until = time.monotonic() + _SILENT_SECONDS
        _log.warning(
            "spans cannot be sent to %s, and are dropped: %s",
            self._host,
            reason,
            extra={"event": "traces_dropped"},
        )


class Traces:
    """The spans of a worker: recorded, and sent to a collector. `look` twice a second."""

    def __init__(self, url: str, recorder: SpanRecorder, version: str) -> None:
        self.recorder = recorder
        self._sender = SpanSender(url, {"service.name": "keyrack", "service.version": version})

    def look(self) -> None:
        """Send what has been recorded."""
        waiting = self.recorder.take()
        if not self._sender.send(waiting):
            self.recorder.dropped += len(waiting)

    def close(self) -> None:
        """Send what waits, and end."""
        self.look()
        self._sender.close()


def encoded(spans: Sequence[Span], resource: dict[str, str]) -> bytes:
    """Return the body of a request to `/v1/traces`."""
    scope = {"scope": {"name": "keyrack"}, "spans": [_span(span) for span in spans]}
    about = {"attributes": [_attribute(name, value) for name, value in resource.items()]}
    return msgspec.json.encode({"resourceSpans": [{"resource": about, "scopeSpans": [scope]}]})


def _span(span: Span) -> dict[str, Any]:
    found: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": _SERVER,
        # 64-bit numbers are texts in this encoding.
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": [_attribute(name, value) for name, value in span.attributes],
    }
    if span.parent_id:
        found["parentSpanId"] = span.parent_id
    if span.failed:
        found["status"] = {"code": _ERROR}
    return found


def _attribute(name: str, value: str | int) -> dict[str, Any]:
    shown = {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
    return {"key": name, "value": shown}
