"""What serving a request can come to, besides an answer that is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

from keyrack.http.asked import Asked, resolve
from keyrack.http.message import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Engine, Outcome, Reads, WaitingEngine, Write
    from keyrack.http.feed import Feed
    from keyrack.http.message import Headers


T = TypeVar("T")


class Limits(NamedTuple):
    """Limits that operations enforce, in bytes and seconds."""

    max_value: int
    max_body: int
    max_wait: float = 300.0
    idempotency_ttl: float = 600.0
    """How long the outcome of a write with an Idempotency-Key is remembered."""


class Context(NamedTuple):
    """What an operation may use.

    `engine` answers at once; where the store is a waiting engine it is one operation's view of it
    (see `asked`), and `store` is the engine itself, for work that can await.
    """

    engine: Reads
    limits: Limits
    feed: Feed
    store: Engine | WaitingEngine
    trouble: Callable[[], str] = str
    """Says what is wrong with the service as a whole; empty when nothing is."""

    def afresh(self) -> Context:
        """Return the context for an operation: what another one was told is not known in it."""
        if isinstance(self.engine, Asked):
            return self._replace(engine=self.engine.afresh())
        return self

    def attempt(
        self, work: Callable[[Context], T], done: Callable[[T], None]
    ) -> Callable[[], None]:
        """Call `done` with what an operation returns; what it reads is read anew.

        Returns what calls it off.
        """
        context = self.afresh()
        return resolve(lambda: work(context), done)


class PendingWrite(NamedTuple):
    """A write that an operation needs, and how its outcome becomes the answer."""

    write: Write
    conclude: Callable[[Outcome], Answer]


class Deferred(NamedTuple):
    """An answer that comes later. `start` gets what takes it, and returns what calls it off."""

    start: Callable[[Callable[[Answer], None]], Callable[[], None]]


class Chunk:
    """A piece of a stream, framed once for all who get it."""

    __slots__ = ("data", "framed")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.framed = b"%x\r\n%b\r\n" % (len(data), data)
        """As a chunk of HTTP/1.1."""


class Sink(Protocol):
    """Where a stream goes."""

    def push(self, chunk: Chunk) -> bool:
        """Send bytes; False when the client is too far behind to get them."""

    def finish(self) -> None:
        """End the stream."""


class Stream(NamedTuple):
    """A body that goes on until the client leaves. `start` returns what is called then."""

    headers: Headers
    start: Callable[[Sink], Callable[[], None]]


Reply: TypeAlias = Answer | PendingWrite | Deferred | Stream
