"""The keys under a prefix as a mapping of Python's, and a key as a counter."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from keyrack.client import many
from keyrack.client.many import ScanEntry

if TYPE_CHECKING:
    from keyrack.client.keys import KeyCalls
    from keyrack.client.sending import Sender

_ABSENT: Final = object()
_PAGE_KEYS: Final = 1000


class KeyMapping(MutableMapping[str, Any]):
    """The keys under a prefix, without it. Every access asks the service; `ttl` is for what is set.

    Iteration and `len` are no single moment where there are many keys.
    """

    def __init__(self, sender: Sender, keys: KeyCalls, prefix: str, ttl: float | None) -> None:
        self._sender = sender
        self._keys = keys
        self._prefix = prefix
        self._ttl = ttl

    def __getitem__(self, key: str) -> Any:
        value = self._sender.send(self._keys.get(self._prefix + key, _ABSENT))
        if value is _ABSENT:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._sender.send(self._keys.set(self._prefix + key, value, ttl=self._ttl))

    def __delitem__(self, key: str) -> None:
        if not self._sender.send(self._keys.delete(self._prefix + key, None)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        return self._sender.send(self._keys.get(self._prefix + key, _ABSENT)) is not _ABSENT

    def __iter__(self) -> Iterator[str]:
        return (entry.key[len(self._prefix) :] for entry in self._entries(values=False))

    def __len__(self) -> int:
        return self._sender.send(many.count(self._keys.requests, self._prefix))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value; where there is none, store the default. Only one of many stores it."""
        while True:
            if (value := self.get(key, _ABSENT)) is not _ABSENT:
                return value
            call = self._keys.add(self._prefix + key, default, self._ttl, None)
            if self._sender.send(call) is not None:
                return default

    def clear(self) -> None:
        """Remove the keys under the prefix. Raises `ValueError` where there is none."""
        self._sender.send(many.delete_prefix(self._keys.requests, self._prefix, False, False))

    def snapshot(self) -> dict[str, Any]:
        """Return keys and values as a dict, read page by page."""
        return {e.key[len(self._prefix) :]: e.value for e in self._entries(values=True)}

    def _entries(self, *, values: bool) -> Iterator[ScanEntry]:
        after = None
        while True:
            call = many.page(self._keys, self._prefix, after, _PAGE_KEYS, None, values, False)
            page = self._sender.send(call)
            yield from (item for item in page.items if isinstance(item, ScanEntry))
            after = page.after
            if after is None:
                return


class Counter:
    """A key as a counter of 64 bits, signed."""

    def __init__(self, sender: Sender, keys: KeyCalls, key: str | bytes) -> None:
        self._sender = sender
        self._keys = keys
        self._key = key

    def add(self, delta: int = 1) -> int:
        """Add, and return the number."""
        return self._sender.send(many.incr(self._keys.requests, self._key, delta, 0, None))

    @property
    def value(self) -> int:
        """The number, 0 for a missing key. Raises `ValueError` when the value is none."""
        return int(self._sender.send(self._keys.get(self._key, 0)))

    def reset(self) -> None:
        """Remove the key."""
        self._sender.send(self._keys.delete(self._key, None))
