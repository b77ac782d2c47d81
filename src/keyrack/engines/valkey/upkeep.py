"""What has to be done to a store in Valkey from time to time: expiry, and an end to its history.

Any number of processes try; in each shard, or in the whole store where it has several, one of them
keeps a lease in Valkey, and the others leave the work to it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Any, Final

from keyrack.engines.contract import Sweep

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyrack.engines.valkey.calls import Calls

_SWEEP_LEASE_MS: Final = b"200"
_STORE_LEASE_MS: Final = b"500"


class ValkeyUpkeep:
    """Removes what is over. `events_kept` is how many events stay at least."""

    def __init__(self, calls: Calls, events_kept: int) -> None:
        self.me = f"{os.getpid()}-{secrets.token_hex(4)}".encode()
        self._calls = calls
        self._shards = calls.layout.shards
        self._kept = events_kept

    async def _leads(self) -> bool:
        """Take or keep the lease of the whole store: asking all shards is one process's work."""
        return bool(await self._calls.function(0, "lease", self.me, _STORE_LEASE_MS))

    async def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys and locks whose time is over, each with its event."""
        if self._shards == 1:
            _, expired, due, _ = await self._sweep(0, limit)
            return Sweep(expired, due)
        if not await self._leads():
            return Sweep(0, None)
        replies = await self._calls.each("due", b"%d" % limit)
        over = sorted((end, shard) for shard, reply in enumerate(replies) for end in reply[2:])
        chosen = _counts(shard for _, shard in over[:limit])
        sweeps = await asyncio.gather(*(self._sweep(*item) for item in chosen.items()))
        dues = {shard: reply[1] for shard, reply in enumerate(replies)}
        dues |= {shard: reply[2] for shard, reply in zip(chosen, sweeps, strict=True)}
        ends = [due for due in dues.values() if due is not None]
        return Sweep(sum(reply[1] for reply in sweeps), min(ends, default=None))

    async def _sweep(self, shard: int, limit: int) -> list[Any]:
        seen = b"%d" % self._calls.clock.highest
        reply: list[Any] = await self._calls.function(
            shard, "sweep", seen, b"%d" % limit, self.me, _SWEEP_LEASE_MS
        )
        self._calls.clock.saw(reply[3])
        return reply

    async def trim(self, limit: int) -> int:
        """Remove at most `limit` groups of events beyond those that are kept; say how many."""
        if self._shards == 1:
            kept = b"%d" % self._kept
            return int(await self._calls.function(0, "trim", b"%d" % limit, kept))
        if not await self._leads():
            return 0
        events = sum(reply[3] for reply in await self._calls.each("state"))
        if events <= self._kept:
            return 0
        chosen: list[int] = []
        for shard, size in _oldest(await self._calls.each("log", b"%d" % limit))[:limit]:
            if events - size < self._kept:
                break
            events -= size
            chosen.append(shard)
        counts = _counts(chosen).items()
        trims = (self._calls.function(shard, "trim", b"%d" % n, b"0") for shard, n in counts)
        return sum(await asyncio.gather(*trims))


def _oldest(replies: list[Any]) -> list[tuple[int, int]]:
    """Return shard and number of events of the oldest groups, oldest first."""
    groups = [
        (revision, shard, size)
        for shard, reply in enumerate(replies)
        for revision, size in zip(reply[::2], reply[1::2], strict=True)
    ]
    return [(shard, size) for _, shard, size in sorted(groups)]


def _counts(shards: Iterable[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for shard in shards:
        counts[shard] = counts.get(shard, 0) + 1
    return counts
