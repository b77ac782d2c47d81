"""Reads and writes of many requests, together.

What is asked for in one turn of the event loop leaves together: all reads of a shard in one MGET,
all writes of a shard in one call of a function, everything for a server in one piece. So a turn
costs a round trip, however many requests it served, and none of them is a task.

Whatever happens to a call, everybody in it is told: with what came, or why nothing did. Whoever
does not wait any more is passed over, and costs the others nothing.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from libvalkey import ReplyError

from keyrack.engines import record as wire
from keyrack.engines.contract import Refusal, StoreAway, StoreError, Why
from keyrack.engines.valkey.arguments import only_removes
from keyrack.engines.valkey.calls import error_of, is_trouble
from keyrack.engines.valkey.layout import MOVING
from keyrack.engines.valkey.packing import packed
from keyrack.engines.valkey.resp import LARGE, Call, Lost, code_of, encode, encode_arguments
from keyrack.engines.valkey.servers import Moving
from keyrack.engines.valkey.trash import ValkeyTrash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Outcome, Record, Write
    from keyrack.engines.valkey.calls import Calls
    from keyrack.engines.valkey.packing import PackedCall
    from keyrack.engines.valkey.servers import Servers

_MOST_READS: Final = 512
_MOST_WRITES: Final = 128
_MOST_BYTES: Final = 1 << 20
"""Bounds of a single call, so that no call holds the server up for more than about a millisecond.
Writes have `packing.MOST_BYTES` besides."""
_CALLS_OF_READS: Final = 2
_CALLS_OF_WRITES: Final = 1
"""So many calls of a shard may be without a reply; what is asked for meanwhile leaves with the
next. Under load that makes few large calls of many small ones: one costs as much as ten writes."""
_FULL_CALLS_OF_WRITES: Final = 4
"""So many if they are full: nothing is gained by waiting, and the server is never without work."""
_FORGET: Final = 0.9
"""What counts of the length of earlier records after each call."""
_UNREADABLE: Final = (struct.error, IndexError, ValueError)
_WAIT_PART: Final = 0.8
"""Replicas get this part of the deadline to confirm."""

_log = logging.getLogger("keyrack.valkey")


class _Reads:
    """Names of one shard that are read in one call. `conclude` is given a list, or an error."""

    __slots__ = ("conclude", "names", "shard")

    def __init__(self, shard: int, names: list[bytes], conclude: Callable[[Any], None]) -> None:
        self.shard = shard
        self.names = names
        self.conclude = conclude


class ReadBatcher:
    """Reads records by their names."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._loop = calls.loop
        self._clock = calls.clock
        self._waiting: dict[int, list[tuple[bytes, asyncio.Future[Record | None]]]] = {}
        self._unanswered = [0] * calls.layout.shards
        """How many calls of each shard have no reply yet."""
        self._bytes_a_read = 1.0
        """How long records were lately: a call asks for few long ones, as a whole reply is held."""
        calls.before_flush(self._send)

    def read(self, shard: int, name: bytes) -> asyncio.Future[Record | None]:
        """Read a record, together with the others of this turn."""
        future: asyncio.Future[Record | None] = self._loop.create_future()
        reads = self._waiting.get(shard)
        if reads is None:
            reads = self._waiting[shard] = []
            self._calls.flush_soon()
        reads.append((name, future))
        return future

    def read_many(self, shard: int, names: list[bytes]) -> asyncio.Future[list[Record | None]]:
        """Read records of one shard, as of one moment."""
        future: asyncio.Future[list[Record | None]] = self._loop.create_future()

        def conclude(reply: Any) -> None:
            if future.done():
                return
            try:
                future.set_result([self._record(raw) for raw in _listed(reply, len(names))])
            except Exception as error:
                future.set_exception(error)

        self._submit(_Reads(shard, names, conclude))
        self._calls.flush_soon()
        return future

    def _record(self, raw: bytes | None) -> Record | None:
        if raw is None:
            return None
        try:
            record = wire.unpack(raw)
        except _UNREADABLE:
            raise StoreError(
                "A record in Valkey cannot be read: somebody else changed it."
            ) from None
        return self._clock.unless_gone(record)

    def _send(self) -> None:
        if not self._waiting:
            return
        most = max(1, min(_MOST_READS, int(_MOST_BYTES / self._bytes_a_read)))
        for shard in [*self._waiting]:
            while shard in self._waiting and self._unanswered[shard] < _CALLS_OF_READS:
                reads = self._waiting.pop(shard)
                some, rest = reads[:most], reads[most:]
                if rest:
                    self._waiting[shard] = rest
                conclude = partial(self._conclude, shard, [future for _, future in some])
                self._unanswered[shard] += 1
                self._submit(_Reads(shard, [name for name, _ in some], conclude))

    def _submit(self, reads: _Reads) -> None:
        slot = self._calls.layout.slots[reads.shard]
        call = Call(slot, encode((b"MGET", *reads.names)), partial(self._replied, reads))
        call.divisible = len(reads.names) > 1
        self._calls.servers.submit(call, self._loop.time())

    def _replied(self, reads: _Reads, reply: Any) -> None:
        if type(reply) is list:
            if None in reply and self._calls.moving.is_unsettled(reads.shard):
                self._calls.run(self._read_closely(reads))
                return
        elif isinstance(reply, ReplyError) and code_of(reply) == "TRYAGAIN":
            self._calls.run(self._read_one_by_one(reads))
            return
        reads.conclude(reply)

    async def _read_one_by_one(self, reads: _Reads) -> None:
        """Read from a shard on the move: each key by itself is at one server or at the other."""
        asked = (self._calls.ask(reads.shard, b"MGET", name) for name in reads.names)
        try:
            replies = await asyncio.gather(*asked)
        except Exception as error:
            reads.conclude(error)
            return
        except asyncio.CancelledError:
            reads.conclude(StoreAway("The service ends."))
            raise
        self._replied(reads, [raw for (raw,) in replies])

    async def _read_closely(self, reads: _Reads) -> None:
        """Read by a function, which knows what must be there."""
        base = len(self._calls.layout.bases[reads.shard])
        names = (name[base:] for name in reads.names)
        try:
            reply: Any = await self._calls.function(reads.shard, "read", *names)
        except Exception as error:
            reply = error
        except asyncio.CancelledError:
            reads.conclude(StoreAway("The service ends."))
            raise
        reads.conclude(reply)

    def _conclude(
        self, shard: int, futures: list[asyncio.Future[Record | None]], reply: Any
    ) -> None:
        self._unanswered[shard] -= 1
        if shard in self._waiting:
            self._calls.flush_soon()
        try:
            raws = _listed(reply, len(futures))
        except Exception as error:
            _fail(futures, error)
            return
        size = sum([len(raw) for raw in raws if raw is not None]) / len(raws)
        self._bytes_a_read = max(1.0, size, self._bytes_a_read * _FORGET + size * (1 - _FORGET))
        for future, raw in zip(futures, raws, strict=True):
            if future.done():
                continue
            try:
                future.set_result(self._record(raw))
            except Exception as error:
                future.set_exception(error)

    def close(self) -> None:
        """Tell those that were not asked for yet that nothing comes."""
        waiting, self._waiting = self._waiting, {}
        for reads in waiting.values():
            _fail([future for _, future in reads], StoreAway("The service ends."))


def _listed(reply: Any, number: int) -> list[bytes | None]:
    """Return a reply if it is a list of so many; raise what else it is."""
    if type(reply) is not list or len(reply) != number:
        raise error_of(reply)
    return reply


def _fail(futures: list[asyncio.Future[Record | None]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


class _Written:
    """The outcomes of one `write`, as they come."""

    __slots__ = ("_left", "_outcomes", "future")

    def __init__(self, future: asyncio.Future[list[Outcome]], number: int) -> None:
        self.future = future
        self._outcomes: list[Outcome] = [()] * number
        self._left = number

    def set(self, index: int, outcomes: list[Outcome]) -> None:
        """Note outcomes of writes from `index` on, and give all back when the last is there."""
        self._outcomes[index : index + len(outcomes)] = outcomes
        self._left -= len(outcomes)
        if not self._left and not self.future.done():
            self.future.set_result(self._outcomes)


class _Span(NamedTuple):
    """Where the outcomes of some writes go that follow one another."""

    written: _Written
    first: int
    number: int


class _Batch:
    """Writes of one shard that are one call, and where their outcomes go."""

    __slots__ = ("asked", "call", "packed", "reply", "shard", "spans", "writes")

    def __init__(self, shard: int, asked: float) -> None:
        self.shard = shard
        self.asked = asked
        """When the first of them was asked for (seconds of the loop's clock)."""
        self.writes: list[Write] = []
        self.spans: list[_Span] = []
        self.packed: PackedCall | None = None
        """How the writes are sent."""
        self.call: Call | None = None
        """What is under way; None when its reply has come."""
        self.reply: Any = None

    def add(self, writes: Sequence[Write], written: _Written, first: int) -> None:
        """Take writes in that follow one another; `first` is which of all that were written."""
        self.writes += writes
        self.spans.append(_Span(written, first, len(writes)))

    def conclude(self, outcomes: list[Outcome]) -> None:
        """Give each write its outcome."""
        start = 0
        for written, first, number in self.spans:
            written.set(first, outcomes[start : start + number])
            start += number

    def refuse(self, why: Why) -> None:
        """Give each write the same refusal."""
        self.conclude([Refusal(why)] * len(self.writes))

    def part(self, wanted: Sequence[bool]) -> _Batch:
        """Return those of the writes that are wanted."""
        part = _Batch(self.shard, self.asked)
        sinks = (
            (span.written, span.first + more) for span in self.spans for more in range(span.number)
        )
        for write, (written, index), taken in zip(self.writes, sinks, wanted, strict=True):
            if taken:
                part.add((write,), written, index)
        return part

    def piece(self, packed: PackedCall) -> _Batch:
        """Return those of the writes that are sent in one call."""
        if len(self.writes) == packed.stop - packed.start:
            piece = self
        else:
            piece = self.part([packed.start <= n < packed.stop for n in range(len(self.writes))])
        piece.packed = packed
        return piece


class WriteBatcher:
    """Does writes, those of a shard in order.

    `wait` is how many replicas must have a write before it is acknowledged; writes have
    connections of their own then (`servers`), so that reads do not wait behind them.
    """

    def __init__(self, calls: Calls, servers: Servers, wait: int) -> None:
        self.servers = servers
        self._calls = calls
        self._wait = wait
        self._waiting: dict[int, list[_Batch]] = {}
        self._unanswered = [0] * calls.layout.shards
        """How many calls of each shard have no reply yet."""
        self._trash = ValkeyTrash(calls)
        calls.before_flush(self._send)

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Apply each write, all or none, and return one outcome for each."""
        if not writes:
            return []
        future: asyncio.Future[list[Outcome]] = self._calls.loop.create_future()
        written = _Written(future, len(writes))
        if self._calls.layout.shards == 1 and all(writes):
            self._take(0, writes, written, 0)
        else:
            self._distribute(writes, written)
        return await future

    def _distribute(self, writes: Sequence[Write], written: _Written) -> None:
        for index, write in enumerate(writes):
            if not write:
                written.set(index, [()])
                continue
            shard = self._calls.layout.shard_of_write(write)
            if shard is None:
                written.set(index, [Refusal(Why.SPREAD)])
            else:
                self._take(shard, (write,), written, index)

    def _take(self, shard: int, writes: Sequence[Write], written: _Written, index: int) -> None:
        batches = self._waiting.get(shard)
        if batches is None:
            batches = self._waiting[shard] = [_Batch(shard, self._calls.loop.time())]
            self._calls.flush_soon()
        start = 0
        while start < len(writes):
            room = _MOST_WRITES - len(batches[-1].writes)
            if not room:
                batches.append(_Batch(shard, self._calls.loop.time()))
                continue
            some = writes[start : start + room]
            batches[-1].add(some, written, index + start)
            start += len(some)

    def _send(self) -> None:
        if self._waiting:
            for shard in [*self._waiting]:
                if self._unanswered[shard] < self._most_calls(shard):
                    for batch in self._waiting.pop(shard):
                        self._send_batch(batch, "write")
        if self.servers is not self._calls.servers:
            self.servers.flush()

    def _most_calls(self, shard: int) -> int:
        full = len(self._waiting[shard][0].writes) >= _MOST_WRITES
        return _FULL_CALLS_OF_WRITES if full else _CALLS_OF_WRITES

    def _send_batch(self, batch: _Batch, function: str, whole: bool = False) -> None:
        """Send a batch, in pieces when its values are many bytes."""
        try:
            calls = list(packed(batch.writes, whole or not self._calls.moving.spread))
        except Exception:
            _log.exception("a write could not be sent")
            good = list(map(_can_be_sent, batch.writes))
            batch.part([not one for one in good]).refuse(Why.BROKEN)
            if any(good):
                self._send_batch(batch.part(good), function, whole)
            return
        for call in calls:
            self._send_piece(batch.piece(call), call, function, whole)

    def _send_piece(self, batch: _Batch, arguments: PackedCall, function: str, whole: bool) -> None:
        seen = b"%d" % self._calls.clock.highest
        head = self._calls.parts(batch.shard, function, seen, whole=whole)
        number = b"*%d\r\n" % (len(head) + arguments.count)
        pieces = [number, encode_arguments(head), *arguments.pieces]
        data = b"".join(pieces) if arguments.size < LARGE else pieces
        arguments.pieces = []  # values are held once
        slot = self._calls.layout.slots[batch.shard]
        batch.call = Call(slot, data, partial(self._replied, batch))
        self._unanswered[batch.shard] += 1
        self.servers.submit(batch.call, batch.asked)
        if self._wait:
            call = Call(slot, self._wait_call(), partial(self._waited, batch))
            self.servers.submit(call, batch.asked)

    def _wait_call(self) -> bytes:
        limit = round(self._calls.timeout * 1000 * _WAIT_PART)
        return encode((b"WAIT", b"%d" % self._wait, b"%d" % limit))

    def _replied(self, batch: _Batch, reply: Any) -> None:
        # The call leads back to its batch: values would stay until all cycles are looked for.
        call, batch.call = batch.call, None
        self._unanswered[batch.shard] -= 1
        if batch.shard in self._waiting:
            self._calls.flush_soon()
        assert batch.packed is not None, "it was sent"
        if type(reply) is not list or len(reply) != len(batch.packed.shape) + 2:
            self._failed(batch, reply)
            return
        self._calls.clock.learn(reply[0])
        self._calls.clock.saw(reply[1])
        batch.reply = reply
        if not self._wait:
            self._conclude(batch, self._outcomes(batch))
        elif call is not None and call.tries:
            # It went elsewhere meanwhile; what was sent behind it waited in the wrong place.
            slot = self._calls.layout.slots[batch.shard]
            call = Call(slot, self._wait_call(), partial(self._waited, batch))
            self.servers.submit(call, self._calls.loop.time())
            self._calls.flush_soon()

    def _waited(self, batch: _Batch, reply: Any) -> None:
        """Conclude a batch when so many replicas have it, or they had time enough."""
        if batch.reply is None or (batch.call is not None and batch.call.tries):
            return
        outcomes = self._outcomes(batch)
        if type(reply) is not int or reply < self._wait:
            away = Refusal(Why.AWAY)
            outcomes = [one if isinstance(one, Refusal) else away for one in outcomes]
        self._conclude(batch, outcomes)

    def _outcomes(self, batch: _Batch) -> list[Outcome]:
        assert batch.packed is not None, "it was sent"
        try:
            step = self._calls.layout.shards
            return batch.packed.outcomes(batch.writes, batch.reply[2:], step)
        except Exception:
            _log.exception("replies to %d writes could not be read", len(batch.writes))
            return [Refusal(Why.BROKEN)] * len(batch.writes)

    def _conclude(self, batch: _Batch, outcomes: list[Outcome]) -> None:
        """Give writes their outcomes; those of records that were not there are tried again."""
        if self._calls.moving.spread:
            moved = [_is_moving(outcome) for outcome in outcomes]
            if any(moved):
                self._calls.run(self._write_when_whole(batch.part(moved)))
                outcomes = [one for one, again in zip(outcomes, moved, strict=True) if not again]
                batch = batch.part([not again for again in moved])
        batch.conclude(outcomes)

    def _failed(self, batch: _Batch, error: Any) -> None:
        if isinstance(error, Moving):
            batch.refuse(Why.MOVING)
        elif isinstance(error, Lost | StoreAway):
            batch.refuse(Why.AWAY)
        elif not isinstance(error, ReplyError):
            _log.error("Valkey gave a reply that nobody expected: %.100r", error)
            batch.refuse(Why.BROKEN)
        elif code_of(error) == MOVING:
            self._calls.run(self._write_when_whole(batch))
        elif code_of(error) == "OOM":
            self._calls.run(self._write_when_full(batch))
        else:
            _log.error("Valkey did not do %d writes: %s", len(batch.writes), error)
            batch.refuse(Why.AWAY if is_trouble(error) else Why.BROKEN)

    async def _write_when_whole(self, batch: _Batch) -> None:
        """Do writes of which nothing was done because a part of their shard was missing."""
        if self._calls.loop.time() - batch.asked > self._calls.timeout:
            batch.refuse(Why.MOVING)
            return
        self._unanswered[batch.shard] += 1  # what came after it waits for it
        try:
            whole = await self._calls.moving.find_out(batch.shard)
        except BaseException:
            batch.refuse(Why.MOVING)
            raise
        finally:
            self._unanswered[batch.shard] -= 1
        self._send_batch(batch, "write", whole)
        self._calls.flush_soon()

    async def _write_when_full(self, batch: _Batch) -> None:
        """Do writes anew of which nothing was done, if the trash made way.

        Where there is none, do what needs no memory.
        """
        self._unanswered[batch.shard] += 1  # what came after it waits for it
        try:
            dropped = await self._trash.drop(batch.shard)
        except (StoreError, ReplyError):
            dropped = False
        except BaseException:
            batch.refuse(Why.SERVER_FULL)
            raise
        finally:
            self._unanswered[batch.shard] -= 1
        if dropped:
            self._send_batch(batch, "write")
            self._calls.flush_soon()
            return
        removes = [only_removes(write) for write in batch.writes]
        batch.part([not one for one in removes]).refuse(Why.SERVER_FULL)
        if any(removes):
            self._send_batch(batch.part(removes), "remove")
            self._calls.flush_soon()

    def close(self) -> None:
        """Refuse those that were not sent yet."""
        waiting, self._waiting = self._waiting, {}
        for batches in waiting.values():
            for batch in batches:
                batch.refuse(Why.AWAY)


def _is_moving(outcome: Outcome) -> bool:
    return isinstance(outcome, Refusal) and outcome.why is Why.MOVING


def _can_be_sent(write: Write) -> bool:
    try:
        for _ in packed([write], whole=False):
            pass
    except Exception:
        return False
    return True
