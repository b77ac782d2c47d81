"""The Valkey engine: keys live in Valkey, and every change is one atomic call of a function there.

What is asked for in one turn of the event loop leaves together: all reads of a shard in one MGET,
all writes of a shard in one call, everything for a server in one piece. So a turn costs a round
trip, however many requests it served, and none of them is a task.

Time is Valkey's: its functions read its clock, and records carry an expiry of its own, so that the
clocks of Keyrack's machines do not matter. `now` is an estimate, for telling and not for judging.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from libvalkey import ReplyError

from keyrack.engines import record as wire
from keyrack.engines.contract import (
    PAGE_BYTES,
    Capabilities,
    Change,
    Event,
    Refusal,
    Space,
    StoreAway,
    StoreError,
    StoreFormatUnknown,
    Sweep,
    Usage,
    Why,
)
from keyrack.engines.valkey import library
from keyrack.engines.valkey.address import shown
from keyrack.engines.valkey.arguments import arguments_of, only_removes, outcome_of
from keyrack.engines.valkey.events import unpack as unpack_events
from keyrack.engines.valkey.layout import (
    FORMAT,
    KINDS,
    MOVING,
    NEVER,
    NEVER_LENIENT,
    STATE,
    Layout,
    slot_of,
)
from keyrack.engines.valkey.notices import Notices
from keyrack.engines.valkey.pages import Pages
from keyrack.engines.valkey.resp import Call, Lost, code_of, encode, encode_arguments
from keyrack.engines.valkey.servers import Cluster, Moving, Single, information

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from keyrack.engines.contract import Outcome, Page, Record, Write
    from keyrack.engines.valkey.address import Address
    from keyrack.engines.valkey.servers import Login, Servers

T = TypeVar("T")
Clock: TypeAlias = "Callable[[], int]"

DEFAULT_EVENTS: Final = 100_000
_MOST_READS: Final = 512
_MOST_WRITES: Final = 128
_MOST_BYTES: Final = 1 << 20
"""Bounds of a single call, so that no call holds the server up for more than about a millisecond;
a bigger write is a call of its own."""
_CALLS_OF_READS: Final = 2
_CALLS_OF_WRITES: Final = 1
"""So many calls of a shard may be without a reply; what is asked for meanwhile leaves with the
next. Under load that makes few large calls of many small ones: one costs as much as ten writes."""
_HEARTBEAT: Final = 1.0
"""Seconds between two looks at the server's clock, which also finds a server that hangs."""
_LEASE_MS: Final = 200
_STORE_LEASE_MS: Final = 500
_ENTRIES_A_LOOK: Final = b"1000"
"""Groups of events that one call reads to find those of a key."""
_WAIT_PART: Final = 0.8
"""Replicas get this part of the deadline to confirm."""
_TROUBLE: Final = frozenset(("MISCONF", "NOREPLICAS", "LOADING", "CLUSTERDOWN", "MASTERDOWN"))
"""Replies of a server that does nothing now; somebody has to see to it."""

_UNSETTLED: Final = 10.0
"""Seconds for which a shard that was on the move is read closely."""
_MOVING_PAUSE: Final = 0.05

_log = logging.getLogger("keyrack.valkey")


class _Batch:
    """Writes of one shard that are one call, and where their outcomes go."""

    __slots__ = ("asked", "call", "reply", "shard", "sinks", "writes")

    def __init__(self, shard: int, asked: float) -> None:
        self.shard = shard
        self.asked = asked
        """When the first of them was asked for (seconds of the loop's clock)."""
        self.writes: list[Write] = []
        self.sinks: list[tuple[_Written, int]] = []
        self.call: Call | None = None
        self.reply: Any = None

    def add(self, write: Write, sink: tuple[_Written, int]) -> None:
        """Take a write in."""
        self.writes.append(write)
        self.sinks.append(sink)

    def conclude(self, outcomes: Iterable[Outcome]) -> None:
        """Give each write its outcome."""
        for (written, index), outcome in zip(self.sinks, outcomes, strict=True):
            written.set(index, outcome)


class _Written:
    """The outcomes of one `write`, as they come."""

    __slots__ = ("_left", "_outcomes", "future")

    def __init__(self, future: asyncio.Future[list[Outcome]], number: int) -> None:
        self.future = future
        self._outcomes: list[Outcome] = [()] * number
        self._left = number

    def set(self, index: int, outcome: Outcome) -> None:
        """Note an outcome, and give all back when it was the last."""
        self._outcomes[index] = outcome
        self._left -= 1
        if not self._left and not self.future.done():
            self.future.set_result(self._outcomes)


class ValkeyEngine:
    """One process's hold on a store in Valkey. `open` it inside a running event loop.

    `events` is how many events are kept, `wait` how many replicas must have a write before it is
    acknowledged. `clock` (ms) and `wall` (us) are there for tests, which move time themselves:
    without them, all time is Valkey's.
    """

    def __init__(
        self,
        address: Address,
        login: Login,
        events: int = DEFAULT_EVENTS,
        wait: int = 0,
        may_evict: bool = False,
        clock: Clock | None = None,
        wall: Clock | None = None,
    ) -> None:
        self.address = address
        self.events_kept = max(1, events)
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
        self.store_id = ""
        self._login = login
        self._wait = wait
        self._may_evict = may_evict
        self._clock = clock
        self._wall = wall
        self._me = f"{os.getpid()}-{secrets.token_hex(4)}".encode()
        self._offset = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000
        """The server's clock minus our steady one (ms): a guess until the first reply."""
        self._highest = 0
        """The highest revision of a change that was seen in any shard."""
        self._heart: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

        # Shards on the move
        self._unsettled_until: dict[int, float] = {}
        self._settling: dict[int, asyncio.Task[bool]] = {}
        self._shard_of_slot = {slot: shard for shard, slot in enumerate(self.layout.slots)}

        # This turn
        self._reads: dict[int, list[tuple[bytes, asyncio.Future[Record | None]]]] = {}
        self._batches: dict[int, list[_Batch]] = {}
        self._flush_due = False
        self._reading = [0] * self.layout.shards
        """How many calls of each shard have no reply yet, of reads and of writes."""
        self._writing = [0] * self.layout.shards

    # Opening

    async def open(self) -> None:
        """Find the servers, and make the store or make sure that it is ours.

        Raises `StoreError` when that cannot be done.
        """
        self._loop = asyncio.get_running_loop()
        self._servers = self._connect()
        self._writers = self._connect() if self._wait else self._servers
        self.notices = Notices(self._login, self._servers, self.layout, self._notice)
        try:
            await self._servers.find()
            await self._writers.find()
            await self._refuse_eviction()
            await self._enrol()
            await self._each("raise", b"%d" % (self._wall() if self._wall else 0))
        except ReplyError as error:
            await self.close()
            raise StoreError(f"Valkey refuses to serve this: {error}.") from None
        except BaseException:
            await self.close()
            raise
        self._heart = self._loop.call_later(_HEARTBEAT, self._beat)

    def _connect(self) -> Servers:
        if self.address.kind == "cluster":
            slots = [*self.layout.slots, slot_of(self.layout.meta)]
            servers = Cluster(self.address, self._login, self._changed, slots)
            servers.on_the_move = self._on_the_move
            return servers
        return Single(self.address, self._login, self._changed)

    def _changed(self) -> None:
        """A server was found, perhaps another one, and perhaps with other data."""
        self._notice()
        if self.store_id:
            self.notices.renew()
            self._run_task(self._enrol_again())

    def _notice(self) -> None:
        self.on_change()

    async def _refuse_eviction(self) -> None:
        for reply in await self._ask_servers(b"INFO", b"memory"):
            policy = information(reply).get("maxmemory_policy", "noeviction")
            if policy != "noeviction" and not self._may_evict:
                raise StoreError(
                    f"Valkey's maxmemory-policy is {policy}: it would remove keys behind "
                    "Keyrack's back, without an event, and locks as well. Set it to noeviction "
                    "(CONFIG SET maxmemory-policy noeviction), or say --valkey-may-evict if "
                    "losing any of that is acceptable."
                )

    async def _enrol(self) -> None:
        """Make the store's description where there is none; refuse a store of another kind."""
        meta = self.layout.meta
        mine = {
            b"format": b"%d" % FORMAT,
            b"shards": b"%d" % self.layout.shards,
            b"id": secrets.token_hex(8).encode(),
        }
        slot = slot_of(meta)
        made = [encode((b"HSETNX", meta, *item)) for item in mine.items()]
        await asyncio.gather(*(self._future(slot, one) for one in made))
        flat = await self._future(slot, encode((b"HGETALL", meta)))
        found = dict(zip(flat[::2], flat[1::2], strict=True))
        where = shown(self.address)
        if found[b"format"] != mine[b"format"]:
            raise StoreFormatUnknown(
                f"The store at {where} has format {found[b'format'].decode()}, and this Keyrack "
                f"knows format {FORMAT}. Use the version that made it, or name another prefix."
            )
        if found[b"shards"] != mine[b"shards"]:
            raise StoreFormatUnknown(
                f"The store at {where} was made with {found[b'shards'].decode()} shards, and this "
                f"is to use {self.layout.shards}. The number is fixed: name another prefix, and "
                "move the keys with keyrack export and import."
            )
        store_id = found[b"id"].decode()
        if self.store_id and self.store_id != store_id:
            _log.warning("the store at %s is another one now: its data was lost", where)
        self.store_id = store_id

    async def _enrol_again(self) -> None:
        try:
            await self._enrol()
        except StoreAway:
            return  # the next connection tries again
        except (StoreError, ReplyError) as error:
            _log.error("%s", error)

    async def close(self) -> None:
        """Let go of the store. Data stays."""
        if self._heart is not None:
            self._heart.cancel()
        self.store_id = ""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.notices.close()
        await self._servers.close()
        if self._writers is not self._servers:
            await self._writers.close()
        for _ in range(3):
            await asyncio.sleep(0)  # lets connections end before the loop does

    def listen(self, wanted: bool, told: Callable[[], None]) -> None:
        """Have `told` called when anybody, anywhere, may have changed something; or no longer."""
        self.on_change = told
        self.notices.want(wanted)

    get_now: Final = None
    write_now: Final = None
    """Every answer has to be waited for."""

    # Time

    def now(self) -> int:
        """Return the store's clock in ms, as far as it is known here."""
        if self._clock is not None:
            return self._clock()
        return time.monotonic_ns() // 1_000_000 + self._offset

    def _learn_time(self, server_ms: int) -> None:
        self._offset = server_ms - time.monotonic_ns() // 1_000_000

    def _time_argument(self) -> bytes:
        return b"" if self._clock is None else b"%d" % self._clock()

    def _beat(self) -> None:
        self._heart = self._loop.call_later(_HEARTBEAT, self._beat)

        def told(reply: Any) -> None:
            if type(reply) is list:
                self._learn_time(int(reply[0]) * 1000 + int(reply[1]) // 1000)

        self._submit(Call(self.layout.slots[0], encode((b"TIME",)), told))

    # Reads of single keys

    async def get(self, key: bytes) -> Record | None:
        """Return the record, or None when the key is missing or its time is over."""
        shard = self.layout.shard_of(key)
        return await self._read(shard, self.layout.records[shard] + key)

    async def lock_of(self, name: bytes) -> Record | None:
        """Return who holds a lock: the value is the owner, the revision the fencing token."""
        shard = self.layout.shard_of(name)
        return await self._read(shard, self.layout.bases[shard] + KINDS[Space.LOCKS] + name)

    async def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return what `get` returns for each key, those of a shard as of one moment."""
        shards = self._by_shard(keys)
        records = KINDS[Space.KEYS]
        replies = await asyncio.gather(
            *(
                self._function(shard, "read", *(records + key for key in some))
                for shard, some in shards.items()
            )
        )
        found: dict[bytes, bytes | None] = {}
        for some, reply in zip(shards.values(), replies, strict=True):
            found.update(zip(some, reply, strict=True))
        raws = [found[key] for key in keys]
        return [None if raw is None else self._counting(wire.unpack(raw)) for raw in raws]

    async def sizes_of(self, keys: Sequence[bytes]) -> list[int]:
        """Return about how many bytes the record of each key has, 0 where there is none."""
        shards = self._by_shard(keys)
        replies = await asyncio.gather(
            *(self._function(shard, "sizes", *some) for shard, some in shards.items())
        )
        found: dict[bytes, int] = {}
        for some, reply in zip(shards.values(), replies, strict=True):
            found.update(zip(some, reply, strict=True))
        return [found[key] for key in keys]

    def _by_shard(self, keys: Sequence[bytes]) -> dict[int, list[bytes]]:
        shards: dict[int, list[bytes]] = {}
        for key in dict.fromkeys(keys):
            shards.setdefault(self.layout.shard_of(key), []).append(key)
        return shards

    def _read(self, shard: int, name: bytes) -> asyncio.Future[Record | None]:
        future: asyncio.Future[Record | None] = self._loop.create_future()
        reads = self._reads.get(shard)
        if reads is None:
            reads = self._reads[shard] = []
            self._flush_soon()
        reads.append((name, future))
        return future

    def _send_reads(self, now: float) -> None:
        for shard in [shard for shard in self._reads if self._reading[shard] < _CALLS_OF_READS]:
            reads, slot = self._reads.pop(shard), self.layout.slots[shard]
            for start in range(0, len(reads), _MOST_READS):
                some = reads[start : start + _MOST_READS]
                data = encode([b"MGET", *[name for name, _ in some]])
                self._reading[shard] += 1
                call = Call(slot, data, partial(self._read_reply, shard, some))
                call.divisible = len(some) > 1
                self._servers.submit(call, now)

    def _read_reply(
        self, shard: int, reads: list[tuple[bytes, asyncio.Future[Record | None]]], reply: Any
    ) -> None:
        self._reading[shard] -= 1
        if shard in self._reads:
            self._flush_soon()
        if type(reply) is not list:
            if len(reads) > 1 and isinstance(reply, ReplyError) and code_of(reply) == "TRYAGAIN":
                self._read_one_by_one(shard, reads)
                return
            self._conclude_reads(reads, reply)
            return
        if None in reply and self._unsettled_until.get(shard, 0.0) > self._loop.time():
            self._run_task(self._read_closely(shard, reads))
            return
        self._conclude_reads(reads, reply)

    def _conclude_reads(
        self, reads: list[tuple[bytes, asyncio.Future[Record | None]]], reply: Any
    ) -> None:
        if type(reply) is not list:
            error = _error_of(reply)
            for _, future in reads:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), raw in zip(reads, reply, strict=True):
            if not future.done():
                future.set_result(None if raw is None else self._counting(wire.unpack(raw)))

    def _read_one_by_one(
        self, shard: int, reads: list[tuple[bytes, asyncio.Future[Record | None]]]
    ) -> None:
        """Read a shard on the move: each key by itself is at one server or at the other."""
        now = self._loop.time()
        for read in reads:
            self._reading[shard] += 1
            data = encode((b"MGET", read[0]))
            done = partial(self._read_reply, shard, [read])
            self._servers.submit(Call(self.layout.slots[shard], data, done), now)
        self._flush_soon()

    async def _read_closely(
        self, shard: int, reads: list[tuple[bytes, asyncio.Future[Record | None]]]
    ) -> None:
        """Read by a function, which knows what must be there."""
        base = len(self.layout.bases[shard])
        names = (name[base:] for name, _ in reads)
        try:
            reply = await self._function(shard, "read", *names)
        except (StoreError, ReplyError) as error:
            reply = error
        self._conclude_reads(reads, reply)

    def _counting(self, record: Record) -> Record | None:
        """Return a record if its time is not over; a server with its own clock sends no other."""
        if self._clock is not None and 0 < record.expires_at <= self._clock():
            return None
        return record

    # Writes

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Apply each write, all or none, and return one outcome for each.

        Writes of one shard are done in order.
        """
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        if not writes:
            return []
        written = _Written(future, len(writes))
        for index, write in enumerate(writes):
            if not write:
                written.set(index, ())
                continue
            shard = self.layout.shard_of_write(write)
            if shard is None:
                written.set(index, Refusal(Why.SPREAD))
            else:
                self._batch_for(shard).add(write, (written, index))
        return await future

    def _batch_for(self, shard: int) -> _Batch:
        batches = self._batches.get(shard)
        if batches is None:
            batches = self._batches[shard] = [_Batch(shard, self._loop.time())]
            self._flush_soon()
        elif len(batches[-1].writes) >= _MOST_WRITES:
            batches.append(_Batch(shard, self._loop.time()))
        return batches[-1]

    def _send_writes(self) -> None:
        for shard in [s for s in self._batches if self._writing[s] < _CALLS_OF_WRITES]:
            for batch in self._batches.pop(shard):
                self._send_batch(batch, "write")

    def _send_batch(self, batch: _Batch, function: str, whole: bool = False) -> None:
        """Send a batch, in pieces when its values are many bytes."""
        piece, size, count = _Batch(batch.shard, batch.asked), 0, 0
        arguments: list[bytes] = []
        for write, sink in zip(batch.writes, batch.sinks, strict=True):
            more, encoded = arguments_of(write)
            if piece.writes and size + len(encoded) > _MOST_BYTES:
                self._send_piece(piece, function, whole, count, arguments)
                piece, size, count, arguments = _Batch(batch.shard, batch.asked), 0, 0, []
            piece.add(write, sink)
            arguments.append(encoded)
            count += more
            size += len(encoded)
        self._send_piece(piece, function, whole, count, arguments)

    def _send_piece(
        self, batch: _Batch, function: str, whole: bool, count: int, arguments: list[bytes]
    ) -> None:
        seen = b"%d" % self._highest
        head = self._function_parts(batch.shard, function, seen, whole=whole)
        number = b"*%d\r\n" % (len(head) + count)
        data = b"".join((number, encode_arguments(head), *arguments))
        slot = self.layout.slots[batch.shard]
        batch.call = Call(slot, data, partial(self._write_reply, batch))
        self._writing[batch.shard] += 1
        self._writers.submit(batch.call, batch.asked)
        if self._wait:
            call = Call(slot, self._wait_call(), partial(self._waited, batch))
            self._writers.submit(call, batch.asked)

    def _wait_call(self) -> bytes:
        limit = round(self._login.timeout * 1000 * _WAIT_PART)
        return encode((b"WAIT", b"%d" % self._wait, b"%d" % limit))

    def _write_reply(self, batch: _Batch, reply: Any) -> None:
        self._writing[batch.shard] -= 1
        if batch.shard in self._batches:
            self._flush_soon()
        if type(reply) is not list:
            self._write_failed(batch, reply)
            return
        self._learn_time(reply[0])
        self._highest = max(self._highest, reply[1])
        batch.reply = reply
        if not self._wait:
            self._conclude(batch, list(map(outcome_of, batch.writes, reply[2:])))
        elif batch.call is not None and batch.call.tries:
            # It went elsewhere meanwhile; what was sent behind it waited in the wrong place.
            batch.call = None
            call = Call(
                self.layout.slots[batch.shard], self._wait_call(), partial(self._waited, batch)
            )
            self._writers.submit(call, self._loop.time())
            self._flush_soon()

    def _waited(self, batch: _Batch, reply: Any) -> None:
        """Conclude a batch when so many replicas have it, or they had time enough."""
        if batch.reply is None or (batch.call is not None and batch.call.tries):
            return
        outcomes = list(map(outcome_of, batch.writes, batch.reply[2:]))
        if type(reply) is not int or reply < self._wait:
            away = Refusal(Why.AWAY)
            outcomes = [one if isinstance(one, Refusal) else away for one in outcomes]
        self._conclude(batch, outcomes)

    def _conclude(self, batch: _Batch, outcomes: list[Outcome]) -> None:
        """Give writes their outcomes; those of records that were not there are tried again."""
        if self.address.kind != "cluster" or not any(map(_is_moving, outcomes)):
            batch.conclude(outcomes)
            return
        rest = _Batch(batch.shard, batch.asked)
        for write, (written, index), outcome in zip(
            batch.writes, batch.sinks, outcomes, strict=True
        ):
            if _is_moving(outcome):
                rest.add(write, (written, index))
            else:
                written.set(index, outcome)
        self._run_task(self._write_when_settled(rest))

    def _write_failed(self, batch: _Batch, error: Any) -> None:
        if isinstance(error, Moving):
            batch.conclude([Refusal(Why.MOVING)] * len(batch.writes))
        elif isinstance(error, Lost | StoreAway):
            batch.conclude([Refusal(Why.AWAY)] * len(batch.writes))
        elif code_of(error) == MOVING:
            self._run_task(self._write_when_settled(batch))
        elif code_of(error) == "OOM" and batch.call is not None:
            self._write_when_full(batch)
        else:
            trouble = code_of(error) in _TROUBLE
            _log.error("Valkey did not do %d writes: %s", len(batch.writes), error)
            why = Why.AWAY if trouble else Why.BROKEN
            batch.conclude([Refusal(why)] * len(batch.writes))

    async def _write_when_settled(self, batch: _Batch) -> None:
        """Do a batch of which nothing was done because the shard was not whole."""
        if self._loop.time() - batch.asked > self._login.timeout:
            batch.conclude([Refusal(Why.MOVING)] * len(batch.writes))
            return
        self._writing[batch.shard] += 1  # what came after it waits for it
        try:
            whole = await self._settle(batch.shard)
        finally:
            self._writing[batch.shard] -= 1
        self._send_batch(batch, "write", whole)
        self._flush_soon()

    def _write_when_full(self, batch: _Batch) -> None:
        """Do what needs no memory; nothing of the batch was done."""
        rest = _Batch(batch.shard, batch.asked)
        for write, (written, index) in zip(batch.writes, batch.sinks, strict=True):
            if only_removes(write):
                rest.add(write, (written, index))
            else:
                written.set(index, Refusal(Why.FULL))
        if rest.writes:
            self._send_batch(rest, "remove")
            self._flush_soon()

    # Lists, events, upkeep

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
        pages = Pages(self._each, self.layout.shards, prefix, reverse, delimiter, most_bytes)
        if self.layout.shards == 1:
            return await pages.of_one(after, limit)
        return await pages.of_many(after, limit, await self._closed())

    async def count(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[int, bytes | None]:
        """Count keys; return the number and where to go on, if at all."""
        begin = b"" if after is None else b"a" + after
        if self.layout.shards == 1:
            _, number, following = await self._function(0, "count", prefix, begin, b"%d" % steps)
            return number, following
        shards = range(self.layout.shards)
        counts = await asyncio.gather(*(self._count(s, prefix, begin, steps) for s in shards))
        return sum(counts), None

    async def _count(self, shard: int, prefix: bytes, begin: bytes, steps: int) -> int:
        total, following = 0, begin
        while True:
            reply = await self._function(shard, "count", prefix, following, b"%d" % steps)
            number: int = reply[1]
            last: bytes | None = reply[2]
            total += number
            if last is None:
                return total
            following = b"a" + last

    async def history(self, after: int | None = None) -> tuple[int, int]:
        """Return the revision below which events are gone, and the store's revision now."""
        replies = await self._each("raise", b"%d" % self._target())
        return max(reply[2] for reply in replies), min(reply[1] for reply in replies)

    def _target(self) -> int:
        """Return the revision to raise shards to: about now, and no less than was seen of any."""
        if self.layout.shards == 1:
            return 0
        return max(self._highest, self.now() * 1000 if self._clock is None else 0)

    async def _closed(self) -> int:
        """Return a revision, about now, below which no shard will ever do anything again."""
        return (await self.history())[1]

    async def events_after(self, revision: int, limit: int) -> list[Event]:
        """Return the oldest known events with a greater revision, at most so many.

        Shards give revisions each for itself, so an event may be there before a lesser one of
        another shard. What is returned is complete: reading raised every shard to some revision,
        and nothing below the lowest of them is still to come.
        """
        for _ in range(2):
            found, closed = await self._events(revision, limit)
            complete = [event for event in found if event.revision <= closed]
            if complete or not found:
                break
        if len(complete) < len(found):
            self._loop.call_soon(self._notice)
        return complete[:limit]

    async def events_of(
        self, key: bytes, before: int | None, limit: int
    ) -> tuple[list[Event], int | None]:
        """Return at most `limit` events of one key, newest first, and where to go on, if at all.

        All of them are in the key's shard, so only its events are read.
        """
        below = b"" if before is None else b"%d" % before
        following, *found = await self._function(
            self.layout.shard_of(key), "events_of", key, below, b"%d" % limit, _ENTRIES_A_LOOK
        )
        events = [Event(revision, Change(change), key, at) for revision, change, at in found]
        return events, following

    async def _events(self, revision: int, limit: int) -> tuple[list[Event], int]:
        shards = self.layout.shards
        arguments = [b"%d" % revision, b"%d" % limit]
        if shards == 1:
            replies = await self._each("events", *arguments)
        else:
            replies = await self._each("events_raising", *arguments, b"%d" % self._target())
        events: list[Event] = []
        closed = 1 << 63
        for _, last, *entries in replies:
            if entries:
                self._highest = max(self._highest, entries[-2])
            for number, entry in zip(entries[::2], entries[1::2], strict=True):
                events += unpack_events(number, entry, shards)
            if len(entries) >= 2 * limit:
                last = entries[-2]
            closed = min(closed, last)
        events = [event for event in events if event.revision > revision]
        events.sort(key=lambda event: event.revision)
        return events, closed

    async def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys and locks whose time is over, each with its event.

        Whoever does it keeps a lease in Valkey, so that the others leave it to him.
        """
        if self.layout.shards == 1:
            _, expired, due, _ = await self._sweep(0, limit)
            return Sweep(expired, due)
        if not await self._leads():
            return Sweep(0, None)
        replies = await self._each("due", b"%d" % limit)
        over = sorted((end, shard) for shard, reply in enumerate(replies) for end in reply[2:])
        chosen = _counts(shard for _, shard in over[:limit])
        sweeps = await asyncio.gather(*(self._sweep(*item) for item in chosen.items()))
        dues = {shard: reply[1] for shard, reply in enumerate(replies)}
        dues |= {shard: reply[2] for shard, reply in zip(chosen, sweeps, strict=True)}
        ends = [due for due in dues.values() if due is not None]
        return Sweep(sum(reply[1] for reply in sweeps), min(ends, default=None))

    async def _leads(self) -> bool:
        """Take or keep the lease of the whole store: asking all shards is one process's work."""
        lease = b"%d" % _STORE_LEASE_MS
        return bool(await self._function(0, "lease", self._me, lease))

    async def _sweep(self, shard: int, limit: int) -> list[Any]:
        seen, lease = b"%d" % self._highest, b"%d" % _LEASE_MS
        reply: list[Any] = await self._function(
            shard, "sweep", seen, b"%d" % limit, self._me, lease
        )
        self._highest = max(self._highest, reply[3])
        return reply

    async def evict(self) -> int:
        """Evict nothing: what happens to a full server is Valkey's own doing."""
        return 0

    async def trim(self, limit: int) -> int:
        """Remove at most `limit` groups of events beyond those that are kept; say how many."""
        kept = b"%d" % self.events_kept
        if self.layout.shards == 1:
            return int(await self._function(0, "trim", b"%d" % limit, kept))
        if not await self._leads():
            return 0
        events = sum(reply[3] for reply in await self._each("state"))
        if events <= self.events_kept:
            return 0
        chosen: list[int] = []
        for shard, size in self._oldest(await self._each("log", b"%d" % limit))[:limit]:
            if events - size < self.events_kept:
                break
            events -= size
            chosen.append(shard)
        counts = _counts(chosen).items()
        trims = (self._function(shard, "trim", b"%d" % n, b"0") for shard, n in counts)
        return sum(await asyncio.gather(*trims))

    def _oldest(self, replies: list[Any]) -> list[tuple[int, int]]:
        """Return shard and number of events of the oldest groups, oldest first."""
        groups = [
            (revision, shard, size)
            for shard, reply in enumerate(replies)
            for revision, size in zip(reply[::2], reply[1::2], strict=True)
        ]
        return [(shard, size) for _, shard, size in sorted(groups)]

    async def usage(self) -> Usage:
        """Return counts and sizes; those of memory are Valkey's, whatever else is in it."""
        states, servers = await asyncio.gather(
            self._each("state"), self._ask_servers(b"INFO", b"memory")
        )
        facts = [information(reply) for reply in servers]
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
        )

    async def check(self) -> list[str]:
        """Audit everything and return what is wrong, a sentence each. Reads the whole store.

        What changes meanwhile may look wrong.
        """
        from keyrack.engines.valkey.audit import Audit

        return await Audit(self._ask, self._each, self.layout, self.now()).problems()

    async def ping(self) -> None:
        """Return when all servers have answered. Raises `StoreAway` when one does not."""
        await self._ask_servers(b"PING")

    # Calls

    async def _each(self, name: str, *arguments: bytes) -> list[Any]:
        """Call a function in every shard."""
        shards = range(self.layout.shards)
        return await asyncio.gather(*(self._function(shard, name, *arguments) for shard in shards))

    async def _function(self, shard: int, name: str, *arguments: bytes) -> Any:
        """Call a function of the library in a shard, with the next flush."""
        deadline, whole = self._loop.time() + self._login.timeout, False
        while True:
            data = encode(self._function_parts(shard, name, *arguments, whole=whole))
            try:
                return await self._future(self.layout.slots[shard], data)
            except ReplyError as error:
                if code_of(error) != MOVING:
                    raise
            if self._loop.time() > deadline:
                raise Moving
            whole = await self._settle(shard)

    def _function_parts(
        self, shard: int, name: str, *arguments: bytes, whole: bool = False
    ) -> tuple[bytes, ...]:
        return (
            b"FCALL",
            library.function(name),
            *self._names(shard, whole),
            self._time_argument(),
            b"%d" % shard,
            b"%d" % self.layout.shards,
            *arguments,
        )

    def _names(self, shard: int, whole: bool) -> tuple[bytes, ...]:
        """Return the keys that a call names, after their number.

        `whole` says that no other server has a part of the shard, so that what is missing is gone.
        """
        base = self.layout.bases[shard]
        if self.address.kind != "cluster":
            return b"1", base + STATE
        return b"2", base + STATE, base + (NEVER_LENIENT if whole or self._may_evict else NEVER)

    # Shards on the move

    def _on_the_move(self, slot: int) -> None:
        shard = self._shard_of_slot.get(slot)
        if shard is not None:
            self._unsettled_until[shard] = self._loop.time() + _UNSETTLED

    async def _settle(self, shard: int) -> bool:
        """Find out whether a shard is whole, though a part of it is missing; if not, wait a little.

        It is when no server but its own has anything of its slot: the part is lost, or it was never
        there, as in a new store.
        """
        self._on_the_move(self.layout.slots[shard])
        task = self._settling.get(shard)
        if task is None:
            task = self._settling[shard] = self._loop.create_task(self._is_whole(shard))
            task.add_done_callback(lambda _: self._settling.pop(shard))
        return await asyncio.shield(task)

    async def _is_whole(self, shard: int) -> bool:
        try:
            if not await self._servers.others_have(self.layout.slots[shard]):
                return True
        except StoreAway as error:
            _log.warning("%s", error)
        await asyncio.sleep(_MOVING_PAUSE)
        return False

    def _run_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ask(self, shard: int, *parts: bytes) -> asyncio.Future[Any]:
        """Send a command to the server of a shard, with the next flush."""
        return self._future(self.layout.slots[shard], encode(parts))

    async def _ask_servers(self, *parts: bytes) -> list[Any]:
        """Send a command to every server that holds a shard."""
        one_of = {id(self._servers.link_of(slot)): s for s, slot in enumerate(self.layout.slots)}
        return await asyncio.gather(*(self._ask(shard, *parts) for shard in one_of.values()))

    def _future(self, slot: int, data: bytes) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(reply: Any) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(_error_of(reply))
            else:
                future.set_result(reply)

        self._submit(Call(slot, data, done))
        return future

    def _submit(self, call: Call) -> None:
        self._servers.submit(call, self._loop.time())
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send everything that this turn has asked for, writes first."""
        self._flush_due = False
        now = self._loop.time()
        if self._batches:
            self._send_writes()
        if self._reads:
            self._send_reads(now)
        self._servers.flush()
        if self._writers is not self._servers:
            self._writers.flush()


def _is_moving(outcome: Outcome) -> bool:
    return isinstance(outcome, Refusal) and outcome.why is Why.MOVING


def _counts(shards: Iterable[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for shard in shards:
        counts[shard] = counts.get(shard, 0) + 1
    return counts


def _error_of(reply: Any) -> Exception:
    """Return the exception that whoever asked is given."""
    if isinstance(reply, Lost):
        return StoreAway("The connection to Valkey was lost. Try again in a moment.")
    if isinstance(reply, ReplyError) and code_of(reply) in _TROUBLE:
        return StoreAway(f"Valkey cannot be used now: {reply}.")
    if isinstance(reply, Exception):
        return reply
    return StoreError(f"Valkey gave a reply that nobody expected: {reply!r:.100}")
