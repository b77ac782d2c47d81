"""Requests that wait for something to happen under a name: for a key to change, for a lock."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

_WAITERS_A_STEP: Final = 64


class Waiter:
    """One request that waits, in a queue of its name."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._called = False
        self._over = False
        self._change: asyncio.Future[None] | None = None
        self._end = loop.call_later(seconds, self._time_is_over)
        self._again: asyncio.TimerHandle | None = None

    async def change(self) -> bool:
        """Wait until there may be something new; return False when the time is over.

        The first call returns as soon as it is sure that nothing that happens is missed.
        """
        if not (self._called or self._over):
            self._change = self._loop.create_future()
            await self._change
        self._called = False
        return not self._over

    def call(self) -> None:
        """There may be something new."""
        self._called = True
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    def call_in(self, seconds: float) -> None:
        """There will be something new by then, if not before."""
        if self._again is not None:
            self._again.cancel()
        self._again = self._loop.call_later(seconds, self.call)

    def close(self) -> None:
        """Wait no more."""
        self._end.cancel()
        if self._again is not None:
            self._again.cancel()

    def _time_is_over(self) -> None:
        self._over = True
        self.call()


class Waiters:
    """The requests of a worker that wait, by name, in order of arrival.

    `join` is called before one comes, and tells whether nothing that happens from now on is missed;
    `part` is called when one has left.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        join: Callable[[], bool],
        part: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._join = join
        self._part = part
        self._queues: dict[bytes, dict[Waiter, None]] = {}
        self._called: deque[Waiter] = deque()
        """Those that are to be called, a few at a time: what they do then takes the loop's time."""

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._queues)

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(map(len, self._queues.values()))

    @contextlib.contextmanager
    def waiting(self, name: bytes, seconds: float) -> Iterator[Waiter]:
        """Wait for something under a name, for some seconds at most."""
        begun = self._join()
        waiter = Waiter(self._loop, seconds)
        queue = self._queues.setdefault(name, {})
        queue[waiter] = None
        if begun:
            waiter.call()
        try:
            yield waiter
        finally:
            waiter.close()
            del queue[waiter]
            if not queue:
                del self._queues[name]
            self._part()

    def is_first(self, name: bytes, waiter: Waiter) -> bool:
        """Tell whether nobody has waited longer for the same."""
        return next(iter(self._queues[name])) is waiter

    def call_first(self, name: bytes) -> None:
        """Call the one that has waited longest for something, if any does."""
        for waiter in self._queues.get(name, ()):
            waiter.call()
            break

    def call_all_soon(self, name: bytes) -> None:
        """Have all that wait for something called by the next `call_some`."""
        self._called += self._queues.get(name, ())

    def call_everybody_soon(self) -> None:
        """Have everybody called: something happened, and it is not known what."""
        for queue in self._queues.values():
            self._called += queue

    def call_some(self) -> bool:
        """Call a few of those that are to be called; say whether others are left."""
        for _ in range(min(_WAITERS_A_STEP, len(self._called))):
            self._called.popleft().call()
        return bool(self._called)
