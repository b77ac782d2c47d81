"""The last slow requests of each worker, in memory that all workers share.

Each worker has a ring of entries and nobody else writes to it, so nothing is locked. An entry's
number is written before its text is changed and after: who reads it in between sees two different
ones and passes it over. A worker that is replaced leaves its entries to be read.
"""

from __future__ import annotations

import mmap
from struct import Struct
from typing import Final

ENTRIES: Final = 128
"""Of each worker."""
ENTRY_BYTES: Final = 512
_HEAD: Final = Struct("qqH")
"""The entry's number, the number again, and the bytes of its text."""
TEXT_BYTES: Final = ENTRY_BYTES - _HEAD.size
_SECOND: Final = Struct("q")
_CLEARED_BYTES: Final = 8


class SlowRing:
    """Made by the supervisor before it forks. An entry is a text of at most `TEXT_BYTES` bytes."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._memory = mmap.mmap(-1, _CLEARED_BYTES + workers * ENTRIES * ENTRY_BYTES)
        self._cleared = memoryview(self._memory)[:_CLEARED_BYTES].cast("q")

    def add(self, worker: int, number: int, text: bytes) -> None:
        """Add the `number`th entry of a worker, in the place of its oldest."""
        at = self._at(worker, number % ENTRIES)
        text = text[:TEXT_BYTES]
        _SECOND.pack_into(self._memory, at + _SECOND.size, -1)
        self._memory[at + _HEAD.size : at + _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._memory, at, number, number, len(text))

    def texts(self) -> list[bytes]:
        """Return the entries of all workers, in no order."""
        found = []
        for worker in range(self._workers):
            for place in range(ENTRIES):
                at = self._at(worker, place)
                first, second, length = _HEAD.unpack_from(self._memory, at)
                text = self._memory[at + _HEAD.size : at + _HEAD.size + length]
                again = _HEAD.unpack_from(self._memory, at)
                if length and first == second and again == (first, second, length):
                    found.append(text)
        return found

    @property
    def cleared(self) -> int:
        """When the entries were last removed, in ns since 1970: earlier ones count no more."""
        return self._cleared[0]

    def clear(self, now: int) -> None:
        """Remove all entries that are older than `now` (ns since 1970)."""
        self._cleared[0] = now

    def _at(self, worker: int, place: int) -> int:
        return _CLEARED_BYTES + (worker * ENTRIES + place) * ENTRY_BYTES
