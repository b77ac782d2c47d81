"""A dogpile.cache backend in Keyrack, with locks that hold across machines.

    import keyrack.dogpile                                   # makes the backend known
    region = make_region().configure(
        "keyrack",
        expiration_time=300,
        arguments={"url": "keyrack://127.0.0.1:8088/cache:", "secret": "...", "lock_timeout": 30},
    )

What the region's serializer makes is signed with `secret`. Without one, values are stored as JSON:
a pickle that anybody could have written is never read.
"""

# mypy: disable-error-code="import-not-found, misc"
# (dogpile.cache is there where this is used, and not where it is checked.)

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from dogpile.cache import register_backend
from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex

from keyrack.client import Client, LockHeld, Raw, Unreadable
from keyrack.client.serializers import Signer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyrack.client.locks import Lock

_OPTIONS: Final = frozenset(
    [
        "url",
        "secret",
        "ttl",
        "distributed_lock",
        "lock_timeout",
        "token",
        "timeout",
        "connect_timeout",
        "max_connections",
        "retries",
    ]
)
_LOCK_SECONDS: Final = 30.0
_BINARY: Final = "application/octet-stream"


def _as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class DogpileBackend(BytesBackend):
    """Values of a region in Keyrack.

    Arguments: `url`, `secret`, `distributed_lock` (True), `lock_timeout` in seconds, `ttl` (seconds
    after which keys end by themselves), `token`, `timeout` and the other numbers of a client.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        # A region's arguments may have others', which are none of this backend's business.
        given = {name: arguments[name] for name in _OPTIONS & arguments.keys()}
        secret = given.pop("secret", None)
        self._signer = None if secret is None else Signer(secret)
        if self._signer is None:
            self.serializer = _as_json
            self.deserializer = json.loads
        self._ttl: float | None = given.pop("ttl", None)
        self._distributed = bool(given.pop("distributed_lock", True))
        self._lock_seconds = float(given.pop("lock_timeout", None) or _LOCK_SECONDS)
        url = given.pop("url", "keyrack://127.0.0.1:8088/dogpile:")
        self._client = Client.from_url(url, serializer=Raw(), **given)

    def get_mutex(self, key: str) -> CacheMutex | None:
        """Return the lock for a key's creator: one for all processes."""
        if not self._distributed:
            return None
        return DogpileMutex(self._client, f"dogpile/{key}", self._lock_seconds)

    def _sealed(self, key: str, value: bytes) -> bytes:
        return value if self._signer is None else self._signer.signed(key.encode(), value)

    def _opened(self, key: str, data: Any) -> Any:
        if not isinstance(data, bytes):
            return NO_VALUE
        if self._signer is None:
            return data
        try:
            return self._signer.opened(key.encode(), data)
        except Unreadable:
            return NO_VALUE

    def get_serialized(self, key: str) -> Any:
        """Return a key's bytes, NO_VALUE when it is missing or was not signed with this secret."""
        return self._opened(key, self._client.get(key))

    def get_serialized_multi(self, keys: Sequence[str]) -> list[Any]:
        """Return the bytes of keys."""
        found = self._client.get_many(keys) if keys else {}
        return [self._opened(key, found.get(key)) for key in keys]

    def set_serialized(self, key: str, value: bytes) -> None:
        """Store bytes."""
        self._client.set(key, self._sealed(key, value), ttl=self._ttl, media_type=_BINARY)

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        """Store bytes under several keys."""
        if mapping:
            sealed = {key: self._sealed(key, value) for key, value in mapping.items()}
            self._client.set_many(sealed, ttl=self._ttl)

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._client.delete(key)

    def delete_multi(self, keys: Sequence[str]) -> None:
        """Remove keys."""
        if keys:
            self._client.delete_many(keys)


class DogpileMutex(CacheMutex):
    """A lock of Keyrack as dogpile wants it. It is renewed while it is held."""

    def __init__(self, client: Client, name: str, ttl: float) -> None:
        self._client = client
        self._name = name
        self._ttl = ttl
        self._held: Lock | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take it; with `wait` as long as that takes."""
        lock = self._client.lock(self._name, ttl=self._ttl, wait=None if wait else 0)
        try:
            lock.acquire()
        except LockHeld:
            return False
        self._held = lock
        return True

    def release(self) -> None:
        """Give it back."""
        lock, self._held = self._held, None
        if lock is not None:
            lock.release()

    def locked(self) -> bool:
        """Tell whether somebody holds it."""
        return self._client.lock_owner(self._name) is not None


register_backend("keyrack", "keyrack.dogpile", "DogpileBackend")
