"""`keyrack.open`: a store in one's own process, and the client of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, overload

from keyrack.client import AsyncClient, Client, KeyrackError
from keyrack.client.serializers import BINARY, JSON, TEXT
from keyrack.engines.contract import (
    ANY,
    MAX_KEY_BYTES,
    Add,
    Condition,
    Delete,
    Refusal,
    Result,
    Set,
    StoreError,
    StoreInUse,
    Touch,
    Why,
)
from keyrack.inprocess.store import OwnStore
from keyrack.settings import SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from keyrack.client.locks import Lock
    from keyrack.client.undo import Deletion

_MISSING: Final = Condition(none_match=ANY)
_PLAIN: Final = frozenset((BINARY, JSON, TEXT))
_LONGEST_WHOLE_TTL: Final = 3600 * 24 * 365
"""Seconds up to which a TTL of whole seconds is not looked at more closely."""
_REVISION_DIGITS: Final = 19
_SMALL: Final = 1 << 62
_WORDS: Final = (
    ("--data-dir", "path"),
    ("--memory ", "memory="),
    ("--memory", "memory"),
    ("--durability ", "durability="),
    ("--when-full ", "when_full="),
    ("keyrack serve", "keyrack.open"),
)
"""What the command line says, and what `open` says."""


class OpenFailed(KeyrackError):
    """Raised when a store could not be opened: its directory cannot be one, memory is short."""


class AlreadyOpen(OpenFailed):
    """Raised when a store could not be opened because another process, or this one, has it."""


class LocalClient(Client):
    """A client of a store in this process. Any number of threads may share it.

    The most frequent calls ask the engine at once; what they mean is what they mean elsewhere, and
    whatever is unusual about one is left to the way that all calls can take.
    """

    def __init__(self, store: OwnStore, **options: Any) -> None:
        super().__init__(store.endpoint, token="", **options)
        self._store = store
        self._engine = store.engine
        self._tells = options.get("on_event") is not None
        self._most_bytes = store.most_value_bytes

    def get(self, key: str | bytes, default: Any = None) -> Any:
        """Return a key's value, or `default` when the key is missing.

        What its media type makes of it: text is a `str`, JSON what it stands for, the rest bytes.
        """
        name = self._requests.key(key)
        if not self._is_plain(key, name):
            return super().get(key, default)
        record = self._store.ask(self._engine.get_now, name)
        if record is None:
            return default
        return self._keys.loads(record.value, record.media_type, name)

    def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        stale: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        media_type: str | None = None,
        lock: Lock | None = None,
        max_age: int | None = None,
        swr: int | None = None,
        public: bool = False,
    ) -> str:
        """Store a value and return its ETag. `ttl` is in seconds, to the millisecond.

        For `stale` seconds after its end it is kept for those who take stale values. `max_age`,
        `swr` and `public` say what caches may do with it that a service stands behind.
        Raises `Conflict` when a condition does not hold, `TypeError` for a value that would not
        come back equal, and `LockLost` when a `lock` that is given is not held any more.
        """
        condition = None if if_match is None else _at(if_match)
        odd = if_none_match is not None or lock is not None or (if_match and condition is None)
        odd = odd or max_age is not None or swr is not None or public
        if not odd and media_type is None and stale is None:
            result = self._put(key, value, ttl, condition)
            if isinstance(result, Result):
                return f'"{result.revision}"'
        return super().set(
            key,
            value,
            ttl=ttl,
            stale=stale,
            if_match=if_match,
            if_none_match=if_none_match,
            media_type=media_type,
            lock=lock,
            max_age=max_age,
            swr=swr,
            public=public,
        )

    def add(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        media_type: str | None = None,
        lock: Lock | None = None,
    ) -> str | None:
        """Store a value if the key is missing, and return its ETag; None if it is there."""
        odd = media_type is not None or lock is not None
        result = None if odd else self._put(key, value, ttl, _MISSING)
        if isinstance(result, Refusal) and result.why is Why.CONDITION:
            return None
        if isinstance(result, Result):
            return f'"{result.revision}"'
        return super().add(key, value, ttl=ttl, media_type=media_type, lock=lock)

    def _put(
        self, key: str | bytes, value: Any, ttl: float | None, condition: Condition | None
    ) -> Result | Refusal | None:
        """Store a value; None where that cannot be done at once."""
        name = self._requests.key(key)
        if not (self._is_plain(key, name) and (ttl is None or _is_whole(ttl))):
            return None
        body, kind = self._keys.serializer.dumps(value, name)
        if kind not in _PLAIN or len(body) > self._most_bytes:
            return None
        ttl_ms = 0 if ttl is None else int(ttl) * 1000
        operation = Set(name, bytes(body), kind, ttl_ms, condition)
        return self._store.ask(self._engine.do_now, operation)

    @overload
    def delete(
        self,
        key: str | bytes,
        *,
        if_match: str | None = None,
        lock: Lock | None = None,
        undo: None = None,
    ) -> bool: ...

    @overload
    def delete(
        self,
        key: str | bytes,
        *,
        if_match: str | None = None,
        lock: Lock | None = None,
        undo: int,
    ) -> Deletion: ...

    def delete(
        self,
        key: str | bytes,
        *,
        if_match: str | None = None,
        lock: Lock | None = None,
        undo: int | None = None,
    ) -> bool | Deletion:
        """Remove a key, and tell whether it was there."""
        if undo is not None:
            return super().delete(key, if_match=if_match, lock=lock, undo=undo)
        name = self._requests.key(key)
        at_once = if_match is None and lock is None and not self._store.keeps_deleted
        if at_once and self._is_plain(key, name):
            result = self._store.ask(self._engine.do_now, Delete(name))
            if isinstance(result, Result):
                return result.existed
        return super().delete(key, if_match=if_match, lock=lock)

    def touch(self, key: str | bytes, ttl: float, *, lock: Lock | None = None) -> bool:
        """Give a key another TTL, in seconds, and tell whether it is there. The ETag stays.

        Its stale copy, if one is kept, is kept for as long after the new end.
        """
        done = self._touch(key, int(ttl) * 1000) if _is_whole(ttl) and lock is None else None
        return super().touch(key, ttl, lock=lock) if done is None else done

    def persist(self, key: str | bytes, *, lock: Lock | None = None) -> bool:
        """Let a key have no end, and tell whether it is there. The ETag stays."""
        done = self._touch(key, 0) if lock is None else None
        return super().persist(key, lock=lock) if done is None else done

    def _touch(self, key: str | bytes, ttl_ms: int) -> bool | None:
        """Give a key another end, and tell whether it is there; None where that takes more."""
        name = self._requests.key(key)
        if not self._is_plain(key, name):
            return None
        result = self._store.ask(self._engine.do_now, Touch(name, ttl_ms))
        if isinstance(result, Result):
            return True
        return False if result.why is Why.MISSING else None

    def incr(
        self,
        key: str | bytes,
        delta: int = 1,
        *,
        initial: int = 0,
        ttl: float | None = None,
        ttl_if_new: float | None = None,
        if_match: str | None = None,
        lock: Lock | None = None,
    ) -> int:
        """Add to a counter, made from `initial` where it is missing, and return its number.

        As `Client.incr`.
        """
        name = self._requests.key(key)
        bare = ttl is None and ttl_if_new is None and if_match is None and lock is None
        if bare and self._is_plain(key, name) and _is_small(delta) and _is_small(initial):
            result = self._store.ask(self._engine.do_now, Add(name, delta, initial))
            if isinstance(result, Result) and result.number is not None:
                return result.number
        return super().incr(
            key,
            delta,
            initial=initial,
            ttl=ttl,
            ttl_if_new=ttl_if_new,
            if_match=if_match,
            lock=lock,
        )

    def get_many(self, keys: Iterable[str | bytes]) -> dict[Any, Any]:
        """Return the values of keys, all as of one moment; those that are missing are left out."""
        asked = list(dict.fromkeys(keys))
        names = [self._requests.key(key) for key in asked]
        if not all(map(self._is_plain, asked, names)):
            return super().get_many(asked)
        records = self._store.ask(self._engine.get_many_now, names)
        loads = self._keys.loads
        return {
            key: loads(record.value, record.media_type, name)
            for key, name, record in zip(asked, names, records, strict=True)
            if record is not None
        }

    def _is_plain(self, key: str | bytes, name: bytes) -> bool:
        """Tell whether a key can be one, and nobody is to be told of what is done with it."""
        return (
            key.__class__ is str
            and 0 < len(name) <= MAX_KEY_BYTES
            and not self._tells
            and self._sender.observer is None
        )


class OwnClient(LocalClient):
    """The client that a store was opened with. Closing it closes the store.

    The children of a fork may not use it: each opens a store of its own.
    """

    @property
    def path(self) -> str:
        """The directory in memory that the store is in while it is open."""
        return self._store.path

    def client(self, **options: Any) -> Client:
        """Return another client of the same store, with options of `Client` like `prefix`."""
        return LocalClient(self._store, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        """Return a client of the same store for event loops, with options of `AsyncClient`."""
        return AsyncClient(self._store.endpoint, token="", **options)

    def close(self) -> None:
        """Close the store; where it is kept on a disk, everything is there then."""
        self._store.close()
        super().close()


def _at(etag: str) -> Condition | None:
    """Return the condition that a key is at a state; None where more is meant by it."""
    digits = etag[1:-1] if etag[:1] == etag[-1:] == '"' else etag
    if not (digits.isascii() and digits.isdigit() and len(digits) < _REVISION_DIGITS):
        return None
    return None if digits[0] == "0" else Condition(match=frozenset((int(digits),)))


def _is_whole(ttl: object) -> bool:
    return type(ttl) is int and 0 < ttl < _LONGEST_WHOLE_TTL


def _is_small(number: object) -> bool:
    return type(number) is int and -_SMALL < number < _SMALL


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
    text = text[:1].upper() + text[1:]
    for flag, name in _WORDS:
        text = text.replace(flag, name)
    return text
