"""Shards whose slot is on its way to another server of the cluster.

Key by key, as `--cluster reshard` does it, so that for a while each of two servers has a part of
the shard. `library.lua` says how the servers and the functions notice. What is here finds out
whether a part that is missing is at another server, or is nowhere.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import StoreAway
from keyrack.engines.valkey.layout import NEVER, NEVER_LENIENT, STATE

if TYPE_CHECKING:
    from keyrack.engines.valkey.layout import Layout
    from keyrack.engines.valkey.servers import Servers

_UNSETTLED: Final = 10.0
"""Seconds for which a shard that was on the move is read closely."""
_PAUSE: Final = 0.05

_log = logging.getLogger("keyrack.valkey")


class MovingShards:
    """Knows which shards were on the move lately.

    `lenient` means that what is missing counts as gone without a question: the servers evict keys.
    """

    def __init__(self, servers: Servers, layout: Layout, lenient: bool) -> None:
        self.spread = servers.are_a_cluster
        self._servers = servers
        self._layout = layout
        self._lenient = lenient
        self._loop = asyncio.get_running_loop()
        self._shard_of_slot = {slot: shard for shard, slot in enumerate(layout.slots)}
        self._unsettled_until: dict[int, float] = {}
        self._searches: dict[int, asyncio.Task[bool]] = {}
        servers.on_the_move = self._note

    def _note(self, slot: int) -> None:
        shard = self._shard_of_slot.get(slot)
        if shard is not None:
            self._unsettled_until[shard] = self._loop.time() + _UNSETTLED

    def is_unsettled(self, shard: int) -> bool:
        """Tell whether a shard is or was on the move, so that a missing record may be elsewhere."""
        return self._unsettled_until.get(shard, 0.0) > self._loop.time()

    def keys(self, shard: int, whole: bool = False) -> tuple[bytes, ...]:
        """Return the keys that a call of a function names, after their number.

        `whole` says that no other server has a part of the shard, so that what is missing is gone.
        """
        base = self._layout.bases[shard]
        if not self.spread:
            return b"1", base + STATE
        return b"2", base + STATE, base + (NEVER_LENIENT if whole or self._lenient else NEVER)

    async def find_out(self, shard: int) -> bool:
        """Tell whether a shard is whole, though a part of it is missing; if not, wait a little.

        It is when no server but its own has anything of its slot: the part is lost, or it was never
        there, as in a new store.
        """
        self._note(self._layout.slots[shard])
        search = self._searches.get(shard)
        if search is None:
            search = self._searches[shard] = self._loop.create_task(self._is_whole(shard))
            search.add_done_callback(lambda _: self._searches.pop(shard))
        return await asyncio.shield(search)

    async def _is_whole(self, shard: int) -> bool:
        try:
            if not await self._servers.others_have(self._layout.slots[shard]):
                return True
        except StoreAway as error:
            _log.warning("%s", error)
        await asyncio.sleep(_PAUSE)
        return False
