"""Which records are fresh of those of which a stale copy is kept.

Valkey removes every other record itself, in the millisecond of its end. One with a stale copy is
there longer, and whoever reads it plainly must not see it then. Whether its time is over is told
from what is known of the server's clock; where that is too close the server is asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyrack.engines.contract import Record
    from keyrack.engines.valkey.calls import Calls


class Freshness:
    """Judges records by the time of the server that they are on."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def of(
        self, keys: Sequence[bytes], records: Sequence[Record | None]
    ) -> list[Record | None]:
        """Return those records of keys whose time is not over, None for the others."""
        over: dict[bytes, bool | None] = {
            key: self._calls.clock.is_over(record.expires_at)
            for key, record in zip(keys, records, strict=True)
            if record is not None and record.stale_until
        }
        unknown = [key for key, known in over.items() if known is None]
        if unknown:
            await self._ask(unknown, over)
        return [None if over.get(key) else one for key, one in zip(keys, records, strict=True)]

    async def _ask(self, keys: Sequence[bytes], over: dict[bytes, bool | None]) -> None:
        shards = self._calls.layout.by_shard(keys)
        asked = (self._calls.function(shard, "fresh", *some) for shard, some in shards.items())
        for some, replies in zip(shards.values(), await asyncio.gather(*asked), strict=True):
            over.update((key, not fresh) for key, fresh in zip(some, replies, strict=True))
