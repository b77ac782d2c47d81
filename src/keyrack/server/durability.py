"""What the supervisor does for a store that is kept on a disk: fill it, and have snapshots taken.

A snapshot is taken by a process of its own, forked from the supervisor, which has neither threads
nor a database open. One at a time: when the interval is over and something has changed, when a
client asks, when the journal has grown long, when the disk has failed and is tried again, and at
the end of the service.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Final

import lmdb

from keyrack.engines.contract import StoreError, WhenFull
from keyrack.engines.embedded.durability import DurabilityConfig, data_directory, snapshot
from keyrack.engines.embedded.durability.reconcile import start
from keyrack.engines.embedded.durability.snapshot import SnapshotDamaged
from keyrack.engines.embedded.durability.take_snapshot import note_end, take
from keyrack.engines.embedded.engine import EmbeddedEngine
from keyrack.engines.embedded.locking import FILE as LOCK_FILE
from keyrack.engines.embedded.locking import try_lock
from keyrack.engines.embedded.shared_words import open_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from keyrack.engines.embedded.directory import StoreDirectory
    from keyrack.settings import Settings
    from keyrack.shared.counters import Counters

_LOOK_SECONDS: Final = 0.1
"""How often it is looked whether a snapshot is wanted."""
_RETRY_SECONDS: Final = 1.0
_LONG_JOURNAL_BYTES: Final = 64 << 20
"""A journal longer than this, and than the store may be, is replaced by a snapshot."""
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger("keyrack.snapshots")


def prepare(
    settings: Settings, directory: StoreDirectory, *, running: bool = False
) -> Durability | None:
    """Bring the store and its data directory together; None where it is not kept on a disk.

    `running`: they are together already, in a service that is being taken over, and that goes on to
    take the snapshots until it is gone. Raises `StoreError`.
    """
    if settings.durability == "none" or settings.data_dir is None:
        if directory.named and not running:
            _end_journal(settings, directory)
        return None
    strict = settings.durability == "commit"
    if running:
        directory.kept = DurabilityConfig(data_directory.look(settings.data_dir), strict)
        return Durability(settings, directory, directory.kept, None)
    data, lock = data_directory.take(settings.data_dir)
    directory.kept = DurabilityConfig(data, strict)
    durability = Durability(settings, directory, directory.kept, lock)
    try:
        durability.start()
    except BaseException:
        durability.close()
        raise
    return durability


def _end_journal(settings: Settings, directory: StoreDirectory) -> None:
    """What changes in this life is not written down: a later one must not think that it was."""
    with contextlib.closing(open_store(settings, directory, None)) as engine:
        database = engine.database
        if database.position().on:
            database.move(lambda position: position._replace(on=False))


def open_store(
    settings: Settings, directory: StoreDirectory, kept: DurabilityConfig | None
) -> EmbeddedEngine:
    """Open a service's store: all of its processes do so in the same way."""
    return EmbeddedEngine(
        directory.path,
        directory.memory,
        settings.events,
        kept=kept,
        when_full=WhenFull(settings.when_full),
    )


class Durability:
    """A service's data directory, and the snapshots in it. Times are of the monotonic clock."""

    def __init__(
        self,
        settings: Settings,
        directory: StoreDirectory,
        kept: DurabilityConfig,
        lock: int | None,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._kept = kept
        self._lock = lock
        self._words = open_words(directory.path)
        self._child = 0
        self._ticket = self._answered = 0
        self._due = time.monotonic() + settings.snapshot_interval
        self._rest_until = 0.0
        self._is_gone = False
        self._is_unread = False
        self._last_was_taken = False
        self._engine: EmbeddedEngine | None = None

    def start(self) -> None:
        """Fill the store if that is needed, and say what was found. Raises `StoreError`."""
        data = self._kept.data
        try:
            with self._open() as engine:
                group_sync = engine.group_sync() if self._kept.strict else None
                started = start(engine.database, data, self._settings.snapshot_keep, group_sync)
                if group_sync is not None:
                    group_sync.close()
        except (OSError, lmdb.Error) as error:
            raise StoreError(f"the data directory {data.path} cannot be used: {error}.") from error
        self._is_unread = started.from_memory
        for fact in started.facts:
            _log.info("%s", fact)
        for warning in started.warnings:
            _log.warning("%s", warning)
        for trouble in started.troubles:
            _log.error("%s", trouble)

    def use(self, engine: EmbeddedEngine) -> None:
        """Take snapshots of a store that this very process has open, and leave it open."""
        self._engine = engine

    def _open(self) -> AbstractContextManager[EmbeddedEngine]:
        if self._engine is not None:
            return contextlib.nullcontext(self._engine)
        return contextlib.closing(open_store(self._settings, self._directory, self._kept))

    # While the service runs

    def pause(self) -> float:
        """Return for how many seconds there is nothing to look at."""
        return _LOOK_SECONDS

    def look(self, counters: Counters, become_child: Callable[[], None]) -> None:
        """Have a snapshot taken if it is time; `become_child` lets go of what it has no use for."""
        work = None if self._child else self.due(counters)
        if work is not None:
            self._begin(become_child, work)

    def due(self, counters: Counters) -> Callable[[], None] | None:
        """Return what is to be done now, None for nothing; `conclude` when it is done.

        What it returns raises `StoreError`, `OSError` or `lmdb.Error` where it cannot be done.
        """
        now = time.monotonic()
        if now < self._rest_until or not self._owns():
            return None
        self._ticket = counters.snapshots.wanted
        if not self._is_present():
            self.conclude(counters, False)
            return None
        if self._is_unread:
            self._is_unread = False
            return self._read_newest
        self._look_for_journal()
        wanted = self._ticket > self._answered
        if wanted or now >= self._due or self._words.broken or self._journal_is_long():
            return self._take
        return None

    def _owns(self) -> bool:
        """Tell whether the data directory is this service's: it may yet be an earlier one's."""
        if self._lock is None:
            with contextlib.suppress(OSError):
                self._lock = try_lock(self._kept.data.path)
        return self._lock is not None

    def _is_present(self) -> bool:
        """Tell whether the data directory is there; while it is not, no write may be promised.

        A file system may be unmounted under a service, and what is written then goes nowhere.
        """
        try:
            self._kept.data.check_present()
            self._lock_again()
        except StoreError as error:
            if not self._is_gone:
                self._is_gone = True
                refused = "Writes are refused" if self._kept.strict else "No snapshot is taken"
                _log.error("%s %s until it is back.", error, refused)
            if self._kept.strict:
                self._words.broken = 1
            return False
        if self._is_gone:
            self._is_gone = False
            _log.warning("the data directory %s is back", self._kept.data.path)
        return True

    def _look_for_journal(self) -> None:
        """Refuse writes when somebody has removed the journal: until a snapshot has all of it."""
        if not self._kept.strict or self._words.broken:
            return
        path = self._kept.data.journal(self._words.synced_journal)
        if not os.path.exists(path):
            _log.error("%s is missing; a snapshot is taken instead", path)
            self._words.broken = 1

    def _read_newest(self) -> None:
        """Read the newest snapshot, as a start from memory does not; replace a damaged one."""
        data = self._kept.data
        numbers = data.snapshots()
        if not numbers:
            return
        path = data.snapshot(numbers[-1])
        try:
            snapshot.verify(path)
        except SnapshotDamaged as error:
            _log.error("%s Another one is taken now.", error)
            self._take(damaged=path)

    def _lock_again(self) -> None:
        """Lock what is in the place of the file that was locked. Raises `StoreError`."""
        assert self._lock is not None, "the data directory was this service's"
        path = self._kept.data.path
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._lock), os.stat(os.path.join(path, LOCK_FILE))):
                return
        try:
            lock = try_lock(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be locked: {error.strerror}.") from None
        if lock is None:
            raise StoreError(f"{path} is in use by another service.")
        os.close(self._lock)
        self._lock = lock

    def _journal_is_long(self) -> bool:
        if not self._kept.strict:
            return False
        data = self._kept.data
        try:
            size = os.stat(data.journal(data.journals()[-1])).st_size
        except (OSError, IndexError):
            return False  # whoever writes is told what is wrong with the directory
        return size > max(_LONG_JOURNAL_BYTES, self._directory.memory)

    def _begin(self, become_child: Callable[[], None], work: Callable[[], None]) -> None:
        try:
            self._child = os.fork()
        except OSError as error:
            _log.error("no process can be started for a snapshot: %s", error.strerror)
            self._rest()
            return
        if self._child == 0:
            code = 1
            try:
                become_child()
                work()
                code = 0
            except (StoreError, OSError, lmdb.Error) as error:
                _log.warning(
                    "no snapshot could be taken: %s", error, extra={"event": "snapshot_failed"}
                )
            except BaseException:
                _log.exception("no snapshot could be taken")
            finally:
                os._exit(code)

    def _take(self, gently: bool = True, damaged: str | None = None) -> None:
        with self._open() as engine:
            database = engine.database
            changed = database.changed_since_snapshot() or self._words.broken
            if not (changed or damaged is not None):
                return
            group_sync = engine.group_sync() if self._kept.strict else None
            taken = take(database, self._kept.data, group_sync, gently=gently)
            if damaged is not None:
                aside = self._kept.data.set_aside(damaged)
                _log.error("%s was not used. It is now %s.", damaged, aside)
            self._kept.data.prune(self._settings.snapshot_keep)
        _log.info(
            "snapshot %d was taken",
            taken.number,
            extra={
                "event": "snapshot",
                "keys": taken.summary.keys,
                "revision": str(taken.summary.revision),
                "bytes": taken.bytes,
                "seconds": round(taken.seconds, 3),
            },
        )

    def ended(self, pid: int, status: int, counters: Counters) -> None:
        """Take note of a child that has ended, whichever it was."""
        if not pid or pid != self._child:
            return
        self._child = 0
        self.conclude(counters, status == 0)

    def conclude(self, counters: Counters, taken: bool) -> None:
        """Note that what was due is done, or could not be."""
        self._last_was_taken = taken
        self._answered = self._ticket
        counters.snapshots.answer(self._ticket, taken)
        if taken:
            self._due = time.monotonic() + self._settings.snapshot_interval
        else:
            self._rest()

    def _rest(self) -> None:
        self._rest_until = time.monotonic() + _RETRY_SECONDS

    # At its end

    def finish(self, counters: Counters) -> bool:
        """Take the last snapshot, when nobody writes any more; say whether all is on the disk.

        A signal to end breaks it off.
        """
        self._wait(counters)
        if not self._owns():
            return True  # it is a successor's
        self._last_was_taken = False
        self._begin(lambda: None, self.end)
        self._wait(counters)
        if not self._last_was_taken:
            _log.error("what was changed since the last snapshot may not be on the disk")
        return self._last_was_taken

    def end(self) -> None:
        """Bring what is not there yet to the disk, when nobody writes any more.

        Raises `StoreError`, `OSError` or `lmdb.Error`.
        """
        if not self._kept.strict:
            self._take(gently=False)
        with self._open() as engine:
            note_end(engine.database, self._kept.data)

    def _wait(self, counters: Counters) -> None:
        while self._child:
            if signal.sigtimedwait(_ENDING, _LOOK_SECONDS) is not None:
                _log.warning("told again: the last snapshot is broken off")
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
                self._child = 0
                return
            pid, status = os.waitpid(self._child, os.WNOHANG)
            self.ended(pid, status, counters)

    def close(self) -> None:
        """Let go of the data directory."""
        if self._lock is not None:
            os.close(self._lock)
