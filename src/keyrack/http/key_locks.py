"""Turns: work on one key that a worker does one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class KeyLocks:
    """A lock for each key that somebody works on, within this worker. First come, first served.

    What is of no key, and done by one at a time all the same, has the empty key.
    """

    def __init__(self) -> None:
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._wanted: dict[bytes, int] = {}

    @contextlib.asynccontextmanager
    async def held(self, key: bytes) -> AsyncIterator[None]:
        """Hold the key's lock."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._wanted[key] = self._wanted.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._locks[key], self._wanted[key]
