"""How the processes of a service know of each other that they know of a change.

Whoever makes a change raises the epoch and wakes the workers. Each reads the epoch, then what was
changed, and then says which epoch it has seen. The change is in force when all have seen its epoch.

Each process raises a word of its own, and the epoch is the sum of all of them, so that no two
changes get the same one: a sum that is read before a change is made is less than one read after it.
"""

from __future__ import annotations

import mmap
from typing import Final

_CACHE_LINE: Final = 8
"""Words of each process, so that no two write to the same cache line."""
_RAISED: Final = 0
_SEEN: Final = 1


class Epochs:
    """Made by the supervisor before it forks. Each process writes only words of its own."""

    def __init__(self, processes: int) -> None:
        self._words = memoryview(mmap.mmap(-1, max(1, processes) * _CACHE_LINE * 8)).cast("q")

    def epoch(self) -> int:
        """Return the present epoch. Read it before what it is about."""
        return sum(self._words[_RAISED::_CACHE_LINE])

    def raise_epoch(self, process: int) -> int:
        """Begin another epoch, once a change is committed, and return it. Then wake the workers."""
        self._words[process * _CACHE_LINE + _RAISED] += 1
        return self.epoch()

    def see(self, worker: int, epoch: int) -> None:
        """Say that a worker goes by what was true in an epoch."""
        self._words[worker * _CACHE_LINE + _SEEN] = epoch

    def seen(self, worker: int) -> int:
        """Return the epoch that a worker goes by."""
        return self._words[worker * _CACHE_LINE + _SEEN]
