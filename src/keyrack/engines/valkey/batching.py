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
from typing import TYPE_CHECKING, Any, Final

from libvalkey import ReplyError

from keyrack.engines import record as wire
from keyrack.engines.contract import Refusal, StoreAway, StoreError, Why
from keyrack.engines.valkey.arguments import arguments_of, only_removes, outcome_of
from keyrack.engines.valkey.calls import error_of, is_trouble
from keyrack.engines.valkey.layout import MOVING
from keyrack.engines.valkey.resp import LARGE, Call, Lost, code_of, encode, encode_arguments
from keyrack.engines.valkey.servers import Moving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Outcome, Record, Write
    from keyrack.engines.valkey.calls import Calls
    from keyrack.engines.valkey.servers import Servers

_MOST_READS: Final = 512
_MOST_WRITES: Final = 128
_MOST_BYTES: Final = 1 << 20
"""Bounds of a single call, so that no call holds the server up for more than about a millisecond;
a bigger write is a call of its own."""
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

    def set(self, index: int, outcome: Outcome) -> None:
        """Note an outcome, and give all back when it was the last."""
        self._outcomes[index] = outcome
        self._left -= 1
        if not self._left and not self.future.done():
            self.future.set_result(self._outcomes)


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
        """What is under way; None when its reply has come."""
        self.reply: Any = None

    def add(self, write: Write, sink: tuple[_Written, int]) -> None:
        """Take a write in."""
        self.writes.append(write)
        self.sinks.append(sink)

    def refuse(self, why: Why) -> None:
        """Give each write the same refusal."""
        refusal = Refusal(why)
        for written, index in self.sinks:
            written.set(index, refusal)

    def part(self, wanted: Sequence[bool]) -> _Batch:
        """Return those of the writes that are wanted."""
        part = _Batch(self.shard, self.asked)
        for write, sink, taken in zip(self.writes, self.sinks, wanted, strict=True):
            if taken:
                part.add(write, sink)
        return part


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
        calls.before_flush(self._send)

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Apply each write, all or none, and return one outcome for each."""
        if not writes:
            return []
        future: asyncio.Future[list[Outcome]] = self._calls.loop.create_future()
        written = _Written(future, len(writes))
        for index, write in enumerate(writes):
            if not write:
                written.set(index, ())
                continue
            shard = self._calls.layout.shard_of_write(write)
            if shard is None:
                written.set(index, Refusal(Why.SPREAD))
            else:
                self._batch_for(shard).add(write, (written, index))
        return await future

    def _batch_for(self, shard: int) -> _Batch:
        batches = self._waiting.get(shard)
        if batches is None:
            batches = self._waiting[shard] = [_Batch(shard, self._calls.loop.time())]
            self._calls.flush_soon()
        elif len(batches[-1].writes) >= _MOST_WRITES:
            batches.append(_Batch(shard, self._calls.loop.time()))
        return batches[-1]

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
        piece, size, count = _Batch(batch.shard, batch.asked), 0, 0
        arguments: list[bytes] = []
        for write, sink in zip(batch.writes, batch.sinks, strict=True):
            try:
                more, encoded = arguments_of(write)
                length = sum(map(len, encoded))
            except Exception:
                _log.exception("a write could not be sent")
                sink[0].set(sink[1], Refusal(Why.BROKEN))
                continue
            if piece.writes and size + length > _MOST_BYTES:
                self._send_piece(piece, function, whole, count, size, arguments)
                piece, size, count, arguments = _Batch(batch.shard, batch.asked), 0, 0, []
            piece.add(write, sink)
            arguments += encoded
            count += more
            size += length
        if piece.writes:
            self._send_piece(piece, function, whole, count, size, arguments)

    def _send_piece(
        self,
        batch: _Batch,
        function: str,
        whole: bool,
        count: int,
        size: int,
        arguments: list[bytes],
    ) -> None:
        seen = b"%d" % self._calls.clock.highest
        head = self._calls.parts(batch.shard, function, seen, whole=whole)
        number = b"*%d\r\n" % (len(head) + count)
        pieces = [number, encode_arguments(head), *arguments]
        data = b"".join(pieces) if size < LARGE else pieces
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
        if type(reply) is not list or len(reply) != len(batch.writes) + 2:
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
        try:
            return list(map(outcome_of, batch.writes, batch.reply[2:]))
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
        for (written, index), outcome in zip(batch.sinks, outcomes, strict=True):
            written.set(index, outcome)

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
            self._write_when_full(batch)
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

    def _write_when_full(self, batch: _Batch) -> None:
        """Do what needs no memory; nothing of the batch was done."""
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
