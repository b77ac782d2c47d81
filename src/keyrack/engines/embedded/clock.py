"""The store's own clock: wall time when the store was made, plus the system's steady clock since.

Setting the wall clock moves no TTL, and every process of the machine reads the same time. The
steady clock is CLOCK_BOOTTIME, so a TTL also runs while a laptop sleeps. It starts anew with the
machine: a store that outlived its machine's start (on a disk) is anchored again, and its clock
never goes back behind the last time that was written down.
"""

from __future__ import annotations

import time
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_ANCHOR: Final = Struct(">QQ36s")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def steady_ns() -> int:
    """Return the nanoseconds since this machine started, sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> bytes:
    """Return 36 bytes that name this start of the machine, zeros where the system has none."""
    try:
        return _BOOT_ID.read_bytes().strip()[:36].ljust(36, b"\0")
    except OSError:
        return bytes(36)


class Anchor:
    """Where the store's clock was tied to the steady clock; written into the store once."""

    __slots__ = ("boot", "steady_ns", "wall_ms")

    def __init__(self, wall_ms: int, steady_ns: int, boot: bytes) -> None:
        self.wall_ms = wall_ms
        self.steady_ns = steady_ns
        self.boot = boot

    @classmethod
    def here_and_now(cls, steady: Callable[[], int], not_before: int = 0) -> Anchor:
        """Tie a clock to this moment, at `not_before` (ms) or later."""
        return cls(max(time.time_ns() // 1_000_000, not_before), steady(), boot_id())

    @classmethod
    def unpack(cls, raw: bytes) -> Anchor:
        """Return the anchor that `pack` wrote."""
        return cls(*_ANCHOR.unpack(raw))

    def pack(self) -> bytes:
        """Return the anchor as it is kept in the store."""
        return _ANCHOR.pack(self.wall_ms, self.steady_ns, self.boot)

    def clock(self, steady: Callable[[], int]) -> Callable[[], int]:
        """Return the store's clock: ms, from this anchor on."""
        offset = self.wall_ms * 1_000_000 - self.steady_ns

        def now() -> int:
            return (steady() + offset) // 1_000_000

        return now
