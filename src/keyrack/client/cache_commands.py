"""The methods of `Client` that keep what functions compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from keyrack.client.cached import CallKeys
from keyrack.client.caching import CachedFunction, Caching, Flights
from keyrack.client.commands import Commands
from keyrack.client.recomputing import CachePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.client.keys import KeyCalls
    from keyrack.client.sending import Sender

P = ParamSpec("P")
T = TypeVar("T")


class CacheCommands(Commands):
    """Methods that keep what functions compute, and have one of all that want it compute it."""

    def __init__(self, sender: Sender, keys: KeyCalls) -> None:
        super().__init__(sender, keys)
        self._caching = Caching(sender, keys, Flights())

    def get_or_compute(
        self,
        key: str | bytes,
        compute: Callable[[], T],
        *,
        ttl: float | None,
        stale: float | None = None,
        lease: float = 15.0,
        wait: float = 5.0,
        early: float = 0.0,
        stale_if_error: bool = False,
    ) -> T:
        """Return a key's value, or what `compute` makes of it, which is stored for `ttl` seconds.

        Of all that want it, in whatever process, one computes it: it has a lease for it, for
        `lease` seconds. The others get the old value while it is stale, for `stale` seconds after
        its end; where there is none they wait for the new one, for `wait` seconds at most, and
        compute it themselves then. With `early` it is computed so long before its end already.

        What `compute` raises is raised here, and the next one may try; with `stale_if_error` the
        old value is returned instead where there is one. A value that cannot be stored is returned
        all the same. Raises `KeyrackError` where the key cannot be read.
        """
        policy = CachePolicy(ttl, stale, lease, wait, early, stale_if_error).check()
        return self._caching.get_or_compute(key, compute, policy)

    def cached(
        self,
        *,
        ttl: float | None,
        stale: float | None = None,
        key: Callable[..., str] | str | None = None,
        lease: float = 15.0,
        wait: float = 5.0,
        early: float = 0.0,
        stale_if_error: bool = False,
    ) -> Callable[[Callable[P, T]], CachedFunction[P, T]]:
        """Return a decorator that keeps a function's results; see `get_or_compute`.

        `key` is a function of the same arguments, or a text with their names in braces:
        `"user/{user_id}"`. Without it the key is the function's name with its arguments, which
        have to be plain values then.
        """
        policy = CachePolicy(ttl, stale, lease, wait, early, stale_if_error).check()

        def decorated(function: Callable[P, T]) -> CachedFunction[P, T]:
            keys = CallKeys(function, key)
            return CachedFunction(function, self._caching, keys, policy, self._forget)

        return decorated

    def _forget(self, key: str) -> bool:
        return self._send(self._keys.delete(key, None))
