"""The methods of `AsyncClient` about a single key, counter or lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from keyrack.client import fencing, leases, many, steps
from keyrack.client.async_commands import AsyncCommands
from keyrack.client.async_locks import AsyncLock
from keyrack.client.async_typed import AsyncTypedKeys
from keyrack.client.cacheability import NOTHING, Cacheability
from keyrack.client.keys import KEEP, KeyCalls
from keyrack.client.serializers import Msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keyrack.client.keys import Keep, Unchanged, Value
    from keyrack.client.many import PastEvent
    from keyrack.client.undo import Deletion


T = TypeVar("T")


class AsyncKeyCommands(AsyncCommands):
    """Methods about a single key, counter or lock."""

    async def get(self, key: str | bytes, default: Any = None) -> Any:
        """Return a key's value, or `default` when the key is missing.

        What its media type makes of it: text is a `str`, JSON what it stands for, the rest bytes.
        """
        return await self._send(self._keys.get(key, default))

    async def get_value(
        self,
        key: str | bytes,
        *,
        if_none_match: str | None = None,
        wait: float | None = None,
        max_stale: float | None = None,
    ) -> Value | Unchanged | None:
        """Return a key's value as it is stored, or None when the key is missing.

        `UNCHANGED` when it is at the ETag `if_none_match`. With `wait` the answer comes when it
        differs from that, or after so many seconds. With `max_stale` a value will do that ended so
        many seconds ago, if it is kept; its TTL is 0.
        """
        return await self._send(self._keys.get_value(key, if_none_match, wait, max_stale))

    async def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        stale: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        media_type: str | None = None,
        lock: AsyncLock | None = None,
        max_age: int | None = None,
        swr: int | None = None,
        public: bool = False,
    ) -> str:
        """Store a value and return its ETag. `ttl` is in seconds, to the millisecond.

        For `stale` seconds after its end it is kept for those who take stale values. Caches on the
        way may serve it for `max_age` whole seconds, and for `swr` more while they ask; those of
        several people if it is `public` and everybody may read the key.
        Raises `Conflict` when a condition does not hold, `TypeError` for a value that would not
        come back equal, and `LockLost` when a `lock` that is given is not held any more.
        """
        caching = NOTHING
        if max_age is not None or swr is not None or public:
            caching = Cacheability(max_age, swr, public)
        call = self._keys.set(
            key,
            value,
            ttl=ttl,
            stale=stale,
            if_match=if_match,
            if_none_match=if_none_match,
            media_type=media_type,
            caching=caching,
        )
        return await self._send(fencing.under(call, self._requests, lock))

    async def add(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        media_type: str | None = None,
        lock: AsyncLock | None = None,
    ) -> str | None:
        """Store a value if the key is missing, and return its ETag; None if it is there."""
        call = self._keys.add(key, value, ttl, media_type)
        return await self._send(fencing.under(call, self._requests, lock))

    async def replace(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        media_type: str | None = None,
        lock: AsyncLock | None = None,
    ) -> str | None:
        """Store a value if the key is there, and return its ETag; None if it is missing."""
        call = self._keys.replace(key, value, ttl, media_type)
        return await self._send(fencing.under(call, self._requests, lock))

    @overload
    async def delete(
        self,
        key: str | bytes,
        *,
        if_match: str | None = None,
        lock: AsyncLock | None = None,
        undo: None = None,
    ) -> bool: ...

    @overload
    async def delete(
        self,
        key: str | bytes,
        *,
        if_match: str | None = None,
        lock: AsyncLock | None = None,
        undo: int,
    ) -> Deletion: ...

    async def delete(
        self,
        key: str | bytes,
        *,
        if_match: str | None = None,
        lock: AsyncLock | None = None,
        undo: int | None = None,
    ) -> bool | Deletion:
        """Remove a key, and tell whether it was there.

        With `undo` (seconds) the result says how it can be undone for so long; it is true or false
        as well.
        """
        if undo is not None:
            undoable = self._keys.delete_undoable(key, if_match, undo)
            return await self._send(fencing.under(undoable, self._requests, lock))
        call = self._keys.delete(key, if_match)
        return await self._send(fencing.under(call, self._requests, lock))

    async def patch(
        self,
        key: str | bytes,
        merge: Mapping[str, Any],
        *,
        if_match: str | None = None,
        lock: AsyncLock | None = None,
    ) -> str:
        """Change members of a JSON value (RFC 7396: None removes one), and return its ETag.

        Raises `NotFound` when the key is missing.
        """
        call = self._keys.patch(key, merge, if_match)
        return await self._send(fencing.under(call, self._requests, lock))

    async def touch(self, key: str | bytes, ttl: float, *, lock: AsyncLock | None = None) -> bool:
        """Give a key another TTL, in seconds, and tell whether it is there. The ETag stays.

        Its stale copy, if one is kept, is kept for as long after the new end.
        """
        call = self._keys.touch(key, ttl)
        return await self._send(fencing.under(call, self._requests, lock))

    async def persist(self, key: str | bytes, *, lock: AsyncLock | None = None) -> bool:
        """Let a key have no end, and tell whether it is there. The ETag stays."""
        call = self._keys.touch(key, None)
        return await self._send(fencing.under(call, self._requests, lock))

    async def incr(
        self,
        key: str | bytes,
        delta: int = 1,
        *,
        initial: int = 0,
        ttl: float | None = None,
        ttl_if_new: float | None = None,
        if_match: str | None = None,
        lock: AsyncLock | None = None,
    ) -> int:
        """Add to a counter, made from `initial` where it is missing, and return its number.

        With `ttl` it gets that TTL, with `ttl_if_new` only when it is made; else it keeps what it
        has. It counts once, however often the request had to be sent. Raises `Refused` for what is
        no number of 64 bits, and `Conflict` when `if_match` does not hold; `*` asks that the key is
        there.
        """
        if ttl_if_new is not None and ttl is not None:
            raise ValueError("A counter takes ttl or ttl_if_new, not both.")
        call = many.incr(self._requests, key, delta, initial, ttl, if_match, ttl_if_new)
        return await self._send(fencing.under(call, self._requests, lock))

    async def update(
        self,
        key: str | bytes,
        change: Callable[[Any], Any],
        *,
        attempts: int = 10,
        ttl: float | Keep | None = KEEP,
    ) -> Any:
        """Store what `change` makes of a key's value (None: missing), and return it.

        If somebody else was faster it is called again with what they stored. The TTL stays unless
        one is given. Raises `Conflict` when somebody was faster in each of the attempts.
        """
        return await self._sender.run(steps.update(self._keys, key, change, attempts, ttl))

    async def wait(
        self,
        key: str | bytes,
        *,
        until: str = "exists",
        etag: str | None = None,
        timeout: float = 30.0,
    ) -> Value | None:
        """Wait until a key `exists`, is `gone`, or `changes`, and return what is there then.

        `etag` is the state to differ from, the present one if it is not given. Whole seconds are
        waited. Raises `Timeout`.
        """
        return await self._sender.run(steps.wait(self._keys, key, until, etag, timeout))

    async def history(self, key: str | bytes, *, limit: int = 100) -> list[PastEvent]:
        """Return the last known events of a key, newest first."""
        return await self._send(many.history(self._requests, key, limit))

    async def lock_owner(self, name: str | bytes) -> str | None:
        """Return who holds a lock, None for nobody."""
        return await self._send(leases.owner(self._requests, name))

    def lock(
        self,
        name: str | bytes,
        *,
        ttl: float = 30.0,
        wait: float | None = None,
        renew: bool = True,
        owner: str | None = None,
    ) -> AsyncLock:
        """Return a lock to be held in an `async with` block, or taken with `acquire`.

        It is waited for `wait` seconds, with None as long as it takes; who still does not get it
        gets `LockHeld`. It is renewed by itself, so that it ends `ttl` seconds after its
        process at the latest.
        """
        return AsyncLock(self._sender, self._requests, name, ttl, wait, renew, owner)

    def typed(self, kind: type[T]) -> AsyncTypedKeys[T]:
        """Return keys whose values are of one type: a `msgspec.Struct`, a dataclass, `list[int]`.

        They are stored as JSON and checked when they are read. It needs msgspec.
        """
        return AsyncTypedKeys(self._sender, KeyCalls(self._requests, Msgspec(kind)))
