"""Pipelines: many requests that have nothing to do with each other, written at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyrack.client import many

if TYPE_CHECKING:
    from keyrack.client.calls import ApiCall
    from keyrack.client.keys import KeyCalls

WINDOW_REQUESTS: Final = 50
"""The server lets 64 wait."""
WINDOW_BYTES: Final = 1 << 15
"""What a socket takes without the other side reading: so both sides never wait for each other."""


class PipelineCalls:
    """The calls of a pipeline, in their order. Each method adds one; nothing is sent here."""

    def __init__(self, keys: KeyCalls) -> None:
        self._keys = keys
        self.calls: list[ApiCall[Any]] = []

    def __len__(self) -> int:
        return len(self.calls)

    def get(self, key: str | bytes, default: Any = None) -> None:
        """Read a key."""
        self.calls.append(self._keys.get(key, default))

    def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        media_type: str | None = None,
    ) -> None:
        """Store a value."""
        call = self._keys.set(
            key,
            value,
            ttl=ttl,
            if_match=if_match,
            if_none_match=if_none_match,
            media_type=media_type,
        )
        self.calls.append(call)

    def add(self, key: str | bytes, value: Any, *, ttl: float | None = None) -> None:
        """Store a value if the key is missing."""
        self.calls.append(self._keys.add(key, value, ttl, None))

    def replace(self, key: str | bytes, value: Any, *, ttl: float | None = None) -> None:
        """Store a value if the key is there."""
        self.calls.append(self._keys.replace(key, value, ttl, None))

    def delete(self, key: str | bytes, *, if_match: str | None = None) -> None:
        """Remove a key."""
        self.calls.append(self._keys.delete(key, if_match))

    def touch(self, key: str | bytes, ttl: float) -> None:
        """Give a key another TTL."""
        self.calls.append(self._keys.touch(key, ttl))

    def incr(
        self, key: str | bytes, delta: int = 1, *, initial: int = 0, ttl: float | None = None
    ) -> None:
        """Add to a counter."""
        self.calls.append(many.incr(self._keys.requests, key, delta, initial, ttl))


def windows(calls: list[ApiCall[Any]]) -> list[list[ApiCall[Any]]]:
    """Cut calls into what is written at once."""
    found: list[list[ApiCall[Any]]] = []
    size = 0
    for call in calls:
        full = not found or len(found[-1]) >= WINDOW_REQUESTS
        if full or size + len(call.data) > WINDOW_BYTES:
            found.append([])
            size = 0
        found[-1].append(call)
        size += len(call.data)
    return found
