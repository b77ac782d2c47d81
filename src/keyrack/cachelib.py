"""A cachelib cache in Keyrack, and through it Flask-Caching and Flask-Session.

    from keyrack.cachelib import CachelibCache

    cache = CachelibCache("keyrack://127.0.0.1:8088/myapp:", secret=app.secret_key)

    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)           # Flask-Session
    app.config.update(CACHE_TYPE="keyrack.cachelib.CachelibCache",               # Flask-Caching
                      CACHE_ARGS=["keyrack://127.0.0.1:8088/myapp:"])

Plain values are stored as what they are; all others as a pickle that is signed with `secret`, or
not at all without one.
"""

# mypy: disable-error-code="import-not-found, misc"
# (cachelib is there where this is used, and not where it is checked.)

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cachelib.base import BaseCache

from keyrack.client import Client, Conflict, SignedPickle
from keyrack.client.serializers import PlainOrSigned

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

_LONGEST_KEY_BYTES = 511


class CachelibCache(BaseCache):
    """A cache in Keyrack. `url` is as `keyrack.from_url` takes it; a timeout of 0 is no end.

    `clear` removes what is under the URL's path and `key_prefix`, and refuses without either.
    """

    def __init__(
        self,
        url: str = "keyrack://127.0.0.1:8088/cache:",
        default_timeout: int | timedelta = 300,
        key_prefix: str = "",
        secret: str | bytes | None = None,
        ignore_delete_many_errors: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        signed = None if secret is None else SignedPickle(_derived(secret))
        self._client = Client.from_url(url, serializer=PlainOrSigned(signed), **options)
        self._prefix = key_prefix

    @classmethod
    def factory(
        cls, app: Any, config: Mapping[str, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> CachelibCache:
        """Return the cache that Flask-Caching's configuration names."""
        kwargs.setdefault("key_prefix", config.get("CACHE_KEY_PREFIX") or "")
        kwargs.setdefault("secret", app.secret_key)
        kwargs.pop("threshold", None)
        return cls(*args, **kwargs)

    def _key(self, key: Any) -> str:
        made = self._prefix + str(key() if callable(key) else key)
        if len(made.encode()) <= _LONGEST_KEY_BYTES:
            return made
        return f"{made[:100]}:{hashlib.sha256(made.encode()).hexdigest()}"

    def _ttl(self, timeout: int | timedelta | None) -> float | None:
        seconds: int = self._normalize_timeout(timeout)
        return None if seconds <= 0 else float(seconds)

    def get(self, key: str) -> Any:
        """Return a key's value, None when it is missing."""
        return self._client.get(self._key(key))

    def set(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        """Store a value."""
        self._client.set(self._key(key), value, ttl=self._ttl(timeout))
        return True

    def add(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        """Store a value if the key is missing, and tell whether it was."""
        return self._client.add(self._key(key), value, ttl=self._ttl(timeout)) is not None

    def delete(self, key: str) -> bool:
        """Remove a key, and tell whether it was there."""
        return self._client.delete(self._key(key))

    def has(self, key: str) -> bool:
        """Tell whether a key is there."""
        return self._client.get_value(self._key(key)) is not None

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values of keys, None for those that are missing."""
        names = [self._key(key) for key in keys]
        found = self._client.get_many(names)
        return [found.get(name) for name in names]

    def set_many(
        self, mapping: Mapping[str, Any], timeout: int | timedelta | None = None
    ) -> list[str]:
        """Store values, and return their keys."""
        values = {self._key(key): value for key, value in mapping.items()}
        self._client.set_many(values, ttl=self._ttl(timeout))
        return list(mapping)

    def delete_many(self, *keys: str) -> list[str]:
        """Remove keys, and return them: none of them is there any more."""
        self._client.delete_many([self._key(key) for key in keys])
        return list(keys)

    def clear(self) -> bool:
        """Remove the keys of this cache."""
        self._client.delete_prefix(self._prefix)
        return True

    def inc(self, key: str, delta: int = 1) -> int:
        """Add to a number, made from 0 where it is missing, and return it."""
        name = self._key(key)
        while True:
            try:
                return self._client.incr(name, delta, if_match="*")
            except Conflict:
                # It is made as an int, so that `get` gives one back.
                if self._client.add(name, delta, ttl=self._ttl(None)) is not None:
                    return delta

    def dec(self, key: str, delta: int = 1) -> int:
        """Subtract from a number, made from 0 where it is missing, and return it."""
        return self.inc(key, -delta)


def _derived(secret: str | bytes) -> bytes:
    text = secret.encode() if isinstance(secret, str) else secret
    return hashlib.sha256(b"keyrack.cachelib:" + text).digest()
