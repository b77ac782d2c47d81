"""OpenTelemetry spans of a client's calls, and the trace that they belong to for the server.

    import keyrack, keyrack.telemetry

    client = keyrack.Client()
    keyrack.telemetry.instrument(client)

Each call is a client span, retries included; pipelines and streams are not traced. Keys are never
in a span. Nothing of OpenTelemetry is loaded by anything but this module.
"""

# OpenTelemetry is there where this is used, and not where it is checked.
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

if TYPE_CHECKING:
    from keyrack.client import AsyncClient, Client, RequestEvent


class _CallSpan:
    """The span of one call."""

    def __init__(self, span: Any) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        inject(carrier, context=set_span_in_context(span))
        plain = (item for item in carrier.items() if item[1].isascii() and item[1].isprintable())
        self.fields = b"".join(f"{name}: {value}\r\n".encode() for name, value in plain)

    def ended(self, event: RequestEvent, error: BaseException | None) -> None:
        """Say how the call went, and end the span."""
        if event.status:
            self._span.set_attribute("http.response.status_code", event.status)
        if event.retries:
            self._span.set_attribute("http.request.resend_count", event.retries)
        if error is not None:
            self._span.set_attribute("error.type", type(error).__qualname__)
            self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._span.end()


class Telemetry:
    """Makes spans with a tracer; what is the same for all calls is said once."""

    def __init__(self, tracer: Any, host: str, port: int) -> None:
        self._tracer = tracer
        self._attributes = {"db.system.name": "keyrack", "server.address": host}
        if port:
            self._attributes["server.port"] = port  # type: ignore[assignment]  # as the rules want

    def started(self, operation: str) -> _CallSpan:
        """Begin the span of a call."""
        attributes = {**self._attributes, "db.operation.name": operation}
        return _CallSpan(
            self._tracer.start_span(operation, kind=SpanKind.CLIENT, attributes=attributes)
        )


def instrument(client: Client | AsyncClient, tracer_provider: Any = None) -> None:
    """Make a span of each of a client's calls from now on, and send `traceparent` with it."""
    tracer = trace.get_tracer("keyrack", tracer_provider=tracer_provider)
    address = client.endpoint
    client.observe(Telemetry(tracer, address.uds or address.host, address.port))


def uninstrument(client: Client | AsyncClient) -> None:
    """Make no more spans of a client's calls."""
    client.observe(None)
