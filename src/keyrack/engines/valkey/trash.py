"""The trash of a store in Valkey: `library.lua` says how it is kept.

An undo has a part in each shard that it has deleted keys of, under the same number: what is known
of it is the sum of them.
"""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import Trashed, Undo

if TYPE_CHECKING:
    from keyrack.engines.valkey.calls import Calls

_UNDO: Final = Struct(">QQQQQQ")
_MOST_A_CALL: Final = b"200"
"""Records that one call drops: well under a millisecond of the server's time."""


class ValkeyTrash:
    """Reads the trash, and drops it where a server is full."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def undo_of(self, number: int) -> Undo | None:
        """Return an undo, None where there is none or it has ended."""
        found: dict[int, Undo] = {}
        for now, raw in await self._calls.each("undo", b"%d" % number):
            if raw is not None:
                _add(found, number, raw, now)
        return found.get(number)

    async def undos(self, below: int | None, limit: int) -> list[Undo]:
        """Return at most `limit` undos with a number below one, those of the newest first."""
        begin = b"" if below is None else b"%d" % below
        found: dict[int, Undo] = {}
        stops: list[int] = []
        for now, *flat in await self._calls.each("undos", begin, b"%d" % limit):
            for name, raw in zip(flat[::2], flat[1::2], strict=True):
                _add(found, int.from_bytes(name, "big"), raw, now)
            if len(flat) == 2 * limit:
                stops.append(int.from_bytes(flat[-2], "big"))
        # A shard that has more has told its part of those above its last one only.
        known = [
            number for number in sorted(found, reverse=True) if number >= max(stops, default=0)
        ]
        return [found[number] for number in known[:limit]]

    async def trashed(
        self, undo: int, after: bytes, limit: int
    ) -> tuple[list[Trashed], bytes | None]:
        """Return records of an undo that are in the trash, and where to go on, if at all."""
        replies = await self._calls.each("trashed", b"%d" % undo, after, b"%d" % limit)
        names = [
            Trashed(key, revision, size)
            for flat in replies
            for key, revision, size in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]
        names.sort(key=lambda one: one.key)
        found = names[:limit]
        more = len(names) > limit or any(len(flat) == 3 * limit for flat in replies)
        return found, found[-1].key if more else None

    async def drop(self, shard: int) -> bool:
        """Drop records of the trash in a shard, and where it has none in all of them.

        Return whether there was anything to drop.
        """
        if await self._calls.function(shard, "empty_trash", _MOST_A_CALL):
            return True
        shards = range(self._calls.layout.shards)
        calls = (self._calls.function(one, "empty_trash", _MOST_A_CALL) for one in shards)
        return any(await asyncio.gather(*calls))


def _add(found: dict[int, Undo], number: int, raw: bytes, now: int) -> None:
    """Add what one shard knows of an undo, unless it has ended."""
    since, until, *counts = _UNDO.unpack_from(raw)
    if until <= now:
        return
    before = found.get(number)
    if before is not None:
        since = min(since, before.since)
        known = before.deleted, before.restored, before.ended, before.gone
        counts = [one + other for one, other in zip(counts, known, strict=True)]
    deleted, restored, ended, gone = counts
    about = raw[_UNDO.size :]
    found[number] = Undo(number, since, until, deleted, restored, ended, gone, about)
