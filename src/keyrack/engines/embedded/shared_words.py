"""A page of 64-bit words in the store directory, shared by every process that has it open.

What is here is advice that speeds things up or spreads work. The truth is in the database: a
word that is lost or stale costs time, never data. (`quotas` says whether to look there at all, and
is set anew whenever the database is opened.) A service sets the words about syncing anew when
it starts, and they only ever lag behind the disk.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

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


class SharedWords(ctypes.Structure):
    """The words. Their order is part of the store's format: only ever append."""

    pages_left: int
    """Pages that may still be taken before the file's length of claimed memory is looked at again.
    Changed only under the database's write lock."""
    pages_claimed: int
    """Pages at the file's start that are backed by memory. Changed only under the write lock."""
    sweeper: int
    """Process id of the worker that removes expired keys now."""
    sweep_until: int
    """Until when (steady clock, ns) the others leave that to it."""
    synced_journal: int
    """The number of the journal that was synced last. Changed only under the lock for syncing."""
    synced_sequence: int
    """The last journal entry that is certainly on the disk. Changed only under that lock, too."""
    broken: int
    """1 when the journal could not be synced, until a new snapshot is on the disk."""
    quotas: int
    """0 as long as there was never a quota; changed with them, only under the write lock."""

    _fields_ = (
        ("pages_left", ctypes.c_uint64),
        ("pages_claimed", ctypes.c_uint64),
        ("sweeper", ctypes.c_uint64),
        ("sweep_until", ctypes.c_uint64),
        ("synced_journal", ctypes.c_uint64),
        ("synced_sequence", ctypes.c_uint64),
        ("broken", ctypes.c_uint64),
        ("quotas", ctypes.c_uint64),
    )


def open_words(directory: str) -> SharedWords:
    """Map the words of the store in `directory`, making them (all zero) when they are missing."""
    descriptor = os.open(os.path.join(directory, "words"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Claimed at once: touching a hole of a full tmpfs later would kill the process.
        os.posix_fallocate(descriptor, 0, _SIZE)
        return SharedWords.from_buffer(mmap.mmap(descriptor, _SIZE))
    finally:
        os.close(descriptor)
