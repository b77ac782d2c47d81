"""Locks of directories: one service has a store, or a data directory, for as long as it lives.

The lock belongs to the open file `lock`, which the processes of a service inherit, so it is free
when the last of them is gone, however they ended. What is in the file is for people: who has it.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

FILE: Final = "lock"
_PATIENCE_SECONDS: Final = 3.0
_PAUSE_SECONDS: Final = 0.05


def try_lock(path: str) -> int | None:
    """Return the descriptor that locks a directory; None where another has it, or it is gone.

    Raises `OSError` where the file of the lock cannot be opened.
    """
    try:
        descriptor = os.open(os.path.join(path, FILE), os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    sign(descriptor)
    return descriptor


def lock_patiently(path: str) -> int | None:
    """Do what `try_lock` does; the last processes of an earlier service may still be ending."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (lock := try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
    return lock


def sign(descriptor: int) -> None:
    """Write into the file of a lock who has it: this process."""
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)


def owner_of(path: str) -> str:
    """Return what is written about who has a directory locked."""
    return Path(path, FILE).read_text(errors="replace").strip()
