"""Group commit: one `fdatasync` of the write-ahead log for what many writes of many workers added.

How far the journal is on the disk is a word that all processes share. Whoever needs more takes a
lock (which the system gives back when its holder dies), looks again whether another has done it
meanwhile, and otherwise syncs the file for everybody: while one waits for the disk, writes of all
workers gather behind it for the next.

When a sync fails, the system may have dropped what was written: a second one that succeeds would
mean nothing. So the journal is given up: the word BROKEN says so, writes are refused, and go on
when a snapshot has been taken and another journal begun.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from keyrack.engines.embedded.durability.high_water import HighWaterMark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.contract import Measures
    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.engines.embedded.position import Position
    from keyrack.engines.embedded.shared_words import SharedWords

    Done: TypeAlias = Callable[[bool], None]


_log = logging.getLogger("keyrack.journal")


class GroupSync:
    """One process's part in it. `position` reads the journal's committed position."""

    def __init__(
        self,
        data: DataDirectory,
        words: SharedWords,
        lock_path: str,
        position: Callable[[], Position],
        measures: Measures,
    ) -> None:
        self._data = data
        self._measures = measures
        self._words = words
        self._position = position
        self._mark = HighWaterMark(data)
        self._lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._open: dict[int, int] = {}

    def sync(self, sequence: int) -> bool:
        """Return when the entries up to `sequence` are on the disk; False when they may not be."""
        if self._words.synced_sequence >= sequence:
            return True
        with self._locked():
            return self._words.synced_sequence >= sequence or self._sync()

    def leave(self, begun: Position) -> None:
        """Bring the journals before one that has begun to the disk: nobody writes to them any more.

        Where that fails the snapshot that is being taken makes up for it.
        """
        with self._locked():
            if self._words.broken:
                return
            try:
                for number in range(self._words.synced_journal, begun.number):
                    self._data.files.sync(self._descriptor(number))
            except OSError:
                self._words.broken = 1
                return
            self._words.synced_journal = max(begun.number, self._words.synced_journal)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _sync(self) -> bool:
        if self._words.broken:
            return False
        position = self._position()
        began = time.monotonic_ns()
        try:
            # A journal that was left for the next one is brought to the disk before it.
            for number in range(self._words.synced_journal, position.number + 1):
                self._data.files.sync(self._descriptor(number))
            self.settle(position)
        except OSError:
            self._words.broken = 1
            return False
        finally:
            if self._measures.synced is not None:
                self._measures.synced(time.monotonic_ns() - began)
        return True

    def settle(self, position: Position) -> None:
        """Say that everything up to a position is on the disk, there too. Raises `OSError`."""
        self._mark.note_synced(position.number, position.sequence)
        self.note(position)

    def note(self, position: Position) -> None:
        """Say to the other processes that everything up to a position is on the disk."""
        self._words.synced_journal = position.number
        self._words.synced_sequence = position.sequence

    @property
    def broken(self) -> bool:
        """Whether a sync has failed and no snapshot was taken since."""
        return self._words.broken == 1

    def resume(self) -> None:
        """Let writes go on after a failure; call when a snapshot holds all that was written.

        Raises `OSError` when the journal that was begun with the snapshot cannot be synced either.
        """
        with self._locked():
            position = self._position()
            self._data.files.sync(self._descriptor(position.number))
            self.settle(position)
            self._words.broken = 0

    def _descriptor(self, number: int) -> int:
        if number not in self._open:
            for old in [old for old in self._open if old < number - 1]:
                os.close(self._open.pop(old))
            self._open[number] = self._data.files.open(self._data.journal(number))
        return self._open[number]

    def close(self) -> None:
        """Let go of the files."""
        self._mark.close()
        for descriptor in (self._lock, *self._open.values()):
            os.close(descriptor)


class SyncThread:
    """Syncs for an event loop, which goes on meanwhile. `post` calls something in the loop."""

    def __init__(self, group_sync: GroupSync, post: Callable[[Callable[[], None]], object]) -> None:
        self._group_sync = group_sync
        self._post = post
        self._asked: SimpleQueue[tuple[int, Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    def when_kept(self, sequence: int, done: Done) -> None:
        """Call `done` in the loop when the entries up to `sequence` are on the disk, or cannot be.

        It gets True when they are. Calls come in the order of asking.
        """
        self._asked.put((sequence, done))

    def _run(self) -> None:
        while (first := self._asked.get()) is not None:
            asked = [first]
            while not self._asked.empty():
                following = self._asked.get()
                if following is None:
                    self._conclude(asked)
                    return
                asked.append(following)
            self._conclude(asked)

    def _conclude(self, asked: list[tuple[int, Done]]) -> None:
        try:
            kept = self._group_sync.sync(max(sequence for sequence, _ in asked))
        except Exception:
            # Nobody may be left waiting; what cannot be told to be kept is told to be lost.
            _log.exception("the journal's state cannot be read")
            kept = False

        def tell() -> None:
            for _, done in asked:
                done(kept)

        self._post(tell)

    def close(self) -> None:
        """End, when all that was asked for is done."""
        self._asked.put(None)
        self._thread.join()
