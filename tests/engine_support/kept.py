"""A store that is kept on a disk, as tests use it: its engine, its data directory, restarts."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Final
from unittest import mock

from engine_support.driven import Driven, embedded
from engine_support.world import EVENTS_KEPT, MIB, SteadyClock
from keyrack.engines.contract import WhenFull
from keyrack.engines.embedded.durability import DurabilityConfig, data_directory, take_snapshot
from keyrack.engines.embedded.durability.files import FILES
from keyrack.engines.embedded.durability.reconcile import Started, start

if TYPE_CHECKING:
    from pathlib import Path

    from keyrack.engines.embedded.durability.files import Files
    from keyrack.engines.embedded.durability.group_sync import GroupSync
    from keyrack.engines.embedded.durability.take_snapshot import Taken


_BEGAN: Final = time.time_ns()


class KeptStore:
    """A store in `memory` (a directory) that is kept in `disk`; `strict` is the mode `commit`."""

    engine: Driven
    started: Started

    def __init__(
        self,
        memory: Path,
        disk: Path,
        strict: bool = False,
        size: int = 64 * MIB,
        events: int = 1000,
        keep: int = 2,
        files: Files = FILES,
        when_full: WhenFull = WhenFull.REJECT,
    ) -> None:
        self.memory = memory / "store"
        self.disk = disk / "data"
        self.strict = strict
        self.size = size
        self.events = events
        self.keep = keep
        self.files = files
        self.when_full = when_full
        self.clock = SteadyClock()
        self.group_sync: GroupSync | None = None
        self.open()

    def open(self) -> None:
        """Begin a life of the service, as the supervisor does."""
        self.memory.mkdir(parents=True, exist_ok=True)
        self.disk.parent.mkdir(parents=True, exist_ok=True)
        self.data, self._lock = data_directory.take(str(self.disk), self.files)
        kept = DurabilityConfig(self.data, self.strict)
        try:
            self.engine = embedded(
                str(self.memory), self.size, self.events, self.clock, kept, self.when_full
            )
            try:
                self.engine.begin_life()
                self.group_sync = self.engine.group_sync() if self.strict else None
                self.started = start(self.engine.database, self.data, self.keep, self.group_sync)
            except BaseException:
                self.engine.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def take(self) -> Taken:
        """Take a snapshot."""
        taken = take_snapshot.take(self.engine.database, self.data, self.group_sync)
        self.data.prune(self.keep)
        return taken

    def sync(self) -> bool:
        """Bring the journal to the disk, as is done before writes are acknowledged."""
        assert self.group_sync is not None
        assert self.engine.journal is not None
        return self.group_sync.sync(self.engine.journal.sequence)

    def close(self) -> None:
        """End the life. The store stays in memory."""
        if self.group_sync is not None:
            self.group_sync.close()
        self.engine.close()
        os.close(self._lock)

    def restart(self) -> None:
        """End this life and begin another with the same memory."""
        self.close()
        self.open()

    def lose_memory(self) -> None:
        """End this life, lose what is in memory, and begin another."""
        self.close()
        shutil.rmtree(self.memory)
        self.open()


class KeptWorld:
    """The embedded engine in the mode `commit`; each restart finds its memory lost.

    The wall clock goes with the test's clock, so that times mean the same before and after.
    """

    def __init__(self, parent: Path, events: int = EVENTS_KEPT) -> None:
        self._wall = mock.patch("keyrack.engines.embedded.clock.time", wraps=time)
        self._wall.start().time_ns.side_effect = self._time_ns
        self._store = KeptStore(parent, parent, strict=True, events=events)
        self.clock = self._store.clock

    def _time_ns(self) -> int:
        now = self._store.clock.ns if hasattr(self, "_store") else SteadyClock().ns
        return _BEGAN + now

    @property
    def engine(self) -> Driven:
        """The engine of this life."""
        return self._store.engine

    def restart(self) -> None:
        """Lose what is in memory, and begin the next life with what is on the disk."""
        assert self._store.sync()
        self._store.lose_memory()

    def take_snapshot(self) -> None:
        """Take a snapshot, and so begin another journal."""
        self._store.take()

    def lose(self) -> None:
        """Lose the store, and begin an empty one."""
        self._store.close()
        shutil.rmtree(self._store.memory)
        shutil.rmtree(self._store.disk)
        self._store.open()

    def close(self) -> None:
        """End."""
        self._store.close()
        self._wall.stop()
