"""What serving a request can come to, besides an answer that is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from keyrack.http.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from keyrack.engines.contract import Engine, Outcome, Write
    from keyrack.http.access_control import AccessControl
    from keyrack.http.answer import Headers
    from keyrack.http.fence_keeper import FenceKeeper
    from keyrack.http.gate import Gate
    from keyrack.http.key_locks import KeyLocks
    from keyrack.http.observer import ServiceObserver
    from keyrack.http.protocol.request import Request
    from keyrack.http.tick import Tick
    from keyrack.http.watch.hub import WatchHub
    from keyrack.http.watch.sink import Sink, Subscription


class Limits(NamedTuple):
    """Limits that operations enforce, in bytes and seconds."""

    max_value: int
    max_body: int
    max_wait: float = 300.0
    idempotency_ttl: float = 600.0
    """How long the outcome of a write with an Idempotency-Key is remembered."""
    undo_default: int = 0
    """For how many seconds a deletion can be undone that does not say so itself; 0: not at all."""


def _healthy() -> str:
    return ""


class Context(NamedTuple):
    """What an operation may use."""

    engine: Engine
    limits: Limits
    tick: Tick
    hub: WatchHub
    patches: KeyLocks
    """Patches of one key go one after the other."""
    trouble: Callable[[], str] = _healthy
    """Says what is wrong with the service as a whole; empty when nothing is."""
    access: AccessControl | None = None
    observer: ServiceObserver | None = None
    """Looks at all workers of the service."""
    fences: FenceKeeper | None = None
    """Knows which writes need a lock; None where no key does."""

    @property
    def gate(self) -> Gate | None:
        """Who may do what; None where that is not known here."""
        return None if self.access is None else self.access.gate

    def meter(self, request: Request) -> Headers:
        """Count a request of a sender with a rate; return the fields that its answer carries.

        Raises `Problem` where the rate is used up.
        """
        if request.grant.rate is None or self.access is None:
            return ()
        return self.access.gate.meter(request.grant)

    def begin_watch(self, request: Request) -> Callable[[], None] | None:
        """Count a watch that begins; return what ends it. Raises `Problem` for one too many."""
        if request.grant.watches is None or self.access is None:
            return None
        return self.access.gate.begin_watch(request.grant)


Conclude: TypeAlias = "Callable[[Outcome], Answer | Coroutine[Any, Any, Answer]]"
"""How an outcome becomes the answer: a coroutine where something has to be read for it."""


class PendingWrite(NamedTuple):
    """A write that an operation needs, and how its outcome becomes the answer."""

    write: Write
    conclude: Conclude


class Stream(NamedTuple):
    """A body that goes on until the client leaves."""

    headers: Headers
    start: Callable[[Sink], Subscription]


Reply: TypeAlias = Answer | PendingWrite | Stream
