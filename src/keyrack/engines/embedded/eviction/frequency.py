"""How often keys are used, and which were evicted lately: a file that all processes map.

No key has bytes of its own here. A key's hash names a counter, which other keys may share, and a
ghost, which the next evicted key with that hash takes over. All of it is advice: a byte that is
lost or shared costs a hit now and then, never a value.

A ghost is 16 bits: eleven of the key's hash, and the generation in which it was evicted, modulo 32.
Eight generations pass while as many keys are evicted as the store holds, and so long a key is
remembered. After 32 generations an old ghost looks like a new one; a key that comes back then
counts as used though it was gone for long, which is no harm worth a byte.

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

MOST_ACCESSES: Final = 3
"""Counters stop there: two bits, as in the paper."""
FILE: Final = "heat"
"""Its name in the store's directory, where every version looks for it."""

# Words at the file's beginning, changed only under the database's write lock.
OWED_BYTES: Final = 0
"""Bytes of records that are still to be evicted."""
PRESSURE_PER_CENT: Final = 1
"""How much is to be evicted for what is added, in per cent; 0 while there is room."""
SMALL_QUEUE_SETS: Final = 2
"""Sets in the event log that the hand of the small queue has not come to."""
SMALL_HAND_REVISION: Final = 3
"""The revision up to which the hand of the small queue has come."""
LARGEST_PAGES: Final = 4
"""Pages of the longest value of late."""
_GENERATION: Final = 5
_KEYS_IN_GENERATION: Final = 6
_HAND_BYTES: Final = 7
UNUSED_RUN: Final = 8
"""How many keys have crossed the small queue unused of late, while next to none was used."""
_WORDS: Final = 16
_HAND_AT: Final = _WORDS * 8
_HEADER_BYTES: Final = mmap.PAGESIZE

_FINGERPRINT_SHIFT: Final = 21
_GENERATION_BITS: Final = 5
_GENERATIONS: Final = 1 << _GENERATION_BITS
_REMEMBERED_GENERATIONS: Final = 8


def slots(limit: int) -> int:
    """Return how many slots a store of `limit` bytes has: one for each 128 to 256 bytes of it."""
    return 1 << (limit >> 7).bit_length() - 1


def size_for(limit: int) -> int:
    """Return the bytes of the file: a counter a slot, and a ghost for every second one."""
    return _HEADER_BYTES + 2 * slots(limit)


def forget(directory: str) -> None:
    """Remove the file that an earlier life has left in a store that does not evict any more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, FILE))


class AccessFrequency:
    """The file of a store with its limit in bytes, as one process has it mapped."""

    def __init__(self, directory: str, limit: int) -> None:
        self._map = _mapped(os.path.join(directory, FILE), size_for(limit))
        view, number = memoryview(self._map), slots(limit)
        self.words = view[:_HAND_AT].cast("q")
        self.counts = view[_HEADER_BYTES : _HEADER_BYTES + number]
        """How often the keys of each slot were used lately: 0 to `MOST_ACCESSES`."""
        self.mask = number - 1
        self._ghosts = view[_HEADER_BYTES + number :].cast("H")
        self._ghost_mask = len(self._ghosts) - 1

    def close(self) -> None:
        """Let go of the file."""
        for view in (self.words, self.counts, self._ghosts):
            view.release()

    def counting(self, get: Callable[[bytes], Record | None]) -> Callable[[bytes], Record | None]:
        """Return `get` so that it counts each key that it finds: 0.2 to 0.4 us more."""
        counts, mask = self.counts, self.mask

        def get_and_count(key: bytes) -> Record | None:
            record = get(key)
            if record is not None:
                slot = crc32(key) & mask
                count = counts[slot]
                if count < MOST_ACCESSES:
                    counts[slot] = count + 1
            return record

        return get_and_count

    def record_access(self, key: bytes) -> None:
        """Count that a key was used."""
        slot = crc32(key) & self.mask
        count = self.counts[slot]
        if count < MOST_ACCESSES:
            self.counts[slot] = count + 1

    def forget(self, keys: Sequence[bytes]) -> None:
        """Forget that keys were used."""
        for key in keys:
            self.counts[crc32(key) & self.mask] = 0

    def note_new(self, key: bytes) -> None:
        """Count a new key as used if its ghost is there: it was evicted lately."""
        number = crc32(key)
        ghost = self._ghosts[number & self._ghost_mask]
        if ghost >> _GENERATION_BITS == number >> _FINGERPRINT_SHIFT and ghost:
            age = (self.words[_GENERATION] - ghost) % _GENERATIONS
            if age < _REMEMBERED_GENERATIONS:
                self.record_access(key)

    def add_ghosts(self, keys: Sequence[bytes], held: int) -> None:
        """Leave ghosts of keys that were evicted from a store that held `held` keys."""
        words, ghosts, mask = self.words, self._ghosts, self._ghost_mask
        words[_KEYS_IN_GENERATION] += len(keys)
        if words[_KEYS_IN_GENERATION] * _REMEMBERED_GENERATIONS >= held:
            words[_KEYS_IN_GENERATION] = 0
            words[_GENERATION] += 1
        generation = words[_GENERATION] % _GENERATIONS
        for key in keys:
            number = crc32(key)
            ghosts[number & mask] = number >> _FINGERPRINT_SHIFT << _GENERATION_BITS | generation

    @property
    def main_hand(self) -> bytes:
        """The key at which the main hand stands; any bytes are a place to go on from."""
        length = self.words[_HAND_BYTES] & 511
        return self._map[_HAND_AT : _HAND_AT + length]

    @main_hand.setter
    def main_hand(self, key: bytes) -> None:
        self.words[_HAND_BYTES] = len(key)
        self._map[_HAND_AT : _HAND_AT + len(key)] = key


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
