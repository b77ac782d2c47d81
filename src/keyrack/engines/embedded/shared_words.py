"""A page of 64-bit words in the store directory, shared by every process that has it open.

What is here is advice that speeds things up or spreads work. The truth is in the database: a
word that is lost or stale costs time, never data. A service sets the words about syncing anew when
it starts, and they only ever lag behind the disk.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

PAGES_LEFT: Final = 0
"""Pages that may still be taken before the file's length of claimed memory is looked at again.
Changed only under the database's write lock."""
PAGES_CLAIMED: Final = 1
"""Pages at the file's start that are backed by memory. Changed only under the write lock."""
SWEEPER: Final = 2
"""Process id of the worker that removes expired keys now."""
SWEEP_UNTIL: Final = 3
"""Until when (steady clock, ns) the others leave that to it."""
SYNCED_JOURNAL: Final = 4
"""The number of the journal that was synced last. Changed only under the lock for syncing."""
SYNCED_SEQUENCE: Final = 5
"""The last journal entry that is certainly on the disk. Changed only under the lock for syncing."""
BROKEN: Final = 6
"""1 when the journal could not be synced, until a new snapshot is on the disk."""

_SIZE: Final = mmap.PAGESIZE
_READERS: Final = 1 << 16
"""The size of the table for the 1022 readers that the store is opened for."""


def claim_readers(directory: str) -> None:
    """Have memory behind the database's table of readers, which it maps as well.

    Call before the database is opened: closing the file later would give up the database's locks.
    """
    descriptor = os.open(os.path.join(directory, "lock.mdb"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _READERS)
    finally:
        os.close(descriptor)


def open_words(directory: str) -> memoryview:
    """Map the words of the store in `directory`, making them (all zero) when they are missing."""
    descriptor = os.open(os.path.join(directory, "words"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Claimed at once: touching a hole of a full tmpfs later would kill the process.
        os.posix_fallocate(descriptor, 0, _SIZE)
        return memoryview(mmap.mmap(descriptor, _SIZE)).cast("Q")
    finally:
        os.close(descriptor)
