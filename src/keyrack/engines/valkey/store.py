"""What is true of a store as a whole: which one it is, and whether its servers keep what they get.

Looked at when the store is opened, when a server was replaced, and again and again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from libvalkey import ReplyError

from keyrack.engines.contract import StoreAway, StoreError, StoreFormatUnknown, Usage
from keyrack.engines.valkey.address import shown
from keyrack.engines.valkey.layout import EARLIER_FORMATS, FORMAT, slot_of
from keyrack.engines.valkey.resp import Call, encode
from keyrack.engines.valkey.servers import information

if TYPE_CHECKING:
    from keyrack.engines.valkey.address import Address
    from keyrack.engines.valkey.calls import Calls

_LOOK: Final = 1.0
"""Seconds between two looks at the servers: at their clock, which also finds one that hangs, and at
what they do when they are full."""
_KEEPS: Final = "noeviction"

_log = logging.getLogger("keyrack.valkey")


class ValkeyStore:
    """The store at an address. `may_evict` allows servers that remove keys of their own accord."""

    def __init__(self, calls: Calls, address: Address, may_evict: bool) -> None:
        self.id = ""
        self.trouble = ""
        """Why nothing may be written now; empty when all is well."""
        self._calls = calls
        self._address = address
        self._may_evict = may_evict
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, revision: int) -> None:
        """Make the store or make sure that it is ours; its shards are above a revision then.

        Raises `StoreError` when it cannot be used.
        """
        await self._look_at_policies()
        if self.trouble:
            raise StoreError(self.trouble)
        await self._enrol()
        await self._calls.each("raise", b"%d" % revision, b"0")
        self._timer = self._calls.loop.call_later(_LOOK, self._look)

    def close(self) -> None:
        """End."""
        self.id = ""
        if self._timer is not None:
            self._timer.cancel()

    async def _enrol(self) -> None:
        """Make the store's description where there is none; refuse a store of another kind."""
        layout = self._calls.layout
        slot = slot_of(layout.meta)
        mine = {
            b"format": b"%d" % FORMAT,
            b"shards": b"%d" % layout.shards,
            b"id": secrets.token_hex(8).encode(),
        }
        made = [encode((b"HSETNX", layout.meta, *item)) for item in mine.items()]
        await asyncio.gather(*(self._calls.ask_slot(slot, one) for one in made))
        flat = await self._calls.ask_slot(slot, encode((b"HGETALL", layout.meta)))
        found = dict(zip(flat[::2], flat[1::2], strict=True))
        where = shown(self._address)
        if found[b"format"] in (b"%d" % earlier for earlier in EARLIER_FORMATS):
            raised = encode((b"HSET", layout.meta, b"format", mine[b"format"]))
            await self._calls.ask_slot(slot, raised)
        elif found[b"format"] != mine[b"format"]:
            raise StoreFormatUnknown(
                f"The store at {where} has format {found[b'format'].decode()}, and this Keyrack "
                f"knows format {FORMAT}. Use the version that made it, or name another prefix."
            )
        if found[b"shards"] != mine[b"shards"]:
            raise StoreFormatUnknown(
                f"The store at {where} was made with {found[b'shards'].decode()} shards, and this "
                f"is to use {layout.shards}. The number is fixed: name another prefix, and "
                "move the keys with keyrack export and import."
            )
        store_id = found[b"id"].decode()
        if self.id and self.id != store_id:
            _log.warning("the store at %s is another one now: its data was lost", where)
        self.id = store_id

    def look_again(self) -> None:
        """Look whether it is still the same store, as a server was found, perhaps another one."""
        self._calls.run(self._enrol_again())

    async def _enrol_again(self) -> None:
        try:
            await self._enrol()
        except StoreAway:
            return  # the next connection tries again
        except (StoreError, ReplyError) as error:
            _log.error("%s", error)

    # Looking

    def _look(self) -> None:
        self._timer = self._calls.loop.call_later(_LOOK, self._look)

        clock = self._calls.clock
        sent = clock.steady()

        def told(reply: Any) -> None:
            if type(reply) is list:
                clock.learn(int(reply[0]) * 1000 + int(reply[1]) // 1000, sent)

        self._calls.submit(Call(self._calls.layout.slots[0], encode((b"TIME",)), told))
        if not self._may_evict:
            self._calls.run(self._look_at_policies_again())

    async def _look_at_policies_again(self) -> None:
        try:
            await self._look_at_policies()
        except (StoreError, ReplyError):
            return  # whoever asks for something is told

    async def _look_at_policies(self) -> None:
        """Find out whether a server removes keys by itself: anybody may set that at any time."""
        self._judge(list(map(information, await self._calls.ask_servers(b"INFO", b"memory"))))

    def _judge(self, facts: list[dict[str, str]]) -> None:
        policies = {fact.get("maxmemory_policy", _KEEPS) for fact in facts} - {_KEEPS}
        before, self.trouble = self.trouble, ""
        if policies and not self._may_evict:
            self.trouble = (
                f"Valkey's maxmemory-policy is {min(policies)}: it would remove keys behind "
                "Keyrack's back, without an event, and locks as well. Set it to noeviction "
                "(CONFIG SET maxmemory-policy noeviction), or say --valkey-may-evict if "
                "losing any of that is acceptable."
            )
        if self.id and self.trouble and not before:
            _log.error("nothing is written from now on: %s", self.trouble)
        elif self.id and before and not self.trouble:
            _log.warning("Valkey's maxmemory-policy is noeviction again: writes go on")

    async def usage(self) -> Usage:
        """Return counts and sizes; those of memory are Valkey's, whatever else is in it.

        Raises `StoreAway` when nothing may be written.
        """
        states, servers = await asyncio.gather(
            self._calls.each("state"), self._calls.ask_servers(b"INFO", b"memory")
        )
        facts = [information(reply) for reply in servers]
        self._judge(facts)
        if self.trouble:
            raise StoreAway(self.trouble)
        used = sum(int(fact["used_memory"]) for fact in facts)
        limits = [int(f["maxmemory"]) or int(f["total_system_memory"]) for f in facts]
        return Usage(
            keys=sum(state[4] for state in states),
            keys_with_ttl=sum(state[5] for state in states),
            events=sum(state[3] for state in states),
            revision=max(state[1] for state in states),
            limit=sum(limits),
            used=used,
            free=max(0, sum(limits) - used),
            reserved=sum(int(fact["used_memory_rss"]) for fact in facts),
            stale_copies=sum(state[6] for state in states),
            trash=sum(state[7] for state in states),
        )
