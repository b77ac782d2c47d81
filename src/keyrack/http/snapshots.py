"""How a worker comes by a snapshot for a client: the supervisor has one taken, the file is sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.shared.counters import Counters

_LOOK_SECONDS: Final = 0.02
_LONGEST_SECONDS: Final = 300.0
_PIECE: Final = 1 << 18


class Fetched:
    """A snapshot's file, open: it can be read to its end even when it is removed meanwhile."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with this
        self.size = os.fstat(self._file.fileno()).st_size

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the file. It may have to come from the disk, so a thread waits for that."""
        left = self.size
        with self._file:
            while left > 0:
                piece = await asyncio.to_thread(self._file.read, min(_PIECE, left))
                left -= len(piece)
                yield piece


class Snapshots:
    """The snapshots of the service that this worker belongs to."""

    def __init__(self, data: DataDirectory, counters: Counters, interval: float = 60.0) -> None:
        self.interval = interval
        """Seconds between two that are taken by themselves, where something has changed."""
        self._data = data
        self._counters = counters

    def journal_bytes(self) -> int:
        """Return how many bytes the write-ahead log takes: what was changed since a snapshot."""
        size = 0
        for number in self._data.journals():
            with contextlib.suppress(OSError):
                size += os.stat(self._data.journal(number)).st_size
        return size

    async def fetch(self) -> Fetched | None:
        """Have a snapshot taken if anything has changed, and open the newest; None if it failed."""
        number = self._counters.snapshots.want()
        until = time.monotonic() + _LONGEST_SECONDS
        while (taken := self._counters.snapshots.answered(number)) is None:
            if time.monotonic() > until:
                return None
            await asyncio.sleep(_LOOK_SECONDS)
        with contextlib.suppress(FileNotFoundError, IndexError):
            return Fetched(self._data.snapshot(self._data.snapshots()[-1])) if taken else None
        return None
