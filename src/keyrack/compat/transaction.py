"""Commands as transactions of an engine: what they read, what they leave, and one write of it.

An engine applies a list of operations all or none, and knows no command that reads, computes and
writes. So a command runs on a view: it sees what it reads, keeps its changes to itself, and all of
them become one write at the end, which is refused where something that it read is at another
revision by then. Then it runs again. Commands that read nothing are refused by nobody, and a
counter is an operation of the engine's own.

Several commands together are one view and one write, so others see all of it or nothing, and
nothing comes between. Whoever is about to change what it reads holds the turns of those keys within
its process: else all but one of those who want the same key would run for nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from keyrack.compat.arguments import integer
from keyrack.compat.replies import CommandError, not_an_integer
from keyrack.engines.contract import (
    ANY,
    BINARY,
    KEEP_END,
    TEXT,
    Add,
    Check,
    Condition,
    Delete,
    Refusal,
    Set,
    Touch,
    Why,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager, AsyncExitStack

    from keyrack.compat.replies import Reply
    from keyrack.engines.contract import (
        CacheControl,
        Engine,
        Operation,
        Outcome,
        Page,
        Record,
        Write,
    )

_ATTEMPTS: Final = 100
_MISSING: Final = Condition(none_match=ANY)


class CommandStore(Protocol):
    """What commands may use: an engine, as whoever sends them may use it."""

    @property
    def engine(self) -> Engine:
        """What is read from. Rights on single keys were judged before."""

    @property
    def max_value(self) -> int:
        """Bytes that a value may have."""

    @property
    def max_read(self) -> int:
        """Bytes of values that may be read at once, or answered together."""

    def unix_ms(self) -> int:
        """Return what time it is, in ms since 1970."""

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Do writes, each all or none, as `Engine.write` does."""

    async def page(self, prefix: bytes, after: bytes | None, limit: int) -> Page:
        """Return a page of the keys that the sender may list."""

    async def clear(self) -> None:
        """Remove every key that is there when it begins."""

    def turn(self, key: bytes) -> AbstractAsyncContextManager[None]:
        """Be the one in this process that works on a key."""


class StringEntry(NamedTuple):
    """What a key holds, as a command sees it."""

    value: bytes
    media_type: str
    expires_at: int
    """In ms of the store's clock; 0 means never."""
    cache_control: CacheControl | None = None
    """What caches may do with it, where its writer has said so."""


class Glance(NamedTuple):
    """What is known of a key without its value."""

    size: int
    expires_at: int


class _Draft:
    """What is known of one key, and what is to become of it."""

    __slots__ = ("ends", "entry", "is_read", "keeps_value", "record")

    def __init__(self) -> None:
        self.record: Record | None = None
        """What the store has, where that was read."""
        self.is_read = False
        self.entry: StringEntry | None = None
        self.keeps_value = True
        """No command has given it a value."""
        self.ends = False
        """A command has given it another end."""


class Transaction:
    """What one command, or several together, see of a store and do with it."""

    def __init__(self, store: CommandStore, turns: Turns, *, alone: bool) -> None:
        self.store = store
        self.alone = alone
        """Whether it is one command."""
        self.now = store.engine.now()
        """What time it is for all of it, in ms of the store's clock."""
        self._turns = turns
        self._drafts: dict[bytes, _Draft] = {}
        self._ahead: dict[bytes, Record | None] = {}
        """What was read before a command has asked for it."""

    # What commands see

    async def get(self, key: bytes) -> StringEntry | None:
        """Return what a key holds, None where it is missing."""
        return (await self.get_all((key,)))[0]

    async def get_all(self, keys: Sequence[bytes]) -> list[StringEntry | None]:
        """Return what keys hold, as of one moment. A command that is alone calls this once."""
        unknown = [key for key in dict.fromkeys(keys) if not self._is_known(key)]
        if unknown:
            await self._read(unknown)
        return [self._drafts[key].entry for key in keys]

    async def glance(self, key: bytes) -> Glance | None:
        """Return what is known of a key without its value, for a command that changes nothing."""
        if self.alone:
            part = await self.store.engine.get_part(key, (0, 0))
            return None if part is None else Glance(part.size, part.record.expires_at)
        entry = await self.get(key)
        return None if entry is None else Glance(len(entry.value), entry.expires_at)

    async def count(self, keys: Sequence[bytes]) -> int:
        """Return how many of some keys there are; one that is named twice counts twice."""
        if self.alone:
            return sum(map(bool, await self.store.engine.sizes_of(keys)))
        return sum(entry is not None for entry in await self.get_all(keys))

    async def read_ahead(self, keys: Sequence[bytes]) -> None:
        """Read keys as of one moment, before commands ask for them one after the other."""
        await self._turns.hold(keys)
        await self._fetch(keys)

    def _is_known(self, key: bytes) -> bool:
        draft = self._drafts.get(key)
        return draft is not None and (draft.is_read or not draft.keeps_value)

    async def _read(self, keys: list[bytes]) -> None:
        missing = [key for key in keys if key not in self._ahead]
        if missing:
            await self._turns.hold(missing)
            await self._fetch(missing)
        for key in keys:
            draft = self._drafts.setdefault(key, _Draft())
            draft.record = record = self._ahead[key]
            draft.is_read = True
            draft.entry = None if record is None else _entry(record)

    async def _fetch(self, keys: Sequence[bytes]) -> None:
        engine = self.store.engine
        if len(keys) == 1:
            self._ahead[keys[0]] = await engine.get(keys[0])
            return
        self.check_read(sum(await engine.sizes_of(keys)))
        self._ahead.update(zip(keys, await engine.get_many(keys), strict=True))

    def check_read(self, size: int) -> None:
        """Refuse to hold, or to answer, values of more bytes than may be at once."""
        if size > (most := self.store.max_read):
            raise CommandError(f"these values have {size} bytes; the limit is {most} (--max-body)")

    # What commands do

    def check(self, *values: bytes) -> None:
        """Refuse values that are too long. A command calls this before it changes anything."""
        for value in values:
            self.check_size(len(value))

    def check_size(self, size: int) -> None:
        """Refuse a value of so many bytes if it is too long."""
        if size > (most := self.store.max_value):
            raise CommandError(f"the value has {size} bytes; the limit is {most} (--max-value)")

    def set(self, key: bytes, value: bytes, expires_at: int = 0) -> None:
        """Give a key a value and an end, whatever it held."""
        draft = self._drafts.setdefault(key, _Draft())
        draft.entry = StringEntry(value, _media_type(value), expires_at)
        draft.keeps_value = False
        draft.ends = True

    def replace(self, key: bytes, value: bytes) -> None:
        """Give a key that was read another value. Its end stays, and what kind of value it is."""
        draft = self._drafts[key]
        entry = draft.entry
        if entry is None:
            self.set(key, value)
            return
        kind = entry.media_type
        if kind.startswith("text/") or kind == BINARY:
            kind = _kept(kind, value)
        draft.entry = entry._replace(value=value, media_type=kind)
        draft.keeps_value = False

    def copy(self, key: bytes, entry: StringEntry) -> None:
        """Give a key the value, the kind and the end of another one."""
        draft = self._drafts.setdefault(key, _Draft())
        draft.entry = entry
        draft.keeps_value = False
        draft.ends = True

    def end(self, key: bytes, expires_at: int) -> None:
        """Give a key that was read, and is there, another end; 0 is none."""
        draft = self._drafts[key]
        assert draft.entry is not None
        draft.entry = draft.entry._replace(expires_at=expires_at)
        draft.ends = True

    def delete(self, key: bytes) -> None:
        """Remove a key that was read, or whatever a key holds."""
        draft = self._drafts.setdefault(key, _Draft())
        draft.entry = None
        draft.keeps_value = False

    async def remove(self, keys: Sequence[bytes]) -> int:
        """Remove keys, whatever they hold; return how many there were."""
        keys = tuple(dict.fromkeys(keys))
        if self.alone:
            return await self._removed(keys)
        there = [
            key
            for key, entry in zip(keys, await self.get_all(keys), strict=True)
            if entry is not None
        ]
        for key in there:
            self.delete(key)
        return len(there)

    async def _removed(self, keys: Sequence[bytes]) -> int:
        (outcome,) = await self.store.write((tuple(map(Delete, keys)),))
        if not isinstance(outcome, Refusal):
            return sum(result.existed for result in outcome)
        if outcome.why is not Why.SPREAD:
            raise refused(outcome)
        # Of keys that nothing changes together each goes by itself: nobody misses the moment.
        outcomes = await self.store.write([(Delete(key),) for key in keys])
        for one in outcomes:
            if isinstance(one, Refusal):
                raise refused(one)
        return sum(one[0].existed for one in outcomes if not isinstance(one, Refusal))

    async def add(self, key: bytes, delta: int) -> int:
        """Add to the number that a key holds, 0 where it is missing; return what it is then."""
        if self.alone:
            return await self._added(key, delta)
        entry = await self.get(key)
        number = (0 if entry is None else integer(entry.value)) + delta
        if not -(1 << 63) <= number < 1 << 63:
            raise _overflow()
        self.replace(key, b"%d" % number)
        return number

    async def _added(self, key: bytes, delta: int) -> int:
        (outcome,) = await self.store.write(((Add(key, delta),),))
        if not isinstance(outcome, Refusal):
            number = outcome[0].number
            assert number is not None
            return number
        if outcome.why is Why.NUMBER:
            raise not_an_integer()
        if outcome.why is Why.OVERFLOW:
            raise _overflow()
        raise refused(outcome)

    # Its end

    async def commit(self) -> bool:
        """Write what was changed, if what was read is still so; tell whether it was."""
        write = self._write()
        if not write:
            return True
        (outcome,) = await self.store.write((write,))
        if not isinstance(outcome, Refusal):
            return True
        if outcome.why in (Why.CONDITION, Why.MISSING):
            return False
        raise refused(outcome)

    def _write(self) -> Write:
        operations: list[Operation] = []
        checks: list[Operation] = []
        for key, draft in self._drafts.items():
            condition = _unchanged(draft) if draft.is_read else None
            operation = self._operation(key, draft, condition)
            if operation is not None:
                operations.append(operation)
            elif condition is not None:
                checks.append(Check(key, condition))
        return (*checks, *operations) if operations else ()

    def _operation(
        self, key: bytes, draft: _Draft, condition: Condition | None
    ) -> Operation | None:
        entry = draft.entry
        if entry is None:
            is_there = draft.record is not None or not draft.is_read
            return Delete(key, condition) if is_there and not draft.keeps_value else None
        if not draft.keeps_value:
            ttl = self._ttl(entry.expires_at) if draft.ends else KEEP_END
            may_keep = entry.cache_control
            return Set(key, entry.value, entry.media_type, ttl, condition, cache_control=may_keep)
        return Touch(key, self._ttl(entry.expires_at), condition) if draft.ends else None

    def _ttl(self, expires_at: int) -> int:
        return max(1, expires_at - self.now) if expires_at else 0


class Turns:
    """The keys that a transaction works on alone within its process, until `stack` is closed."""

    def __init__(self, store: CommandStore, stack: AsyncExitStack, *, wanted: bool) -> None:
        self._store = store
        self._stack = stack
        self._wanted = wanted
        self._held: set[bytes] = set()

    async def hold(self, keys: Sequence[bytes]) -> None:
        """Wait until nobody else works on keys. In order, so that no two wait for each other.

        For the same reason only the first call waits: who holds some waits for no others.
        """
        if not self._wanted or self._held:
            return
        for key in sorted(set(keys)):
            await self._stack.enter_async_context(self._store.turn(key))
            self._held.add(key)


async def attempted(
    store: CommandStore,
    run: Callable[[Transaction], Awaitable[Reply]],
    *,
    alone: bool = True,
    changes: bool = True,
) -> Reply:
    """Run commands as a transaction, again and again until nobody has come between.

    `changes` says whether they may change something. Raises `CommandError`.
    """
    async with contextlib.AsyncExitStack() as stack:
        turns = Turns(store, stack, wanted=changes)
        for _ in range(_ATTEMPTS):
            transaction = Transaction(store, turns, alone=alone)
            reply = await run(transaction)
            if await transaction.commit():
                return reply
    raise CommandError("others change these keys all the time; nothing was done", "TRYAGAIN")


def refused(refusal: Refusal) -> CommandError:
    """Return what is told of a write that the engine refused."""
    full = (Why.FULL, Why.SERVER_FULL, Why.DISK_FULL, Why.QUOTA)
    code = {**dict.fromkeys(full, "OOM"), Why.SPREAD: "CROSSSLOT"}
    return CommandError(
        f"the store refused it: {refusal.why.value}", code.get(refusal.why, "ERR"), refusal
    )


def _entry(record: Record) -> StringEntry:
    return StringEntry(record.value, record.media_type, record.expires_at, record.cache_control)


def _unchanged(draft: _Draft) -> Condition:
    record = draft.record
    return _MISSING if record is None else Condition(match=frozenset((record.revision,)))


def _overflow() -> CommandError:
    return CommandError("increment or decrement would overflow")


def _media_type(value: bytes) -> str:
    return TEXT if _is_utf8(value) else BINARY


def _kept(kind: str, value: bytes) -> str:
    """Return what kind of value it is after a change: a text stays one if it is one still."""
    if kind == BINARY or _is_utf8(value):
        return kind
    return BINARY


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
