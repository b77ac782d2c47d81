"""Coroutines that run at once, as far as they can, without a task.

An operation is a coroutine that awaits its engine. On an engine that has its store at hand it never
suspends: it has ended when `run` returns, and has cost neither a task nor a turn of the event loop.
On one that answers later it goes on in the callback of the future that it waits for.

What runs so is no task: `asyncio.timeout` and `asyncio.current_task` mean nothing in it. It may
await futures, and `asyncio.sleep(0)` to let others go first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Running(Generic[T]):
    """A coroutine that waits for something. `done` is given its result; it must raise nothing.

    `done` may be replaced: whoever started it knows only now that it waits.
    """

    __slots__ = ("_coroutine", "_waiting", "done")

    def __init__(self, coroutine: Coroutine[Any, Any, T], done: Callable[[T], None]) -> None:
        self._coroutine = coroutine
        self.done: Callable[[T], None] | None = done
        self._waiting: asyncio.Future[Any] | None = None

    def wait_for(self, future: asyncio.Future[Any] | None) -> None:
        """Go on when what the coroutine awaits is there; None lets others go first."""
        if future is None:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(_set, future)
        else:
            # What a future asks of whoever drives the coroutine that awaits it.
            future._asyncio_future_blocking = False
        self._waiting = future
        future.add_done_callback(self._go_on)

    def _go_on(self, future: asyncio.Future[Any]) -> None:
        if future is not self._waiting:
            return  # it was cancelled when the future was done and this was on its way
        self._waiting = None
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as end:
            result: T = end.value
        except asyncio.CancelledError:
            return
        else:
            self.wait_for(awaited)
            return
        if self.done is not None:
            self.done(result)

    def cancel(self) -> None:
        """End it: what it awaits is cancelled, and nobody is given a result."""
        future, self._waiting = self._waiting, None
        self.done = None
        if future is None:
            return
        future.remove_done_callback(self._go_on)
        future.add_done_callback(_look_at)
        future.cancel()
        try:
            awaited = self._coroutine.throw(asyncio.CancelledError())
        except (StopIteration, asyncio.CancelledError):
            return
        self.wait_for(awaited)


def run(coroutine: Coroutine[Any, Any, T], done: Callable[[T], None]) -> Running[T] | None:
    """Run a coroutine; `done` is given its result, before this returns where it never suspends.

    Returns what waits, None when it has ended. What it raises before it has suspended is raised
    here; later there is nobody to raise it to, so it should raise nothing.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
    else:
        running = Running(coroutine, done)
        running.wait_for(awaited)
        return running
    done(result)
    return None


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that waits for nothing: a call of an engine at hand.

    For programs without an event loop: where it lets others go first, there are none. Raises
    `RuntimeError` where it does wait.
    """
    try:
        while coroutine.send(None) is None:
            pass
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("what was to be done at once has to wait for something")


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for any more, lest the loop logs it."""
    if not future.cancelled():
        future.exception()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
