"""Redis' commands on strings. Arguments come without the command's name, in the right number."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from keyrack.compat.arguments import (
    ENDS,
    INT64,
    end_of,
    fraction,
    integer,
    options,
    sum_of,
)
from keyrack.compat.replies import OK, CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyrack.compat.arguments import GivenOptions
    from keyrack.compat.replies import Reply
    from keyrack.compat.transaction import Transaction

Arguments = tuple[bytes, ...]


async def get(given: Arguments, view: Transaction) -> Reply:
    """`GET key`."""
    entry = await view.get(given[0])
    return None if entry is None else entry.value


async def mget(given: Arguments, view: Transaction) -> Reply:
    """`MGET key...`."""
    return [None if entry is None else entry.value for entry in await view.get_all(given)]


async def strlen(given: Arguments, view: Transaction) -> Reply:
    """`STRLEN key`."""
    glance = await view.glance(given[0])
    return 0 if glance is None else glance.size


async def getrange(given: Arguments, view: Transaction) -> Reply:
    """`GETRANGE key start end`: both inclusive, negative ones from the end."""
    first, last = integer(given[1]), integer(given[2])
    entry = await view.get(given[0])
    value = b"" if entry is None else entry.value
    if first < 0 and last < 0 and first > last:
        return b""
    first = max(0, first + len(value) if first < 0 else first)
    last = max(0, last + len(value) if last < 0 else last)
    return value[first : last + 1]


# SET and its relatives


_LOOKING: Final = frozenset((b"NX", b"XX", b"GET", b"KEEPTTL"))


def set_options(given: Sequence[bytes]) -> GivenOptions:
    """Return the options of `SET`."""
    found = options(given, _LOOKING, ENDS)
    found.one_of(b"NX", b"XX")
    found.one_of(*ENDS, b"KEEPTTL")
    return found


def looks_first(given: Arguments) -> bool:
    """Tell whether a `SET` has an option for which the key is looked at before."""
    return not _LOOKING.isdisjoint(one.upper() for one in given[2:])


async def set_(given: Arguments, view: Transaction) -> Reply:
    """`SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]`."""
    key, value, *rest = given
    asked = set_options(rest)
    view.check(value)
    ends = asked.one_of(*ENDS)
    left = None if ends is None else end_of(ends, asked.values[ends], "set", view.store.unix_ms())
    if not asked.words:
        _store(view, key, value, left)
        return OK
    entry = await view.get(key)
    old = None if entry is None else entry.value
    if (entry is not None) if asked.has(b"NX") else (entry is None and asked.has(b"XX")):
        return old if asked.has(b"GET") else None
    if asked.has(b"KEEPTTL"):
        view.replace(key, value)
    else:
        _store(view, key, value, left)
    return old if asked.has(b"GET") else OK


def _store(view: Transaction, key: bytes, value: bytes, left: int | None) -> None:
    """Store a value that ends in so many ms; None: never. What has ended already is none."""
    if left is None:
        view.set(key, value)
    elif left > 0:
        view.set(key, value, view.now + left)
    else:
        view.delete(key)


async def setex(given: Arguments, view: Transaction) -> Reply:
    """`SETEX key seconds value`."""
    return _set_with_end(given, view, b"EX", "setex")


async def psetex(given: Arguments, view: Transaction) -> Reply:
    """`PSETEX key milliseconds value`."""
    return _set_with_end(given, view, b"PX", "psetex")


def _set_with_end(given: Arguments, view: Transaction, unit: bytes, command: str) -> Reply:
    key, end, value = given
    view.check(value)
    _store(view, key, value, end_of(unit, end, command, view.store.unix_ms()))
    return OK


async def setnx(given: Arguments, view: Transaction) -> Reply:
    """`SETNX key value`: 1 where the key was missing."""
    key, value = given
    view.check(value)
    if await view.get(key) is not None:
        return 0
    view.set(key, value)
    return 1


async def getset(given: Arguments, view: Transaction) -> Reply:
    """`GETSET key value`: what the key held before."""
    key, value = given
    view.check(value)
    entry = await view.get(key)
    view.set(key, value)
    return None if entry is None else entry.value


async def getdel(given: Arguments, view: Transaction) -> Reply:
    """`GETDEL key`: what the key held before it went."""
    entry = await view.get(given[0])
    if entry is None:
        return None
    view.delete(given[0])
    return entry.value


def getex_options(given: Sequence[bytes]) -> GivenOptions:
    """Return the options of `GETEX`."""
    found = options(given, (b"PERSIST",), ENDS)
    found.one_of(*ENDS, b"PERSIST")
    return found


async def getex(given: Arguments, view: Transaction) -> Reply:
    """`GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST]`: what a key holds, and another end for it."""
    key, *rest = given
    asked = getex_options(rest)
    ends = asked.one_of(*ENDS)
    left = None if ends is None else end_of(ends, asked.values[ends], "getex", view.store.unix_ms())
    entry = await view.get(key)
    if entry is None:
        return None
    if left is not None and left <= 0:
        view.delete(key)
    elif left is not None:
        view.end(key, view.now + left)
    elif asked.has(b"PERSIST") and entry.expires_at:
        view.end(key, 0)
    return entry.value


async def mset(given: Arguments, view: Transaction) -> Reply:
    """`MSET key value...`: all or none."""
    pairs = _pairs(given, "mset")
    view.check(*(value for _, value in pairs))
    for key, value in pairs:
        view.set(key, value)
    return OK


async def msetnx(given: Arguments, view: Transaction) -> Reply:
    """`MSETNX key value...`: 1 where all of them were missing, else nothing is stored."""
    pairs = _pairs(given, "msetnx")
    view.check(*(value for _, value in pairs))
    if any(entry is not None for entry in await view.get_all([key for key, _ in pairs])):
        return 0
    for key, value in pairs:
        view.set(key, value)
    return 1


def _pairs(given: Arguments, command: str) -> list[tuple[bytes, bytes]]:
    if len(given) % 2:
        raise CommandError(f"wrong number of arguments for '{command}' command")
    return list(zip(given[::2], given[1::2], strict=True))


# Values that are changed where they are


async def append(given: Arguments, view: Transaction) -> Reply:
    """`APPEND key value`: how long the value is then."""
    key, more = given
    entry = await view.get(key)
    value = more if entry is None else entry.value + more
    view.check(value)
    view.replace(key, value)
    return len(value)


async def setrange(given: Arguments, view: Transaction) -> Reply:
    """`SETRANGE key offset value`: how long the value is then; what was not there is zeros."""
    key, offset, part = given[0], integer(given[1]), given[2]
    if offset < 0:
        raise CommandError("offset is out of range")
    entry = await view.get(key)
    before = b"" if entry is None else entry.value
    if not part:
        return len(before)
    view.check_size(offset + len(part))
    value = before[:offset].ljust(offset, b"\0") + part + before[offset + len(part) :]
    view.replace(key, value)
    return len(value)


async def incr(given: Arguments, view: Transaction) -> Reply:
    """`INCR key`."""
    return await view.add(given[0], 1)


async def decr(given: Arguments, view: Transaction) -> Reply:
    """`DECR key`."""
    return await view.add(given[0], -1)


async def incrby(given: Arguments, view: Transaction) -> Reply:
    """`INCRBY key number`."""
    return await view.add(given[0], integer(given[1]))


async def decrby(given: Arguments, view: Transaction) -> Reply:
    """`DECRBY key number`."""
    delta = -integer(given[1])
    if delta not in INT64:
        raise CommandError("decrement would overflow")
    return await view.add(given[0], delta)


async def incrbyfloat(given: Arguments, view: Transaction) -> Reply:
    """`INCRBYFLOAT key number`."""
    key = given[0]
    entry = await view.get(key)
    before = Decimal() if entry is None else fraction(entry.value)
    value = sum_of(before, fraction(given[1]))
    view.replace(key, value)
    return value
