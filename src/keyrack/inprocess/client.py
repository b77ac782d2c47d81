"""`keyrack.open`: a store in one's own process, and the client of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from keyrack.client import AsyncClient, Client, KeyrackError
from keyrack.client.serializers import BINARY, JSON, TEXT
from keyrack.engines.contract import MAX_KEY_BYTES, Set, StoreError, StoreInUse
from keyrack.inprocess.store import OwnStore
from keyrack.settings import SettingsError, load

if TYPE_CHECKING:
    from pathlib import Path

    from keyrack.client.locks import Lock

_PLAIN: Final = frozenset((BINARY, JSON, TEXT))
_LONGEST_WHOLE_TTL: Final = 3600 * 24 * 365
"""Seconds up to which a TTL of whole seconds is not looked at more closely."""
_FLAGS: Final = (
    ("--data-dir", "path"),
    ("--memory", "memory="),
    ("--durability", "durability="),
    ("--when-full", "when_full="),
    ("keyrack serve", "keyrack.open"),
)


class OpenFailed(KeyrackError):
    """Raised when a store could not be opened: its directory cannot be one, memory is short."""


class AlreadyOpen(OpenFailed):
    """Raised when a store could not be opened because another process, or this one, has it."""


class OwnClient(Client):
    """A client of a store in this process. Closing it closes the store.

    Any number of threads may share it. The children of a fork may not: each opens a store of its
    own.
    """

    def __init__(self, store: OwnStore, **options: Any) -> None:
        super().__init__(store.endpoint, token="", **options)
        self._store = store
        self._options = options
        self._tells = options.get("on_event") is not None
        self._most_bytes = store.most_value_bytes

    def get(self, key: str | bytes, default: Any = None) -> Any:
        """Return a key's value, or `default` when the key is missing.

        What its media type makes of it: text is a `str`, JSON what it stands for, the rest bytes.
        """
        name = self._requests.key(key)
        if not self._is_plain(key, name):
            return super().get(key, default)
        record = self._store.ask(self._store.engine.get_now, name)
        if record is None:
            return default
        return self._keys.loads(record.value, record.media_type, name)

    def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        media_type: str | None = None,
        lock: Lock | None = None,
    ) -> str:
        """Store a value and return its ETag. `ttl` is in seconds, to the millisecond.

        Raises `Conflict` when a condition does not hold, `TypeError` for a value that would not
        come back equal, and `LockLost` when a `lock` that is given is not held any more.
        """
        name = self._requests.key(key)
        bare = if_match is None and if_none_match is None and media_type is None and lock is None
        if bare and self._is_plain(key, name) and (ttl is None or _is_whole(ttl)):
            body, kind = self._keys.serializer.dumps(value, name)
            if kind in _PLAIN and len(body) <= self._most_bytes:
                operation = Set(name, bytes(body), kind, 0 if ttl is None else int(ttl) * 1000)
                revision = self._store.ask(self._store.engine.put_now, operation)
                if revision:
                    return f'"{revision}"'
        return super().set(
            key,
            value,
            ttl=ttl,
            if_match=if_match,
            if_none_match=if_none_match,
            media_type=media_type,
            lock=lock,
        )

    def _is_plain(self, key: str | bytes, name: bytes) -> bool:
        """Tell whether a key can be one, and nobody is to be told of what is done with it."""
        return (
            key.__class__ is str
            and 0 < len(name) <= MAX_KEY_BYTES
            and not self._tells
            and self._sender.observer is None
        )

    def for_async(self, **options: Any) -> AsyncClient:
        """Return a client of the same store for event loops, with these options or the same."""
        return AsyncClient(self._store.endpoint, token="", **{**self._options, **options})

    def close(self) -> None:
        """Close the store; where it is kept on a disk, everything is there then."""
        self._store.close()
        super().close()


def _is_whole(ttl: float) -> bool:
    return ttl.__class__ is int and 0 < ttl < _LONGEST_WHOLE_TTL


def open_store(
    path: str | Path | None = None,
    *,
    memory: str | int = "64m",
    durability: str | None = None,
    when_full: str = "reject",
    **options: Any,
) -> OwnClient:
    """Open a store in this process, for this process alone, and return the client of it.

    Without a path it is in memory and gone when the client is closed. With one it is kept in that
    directory: every write before it is answered (`durability="commit"`, the default then) or a
    snapshot now and then and at the end (`"snapshot"`). `memory` limits the store; `when_full` says
    whether writes are refused then (`"reject"`) or keys go that were not used lately (`"evict"`).
    `options` are those of `Client`. Raises `OpenFailed` with a sentence.
    """
    durability = durability or ("none" if path is None else "commit")
    if (durability == "none") is not (path is None):
        raise ValueError('A path goes with durability "commit" or "snapshot", none with "none".')
    flags: dict[str, object] = {"memory": memory, "when_full": when_full}
    if path is not None:
        flags |= {"durability": durability, "data_dir": os.fspath(path)}
    try:
        settings, _ = load(flags, {})
        store = OwnStore(settings)
    except StoreInUse as error:
        raise AlreadyOpen(_sentence(error)) from None
    except (SettingsError, StoreError) as error:
        raise OpenFailed(_sentence(error)) from error
    try:
        return OwnClient(store, **options)
    except BaseException:
        store.close()
        raise


def _sentence(error: Exception) -> str:
    """Return what went wrong in the words of `open`, which has arguments and no flags."""
    text = str(error)
    for flag, name in _FLAGS:
        text = text.replace(flag, name)
    return text[:1].upper() + text[1:]
