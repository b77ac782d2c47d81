"""Values of one type: `orders = client.typed(Order)`. What is read is checked against the type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from keyrack.client import many, steps
from keyrack.client.keys import KEEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from keyrack.client.keys import Keep, KeyCalls
    from keyrack.client.sending import Sender

T = TypeVar("T")


class TypedKeys(Generic[T]):
    """Keys whose values are of one type, stored as JSON by msgspec.

    Reading raises `Unreadable` for a value that is none. The methods are those of `Client`.
    """

    def __init__(self, sender: Sender, keys: KeyCalls) -> None:
        self._sender = sender
        self._keys = keys

    def get(self, key: str | bytes) -> T | None:
        """Return a key's value, None when it is missing."""
        return cast("T | None", self._sender.send(self._keys.get(key, None)))

    def set(self, key: str | bytes, value: T, *, ttl: float | None = None) -> str:
        """Store a value and return its ETag."""
        return self._sender.send(self._keys.set(key, value, ttl=ttl))

    def add(self, key: str | bytes, value: T, *, ttl: float | None = None) -> str | None:
        """Store a value if the key is missing, and return its ETag; None if it is there."""
        return self._sender.send(self._keys.add(key, value, ttl, None))

    def replace(self, key: str | bytes, value: T, *, ttl: float | None = None) -> str | None:
        """Store a value if the key is there, and return its ETag; None if it is missing."""
        return self._sender.send(self._keys.replace(key, value, ttl, None))

    def delete(self, key: str | bytes) -> bool:
        """Remove a key, and tell whether it was there."""
        return self._sender.send(self._keys.delete(key, None))

    def get_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, T]:
        """Return the values of keys; those that are missing are left out."""
        return self._sender.run(many.get_many(self._keys, keys))

    def set_many(self, values: Mapping[str, T], *, ttl: float | None = None) -> dict[str, str]:
        """Store values, and return their ETags."""
        return self._sender.run(many.set_many(self._keys, values, ttl))

    def update(
        self,
        key: str | bytes,
        change: Callable[[T | None], T],
        *,
        attempts: int = 10,
        ttl: float | Keep | None = KEEP,
    ) -> T:
        """Store what `change` makes of a key's value (None: missing), and return it."""
        return cast("T", self._sender.run(steps.update(self._keys, key, change, attempts, ttl)))
