"""Upstash's API in the test's own process, without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.compat.upstash import Upstash
from keyrack.http.api.counting import REQUEST_WORDS
from keyrack.http.client_memory import ClientMemory
from keyrack.http.protocol.guard import Guard
from keyrack.http.worker_context import Timeouts, WorkerContext
from keyrack.shared.counters import Counters

if TYPE_CHECKING:
    from api_support.inside import Inside


def worker_of(inside: Inside) -> WorkerContext:
    """Return a worker whose parts are in this process."""
    memory = ClientMemory(Counters.create(1, REQUEST_WORDS.number), 0, 16 << 20)
    timeouts = Timeouts(90.0, 10.0, 60.0, 60.0)
    return WorkerContext(inside.loop, inside.tick, Guard(), inside.context, timeouts, memory)


def upstash_of(inside: Inside) -> Upstash:
    """Return the API of such a worker."""
    return Upstash(worker_of(inside))
