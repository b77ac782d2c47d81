"""Redis' commands on keys, whatever they hold: their ends, their names, and all of them."""

from __future__ import annotations

import asyncio
import functools
import random
from typing import TYPE_CHECKING, Final

from keyrack.compat.arguments import integer, left_until, options
from keyrack.compat.patterns import compiled
from keyrack.compat.replies import OK, CommandError, SimpleString, syntax_error
from keyrack.engines.contract import MAX_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from keyrack.compat.replies import Reply
    from keyrack.compat.strings import Arguments
    from keyrack.compat.transaction import StringEntry, Transaction

PAGE_KEYS: Final = 1000
"""Keys that are looked at in one step."""
MOST_NAMES: Final = 10_000
"""Keys that `KEYS` answers."""
_STRING: Final = SimpleString("string")
_NONE: Final = SimpleString("none")


async def delete(given: Arguments, view: Transaction) -> Reply:
    """`DEL key...`: how many there were."""
    return await view.remove(given)


async def exists(given: Arguments, view: Transaction) -> Reply:
    """`EXISTS key...`: how many there are; one that is named twice counts twice."""
    return await view.count(given)


async def type_(given: Arguments, view: Transaction) -> Reply:
    """`TYPE key`."""
    return _NONE if await view.glance(given[0]) is None else _STRING


# Ends


async def ttl(given: Arguments, view: Transaction) -> Reply:
    """`TTL key`: seconds, rounded."""
    return _seconds(await _left(given[0], view))


async def pttl(given: Arguments, view: Transaction) -> Reply:
    """`PTTL key`: milliseconds."""
    return await _left(given[0], view)


async def expiretime(given: Arguments, view: Transaction) -> Reply:
    """`EXPIRETIME key`: seconds since 1970, rounded."""
    return _seconds(await _ends_at(given[0], view))


async def pexpiretime(given: Arguments, view: Transaction) -> Reply:
    """`PEXPIRETIME key`: milliseconds since 1970."""
    return await _ends_at(given[0], view)


def _seconds(milliseconds: int) -> int:
    return milliseconds if milliseconds < 0 else (milliseconds + 500) // 1000


async def _left(key: bytes, view: Transaction) -> int:
    """Return how many ms a key has left: -1 without an end, -2 where it is missing."""
    glance = await view.glance(key)
    if glance is None:
        return -2
    return max(0, glance.expires_at - view.now) if glance.expires_at else -1


async def _ends_at(key: bytes, view: Transaction) -> int:
    left = await _left(key, view)
    return left if left < 0 else view.store.unix_ms() + left


_EXPIRE_WORDS: Final = (b"NX", b"XX", b"GT", b"LT")


async def _expire(unit: bytes, command: str, given: Arguments, view: Transaction) -> Reply:
    """`EXPIRE key time [NX|XX|GT|LT]` and its relatives: 1 where the key has that end now."""
    words = _expire_words(given[2:])
    left = left_until(unit, integer(given[1]), command, view.store.unix_ms())
    key = given[0]
    entry = await view.get(key)
    if entry is None or not _may_end(words, entry, view.now + left):
        return 0
    if left > 0:
        view.end(key, view.now + left)
    else:
        view.delete(key)
    return 1


expire: Final = functools.partial(_expire, b"EX", "expire")
pexpire: Final = functools.partial(_expire, b"PX", "pexpire")
expireat: Final = functools.partial(_expire, b"EXAT", "expireat")
pexpireat: Final = functools.partial(_expire, b"PXAT", "pexpireat")


def _expire_words(given: Sequence[bytes]) -> frozenset[bytes]:
    words = frozenset(one.upper() for one in given)
    for one in given:
        if one.upper() not in _EXPIRE_WORDS:
            raise CommandError(f"Unsupported option {one.decode('utf-8', 'replace')}")
    if b"NX" in words and len(words) > 1:
        raise CommandError("NX and XX, GT or LT options at the same time are not compatible")
    if {b"GT", b"LT"} <= words:
        raise CommandError("GT and LT options at the same time are not compatible")
    return words


def _may_end(words: frozenset[bytes], entry: StringEntry, ends: int) -> bool:
    """Tell whether a key may get an end: one without an end ends later than any."""
    before = entry.expires_at
    if (b"NX" in words and before) or (b"XX" in words and not before):
        return False
    if b"GT" in words:
        return bool(before) and ends > before
    return b"LT" not in words or not before or ends < before


async def persist(given: Arguments, view: Transaction) -> Reply:
    """`PERSIST key`: 1 where the key had an end, which it has no longer."""
    entry = await view.get(given[0])
    if entry is None or not entry.expires_at:
        return 0
    view.end(given[0], 0)
    return 1


# Names


async def rename(given: Arguments, view: Transaction) -> Reply:
    """`RENAME key newkey`."""
    key, new = given
    entry, _ = await view.get_all(given)
    if entry is None:
        raise CommandError("no such key")
    if key != new:
        view.copy(new, entry)
        view.delete(key)
    return OK


async def renamenx(given: Arguments, view: Transaction) -> Reply:
    """`RENAMENX key newkey`: 1 where the new name was free."""
    key, new = given
    entry, there = await view.get_all(given)
    if entry is None:
        raise CommandError("no such key")
    if there is not None:
        return 0
    view.copy(new, entry)
    view.delete(key)
    return 1


async def copy(given: Arguments, view: Transaction) -> Reply:
    """`COPY source destination [REPLACE]`: 1 where it was copied."""
    source, destination, *rest = given
    asked = options(rest, (b"REPLACE",), (b"DB",))
    if asked.has(b"DB") and integer(asked.values[b"DB"]) != 0:
        raise CommandError("DB index is out of range")
    if source == destination:
        raise CommandError("source and destination objects are the same")
    entry, there = await view.get_all((source, destination))
    if entry is None or (there is not None and not asked.has(b"REPLACE")):
        return 0
    view.copy(destination, entry)
    return 1


# All keys


async def keys(given: Arguments, view: Transaction) -> Reply:
    """`KEYS pattern`."""
    pattern = compiled(given[0])
    found: list[Reply] = []
    async for names in _pages(view, pattern.prefix):
        found += [name for name in names if pattern.matches(name)]
        if len(found) > MOST_NAMES:
            raise CommandError(f"more than {MOST_NAMES} keys match; SCAN goes through them")
    return found


async def _pages(view: Transaction, prefix: bytes) -> AsyncIterator[list[bytes]]:
    after: bytes | None = None
    while True:
        page = await view.store.page(prefix, after, PAGE_KEYS)
        yield [key for key, _ in page.entries]
        after = page.next
        if after is None:
            return
        await asyncio.sleep(0)


async def scan(given: Arguments, view: Transaction) -> Reply:
    """`SCAN cursor [MATCH pattern] [COUNT number] [TYPE type]`: where to go on, and some keys."""
    after = _place(given[0])
    asked = options(given[1:], (), (b"MATCH", b"COUNT", b"TYPE"))
    count = integer(asked.values.get(b"COUNT", b"10"))
    if count < 1:
        raise syntax_error()
    pattern = compiled(asked.values.get(b"MATCH", b"*"))
    page = await view.store.page(pattern.prefix, after, min(count, PAGE_KEYS))
    names: list[Reply] = [key for key, _ in page.entries if pattern.matches(key)]
    if asked.values.get(b"TYPE", b"string").lower() != b"string":
        names = []
    return [b"0" if page.next is None else _cursor(page.next), names]


def _cursor(key: bytes) -> bytes:
    """Return the number that stands for the place behind a key.

    It is the key itself as one number, so that no worker has to remember it.
    """
    return b"%d" % int.from_bytes(b"\1" + key)


MOST_DIGITS: Final = len(_cursor(b"\xff" * MAX_KEY_BYTES))


def _place(cursor: bytes) -> bytes | None:
    if not cursor.isdigit() or len(cursor) > MOST_DIGITS:
        raise CommandError("invalid cursor")
    number = int(cursor)
    if number == 0:
        return None
    text = number.to_bytes((number.bit_length() + 7) // 8)
    if text[0] != 1:
        raise CommandError("invalid cursor")
    return text[1:]


async def dbsize(given: Arguments, view: Transaction) -> Reply:
    """`DBSIZE`."""
    return (await view.store.engine.usage()).keys


async def randomkey(given: Arguments, view: Transaction) -> Reply:
    """`RANDOMKEY`: some key that may be listed, not each with the same chance."""
    first = await view.store.page(b"", None, PAGE_KEYS)
    if not first.entries:
        return None
    if first.next is None:
        return random.choice(first.entries)[0]
    start = bytes((random.randrange(256), random.randrange(256)))
    page = await view.store.page(b"", start, PAGE_KEYS)
    return random.choice((page if page.entries else first).entries)[0]


async def flushdb(given: Arguments, view: Transaction) -> Reply:
    """`FLUSHDB`: removes every key that is there when it begins, in steps."""
    if given and (len(given) > 1 or given[0].upper() not in (b"ASYNC", b"SYNC")):
        raise syntax_error()
    await view.store.clear()
    return OK
