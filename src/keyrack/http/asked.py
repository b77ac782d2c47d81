"""How operations that are written as if every read were at hand run on an engine that waits.

An operation is a pure function of a request and of what it reads. On a waiting engine it reads
through `Asked`, which raises `NotYet` for what it does not know, and is called again when that has
come. What it was told stays told, so a second call goes as far as the first and on from there.
The reads of all requests of a turn leave together; nothing here is a task.

On an engine that answers at once none of this costs more than a `try`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from keyrack.engines.contract import StoreAway

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Capabilities, Page, Record, WaitingEngine

T = TypeVar("T")

_UNKNOWN: Final = object()

_log = logging.getLogger("keyrack.engine")


class NotYet(BaseException):
    """An operation needs an answer that is on its way. No `Exception`: nobody may swallow it."""

    def __init__(
        self, known: dict[tuple[Any, ...], Any], what: tuple[Any, ...], asked: Any
    ) -> None:
        self._known = known
        self._what = what
        self.answer: asyncio.Future[Any] = asyncio.ensure_future(asked)

    def learn(self) -> None:
        """Keep the answer, or that there is none, for the next call."""
        error = self.answer.exception()
        self._known[self._what] = self.answer.result() if error is None else error


class Asked:
    """A waiting engine as one operation reads it."""

    def __init__(self, engine: WaitingEngine) -> None:
        self.capabilities: Capabilities = engine.capabilities
        self.now = engine.now
        self._engine = engine
        self._known: dict[tuple[Any, ...], Any] = {}

    def afresh(self) -> Asked:
        """Return a view of the same engine that was told nothing yet."""
        return Asked(self._engine)

    def get(self, key: bytes) -> Record | None:
        """See `Reads.get`."""
        return self._told(self._engine.get, key)

    def lock_of(self, name: bytes) -> Record | None:
        """See `Reads.lock_of`."""
        return self._told(self._engine.lock_of, name)

    def scan(
        self,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit: int = 100,
        reverse: bool = False,
        delimiter: bytes = b"",
    ) -> Page:
        """See `Reads.scan`."""
        return self._told(self._engine.scan, prefix, after, limit, reverse, delimiter)

    def history(self) -> tuple[int, int]:
        """See `Reads.history`."""
        return self._told(self._engine.history)

    def _told(self, ask: Callable[..., Awaitable[T]], *about: Any) -> T:
        what = (ask.__name__, *about)
        answer: Any = self._known.get(what, _UNKNOWN)
        if answer is _UNKNOWN:
            raise NotYet(self._known, what, ask(*about))
        if isinstance(answer, BaseException):
            raise answer
        told: T = answer
        return told


def resolve(work: Callable[[], T], done: Callable[[T], None]) -> Callable[[], None]:
    """Call `done` with what `work` returns, at once or when all that it reads has come.

    Returns what calls it off.
    """
    waiting: asyncio.Future[Any] | None = None

    def go_on(came: NotYet) -> None:
        if not came.answer.cancelled():
            came.learn()
            attempt()

    def attempt() -> None:
        nonlocal waiting
        try:
            result = work()
        except NotYet as need:
            came = need
            waiting = came.answer
            waiting.add_done_callback(lambda _: go_on(came))
            return
        waiting = None
        done(result)

    def call_off() -> None:
        if waiting is not None:
            waiting.cancel()

    attempt()
    return call_off


async def resolved(work: Callable[[], T]) -> T:
    """Return what `work` returns when all that it reads has come."""
    while True:
        try:
            return work()
        except NotYet as need:
            came = need
        await asyncio.wait((came.answer,))
        came.learn()


def when_told(
    answer: T | Awaitable[T], then: Callable[[T], None], away: Callable[[], object]
) -> None:
    """Call `then` with an answer of an engine of either kind, or `away` if the store is.

    An engine that answers at once has `then` called before this returns.
    """
    if not isinstance(answer, Awaitable):
        then(answer)
        return

    def come(asked: asyncio.Future[T]) -> None:
        error = asked.exception()
        if error is None:
            then(asked.result())
            return
        if not isinstance(error, StoreAway):
            _log.error("the engine failed", exc_info=error)
        away()

    asyncio.ensure_future(answer).add_done_callback(come)


async def told(answer: T | Awaitable[T]) -> T:
    """Return an answer of an engine of either kind."""
    return (await answer) if isinstance(answer, Awaitable) else answer
