"""Python's collector of cycles, kept from holding up a worker's clients.

A full collection looks at every object there is. With 5,000 clients that wait these are a quarter
of a million, and nobody is served for 60 to 200 ms. Nothing that ends with a connection needs it:
each lets go of what refers to it when it is lost. So only young objects are looked at as usual,
in a millisecond or two. All of them are while few clients are there, when that is short too; and
after very many young ones, because something else may leave cycles behind.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_YOUNG: Final = 700
_MIDDLE: Final = 4
_OLD: Final = 12_500
"""Collections of the middle generation, each after 2,800 more objects, until a full one."""
_FEW_CONNECTIONS: Final = 100
_REST_SECONDS: Final = 60.0


class Collector:
    """When one worker collects; `connections` are those that are open."""

    def __init__(
        self,
        connections: Collection[object],
        clock: Callable[[], float] = time.monotonic,
        collect: Callable[[], int] = gc.collect,
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._collect = collect
        self._collected = clock()
        self._middle = 0
        """Collections of the middle generation before the last full one."""

    def begin(self) -> None:
        """Leave full collections to `look`. What exists now is never looked at again."""
        gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
        self._collect()
        gc.freeze()

    def look(self) -> None:
        """Collect everything, if that holds nobody up and is worth it. Call it now and then."""
        if len(self._connections) > _FEW_CONNECTIONS:
            return
        now = self._clock()
        if now - self._collected < _REST_SECONDS:
            return
        middle = gc.get_stats()[1]["collections"]
        if middle == self._middle:
            return
        self._collect()
        self._collected = now
        self._middle = middle
