"""Lists of keys, of one shard or put together from many.

Of many shards each is asked for its share of a page and a little more. Where one of them has more
than it gave, the page can only be complete up to its last key; the round after that asks for more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.engines import record as wire
from keyrack.engines.contract import Page, Space
from keyrack.engines.valkey.layout import ENDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from keyrack.engines.contract import Record
    from keyrack.engines.valkey.calls import Calls

_LEAST_BYTES: Final = 1 << 17
_SPARE: Final = 4
_PAGES_AT_ONCE: Final = 4
"""Their values are held until they are answered, and the server reads one page after the other."""


class _Part(NamedTuple):
    """What one shard gave: names in order, their records (None: a folder), and where it stopped."""

    items: list[tuple[bytes, Record | None]]
    stopped: bytes | None


class Lists:
    """Reads pages of keys and counts them.

    `closed` returns a revision that all shards have left behind.
    """

    def __init__(self, calls: Calls, closed: Callable[[], Awaitable[int]]) -> None:
        self._calls = calls
        self._shards = calls.layout.shards
        self._closed = closed
        self._turns = asyncio.Semaphore(_PAGES_AT_ONCE)

    async def page(
        self,
        prefix: bytes,
        after: bytes | None,
        limit: int,
        reverse: bool,
        delimiter: bytes,
        most_bytes: int,
    ) -> Page:
        """Return a page; of many shards it is what each had in one moment."""
        pages = _Pages(self._calls, prefix, reverse, delimiter, most_bytes)
        async with self._turns:
            if self._shards == 1:
                return await pages.of_one(after, limit)
            return await pages.of_many(after, limit, await self._closed())

    async def locks(self, prefix: bytes, after: bytes | None) -> list[bytes]:
        """Return the names of the locks that are held and begin with a prefix, in their order."""
        layout, now = self._calls.layout, b"(%d" % self._calls.clock.now()
        found = await asyncio.gather(
            *(
                self._calls.ask(shard, b"ZRANGEBYSCORE", base + ENDS[Space.LOCKS], now, b"+inf")
                for shard, base in enumerate(layout.bases)
            )
        )
        return sorted(
            name
            for names in found
            for name in names
            if name.startswith(prefix) and (after is None or name > after)
        )

    async def stale_copies(
        self, prefix: bytes, after: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return keys under a prefix of which there is only a stale copy, and where to go on."""
        names = [
            name
            for names in await self._calls.each("copies", prefix)
            for name in names
            if after is None or name > after
        ]
        found = sorted(names)[:limit]
        return found, found[-1] if len(names) > limit else None

    async def count(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[int, bytes | None]:
        """Count keys in so many steps a shard; return the number and where to go on, if at all."""
        begin = b"" if after is None else b"a" + after
        if self._shards == 1:
            return await self._count_some(0, prefix, begin, steps)
        shards = range(self._shards)
        counts = await asyncio.gather(*(self._count_all(s, prefix, begin, steps) for s in shards))
        return sum(counts), None

    async def _count_all(self, shard: int, prefix: bytes, begin: bytes, steps: int) -> int:
        total, following = 0, begin
        while True:
            number, last = await self._count_some(shard, prefix, following, steps)
            total += number
            if last is None:
                return total
            following = b"a" + last

    async def _count_some(
        self, shard: int, prefix: bytes, begin: bytes, steps: int
    ) -> tuple[int, bytes | None]:
        _, number, last = await self._calls.function(shard, "count", prefix, begin, b"%d" % steps)
        return number, last


class _Pages:
    """Reads the pages of one list."""

    def __init__(
        self, calls: Calls, prefix: bytes, reverse: bool, delimiter: bytes, most_bytes: int
    ) -> None:
        self._each = calls.each
        self._shards = calls.layout.shards
        self._prefix = prefix
        self._reverse = reverse
        self._delimiter = delimiter
        self._most_bytes = most_bytes

    async def _ask(self, after: bytes | None, limit: int) -> list[Any]:
        return await self._each(
            "scan",
            self._prefix,
            b"" if after is None else b"a" + after,
            b"%d" % limit,
            b"1" if self._reverse else b"0",
            self._delimiter,
            b"%d" % max(_LEAST_BYTES, self._most_bytes // self._shards),
        )

    async def of_one(self, after: bytes | None, limit: int) -> Page:
        """Return a page of the only shard."""
        ((_, revision, following, folders, *flat),) = await self._ask(after, limit)
        entries = list(zip(flat[::2], map(wire.unpack, flat[1::2]), strict=True))
        return Page(entries, folders, following, revision)

    async def of_many(self, after: bytes | None, limit: int, revision: int) -> Page:
        """Return a page of all shards; `revision` is one that all of them have left behind."""
        found: dict[bytes, Record | None] = {}
        share = limit // self._shards + limit // (4 * self._shards) + _SPARE
        if self._delimiter:
            share = limit  # each shard may have keys in every folder
        while True:
            parts = [self._part(reply) for reply in await self._ask(after, share)]
            stops = [part.stopped for part in parts if part.stopped is not None]
            after = (max if self._reverse else min)(stops, default=None)
            self._merge(found, parts, after)
            if after is None or len(found) >= limit:
                return self._page(found, after, limit, revision)
            share = min(limit, share * 2)

    def _part(self, reply: Any) -> _Part:
        _, _, stopped, folders, *flat = reply
        items: list[tuple[bytes, Record | None]] = [(folder, None) for folder in folders]
        items += zip(flat[::2], map(wire.unpack, flat[1::2]), strict=True)
        return _Part(items, stopped)

    def _merge(
        self, found: dict[bytes, Record | None], parts: list[_Part], stop: bytes | None
    ) -> None:
        items = [item for part in parts for item in part.items]
        if stop is not None and self._reverse:
            items = [item for item in items if item[0] >= stop]
        elif stop is not None:
            items = [item for item in items if item[0] <= stop]
        found.update(sorted(items, key=lambda item: item[0], reverse=self._reverse))

    def _page(
        self,
        found: dict[bytes, Record | None],
        stop: bytes | None,
        limit: int,
        revision: int,
    ) -> Page:
        items = list(found.items())
        if len(items) > limit:
            del items[limit:]
            stop = items[-1][0]
        entries = [(name, record) for name, record in items if record is not None]
        folders = [name for name, record in items if record is None]
        return Page(entries, folders, stop, revision)
