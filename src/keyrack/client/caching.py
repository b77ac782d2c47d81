"""`get_or_compute` and `cached` for programs without an event loop."""

from __future__ import annotations

import functools
import os
import threading
from concurrent.futures import CancelledError, Future
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from keyrack.client import recomputing, say
from keyrack.client.errors import KeyrackError
from keyrack.client.recomputing import MISSING, SLACK_SECONDS, CachePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.client.cached import CallKeys
    from keyrack.client.keys import KeyCalls
    from keyrack.client.recomputing import Found
    from keyrack.client.sending import Sender

P = ParamSpec("P")
T = TypeVar("T")


class Flights:
    """What the threads of a process are reading or computing now: each key once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._flights: dict[bytes, Future[Any]] = {}

    def join(self, key: bytes) -> tuple[Future[Any], bool]:
        """Return the flight of a key, and whether the caller has begun it and has to end it."""
        with self._lock:
            if self._process != os.getpid():
                self._begin()  # the threads of those flights stayed behind in the parent
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Future()
            return flight, True

    def leave(self, key: bytes) -> None:
        """End the flight of a key; whoever comes next begins another."""
        with self._lock:
            self._flights.pop(key, None)


class Caching:
    """Reads keys, and has one of all that want one compute it."""

    def __init__(self, sender: Sender, keys: KeyCalls, flights: Flights) -> None:
        self._sender = sender
        self._keys = keys
        self._flights = flights

    def get_or_compute(self, key: str | bytes, compute: Callable[[], T], policy: CachePolicy) -> T:
        """Return a key's value, or what is computed for it."""
        name = self._keys.requests.key(key)
        while True:
            flight, first = self._flights.join(name)
            if first:
                return self._fly(key, name, compute, policy, flight)
            try:
                found: T = flight.result(policy.wait + SLACK_SECONDS)
            except CancelledError:
                continue  # who computed it was interrupted
            except TimeoutError:
                if flight.done():
                    raise  # that is what the computation itself has raised
                return compute()
            return found

    def _fly(
        self,
        key: str | bytes,
        name: bytes,
        compute: Callable[[], T],
        policy: CachePolicy,
        flight: Future[Any],
    ) -> T:
        try:
            found = self._sender.send(recomputing.look(self._keys, key, policy))
            if found.value is not MISSING:
                # The others take the old value at once, while this one computes the new.
                self._flights.leave(name)
                flight.set_result(found.value)
                value: T = found.value
                return value if found.token is None else self._compute(key, compute, policy, found)
            value = self._compute(key, compute, policy, found)
        except Exception as error:
            self._flights.leave(name)
            if not flight.done():
                flight.set_exception(error)
            raise
        except BaseException:
            self._flights.leave(name)
            flight.cancel()
            raise
        self._flights.leave(name)
        flight.set_result(value)
        return value

    def _compute(
        self, key: str | bytes, compute: Callable[[], T], policy: CachePolicy, found: Found
    ) -> T:
        try:
            value = compute()
            call = recomputing.fill(self._keys, key, value, policy, found.token)
        except BaseException as error:
            if found.token is not None:
                self._give_up(key, found.token)
            failed = isinstance(error, Exception) and policy.stale_if_error
            if failed and found.value is not MISSING:
                say.warning("The old value of %r is used, as computing it failed: %r", key, error)
                old: T = found.value
                return old
            raise
        try:
            self._sender.send(call)
        except KeyrackError as error:
            recomputing.not_stored(key, error)
        return value

    def _give_up(self, key: str | bytes, token: str) -> None:
        try:
            self._sender.send(recomputing.give_up(self._keys, key, token))
        except KeyrackError as error:
            recomputing.not_given_up(key, error)


class CachedFunction(Generic[P, T]):
    """A function whose results are kept. `key` tells where, and `forget` removes one."""

    def __init__(
        self,
        function: Callable[P, T],
        caching: Caching,
        keys: CallKeys,
        policy: CachePolicy,
        delete: Callable[[str], bool],
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._caching = caching
        self._keys = keys
        self._policy = policy
        self._delete = delete

    def __call__(self, *given: P.args, **named: P.kwargs) -> T:
        compute = functools.partial(self._function, *given, **named)
        return self._caching.get_or_compute(self.key(*given, **named), compute, self._policy)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def key(self, *given: P.args, **named: P.kwargs) -> str:
        """Return the key of a call with these arguments."""
        return self._keys.of(given, named)

    def forget(self, *given: P.args, **named: P.kwargs) -> bool:
        """Remove what is kept of a call, and tell whether there was something.

        Whoever computes it just now stores nothing.
        """
        return self._delete(self.key(*given, **named))
