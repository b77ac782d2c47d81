"""One budget for all that a service holds for its clients: bodies that are arriving or waiting for
their turn, and answers that are not taken.

Every worker counts in a word of the shared counters what it holds, and asks for the sum of all of
them before it holds more. Small things are not asked about: each connection may hold a few KiB, and
what comes and goes within one callback is never counted. Beyond the budget, what is newest is
answered 503; and of the clients that do not take their answers, the greediest are cut.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, Protocol

from keyrack.http.problems import Problem
from keyrack.shared.counters import CLIENT_BYTES, CLIENTS_CUT, CLIENTS_REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from keyrack.shared.counters import Counters

LITTLE: Final = 4 << 10
"""Bytes of a message that is arriving which a connection may always hold."""
LARGE: Final = 64 << 10
"""Bytes of an answer from which on it is asked whether there is room for it.

The transport takes as many before it says that a client does not read.
"""
_RESERVE: Final = 8
"""Large things may fill the budget up to this part of it, so that small ones go on."""
_ALONE: Final = 16
"""Where others hold less than this part of the budget, anything may be held."""
_STALLED_SECONDS: Final = 2.0
"""How long a client takes or sends nothing before it may be cut."""
_WORTH_TRIMMING: Final = 4 << 20
"""Bytes that were held and are not any more, from which on memory is given back to the system."""


class Holder(Protocol):
    """A connection, as far as its part of the budget is concerned."""

    @property
    def held(self) -> int:
        """Bytes that are held for it."""

    def stalled(self, seconds: float) -> bool:
        """Tell whether its client has neither taken nor sent what is due, for so long."""

    def cut(self) -> None:
        """End it at once."""


class ClientMemory:
    """What one worker holds for its clients, and whether all workers may hold more (bytes)."""

    __slots__ = ("_counters", "_peak", "_trim", "_words", "limit")

    def __init__(self, counters: Counters, slot: int, limit: int) -> None:
        self._counters = counters
        self._words = counters.slot(slot)
        self._words[CLIENT_BYTES] = 0  # what a predecessor held died with it
        self._peak = 0
        self._trim = _malloc_trim()
        self.limit = limit

    @property
    def used(self) -> int:
        """What the whole service holds."""
        return self._counters.total(CLIENT_BYTES)

    def add(self, size: int) -> None:
        """Count that so much more, or less, is held."""
        held = self._words[CLIENT_BYTES] + size
        self._words[CLIENT_BYTES] = held
        self._peak = max(self._peak, held)

    def has_room(self, size: int, own: int = 0) -> bool:
        """Tell whether so much may be held, by somebody who holds `own` bytes now."""
        others = self.used - own
        most = self.limit - (self.limit // _RESERVE if size > LARGE else 0)
        return others + size <= most or others <= self.limit // _ALONE

    def refusal(self) -> Problem:
        """Count that something is not held, and return why."""
        self._words[CLIENTS_REFUSED] += 1
        return Problem(
            "client-memory-full",
            f"The service holds {self.limit} bytes for its clients and may hold no more.",
            ((b"Retry-After", b"1"),),
            limit=self.limit,
        )

    def relieve(self, holders: Iterable[Holder]) -> None:
        """Cut the greediest of those who take nothing, if the budget is nearly used up.

        Each worker gives its share. Call it now and then.
        """
        used, held = self.used, self._words[CLIENT_BYTES]
        if used <= self.limit - self.limit // _RESERVE * 2 or not held:
            return
        excess = used - self.limit // 2
        surplus = excess * held // used
        stalled = [holder for holder in holders if holder.held and holder.stalled(_STALLED_SECONDS)]
        for holder in sorted(stalled, key=lambda holder: holder.held, reverse=True):
            if surplus <= 0:
                return
            surplus -= holder.held
            self.count_cut()
            holder.cut()

    def count_cut(self) -> None:
        """Count that a connection was closed because its client did not take what it was sent."""
        self._words[CLIENTS_CUT] += 1

    def give_back(self) -> None:
        """Return memory to the system that was held and is not any more. Call it now and then.

        The allocator would keep it: what is freed lies between what is not.
        """
        held = self._words[CLIENT_BYTES]
        if self._peak - held > _WORTH_TRIMMING and held <= self._peak // 2:
            self._peak = held
            self._trim()


def _malloc_trim() -> Callable[[], object]:
    """Return what gives free memory back to the system, or does nothing where libc has no such."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if trim is None else (lambda: trim(0))
