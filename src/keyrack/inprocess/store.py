"""A store that this process alone has open."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakSet

from keyrack.client.address import Endpoint
from keyrack.client.errors import Unreachable
from keyrack.engines.contract import WhenFull
from keyrack.engines.embedded import directory as directories
from keyrack.http.api.counting import REQUEST_WORDS
from keyrack.inprocess.calls import CallsAtOnce
from keyrack.inprocess.engine import ThreadedEngine
from keyrack.inprocess.loop import StoreLoop
from keyrack.inprocess.snapshots import SnapshotThread
from keyrack.server import durability
from keyrack.shared.counters import Counters
from keyrack.system import memory_limit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from keyrack.client.wire import Response
    from keyrack.settings import Settings

A = TypeVar("A")
T = TypeVar("T")

_PATIENCE_SECONDS: Final = 5.0
"""How long the end of a store waits for threads that are asking it."""
_POLL_SECONDS: Final = 0.0005

_log = logging.getLogger("keyrack")


class OwnStore:
    """A store in this process. Any thread may ask it; the children of a fork may not.

    Raises `StoreError` where it cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self.keeps_deleted = settings.undo_default > 0
        """Whether every deletion can be undone."""
        self._directory = directories.prepare(
            None,
            settings.memory,
            memory_limit(),
            settings.events,
            when_full=WhenFull(settings.when_full),
        )
        self._durability = None
        try:
            self._durability = durability.prepare(settings, self._directory)
            self.engine = ThreadedEngine(
                self._directory.path,
                self._directory.memory,
                settings.events,
                self._directory.kept,
                WhenFull(settings.when_full),
            )
        except BaseException:
            self._let_go()
            raise
        self._counters = counters = Counters.create(1, REQUEST_WORDS.number)
        self._snapshots = None
        if self._durability is not None:
            self._durability.use(self.engine)
            self._snapshots = SnapshotThread(self._durability, counters)
        self._loop = StoreLoop(
            settings,
            self.engine,
            counters,
            None if self._directory.kept is None else self._directory.kept.data,
            () if self._snapshots is None else (self._snapshots.look,),
        )
        self.engine.tell_of_commits(self._loop.wake)
        self._calls = CallsAtOnce(self.engine, self._loop.context, self._loop.guard)
        self._inside: deque[None] = deque()
        """One for each thread that asks the engine: a deque, because that takes no lock."""
        self._closed = False
        self._owner = os.getpid()
        self._loop.start()
        _stores.add(self)

    @property
    def endpoint(self) -> Endpoint:
        """Where clients find it."""
        return Endpoint("the store of this process", "localhost", 0, local=self)

    @property
    def path(self) -> str:
        """The directory in memory that it is in."""
        return self._directory.path

    @property
    def most_value_bytes(self) -> int:
        """The longest value that may be stored."""
        return self._loop.context.limits.max_value

    def ask(self, work: Callable[[A], T], given: A) -> T:
        """Have a function ask the engine something. Raises `Unreachable` where it is closed."""
        self._inside.append(None)
        try:
            if self._closed:
                raise self._gone()
            return work(given)
        finally:
            self._inside.pop()

    def answer(self, request: bytes) -> Response | None:
        """Return the answer to a request, None for one that takes a connection."""
        return self.ask(self._calls.answer, request)

    def connect(self) -> socket.socket:
        """Return one end of a new connection to it. Raises `Unreachable` where it is closed."""
        if self._closed:
            raise self._gone()
        try:
            return self._loop.connect()
        except RuntimeError:
            raise self._gone() from None

    def _gone(self) -> Unreachable:
        if os.getpid() != self._owner:
            return Unreachable(
                f"This store belongs to process {self._owner}, which opened it. Open one in each "
                "process, after the fork, or start a service that all of them reach."
            )
        return Unreachable("This store was closed.")

    def close(self) -> None:
        """End what waits, bring everything to the disk where it is kept on one, and let go of it.

        May be called again.
        """
        if self._closed:
            return
        self._closed = True
        self._loop.stop()
        over = time.monotonic() + _PATIENCE_SECONDS
        while self._inside and time.monotonic() < over:
            time.sleep(_POLL_SECONDS)
        if self._snapshots is not None and not self._snapshots.finish():
            _log.error("what was changed since the last snapshot may not be on the disk")
        if not self._inside:
            # Memory that a thread still reads from is not taken away: the process' end does that.
            self.engine.close()
        self._counters.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._durability is not None:
            self._durability.close()
        self._directory.close()

    def forget(self) -> None:
        """Give up this process' share, in the child of a fork: the store is the parent's."""
        if not self._closed:
            self._closed = True
            if self._durability is not None:
                self._durability.close()
            self._directory.hand_over()
            self._directory.close()


_stores: WeakSet[OwnStore] = WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.forget()


def _at_exit() -> None:
    for store in list(_stores):
        store.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
