"""Spans of requests: which are recorded, and what is known of each.

A request whose sender records its trace is recorded, one whose sender does not is not, and of those
that belong to no trace a share is. A span is made from what is known when the answer is given: a
tuple, and nothing more until a thread sends it (`keyrack.server.otlp`).
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.http.trace_context import trace_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.http.protocol.request import Request

MOST: Final = 2048
"""Spans that wait; more are dropped, and counted."""


class Span(NamedTuple):
    """A request that was recorded. Times are ns since 1970, ids hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty where the trace begins here."""
    start: int
    end: int
    attributes: tuple[tuple[str, Any], ...]
    failed: bool


class SpanRecorder:
    """Records spans of one worker's requests.

    `share` is how many of the requests are recorded that belong to no trace. `paths` are those of
    the operations, with `{key}`; `shows_keys` says whether spans show the paths that were asked
    for. `common` are attributes of all of them.
    """

    def __init__(
        self,
        share: float,
        paths: dict[str, str],
        shows_keys: bool,
        common: tuple[tuple[str, Any], ...] = (),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._share = share
        self._paths = paths
        self._shows_keys = shows_keys
        self._common = common
        self._chance = chance
        self._waiting: list[Span] = []
        self._owed = 0
        """Requests that were chosen already, and are on their way to be answered."""
        self.dropped = 0
        """Spans that were dropped, because nobody took them."""

    @property
    def gap(self) -> int:
        """How many of the most frequent requests are passed over before the next is chosen."""
        return random.randint(1, max(1, round(2 / self._share) - 1)) if self._share else 1 << 62

    def choose(self) -> None:
        """Record the next request that belongs to no trace."""
        self._owed += 1

    def take(self) -> list[Span]:
        """Return the spans that wait, and forget them."""
        taken, self._waiting = self._waiting, []
        return taken

    def note(
        self, name: str, request: Request, status: int, took: int, peer: str, *, secure: bool
    ) -> None:
        """Record a request that is answered now, if it is one of those; `took` is in ns."""
        context = trace_of(request.head.fields)
        if context is None:
            if self._owed:
                self._owed -= 1
            elif self._chance() >= self._share:
                return
        elif not context.sampled:
            return
        if len(self._waiting) >= MOST:
            self.dropped += 1
            return
        route = self._paths.get(name, "")
        method = request.method.decode()
        path = request.path.decode("latin-1") if self._shows_keys or not route else route
        attributes: list[tuple[str, Any]] = [
            ("http.request.method", method),
            ("http.response.status_code", status),
            ("url.scheme", "https" if secure else "http"),
            ("url.path", path),
            ("client.address", peer.rpartition(":")[0] or peer),
            ("network.protocol.version", "1.0" if request.head.http_1_0 else "1.1"),
            *self._common,
        ]
        if route:
            attributes.append(("http.route", route))
        for field, value in request.head.fields:
            if field == b"user-agent":
                attributes.append(("user_agent.original", value[:256].decode("latin-1")))
        if request.grant.identity.id is not None:
            attributes.append(("keyrack.token", request.grant.identity.id))
        if status >= 500:
            attributes.append(("error.type", str(status)))
        end = time.time_ns()
        bits = random.getrandbits
        self._waiting.append(
            Span(
                f"{method} {route}" if route else method,
                f"{bits(128) or 1:032x}" if context is None else context.trace_id,
                f"{bits(64) or 1:016x}",
                "" if context is None else context.span_id,
                end - took,
                end,
                tuple(attributes),
                status >= 500,
            )
        )
