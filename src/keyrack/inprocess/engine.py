"""The embedded engine, for the threads of one process.

Reads need no lock: each is a transaction of its own, and LMDB lets any number of them be. Writes
take turns, by a lock that is held for microseconds.

A signal's handler can raise anywhere in the main thread, in the middle of a write as well. LMDB's
transaction is given up then, as if its process had died: whatever still holds it is let go of.
"""

from __future__ import annotations

import gc
import threading
import traceback
from typing import TYPE_CHECKING, TypeVar

from keyrack.engines.contract import Refusal, WhenFull, Why
from keyrack.engines.embedded.engine import EmbeddedEngine
from keyrack.http import eager

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Operation, Outcome, Record, Result, Sweep, Write
    from keyrack.engines.embedded.durability import DurabilityConfig

A = TypeVar("A")
T = TypeVar("T")


class ThreadedEngine(EmbeddedEngine):
    """A store that any thread of this process may ask."""

    def __init__(
        self,
        directory: str,
        limit: int,
        events: int,
        kept: DurabilityConfig | None,
        when_full: WhenFull,
    ) -> None:
        super().__init__(directory, limit, events, kept=kept, when_full=when_full)
        self._committed: Callable[[], None] = _nobody_waits
        self._lock = threading.RLock()
        self._writing = False
        self._disk_lock = threading.Lock()
        self._disk = self.group_sync() if kept is not None and kept.strict else None

    def tell_of_commits(self, committed: Callable[[], None]) -> None:
        """Have a function called after each commit, in the thread that has made it."""
        self._committed = committed

    def do_now(self, operation: Operation) -> Result | Refusal:
        """Do a single operation."""
        outcome = self.write_here(((operation,),))[0]
        return outcome if isinstance(outcome, Refusal) else outcome[0]

    def get_many_now(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return the records of keys, all as of one moment."""
        return eager.at_once(self.get_many(keys))

    @property
    def write_now(self) -> Callable[[Sequence[Write]], list[Outcome]]:
        """`write_here`."""
        return self.write_here

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """Do what `write_here` does."""
        return self.write_here(writes)

    def write_here(self, writes: Sequence[Write]) -> list[Outcome]:
        """Apply each write, all or none, in order, and return one outcome for each.

        Where that was asked for they are on the disk then. Raises `RuntimeError` in a handler that
        interrupted a write of the same thread.
        """
        outcomes = self._alone(self.apply, writes)
        if self._disk is not None and not self._is_on_disk():
            return [Refusal(Why.DISK)] * len(writes)
        self._committed()
        return outcomes

    def _is_on_disk(self) -> bool:
        """Bring what was written to the disk. Who waits for another thread is done with it."""
        assert self._disk is not None
        assert self.journal is not None
        sequence = self.journal.sequence
        with self._disk_lock:
            return self._disk.sync(sequence)

    def _alone(self, work: Callable[[A], T], given: A) -> T:
        with self._lock:
            if self._writing:
                raise RuntimeError(
                    "The store was asked to write by a handler of a signal, or by a finaliser, "
                    "that interrupted a write of the same thread. Do that later."
                )
            self._writing = True
            try:
                return work(given)
            except BaseException as error:
                _let_go(error)
                raise
            finally:
                self._writing = False

    async def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys whose time is over, each with its event."""
        return self._alone(eager.at_once, super().expire(limit))

    async def evict(self) -> int:
        """Evict what a full store owes for what was written to it; say how many keys went."""
        return self._alone(eager.at_once, super().evict())

    async def trim(self, limit: int) -> int:
        """Remove at most `limit` commits' events beyond those that are kept; say how many."""
        return self._alone(eager.at_once, super().trim(limit))

    def close(self) -> None:
        """Let go of the store. No other thread may be asking it any more."""
        if self._disk is not None:
            self._disk.close()
        super().close()


def _nobody_waits() -> None:
    """What is committed is told to nobody."""


def _let_go(error: BaseException) -> None:
    """Have nothing hold the transaction any more that was open when a write broke off."""
    linked: BaseException | None = error
    while linked is not None:
        traceback.clear_frames(linked.__traceback__)
        linked = linked.__context__
    gc.collect(1)  # what is in cycles was made a moment ago
