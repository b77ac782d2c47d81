"""What all connections of a worker share."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import uvicorn

from keyrack.http import trace_context, tracing_fields
from keyrack.http.api import dispatch
from keyrack.http.client_memory import ClientMemory, Holder
from keyrack.http.gate import Gate
from keyrack.http.protocol.head import MAX_FIELDS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from keyrack.http.access_log import AccessLog
    from keyrack.http.api.models import ConnectedClient
    from keyrack.http.audit import AuditTrail
    from keyrack.http.hot_keys import HotKeys
    from keyrack.http.protocol.guard import Guard
    from keyrack.http.protocol.request import Head, Request
    from keyrack.http.reply import Context
    from keyrack.http.spans import SpanRecorder
    from keyrack.http.tick import Tick

_MAX_KNOWN_HEADS: Final = 8192
LAST: Final = b"\n"
"""What stands before a section that ends its connection, where it is remembered."""
_FORGOTTEN: Final = _MAX_KNOWN_HEADS // 100
_KNOWN_SECONDS: Final = 60.0


class Timeouts(NamedTuple):
    """Deadlines of a connection, in seconds."""

    keep_alive: float
    head: float
    body: float
    send: float


class OpenConnection(Holder, Protocol):
    """What the worker itself asks of each connection that is open."""

    next_look: float
    """When its deadlines are to be looked at (coarse seconds)."""
    used: float
    """When it was last used (coarse seconds)."""

    def check_deadlines(self, now: float) -> None:
        """Close it, or answer 408, where something has taken too long; `now` is `turn.now`."""

    def judge_again(self) -> None:
        """Find out anew what its client may do, and end what that may do no longer."""

    def announce_end(self) -> None:
        """Answer what comes next, and say that it was the last."""

    def leave(self) -> None:
        """Answer what is under way, then close."""

    def sample(self, hot_keys: HotKeys | None) -> None:
        """Tell of the keys that are asked for from now on; None: no longer."""

    def describe(self) -> ConnectedClient:
        """Say who the client is, and what it waits for."""

    def shutdown(self) -> None:
        """End what goes on for long, answer what else is under way, then close."""


class WorkerContext:
    """A worker's part in the fast lane: its turn, its limits, and the header sections it knows."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tick: Tick,
        guard: Guard,
        context: Context,
        timeouts: Timeouts,
        client_memory: ClientMemory,
        access_log: AccessLog | None = None,
        turns_away: Callable[[], bool] = bool,
        gate: Gate | None = None,
        audit: AuditTrail | None = None,
        spans: SpanRecorder | None = None,
    ) -> None:
        self.loop = loop
        self.tick = tick
        self.guard = guard
        self.context = context
        self.timeouts = timeouts
        self.client_memory = client_memory
        self.access_log = access_log
        self.turns_away = turns_away
        """Asked once for each new connection: whether it is one too many."""
        self.leaving = False
        """The service is about to end: each connection gets one more answer."""
        self.ends_streams = False
        """Another service has taken over: what goes on for long goes on there."""
        self.connections: set[OpenConnection] = set()
        self.gate = gate or Gate()
        self._audit = audit
        self.looks_at_all = access_log is not None or (
            audit is not None and audit.sees_all_requests
        )
        """Whether each request is told of, so that none may be served without being looked at."""
        self.spans = spans
        """What records spans of requests; None where none are wanted."""
        self.times_all = access_log is not None or spans is not None
        """Whether it is noted when each request came that is not of the most frequent kind."""
        self.heads: dict[bytes, Head] = {}
        """Header sections that are recognised. They hold secrets: nothing may show them.

        Those that end their connections have `LAST` before them, so that none is taken for one that
        does not.
        """
        self.hot_keys: HotKeys | None = None
        """What counts the keys that are asked for, while somebody wants to know."""
        self.log = logging.getLogger("keyrack.http")

    @property
    def is_audited(self) -> bool:
        """Whether there is an audit trail."""
        return self._audit is not None

    def note(self, request: Request, status: int, peer: str, layer: str | None = None) -> None:
        """Tell the audit trail, if there is one, of a request that was answered.

        `layer` is the API of others that it belongs to, if any.
        """
        if self._audit is None:
            return
        if layer is not None:
            self._audit.note(request, layer, bool(request.write), status, peer)
            return
        route = dispatch.route_of(request)
        if route is not None:
            self._audit.note(request, route.name, route.writes, status, peer)

    def remember(self, raw: bytes, head: Head) -> None:
        """Recognise this header section from now on, unless its sender is looked at each time.

        When there are too many those are forgotten that came first: whoever sends the same bytes
        again is back after one request, and whoever never does cannot fill the memory. Nobody gets
        in here with wrong credentials.
        """
        if head.denial is not None or (head.grant is not None and not head.grant.plain):
            return
        if len(self.heads) >= _MAX_KNOWN_HEADS:
            for first in list(itertools.islice(self.heads, _FORGOTTEN)):
                del self.heads[first]
        if not head.keep_alive:
            raw = LAST + raw
        elif len(head.fields) + tracing_fields.MOST <= MAX_FIELDS:
            raw = tracing_fields.without(raw) or raw
        head.known_since = self.tick.now
        self.heads.pop(raw, None)  # in the order in which they came
        self.heads[raw] = head

    def recognise(self, section: bytes) -> Head | None:
        """Find a header section that is not known as it is, without the fields that trace it.

        The head has not these fields: only for requests that are answered from their key alone.
        """
        if self.spans is not None and trace_context.is_sampled(section):
            return None  # its span is made from the whole head
        rest = tracing_fields.without(section)
        return None if rest is None else self.heads.get(rest)

    def sample(self, hot_keys: HotKeys | None) -> None:
        """Count the keys that are asked for from now on; None: no longer."""
        self.hot_keys = hot_keys
        for connection in list(self.connections):
            connection.sample(hot_keys)

    def forget_some(self, now: float) -> None:
        """Forget the header sections whose grants are over; `now` in seconds since 1970.

        Those as well that are known for a minute: their next request tells that the token is used.
        """
        over = [
            raw
            for raw, head in self.heads.items()
            if head.grant is not None and head.grant.is_over(now)
        ]
        for raw in over:
            del self.heads[raw]
        self._forget_older_than(self.tick.now - _KNOWN_SECONDS)

    def _forget_older_than(self, oldest: float) -> None:
        old = []
        for raw, head in self.heads.items():
            if head.known_since >= oldest:
                break
            old.append(raw)
        for raw in old:
            del self.heads[raw]


class ServerConfig(uvicorn.Config):
    """The configuration of uvicorn's server, and what all of its connections share."""

    def __init__(self, worker: WorkerContext, application: Any, **options: Any) -> None:
        super().__init__(application, **options)
        self.worker = worker
