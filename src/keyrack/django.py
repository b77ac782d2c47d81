"""Django's cache in Keyrack: `BACKEND = "keyrack.django.KeyrackCache"`.

    CACHES = {
        "default": {
            "BACKEND": "keyrack.django.KeyrackCache",
            "LOCATION": "keyrack://127.0.0.1:8088/myapp:",
            "OPTIONS": {"token": "...", "timeout": 2},
        }
    }

The methods that begin with `a` wait on the event loop themselves, without a thread. Plain values
(text, bytes, numbers, lists and dicts of them) are stored as what they are; everything else as a
pickle that is signed with `SECRET_KEY`, or not at all with `"serializer": "plain"`.
"""

# Django is there where this is used, and not where it is checked.
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func
from django.core.exceptions import ImproperlyConfigured

from keyrack.client import Conflict, Refused
from keyrack.client.address import options_of
from keyrack.django_clients import CLIENTS, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_LONGEST_KEY_BYTES: Final = 511
_LONGEST_TTL_SECONDS: Final = 315_360_000.0
_MISSING: Final = object()
_OURS: Final = frozenset(("serializer", "clear_all", "stale", "MAX_ENTRIES", "CULL_FREQUENCY"))


def _awaited(function: Callable[[], Any]) -> Callable[[], Any]:
    async def awaited() -> Any:
        return function()

    return awaited


class KeyrackCache(BaseCache):  # structure: what BaseCache has, and all of it awaited as well
    """A cache in Keyrack. `LOCATION` is a URL; its path is put before every key."""

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        options = params.get("OPTIONS", {})
        if unknown := set(options) - OPTIONS - _OURS:
            raise ImproperlyConfigured(f"OPTIONS has no {min(unknown)!r} here.")
        try:
            self._client, self._async = CLIENTS.of(location, options)
        except ValueError as error:
            raise ImproperlyConfigured(str(error)) from None
        self._stale = options.get("stale")
        self._clear_all = bool(options.get("clear_all"))
        self._has_prefix = bool(options_of(location).get("prefix"))

    # Keys and times

    def _key(self, key: str, version: int | None) -> str:
        made = str(self.make_and_validate_key(key, version=version))
        if len(made.encode()) <= _LONGEST_KEY_BYTES:
            return made
        return f"{made[:100]}:{hashlib.sha256(made.encode()).hexdigest()}"

    def _ttl(self, timeout: Any) -> float | None:
        """Return seconds, None for no end, 0 for what is over already."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return None
        seconds = float(timeout)
        return 0.0 if seconds <= 0 else min(max(seconds, 0.001), _LONGEST_TTL_SECONDS)

    def _keys(self, keys: Iterable[str], version: int | None) -> dict[str, str]:
        return {self._key(key, version): key for key in keys}

    def _clearing(self) -> tuple[str, bool]:
        """Return the prefix that `clear` removes, and whether it may be everything."""
        if self.key_prefix and self.key_func is default_key_func:
            return f"{self.key_prefix}:", False
        if not self._has_prefix and not self._clear_all:
            raise ImproperlyConfigured(
                "clear() would remove every key of the service. Give LOCATION a path, set "
                'KEY_PREFIX, or say OPTIONS = {"clear_all": True}.'
            )
        return "", True

    @staticmethod
    def _not_counted(error: Refused, key: str) -> Exception:
        if isinstance(error, Conflict):
            return ValueError(f"Key {key!r} not found")
        if error.kind in ("not-a-number", "overflow"):
            return TypeError(str(error))
        return error

    # As BaseCache says it

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return self._client.get(self._key(key, version), default)

    async def aget(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return await self._async.get(self._key(key, version), default)

    def set(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        name, ttl = self._key(key, version), self._ttl(timeout)
        self._client.delete(name) if ttl == 0 else self._client.set(name, value, ttl=ttl)

    async def aset(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        name, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0:
            await self._async.delete(name)
        else:
            await self._async.set(name, value, ttl=ttl)

    def add(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        name, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0:
            return self._client.get(name, _MISSING) is _MISSING
        return self._client.add(name, value, ttl=ttl) is not None

    async def aadd(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        name, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0:
            return await self._async.get(name, _MISSING) is _MISSING
        return await self._async.add(name, value, ttl=ttl) is not None

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0:
            return self._client.delete(name)
        return self._client.persist(name) if ttl is None else self._client.touch(name, ttl)

    async def atouch(
        self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        name, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0:
            return await self._async.delete(name)
        return await (self._async.persist(name) if ttl is None else self._async.touch(name, ttl))

    def get_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """Return a value, or what `default` makes of it; with `stale` one process makes it."""
        ttl = self._ttl(timeout)
        if not (self._stale and ttl and callable(default)):
            return super().get_or_set(key, default, timeout, version)
        name = self._key(key, version)
        return self._client.get_or_compute(name, default, ttl=ttl, stale=self._stale)

    async def aget_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        ttl = self._ttl(timeout)
        if not (self._stale and ttl and callable(default)):
            return await super().aget_or_set(key, default, timeout, version)
        name, made = self._key(key, version), _awaited(default)
        return await self._async.get_or_compute(name, made, ttl=ttl, stale=self._stale)

    def delete(self, key: str, version: int | None = None) -> bool:
        return self._client.delete(self._key(key, version))

    async def adelete(self, key: str, version: int | None = None) -> bool:
        return await self._async.delete(self._key(key, version))

    def has_key(self, key: str, version: int | None = None) -> bool:
        return self._client.get_value(self._key(key, version)) is not None

    async def ahas_key(self, key: str, version: int | None = None) -> bool:
        return await self._async.get_value(self._key(key, version)) is not None

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        try:
            return self._client.incr(self._key(key, version), delta, if_match="*")
        except Refused as error:
            raise self._not_counted(error, key) from None

    async def aincr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        try:
            return await self._async.incr(self._key(key, version), delta, if_match="*")
        except Refused as error:
            raise self._not_counted(error, key) from None

    async def adecr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        return await self.aincr(key, -delta, version)

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        names = self._keys(keys, version)
        return {names[name]: value for name, value in self._client.get_many(names).items()}

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        names = self._keys(keys, version)
        return {names[name]: value for name, value in (await self._async.get_many(names)).items()}

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        names, ttl = {self._key(k, version): v for k, v in data.items()}, self._ttl(timeout)
        self._client.delete_many(names) if ttl == 0 else self._client.set_many(names, ttl=ttl)
        return []

    async def aset_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        names, ttl = {self._key(k, version): v for k, v in data.items()}, self._ttl(timeout)
        if ttl == 0:
            await self._async.delete_many(names)
        else:
            await self._async.set_many(names, ttl=ttl)
        return []

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        self._client.delete_many(self._keys(keys, version))

    async def adelete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        await self._async.delete_many(self._keys(keys, version))

    def clear(self) -> None:
        """Remove the keys of this cache: those under KEY_PREFIX, or under LOCATION's path."""
        prefix, everything = self._clearing()
        self._client.delete_prefix(prefix, everything=everything)

    async def aclear(self) -> None:
        prefix, everything = self._clearing()
        await self._async.delete_prefix(prefix, everything=everything)
