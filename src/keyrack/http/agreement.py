"""How a change is in force in all workers before whoever made it is answered."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.shared.counters import Counters
    from keyrack.shared.epochs import Epochs

_LONGEST_WAIT: Final = 2.0
"""Seconds that a change waits for the other workers."""
_PAUSE: Final = 0.001


async def wait_for_all(
    epochs: Epochs, slot: int, counters: Counters, follow: Callable[[], None]
) -> int:
    """Begin another epoch, once a change is committed, and wait until all workers have seen it.

    `follow` has the worker in this slot go by the change. Returns how many workers have not said so
    in time: they are stuck, and what they do is not certain until they go on, when they learn of it
    first, or are replaced.
    """
    epoch = epochs.raise_epoch(slot)
    counters.wake_all()
    follow()
    until = time.monotonic() + _LONGEST_WAIT
    while (waiting := _behind(epochs, epoch, counters)) and time.monotonic() < until:
        await asyncio.sleep(_PAUSE)
    return waiting


def _behind(epochs: Epochs, epoch: int, counters: Counters) -> int:
    """Return how many workers that serve have not seen an epoch yet."""
    workers = range(counters.workers)
    return sum(counters.ready(one) and epochs.seen(one) < epoch for one in workers)
