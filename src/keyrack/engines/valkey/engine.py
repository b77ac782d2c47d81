"""The Valkey engine: keys live in Valkey, and every change is one atomic call of a function there.

The engine itself only puts its parts together: `batching` reads and writes single keys, `pages`
reads lists, `events` what has happened, `upkeep` removes what is over, `store` knows
whether all is well. What they ask for goes through `calls`, and from there to `servers`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from libvalkey import ReplyError
from msgspec import structs

from keyrack.engines import record as wire
from keyrack.engines.contract import (
    PAGE_BYTES,
    Capabilities,
    Measures,
    Page,
    Part,
    Record,
    Refusal,
    Space,
    StoreError,
    Why,
    bounds,
)
from keyrack.engines.fences import joined, left
from keyrack.engines.valkey.batching import ReadBatcher, WriteBatcher
from keyrack.engines.valkey.calls import Calls
from keyrack.engines.valkey.clock import StoreClock
from keyrack.engines.valkey.events import EventReader
from keyrack.engines.valkey.freshness import Freshness
from keyrack.engines.valkey.layout import KINDS, Layout, slot_of
from keyrack.engines.valkey.notices import Notices
from keyrack.engines.valkey.pages import Lists
from keyrack.engines.valkey.servers import Cluster, Single
from keyrack.engines.valkey.store import ValkeyStore
from keyrack.engines.valkey.trash import ValkeyTrash
from keyrack.engines.valkey.upkeep import ValkeyUpkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import (
        Event,
        Outcome,
        Span,
        Sweep,
        Trashed,
        Undo,
        Usage,
        Write,
    )
    from keyrack.engines.fences import Refusals
    from keyrack.engines.valkey.address import Address
    from keyrack.engines.valkey.clock import Clock
    from keyrack.engines.valkey.servers import Login, Servers

DEFAULT_EVENTS: Final = 100_000


class Options(NamedTuple):
    """How a store is used.

    `clock` (ms) and `wall` (us) are there for tests, which move time themselves: without them, all
    time is Valkey's.
    """

    events: int = DEFAULT_EVENTS
    """How many events are kept."""
    wait: int = 0
    """How many replicas must have a write before it is acknowledged."""
    may_evict: bool = False
    clock: Clock | None = None
    wall: Clock | None = None


class ValkeyEngine:  # structure: the contract alone has 28 methods
    """One process's hold on a store in Valkey. `open` it inside a running event loop."""

    get_now: Final = None
    write_now: Final = None
    """Every answer has to be waited for."""

    def __init__(self, address: Address, login: Login, options: Options | None = None) -> None:
        self.layout = Layout(address.prefix, address.shards)
        self.capabilities = Capabilities(
            engine="valkey",
            shared_by="processes of any number of machines",
            durable=False,
            eviction=False,
            atomic_across_keys=address.shards == 1,
            answers_later=True,
        )
        self.on_change: Callable[[], None] = lambda: None
        """Called when anybody, anywhere, may have changed something."""
        self._address = address
        self._login = login
        self._options = options or Options()
        self._fenced: Callable[[Sequence[Write]], Refusals] | None = None
        self._clock = StoreClock(self._options.clock)
        self.measures = Measures()

    @property
    def store_id(self) -> str:
        """What tells this store from every other one; it changes when the data is lost."""
        return self.store.id

    # Opening

    async def open(self) -> None:
        """Find the servers, and make the store or make sure that it is ours.

        Raises `StoreError` when that cannot be done.
        """
        options, address = self._options, self._address
        servers = self._connect()
        writers = self._connect() if options.wait else servers
        lenient = options.may_evict
        self.calls = Calls(servers, self.layout, self._clock, self._login.timeout, lenient)
        self._reads = ReadBatcher(self.calls)
        self._fresh = Freshness(self.calls)
        self.writes = WriteBatcher(self.calls, writers, options.wait)
        self._events = EventReader(self.calls, self._notice)
        self._lists = Lists(self.calls, self._events.closed)
        self._trash = ValkeyTrash(self.calls)
        self.upkeep = ValkeyUpkeep(self.calls, max(1, options.events))
        self.store = ValkeyStore(self.calls, address, options.may_evict)
        self._notices = Notices(self._login, servers, self.layout, self._notice)
        try:
            await servers.find()
            await writers.find()
            await self.store.open(options.wall() if options.wall else 0)
        except ReplyError as error:
            await self.close()
            raise StoreError(f"Valkey refuses to serve this: {error}.") from None
        except BaseException:
            await self.close()
            raise

    def _connect(self) -> Servers:
        if self._address.kind == "cluster":
            slots = [*self.layout.slots, slot_of(self.layout.meta)]
            return Cluster(self._address, self._login, self._changed, slots)
        return Single(self._address, self._login, self._changed)

    def _changed(self) -> None:
        """A server was found, perhaps another one, and perhaps with other data."""
        self._clock.forget_bounds()
        self._notice()
        if self.store.id:
            self._notices.renew()
            self.store.look_again()

    def _notice(self) -> None:
        self.on_change()

    async def close(self) -> None:
        """Let go of the store. Data stays."""
        self.store.close()
        self._reads.close()
        self.writes.close()
        await self.calls.close()
        await self._notices.close()
        await self.calls.servers.close()
        if self.writes.servers is not self.calls.servers:
            await self.writes.servers.close()
        for _ in range(3):
            await asyncio.sleep(0)  # lets connections end before the loop does

    def listen(self, wanted: bool, told: Callable[[], None]) -> None:
        """Have `told` called when anybody, anywhere, may have changed something; or no longer."""
        self.on_change = told
        self._notices.want(wanted)

    def now(self) -> int:
        """Return the store's clock in ms, as far as it is known here."""
        return self._clock.now()

    # Single keys

    async def get(self, key: bytes) -> Record | None:
        """Return the record, or None when the key is missing or its time is over."""
        record = await self.get_stale(key)
        if record is not None and record.stale_until:
            return (await self._fresh.of([key], [record]))[0]
        return record

    async def get_stale(self, key: bytes) -> Record | None:
        """Return the record, be it over, as long as a stale copy of it is kept."""
        shard = self.layout.shard_of(key)
        return await self._reads.read(shard, self.layout.records[shard] + key)

    async def stale_copies(
        self, prefix: bytes, after: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return keys under a prefix of which there is only a stale copy, and where to go on.

        The names of all stale copies are looked at for it.
        """
        return await self._lists.stale_copies(prefix, after, limit)

    async def get_part(self, key: bytes, span: Span) -> Part | None:
        """Return a part of a value, None when the key is missing. The server sends all of it."""
        record = await self.get(key)
        if record is None:
            return None
        start, end = bounds(span, len(record.value))
        part = structs.replace(record, value=record.value[start:end])
        return Part(part, start, len(record.value))

    async def lock_of(self, name: bytes) -> Record | None:
        """Return who holds a lock: the value is the owner, the revision the fencing token."""
        shard = self.layout.shard_of(name)
        return await self._reads.read(shard, self.layout.bases[shard] + KINDS[Space.LOCKS] + name)

    async def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return what `get` returns for each key, those of a shard as of one moment.

        One round trip, whatever the number of keys and of shards.
        """
        found: dict[bytes, Record | None] = {}
        shards = self.layout.by_shard(keys)
        asked = (
            self._reads.read_many(shard, [self.layout.records[shard] + key for key in some])
            for shard, some in shards.items()
        )
        for some, records in zip(shards.values(), await asyncio.gather(*asked), strict=True):
            found.update(zip(some, records, strict=True))
        records = [found[key] for key in keys]
        if any(record is not None and record.stale_until for record in records):
            return await self._fresh.of(keys, records)
        return records

    async def admin_value(self, key: bytes) -> bytes | None:
        """Return a value of `Space.ADMIN`."""
        shard = self.layout.shard_of(key)
        base = self.layout.bases[shard]
        record = await self._reads.read(shard, base + KINDS[Space.ADMIN] + key)
        return None if record is None else record.value

    async def all_of(self, space: Space) -> dict[bytes, bytes]:
        """Return the values of `Space.ADMIN`, by their keys: no other space has a list of them."""
        assert space is Space.ADMIN
        shards = range(self.layout.shards)
        asked = (self.calls.function(shard, "tokens") for shard in shards)
        found: dict[bytes, bytes] = {}
        for flat in await asyncio.gather(*asked):
            for name, raw in zip(flat[::2], flat[1::2], strict=True):
                if raw is not None:
                    found[name] = wire.unpack(raw).value
        return found

    async def sizes_of(self, keys: Sequence[bytes]) -> list[int]:
        """Return about how many bytes the record of each key has, 0 where there is none."""
        found: dict[bytes, int] = {}
        shards = self.layout.by_shard(keys)
        asked = (self.calls.function(shard, "sizes", *some) for shard, some in shards.items())
        for some, sizes in zip(shards.values(), await asyncio.gather(*asked), strict=True):
            found.update(zip(some, sizes, strict=True))
        return [found[key] for key in keys]

    def fence(self, refusals: Callable[[Sequence[Write]], Refusals] | None) -> None:
        """From now on have a function say which writes are refused; None: none is."""
        self._fenced = refusals

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Apply each write, all or none, and return one outcome for each.

        Writes of one shard are done in order.
        """
        if self.store.trouble:
            return [Refusal(Why.UNSAFE)] * len(writes)
        if self._fenced is not None and (refusals := self._fenced(writes)):
            return joined(refusals, await self.writes.write(left(writes, refusals)))
        return await self.writes.write(writes)

    async def undo_of(self, number: int) -> Undo | None:
        """Return an undo, None where there is none or it has ended."""
        return await self._trash.undo_of(number)

    async def undos(self, below: int | None, limit: int) -> list[Undo]:
        """Return at most `limit` undos with a number below one, those of the newest first."""
        return await self._trash.undos(below, limit)

    async def trashed(
        self, undo: int, after: bytes, limit: int
    ) -> tuple[list[Trashed], bytes | None]:
        """Return records of an undo that are in the trash, and where to go on, if at all."""
        return await self._trash.trashed(undo, after, limit)

    # Lists

    async def scan(
        self,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit: int = 100,
        reverse: bool = False,
        delimiter: bytes = b"",
        most_bytes: int = PAGE_BYTES,
    ) -> Page:
        """Return a page of the keys that begin with `prefix`, in order of their bytes.

        With several shards each of them gives a part of it, one after the other: the page is what
        each had in one moment, and watching after its revision misses nothing.
        """
        return await self._lists.page(prefix, after, limit, reverse, delimiter, most_bytes)

    async def scan_locks(
        self, prefix: bytes = b"", after: bytes | None = None, limit: int = 100
    ) -> Page:
        """Return a page of the locks that are held, in order of their names.

        The names of all locks are read for it: those of a shard are in the order of their ends.
        """
        names = await self._lists.locks(prefix, after)
        _, revision = await self.history()
        records = await asyncio.gather(*map(self.lock_of, names[:limit]))
        entries = [
            (name, record)
            for name, record in zip(names, records, strict=False)
            if record is not None
        ]
        return Page(entries, [], names[limit - 1] if len(names) > limit else None, revision)

    async def count(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[int, bytes | None]:
        """Count keys; return the number and where to go on, if at all."""
        return await self._lists.count(prefix, after, steps)

    async def sizes(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return keys in order with about how many bytes each takes, and where to go on.

        The servers send the values, too: they have no list of their sizes.
        """
        page = await self.scan(prefix, after, steps)
        return [(key, len(key) + len(record.value)) for key, record in page.entries], page.next

    # Events

    async def history(self, after: int | None = None) -> tuple[int, int]:
        """Return the revision below which events are gone, and the store's revision now.

        With `after`: gone for somebody who was told of changes up to that revision. They are when
        a server that lost some of these has taken over.
        """
        return await self._events.history(after)

    async def events_after(self, revision: int, limit: int) -> list[Event]:
        """Return the oldest known events with a greater revision, at most so many."""
        return await self._events.after(revision, limit)

    async def events_of(
        self, key: bytes, before: int | None, limit: int
    ) -> tuple[list[Event], int | None]:
        """Return at most `limit` events of one key, newest first, and where to go on, if at all."""
        return await self._events.of(key, before, limit)

    # Upkeep

    async def count_quotas(self) -> bool:
        """Do nothing: here are no quotas."""
        return False

    async def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys and locks whose time is over, each with its event."""
        return await self.upkeep.expire(limit)

    async def evict(self) -> int:
        """Evict nothing: what happens to a full server is Valkey's own doing."""
        return 0

    async def trim(self, limit: int) -> int:
        """Remove at most `limit` groups of events beyond those that are kept; say how many."""
        return await self.upkeep.trim(limit)

    async def usage(self) -> Usage:
        """Return counts and sizes; those of memory are Valkey's, whatever else is in it.

        Raises `StoreAway` when the store's servers would remove keys by themselves.
        """
        return await self.store.usage()

    async def check(self) -> list[str]:
        """Audit everything and return what is wrong, a sentence each. Reads the whole store.

        What changes meanwhile may look wrong.
        """
        from keyrack.engines.valkey.audit import Audit

        return await Audit(self.calls, self.now()).problems()
