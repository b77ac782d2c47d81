"""Fences: writes of some keys need a lock, whoever sends them.

A write names the lock by a `Check` of it in the same write, so that it is done only while the lock
is held with that token. A write that names none is refused here, before it comes to the store.
What ends by its TTL or is evicted ends all the same: that is no write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from keyrack.engines.contract import (
    ANY,
    Add,
    Check,
    Delete,
    Discard,
    Refusal,
    Remember,
    Restore,
    Set,
    Space,
    Touch,
    Why,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from keyrack.engines.contract import Operation, Outcome, Write

Refusals: TypeAlias = dict[int, Refusal]
"""Refusals by the place of their write among others."""


class Fence(msgspec.Struct, frozen=True):
    """Which keys need which lock. `pattern` is a key, or with `beginning` what keys begin with."""

    pattern: bytes
    beginning: bool
    lock: bytes

    def fits(self, key: bytes) -> bool:
        """Tell whether a key needs the lock."""
        return key.startswith(self.pattern) if self.beginning else key == self.pattern

    def reaches(self, prefix: bytes) -> bool:
        """Tell whether some key that begins with a prefix may need the lock."""
        if self.pattern.startswith(prefix):
            return True
        return self.beginning and prefix.startswith(self.pattern)


class Fences:
    """All fences. `touches` is true for keys that one of them fits; None: one fits every key."""

    def __init__(
        self, fences: Iterable[Fence], touches: Callable[[bytes], object] | None = None
    ) -> None:
        self._fences = tuple(fences)
        self._touches = touches

    def refusals(self, writes: Sequence[Write]) -> Refusals:
        """Return why writes are refused that do not name a lock that they need."""
        found: Refusals = {}
        for place, write in enumerate(writes):
            refusal = self._refusal(write)
            if refusal is not None:
                found[place] = refusal
        return found

    def _refusal(self, write: Write) -> Refusal | None:
        held: frozenset[bytes] | None = None
        for index, operation in enumerate(write):
            key = _written(operation)
            if key is None or (self._touches is not None and not self._touches(key)):
                continue
            if held is None:
                held = locks_of(write)
            for fence in self._fences:
                if fence.lock not in held and fence.fits(key):
                    # What is remembered of a write is none of its operations.
                    place = index - isinstance(write[0], Remember)
                    return Refusal(Why.FENCED, place, lock=fence.lock)
        return None

    def needed_below(self, prefix: bytes) -> list[bytes]:
        """Return the locks that keys may need which begin with a prefix."""
        return list(dict.fromkeys(f.lock for f in self._fences if f.reaches(prefix)))


def _written(operation: Operation) -> bytes | None:
    """Return the user's key that an operation changes, None where it changes none."""
    if isinstance(operation, Set | Delete | Touch):
        return operation.key if operation.space is Space.KEYS else None
    return operation.key if isinstance(operation, Add | Discard | Restore) else None


def locks_of(write: Write) -> frozenset[bytes]:
    """Return the locks that a write depends on, each held with a token that it names."""
    return frozenset(
        one.key
        for one in write
        if isinstance(one, Check)
        and one.space is Space.LOCKS
        and one.condition.match
        and one.condition.match != ANY
    )


def left(writes: Sequence[Write], refusals: Refusals) -> list[Write]:
    """Return the writes that are not refused."""
    return [write for place, write in enumerate(writes) if place not in refusals]


def joined(refusals: Refusals, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return an outcome for each write, given those of the ones that were `left`."""
    rest = iter(outcomes)
    number = len(refusals) + len(outcomes)
    return [refusals[place] if place in refusals else next(rest) for place in range(number)]
