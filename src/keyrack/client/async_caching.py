"""`get_or_compute` and `cached` for programs on an event loop."""

from __future__ import annotations

import asyncio
import functools
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from keyrack.client import recomputing, say
from keyrack.client.errors import KeyrackError
from keyrack.client.recomputing import MISSING, SLACK_SECONDS, CachePolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from keyrack.client.async_sending import AsyncSender
    from keyrack.client.cached import CallKeys
    from keyrack.client.keys import KeyCalls
    from keyrack.client.recomputing import Found

P = ParamSpec("P")
T = TypeVar("T")


class AsyncFlights:
    """What the tasks of each event loop are reading or computing now: each key once."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bytes, asyncio.Future[Any]]] = (
            WeakKeyDictionary()
        )

    def here(self) -> dict[bytes, asyncio.Future[Any]]:
        """Return the flights of the loop that runs."""
        return self._of.setdefault(asyncio.get_running_loop(), {})


class AsyncCaching:
    """Reads keys, and has one of all that want one compute it."""

    def __init__(self, sender: AsyncSender, keys: KeyCalls, flights: AsyncFlights) -> None:
        self._sender = sender
        self._keys = keys
        self._flights = flights
        self._giving_up: set[asyncio.Task[None]] = set()

    async def get_or_compute(
        self, key: str | bytes, compute: Callable[[], Awaitable[T]], policy: CachePolicy
    ) -> T:
        """Return a key's value, or what is computed for it."""
        name, flights = self._keys.requests.key(key), self._flights.here()
        while (flight := flights.get(name)) is not None:
            await asyncio.wait((flight,), timeout=policy.wait + SLACK_SECONDS)
            if not flight.done():
                return await compute()
            if not flight.cancelled():
                found: T = flight.result()
                return found
        flight = flights[name] = asyncio.get_running_loop().create_future()
        try:
            return await self._fly(key, compute, policy, flight)
        finally:
            if flights.get(name) is flight:
                del flights[name]

    async def _fly(
        self,
        key: str | bytes,
        compute: Callable[[], Awaitable[T]],
        policy: CachePolicy,
        flight: asyncio.Future[Any],
    ) -> T:
        try:
            found = await self._sender.send(recomputing.look(self._keys, key, policy))
            if found.value is not MISSING:
                # The others take the old value at once, while this one computes the new.
                self._flights.here().pop(self._keys.requests.key(key), None)
                flight.set_result(found.value)
                if found.token is None:
                    value: T = found.value
                    return value
            value = await self._compute(key, compute, policy, found)
        except Exception as error:
            if not flight.done():
                flight.set_exception(error)
                flight.exception()  # nobody may be waiting for it
            raise
        except BaseException:
            flight.cancel()
            raise
        if not flight.done():
            flight.set_result(value)
        return value

    async def _compute(
        self,
        key: str | bytes,
        compute: Callable[[], Awaitable[T]],
        policy: CachePolicy,
        found: Found,
    ) -> T:
        try:
            value = await compute()
            call = recomputing.fill(self._keys, key, value, policy, found.token)
        except BaseException as error:
            if found.token is not None:
                await self._give_up(key, found.token, at_once=not isinstance(error, Exception))
            failed = isinstance(error, Exception) and policy.stale_if_error
            if failed and found.value is not MISSING:
                say.warning("The old value of %r is used, as computing it failed: %r", key, error)
                old: T = found.value
                return old
            raise
        try:
            await self._sender.send(call)
        except KeyrackError as error:
            recomputing.not_stored(key, error)
        return value

    async def _give_up(self, key: str | bytes, token: str, at_once: bool) -> None:
        """Give a lease back; `at_once`: by a task of its own, as this one is cancelled."""
        task = asyncio.create_task(self._given_up(key, token))
        self._giving_up.add(task)
        task.add_done_callback(self._giving_up.discard)
        if not at_once:
            await task

    async def _given_up(self, key: str | bytes, token: str) -> None:
        try:
            await self._sender.send(recomputing.give_up(self._keys, key, token))
        except KeyrackError as error:
            recomputing.not_given_up(key, error)


class AsyncCachedFunction(Generic[P, T]):
    """A coroutine function whose results are kept. `key` tells where, `forget` removes one."""

    def __init__(
        self,
        function: Callable[P, Awaitable[T]],
        caching: AsyncCaching,
        keys: CallKeys,
        policy: CachePolicy,
        delete: Callable[[str], Coroutine[Any, Any, bool]],
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._caching = caching
        self._keys = keys
        self._policy = policy
        self._delete = delete

    async def __call__(self, *given: P.args, **named: P.kwargs) -> T:
        compute = functools.partial(self._function, *given, **named)
        key = self.key(*given, **named)
        return await self._caching.get_or_compute(key, compute, self._policy)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def key(self, *given: P.args, **named: P.kwargs) -> str:
        """Return the key of a call with these arguments."""
        return self._keys.of(given, named)

    async def forget(self, *given: P.args, **named: P.kwargs) -> bool:
        """Remove what is kept of a call, and tell whether there was something.

        Whoever computes it just now stores nothing.
        """
        return await self._delete(self.key(*given, **named))
