"""How warm keys are, and which were evicted lately: a file of bytes that all processes map.

No key has bytes of its own here. A key's hash names a slot of heat, which other keys may share, and
an entry of the ghosts, which the next evicted key with that hash takes over. All of it is advice: a
byte that is lost or shared costs a hit now and then, never a value.

A ghost is 16 bits: eleven of the key's hash, and the generation in which it was evicted, modulo 32.
Eight generations pass while as many keys are evicted as the store holds, and so long a key is
remembered. After 32 generations an old ghost looks like a young one; a key that comes back then is
warm though it was gone for long, which is no harm worth a byte.

The hash is CRC-32: equal in all processes, which Python's own is not, and quick.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Record

HOTTEST: Final = 3
FILE: Final = "heat"

# Words at the file's beginning, changed only under the database's write lock.
OWED: Final = 0
"""Bytes of records that are still to be evicted."""
PRESSED: Final = 1
"""How much is to be evicted for what is added, in per cent; 0 while there is room."""
YOUNG: Final = 2
"""Sets in the event log that the young hand has not come to."""
YOUNG_HAND: Final = 3
"""The revision up to which the young hand has come."""
LARGEST: Final = 4
"""Pages of the longest value of late."""
_GENERATION: Final = 5
_IN_GENERATION: Final = 6
_HAND_LENGTH: Final = 7
_WORDS: Final = 16
_HAND: Final = _WORDS * 8
_HEADER: Final = mmap.PAGESIZE

_FINGERPRINT_SHIFT: Final = 21
_GENERATION_BITS: Final = 5
_GENERATIONS: Final = 1 << _GENERATION_BITS
_REMEMBERED: Final = 8


def slots(limit: int) -> int:
    """Return how many slots a store of `limit` bytes has: one for each 128 to 256 bytes of it."""
    return 1 << (limit >> 7).bit_length() - 1


def size_for(limit: int) -> int:
    """Return the bytes of the file: a byte of heat a slot, and two bytes for every second one."""
    return _HEADER + 2 * slots(limit)


def forget(directory: str) -> None:
    """Remove the file that an earlier life has left in a store that does not evict any more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, FILE))


class Heat:
    """The file of a store with its limit in bytes, as one process has it mapped."""

    def __init__(self, directory: str, limit: int) -> None:
        self._map = _mapped(os.path.join(directory, FILE), size_for(limit))
        view, number = memoryview(self._map), slots(limit)
        self.words = view[:_HAND].cast("q")
        self.levels = view[_HEADER : _HEADER + number]
        """A byte of heat for each slot: 0 to `HOTTEST`."""
        self.mask = number - 1
        self._ghosts = view[_HEADER + number :].cast("H")
        self._ghost_mask = len(self._ghosts) - 1

    def close(self) -> None:
        """Let go of the file."""
        for view in (self.words, self.levels, self._ghosts):
            view.release()

    def warming(self, get: Callable[[bytes], Record | None]) -> Callable[[bytes], Record | None]:
        """Return `get` so that it raises the heat of each key that it finds: 0.2 to 0.4 us more."""
        levels, mask = self.levels, self.mask

        def get_and_warm(key: bytes) -> Record | None:
            record = get(key)
            if record is not None:
                slot = crc32(key) & mask
                level = levels[slot]
                if level < HOTTEST:
                    levels[slot] = level + 1
            return record

        return get_and_warm

    def warm(self, key: bytes) -> None:
        """Raise a key's heat: it was used."""
        slot = crc32(key) & self.mask
        level = self.levels[slot]
        if level < HOTTEST:
            self.levels[slot] = level + 1

    def welcome(self, key: bytes) -> None:
        """Warm a new key if it was evicted lately."""
        number = crc32(key)
        ghost = self._ghosts[number & self._ghost_mask]
        if ghost >> _GENERATION_BITS == number >> _FINGERPRINT_SHIFT and ghost:
            age = (self.words[_GENERATION] - ghost) % _GENERATIONS
            if age < _REMEMBERED:
                self.warm(key)

    def bury(self, keys: Sequence[bytes], held: int) -> None:
        """Remember keys that were evicted from a store that held `held` keys."""
        words, ghosts, mask = self.words, self._ghosts, self._ghost_mask
        words[_IN_GENERATION] += len(keys)
        if words[_IN_GENERATION] * _REMEMBERED >= held:
            words[_IN_GENERATION] = 0
            words[_GENERATION] += 1
        generation = words[_GENERATION] % _GENERATIONS
        for key in keys:
            number = crc32(key)
            ghosts[number & mask] = number >> _FINGERPRINT_SHIFT << _GENERATION_BITS | generation

    @property
    def hand(self) -> bytes:
        """The key at which the hand stands; whatever the bytes are, they are a place to go on."""
        length = self.words[_HAND_LENGTH] & 511
        return self._map[_HAND : _HAND + length]

    @hand.setter
    def hand(self, key: bytes) -> None:
        self.words[_HAND_LENGTH] = len(key)
        self._map[_HAND : _HAND + len(key)] = key


def _mapped(path: str, size: int) -> mmap.mmap:
    """Map the file, making it (all zero) when it is missing or of a store with another limit."""
    if os.path.exists(path) and os.stat(path).st_size != size:
        # Not made shorter: a service that is about to be replaced may have it mapped.
        os.unlink(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Claimed at once: touching a hole of a full tmpfs later would kill the process.
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
