"""Keeps a store of one's own on a disk: snapshots that are taken by a thread.

A service has a process for it. Here a thread copies the store in pieces of a few tenths of a
millisecond and rests for twice as long after each, so that a program goes on at two thirds of its
speed at least, for as long as that takes.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import lmdb

from keyrack.engines.contract import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.server.durability import Durability
    from keyrack.shared.counters import Counters

_log = logging.getLogger("keyrack.snapshots")


class SnapshotThread:
    """Does for a store what is due to keep it, one thing at a time."""

    def __init__(self, durability: Durability, counters: Counters) -> None:
        self._durability = durability
        self._counters = counters
        self._thread: threading.Thread | None = None
        self._done = False

    def look(self) -> None:
        """Begin what is due, and note what is done. Call now and then."""
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
            self._durability.conclude(self._counters, self._done)
        work = self._durability.due(self._counters)
        if work is not None:
            self._thread = threading.Thread(
                target=self._run, args=(work,), name="keyrack-snapshot", daemon=True
            )
            self._thread.start()

    def finish(self) -> bool:
        """Bring everything to the disk, when nobody writes any more; tell whether it is there."""
        if self._thread is not None:
            self._thread.join()
        self._run(self._durability.end)
        return self._done

    def _run(self, work: Callable[[], None]) -> None:
        self._done = False
        try:
            work()
        except (StoreError, OSError, lmdb.Error) as error:
            _log.warning("no snapshot could be taken: %s", error)
            return
        self._done = True
