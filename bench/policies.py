"""Textbook policies, for comparison: the hits that each has with room for so many keys."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NEVER: Final = 1 << 60


def lru(requests: Sequence[int], room: int) -> int:
    """Evict what was not used for the longest time."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in requests:
        if key in held:
            hits += 1
            held.move_to_end(key)
        else:
            held[key] = None
            if len(held) > room:
                held.popitem(last=False)
    return hits


class _S3Fifo:
    """Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), algorithm 1."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._most_small = max(1, room // 10)
        self._most_main = max(1, room - self._most_small)
        self._small: OrderedDict[int, int] = OrderedDict()
        self._main: OrderedDict[int, int] = OrderedDict()
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def request(self, key: int) -> bool:
        """Ask for a key, and store it if it is not there; say whether it was."""
        for queue in (self._small, self._main):
            if key in queue:
                queue[key] = min(queue[key] + 1, 3)
                return True
        while len(self._small) + len(self._main) >= self._room:
            if len(self._small) >= self._most_small or not self._main:
                self._evict_small()
            else:
                self._evict_main()
        if key in self._ghosts:
            del self._ghosts[key]
            self._main[key] = 0
        else:
            self._small[key] = 0
        return False

    def _evict_small(self) -> None:
        while self._small:
            key, used = self._small.popitem(last=False)
            if used <= 1:
                self._ghosts[key] = None
                if len(self._ghosts) > self._most_main:
                    self._ghosts.popitem(last=False)
                return
            self._main[key] = 0
            if len(self._main) > self._most_main:
                self._evict_main()

    def _evict_main(self) -> None:
        while True:
            key, used = self._main.popitem(last=False)
            if not used:
                return
            self._main[key] = used - 1


def s3_fifo(requests: Sequence[int], room: int) -> int:
    """Evict new keys early unless they are used again; see `_S3Fifo`."""
    cache = _S3Fifo(room)
    return sum(map(cache.request, requests))


def belady(requests: Sequence[int], room: int) -> int:
    """Evict what is used again last: it knows the future, and nothing is better."""
    following = [0] * len(requests)
    seen: dict[int, int] = {}
    for at in range(len(requests) - 1, -1, -1):
        following[at] = seen.get(requests[at], _NEVER)
        seen[requests[at]] = at
    held: dict[int, int] = {}
    latest: list[tuple[int, int]] = []
    hits = 0
    for at, key in enumerate(requests):
        if key in held:
            hits += 1
        elif len(held) >= room:
            while True:
                next_use, candidate = heapq.heappop(latest)
                if held.get(candidate) == -next_use:
                    del held[candidate]
                    break
        held[key] = following[at]
        heapq.heappush(latest, (-following[at], key))
    return hits


POLICIES: Final[dict[str, Callable[[Sequence[int], int], int]]] = {
    "LRU": lru,
    "S3-FIFO": s3_fifo,
    "Belady": belady,
}
