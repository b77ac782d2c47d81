"""Storage of the `limits` package in Keyrack, for Flask-Limiter, slowapi and others.

    import keyrack.limits                                    # makes the schemes known
    storage = limits.storage.storage_from_string("keyrack://127.0.0.1:8088/limits:")
    limiter = Limiter(get_remote_address, app=app, storage_uri="keyrack://127.0.0.1:8088/limits:")

`async+keyrack://` is the same for event loops. The fixed window, the moving window and the sliding
window counter are supported. Times are those of the machine that asks.
"""

# limits is there where this is used, and not where it is checked.
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

import time
from math import floor
from typing import Any, ClassVar, Final

from limits.aio.storage import base as aio
from limits.storage import base

from keyrack.client import AsyncClient, Client, KeyrackError
from keyrack.client.address import options_of

_DEFAULT_PREFIX: Final = "limits:"
_MOVING: Final = "/moving"


_Entries = list[list[float]]


class _Full(Exception):
    """Raised where a moving window has no room, so that nothing is stored."""


def _options(uri: str | None, options: dict[str, Any]) -> dict[str, Any]:
    given = options_of((uri or "keyrack://127.0.0.1:8088").removeprefix("async+"))
    # Without a prefix `reset` would have to remove every key of the service.
    given.setdefault("prefix", _DEFAULT_PREFIX)
    return {**given, **options}


class _Window:
    """A moving window: a list of times with how many entries were made then, the newest first."""

    def __init__(self, limit: int, expiry: int, amount: int = 0) -> None:
        self.now = time.time()
        self._limit = limit
        self._amount = amount
        self._since = self.now - expiry

    def with_entries(self, before: _Entries | None) -> _Entries:
        """Return the entries with the new ones. Raises `_Full`."""
        entries = self._present(before)
        if sum(number for _, number in entries) + self._amount > self._limit:
            raise _Full
        return [[self.now, self._amount], *entries]

    def _present(self, entries: _Entries | None) -> _Entries:
        return [entry for entry in entries or () if entry[0] >= self._since]

    def shown(self, entries: _Entries | None) -> tuple[float, int]:
        """Return when the oldest entry was made, and how many there are."""
        present = self._present(entries)
        return (present[-1][0], int(sum(n for _, n in present))) if present else (self.now, 0)


class _Sliding:
    """The two counters of a sliding window."""

    def __init__(self, expiry: int) -> None:
        self.now = time.time()
        self._expiry = expiry

    def info(self, previous: int, current: int) -> tuple[int, float, int, float]:
        """Return both counters, each with its TTL."""
        share = (self.now / self._expiry) % 1
        left = (1 - share) * self._expiry
        return previous, left if previous else 0.0, current, left + self._expiry

    def is_over(self, previous: int, current: int, limit: int) -> bool:
        """Tell whether the weighted count is beyond the limit."""
        _, ttl, _, _ = self.info(previous, current)
        return floor(previous * ttl / self._expiry + current) > limit


class _Storage(base.TimestampedSlidingWindow):
    @property
    def base_exceptions(self) -> type[Exception]:
        """What is wrapped where that is asked for."""
        return KeyrackError


class KeyrackStorage(
    _Storage, base.Storage, base.MovingWindowSupport, base.SlidingWindowCounterSupport
):
    """Limits in Keyrack: `keyrack://HOST:8088/PREFIX`; options are those of `keyrack.Client`."""

    STORAGE_SCHEME: ClassVar[list[str]] = ["keyrack", "keyracks", "keyrack+unix"]

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any):
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._client = Client(**_options(uri, options))

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter, which ends `expiry` seconds after it was made."""
        return self._client.incr(key, amount, ttl_if_new=expiry)

    def get(self, key: str) -> int:
        """Return a counter, 0 when it is missing."""
        return int(self._client.get(key, 0))

    def get_expiry(self, key: str) -> float:
        """Return when a counter ends, in seconds of the epoch."""
        value = self._client.get_value(key)
        return time.time() + (getattr(value, "ttl", None) or 0.0)

    def check(self) -> bool:
        """Tell whether the service answers."""
        try:
            self._client.info()
        except KeyrackError:
            return False
        return True

    def reset(self) -> int:
        """Remove all limits; return how many keys that were."""
        return self._client.delete_prefix("").deleted

    def clear(self, key: str) -> None:
        """Forget what was counted under a key."""
        self._client.delete_many([key, key + _MOVING])

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Make entries in a moving window, if they fit."""
        change = _Window(limit, expiry, amount).with_entries
        try:
            self._client.update(key + _MOVING, change, attempts=1000, ttl=expiry)
        except _Full:
            return False
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when a moving window begins, and how many entries it has."""
        return _Window(limit, expiry).shown(self._client.get(key + _MOVING))

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count in a sliding window, if the weighted count allows it."""
        sliding = _Sliding(expiry)
        previous_key, key = self.sliding_window_keys(key, expiry, sliding.now)
        found = self._client.get_many([previous_key, key])
        previous, current = int(found.get(previous_key, 0)), int(found.get(key, 0))
        if amount > limit or sliding.is_over(previous, current + amount, limit):
            return False
        if sliding.is_over(previous, self.incr(key, 2 * expiry, amount), limit):
            # Somebody else was faster with the last of it.
            self._client.incr(key, -amount)
            return False
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the previous and the present counter, each with its TTL."""
        sliding = _Sliding(expiry)
        previous, current = self.sliding_window_keys(key, expiry, sliding.now)
        found = self._client.get_many([previous, current])
        return sliding.info(int(found.get(previous, 0)), int(found.get(current, 0)))

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget what was counted in a sliding window."""
        self._client.delete_many(self.sliding_window_keys(key, expiry, time.time()))


class AsyncKeyrackStorage(
    _Storage, aio.Storage, aio.MovingWindowSupport, aio.SlidingWindowCounterSupport
):
    """Limits in Keyrack, on an event loop: `async+keyrack://HOST:8088/PREFIX`.

    The methods are those of `KeyrackStorage`, awaited.
    """

    STORAGE_SCHEME: ClassVar[list[str]] = [f"async+{one}" for one in KeyrackStorage.STORAGE_SCHEME]

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any):
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._client = AsyncClient(**_options(uri, options))

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return await self._client.incr(key, amount, ttl_if_new=expiry)

    async def get(self, key: str) -> int:
        return int(await self._client.get(key, 0))

    async def get_expiry(self, key: str) -> float:
        value = await self._client.get_value(key)
        return time.time() + (getattr(value, "ttl", None) or 0.0)

    async def check(self) -> bool:
        try:
            await self._client.info()
        except KeyrackError:
            return False
        return True

    async def reset(self) -> int:
        return (await self._client.delete_prefix("")).deleted

    async def clear(self, key: str) -> None:
        await self._client.delete_many([key, key + _MOVING])

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        change = _Window(limit, expiry, amount).with_entries
        try:
            await self._client.update(key + _MOVING, change, attempts=1000, ttl=expiry)
        except _Full:
            return False
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        return _Window(limit, expiry).shown(await self._client.get(key + _MOVING))

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        sliding = _Sliding(expiry)
        previous_key, key = self.sliding_window_keys(key, expiry, sliding.now)
        found = await self._client.get_many([previous_key, key])
        previous, current = int(found.get(previous_key, 0)), int(found.get(key, 0))
        if amount > limit or sliding.is_over(previous, current + amount, limit):
            return False
        if sliding.is_over(previous, await self.incr(key, 2 * expiry, amount), limit):
            # Somebody else was faster with the last of it.
            await self._client.incr(key, -amount)
            return False
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        sliding = _Sliding(expiry)
        previous, current = self.sliding_window_keys(key, expiry, sliding.now)
        found = await self._client.get_many([previous, current])
        return sliding.info(int(found.get(previous, 0)), int(found.get(current, 0)))

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        await self._client.delete_many(self.sliding_window_keys(key, expiry, time.time()))
