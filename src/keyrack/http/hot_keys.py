"""Which keys are asked for most: a sample of a worker's requests, for as long as somebody asks.

A sample is counted in a sketch of bounded size (Misra and Gries, with the purge of Anderson and
others, "A High-Performance Algorithm for Identifying Frequent Items in Data Streams", 2017): when
too many keys are in it, the median of their weights is taken from each, and those go for which
nothing is left. A key's true weight is between what the sketch says and that plus `error`, so what
is asked for more often than `error` is certainly in it. The purge is O(keys), and rare.

While nobody asks nothing of it runs: `protocol.connection` serves by another class then, which
tells of requests here.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from keyrack.engines.contract import Add, Discard, Get, Remember, Restore, Space

if TYPE_CHECKING:
    from keyrack.engines.contract import Write

READS: Final = frozenset(("get", "key_get"))
"""Operations that read the one key that their path names."""
MOST: Final = 512
"""Keys that a sketch holds."""
_ALL: Final = 2000
"""So many requests are counted each, before only a part of them is."""
_GAP: Final = 16
"""One request in so many is counted then."""


class Sketch:
    """The heaviest of any number of names, in bounded memory."""

    __slots__ = ("_most", "error", "total", "weights")

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.weights: dict[bytes, int] = {}
        self.error = 0
        """How much heavier than `weights` says a name may be."""
        self.total = 0

    def add(self, name: bytes, weight: int) -> None:
        """Add to a name's weight."""
        self.total += weight
        weights = self.weights
        weights[name] = weights.get(name, 0) + weight
        if len(weights) > self._most:
            self._purge()

    def _purge(self) -> None:
        median = sorted(self.weights.values())[len(self.weights) // 2]
        self.error += median
        self.weights = {
            name: weight - median for name, weight in self.weights.items() if weight > median
        }

    def heaviest(self, most: int) -> list[tuple[bytes, int]]:
        """Return the heaviest names that are known, each with its weight, at most so many."""
        return sorted(self.weights.items(), key=lambda item: (-item[1], item[0]))[:most]


class HotKeys:
    """A sample of the requests of one worker, by their keys."""

    __slots__ = ("_gap", "_left", "sketch")

    def __init__(self) -> None:
        self.sketch = Sketch()
        self._gap = 1
        self._left = 1

    def note_request(self, path: bytes, template: str) -> None:
        """Tell of a read that is not of the most frequent kind, by its path and its route's."""
        prefix, _, rest = template.encode().partition(b"{key}")
        self.note(unquote_to_bytes(path[len(prefix) : len(path) - len(rest)]))

    def note_write(self, write: Write) -> None:
        """Tell of a write, or a batch: of each key of users that it is about."""
        for operation in write:
            if isinstance(operation, Get | Add | Discard | Restore) or (
                not isinstance(operation, Remember) and operation.space is Space.KEYS
            ):
                self.note(operation.key)

    def note(self, key: bytes) -> None:
        """Tell of a request for a key."""
        self._left -= 1
        if self._left:
            return
        self.sketch.add(key, self._gap)
        if self.sketch.total >= _ALL:
            # By chance, so that no client's own rhythm hides a key.
            self._gap = self._left = random.randint(1, 2 * _GAP - 1)
        else:
            self._left = 1
