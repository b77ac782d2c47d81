"""What all connections of a worker share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import uvicorn

from keyrack.http.client_memory import ClientMemory, Holder

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from keyrack.http.access_log import AccessLog
    from keyrack.http.protocol.guard import Guard
    from keyrack.http.protocol.request import Head
    from keyrack.http.reply import Context
    from keyrack.http.turn import Turn

_MAX_KNOWN_HEADS: Final = 1024


class Timeouts(NamedTuple):
    """Deadlines of a connection, in seconds."""

    keep_alive: float
    head: float
    body: float
    send: float


class OpenConnection(Holder, Protocol):
    """What the worker itself asks of each connection that is open."""

    def check_deadlines(self, now: float) -> None:
        """Close it, or answer 408, where something has taken too long; `now` is `turn.now`."""

    def leave(self) -> None:
        """Answer what is under way, then close."""


class WorkerContext:
    """A worker's part in the fast lane: its turn, its limits, and the header sections it knows."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        turn: Turn,
        guard: Guard,
        context: Context,
        timeouts: Timeouts,
        client_memory: ClientMemory,
        access_log: AccessLog | None = None,
        turns_away: Callable[[], bool] = bool,
    ) -> None:
        self.loop = loop
        self.turn = turn
        self.guard = guard
        self.context = context
        self.timeouts = timeouts
        self.client_memory = client_memory
        self.access_log = access_log
        self.turns_away = turns_away
        """Asked once for each new connection: whether it is one too many."""
        self.leaving = False
        """Another service has taken over: each connection gets one more answer."""
        self.connections: set[OpenConnection] = set()
        self.heads: dict[bytes, Head] = {}
        self.log = logging.getLogger("keyrack.http")

    def remember(self, raw: bytes, head: Head) -> None:
        """Recognise this header section from now on.

        When there are too many all are forgotten: whoever sends the same bytes again is back after
        one request, and whoever never does cannot fill the memory.
        """
        if len(self.heads) >= _MAX_KNOWN_HEADS:
            self.heads.clear()
        self.heads[raw] = head


class ServerConfig(uvicorn.Config):
    """The configuration of uvicorn's server, and what all of its connections share."""

    def __init__(self, worker: WorkerContext, application: Any, **options: Any) -> None:
        super().__init__(application, **options)
        self.worker = worker
