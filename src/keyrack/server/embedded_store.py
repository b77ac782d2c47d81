"""A store in this machine's memory, as the server takes and serves it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import uvloop

from keyrack.engines.contract import WhenFull
from keyrack.engines.embedded import directory
from keyrack.server import durability
from keyrack.server.group_commit import GroupCommit
from keyrack.system import memory_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.embedded import EmbeddedEngine
    from keyrack.engines.embedded.directory import StoreDirectory
    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.server.durability import Durability
    from keyrack.server.store import TakeoverHandle, Work
    from keyrack.settings import Settings


class EmbeddedStore:
    """A store in a directory that this service holds the lock of."""

    engine = "embedded"

    def __init__(self, settings: Settings, directory: StoreDirectory) -> None:
        self._settings = settings
        self._directory = directory

    @property
    def path(self) -> str:
        """The directory."""
        return self._directory.path

    @property
    def memory(self) -> int | None:
        """Its limit in bytes."""
        return self._directory.memory

    @property
    def named(self) -> bool:
        """Whether it outlives the service."""
        return self._directory.named

    @property
    def notes(self) -> list[str]:
        """What an operator should know about it."""
        return self._directory.notes

    @property
    def data(self) -> DataDirectory | None:
        """Where it is kept on a disk, if this service does so."""
        return None if self._directory.kept is None else self._directory.kept.data

    @property
    def takeover(self) -> TakeoverHandle | None:
        """The directory's lock."""
        return self._directory

    def keep(self, running: bool) -> Durability | None:
        """Bring it and its data directory together. Raises `StoreError`."""
        return durability.prepare(self._settings, self._directory, running=running)

    def serve(self, work: Work) -> None:
        """Run a worker's event loop with the store open."""
        engine = durability.open_store(self._settings, self._directory, self._directory.kept)
        with (
            contextlib.closing(engine),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            self._group_commit(engine, runner.get_loop()),
        ):
            runner.run(work(engine))

    @contextlib.contextmanager
    def _group_commit(
        self, engine: EmbeddedEngine, loop: asyncio.AbstractEventLoop
    ) -> Iterator[None]:
        """Have writes answered when they are on the disk, where that was asked for."""
        if self._directory.kept is None or not self._directory.kept.strict:
            yield
            return
        with contextlib.closing(GroupCommit(engine, loop)) as group_commit:
            engine.answer_writes_by(group_commit.write)
            yield

    @property
    def is_lost(self) -> bool:
        """Whether the directory was removed, moved or replaced."""
        return self._directory.is_lost

    def close(self) -> None:
        """Give it up; one without a name is removed."""
        self._directory.close()


def prepare(settings: Settings) -> EmbeddedStore:
    """Take or make the store's directory. Raises `StoreError`."""
    taken = directory.prepare(
        settings.store,
        settings.memory,
        memory_limit(),
        settings.events,
        when_full=WhenFull(settings.when_full),
    )
    return EmbeddedStore(settings, taken)
