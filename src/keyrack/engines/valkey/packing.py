"""Writes of one shard as calls of the function `write`, and its replies as their outcomes.

Short sets without a condition that follow one another, under keys that all differ, are a run: they
share what they have in common, and the server does them together. So do those of one write, which
is a run of its own: none of them can be refused. Each other write has arguments of its own
(`arguments`).
"""

from __future__ import annotations

from struct import pack as pack_struct
from typing import TYPE_CHECKING, Any, Final

from keyrack.engines import record as wire
from keyrack.engines.contract import TEXT, Result, Set, Space
from keyrack.engines.valkey.arguments import arguments_of, outcome_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keyrack.engines.contract import Outcome, Write

MOST_BYTES: Final = 1 << 20
"""Of a single call, so that it does not hold the server up for long. A bigger write is a call of
its own."""
_SHORT: Final = 4096
"""Bytes up to which a value is part of a run: the server has all of a run twice for a moment."""
_LONGEST_RUN: Final = 1024
"""The server hands all keys of a run to a command at once, which has room for some thousands."""
_TEXT_HEAD: Final = wire.pack_rest(b"", TEXT)
_SINGLE: Final = 0
"""In a shape: a write with an outcome of its own."""


class PackedCall:
    """Some writes that follow one another, as arguments of one call."""

    __slots__ = ("count", "pieces", "shape", "size", "start", "stop")

    def __init__(self, start: int) -> None:
        self.start = start
        self.stop = start
        """Which of all writes these are."""
        self.pieces: list[bytes] = []
        """The arguments as they are sent. Long values are pieces of their own."""
        self.count = 0
        """How many arguments."""
        self.size = 0
        """Bytes of the pieces."""
        self.shape: list[int] = []
        """How many writes each outcome in the reply is for, where that is a run; less than 0 where
        they are the operations of one write."""

    def outcomes(self, writes: Sequence[Write], replies: Sequence[Any], step: int) -> list[Outcome]:
        """Return the outcomes of these writes. `step` is what revisions of the shard differ by.

        Raises an error of any kind where the replies are not those of these writes.
        """
        found: list[Outcome] = []
        for number, reply in zip(self.shape, replies, strict=True):
            if number == _SINGLE:
                found.append(outcome_of(writes[len(found)], reply))
            elif number < 0:
                found.append(tuple(_results(-number, reply, step)))
            elif type(reply) is int:
                found += [(result,) for result in _results(number, reply, step)]
            else:
                some = writes[len(found) : len(found) + number]
                found += [outcome_of(*both) for both in zip(some, reply, strict=True)]
        return found


def _results(number: int, reply: int | list[int], step: int) -> list[Result]:
    """Return the results of a run of which none was refused."""
    if type(reply) is list:
        return [Result(one >> 1, bool(one & 1)) for one in reply]
    assert type(reply) is int, "an outcome that the others are like"
    first, existed = reply >> 1, bool(reply & 1)
    return [Result(revision, existed) for revision in range(first, first + number * step, step)]


class _Run:
    """Sets that are sent together."""

    __slots__ = ("_ends", "_pieces", "_ttls", "keys")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self._pieces: list[bytes] = []
        self._ttls: list[int] = []
        self._ends = False

    def add(self, operation: Set) -> int:
        """Take a set in, and return its bytes."""
        key, value = operation.key, operation.value
        media_type = operation.media_type
        head = _TEXT_HEAD if media_type == TEXT else wire.pack_rest(b"", media_type)
        piece = b"$%d\r\n%b\r\n$%d\r\n%b%b\r\n" % (
            len(key), key, len(head) + len(value), head, value,
        )  # fmt: skip
        ttl = operation.ttl_ms
        self.keys.add(key)
        self._pieces.append(piece)
        self._ttls.append(ttl)
        if ttl:
            self._ends = True
        return len(piece)

    def finish(self, call: PackedCall) -> None:
        """Give a call all that was taken in."""
        number = len(self._pieces)
        ttls = pack_struct(b">%dQ" % number, *self._ttls) if self._ends else b""
        head = b"+%d" % number
        call.pieces.append(b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(head), head, len(ttls), ttls))
        call.pieces += self._pieces
        call.count += 2 + 2 * number
        call.shape.append(number)


def packed(writes: Sequence[Write], whole: bool) -> Iterator[PackedCall]:
    """Yield the calls that do writes in their order, as few as are wanted.

    `whole` says that no record can be at another server: only then nothing of a run is ever
    refused. Raises an error of any kind for a write that cannot be sent.
    """
    call, run = PackedCall(0), _Run()
    for index, write in enumerate(writes):
        if call.size > MOST_BYTES:
            yield _finished(call, run, index)
            call, run = PackedCall(index), _Run()
        operation = write[0]
        if type(operation) is Set and len(write) == 1 and _may_run(operation):
            if operation.key in run.keys or len(run.keys) == _LONGEST_RUN:
                run.finish(call)
                run = _Run()
            call.size += run.add(operation)
            continue
        if run.keys:
            run.finish(call)
            run = _Run()
        if whole and (own := _run_of(write)) is not None:
            call.size += sum(map(own.add, write))  # type: ignore[arg-type]  # they are sets
            own.finish(call)
            call.shape[-1] = -len(write)
            continue
        count, pieces = arguments_of(write)
        size = sum(map(len, pieces))
        if call.size and call.size + size > MOST_BYTES:
            yield _finished(call, run, index)
            call = PackedCall(index)
        call.pieces += pieces
        call.count += count
        call.size += size
        call.shape.append(_SINGLE)
    yield _finished(call, run, len(writes))


def _run_of(write: Write) -> _Run | None:
    """Return a run for all operations of a write, None where they cannot be one."""
    if not 1 < len(write) <= _LONGEST_RUN:
        return None
    if not all(type(operation) is Set and _may_run(operation) for operation in write):
        return None
    keys = {operation.key for operation in write}
    return _Run() if len(keys) == len(write) else None


def _may_run(operation: Set) -> bool:
    return (
        operation.condition is None
        and operation.ttl_ms >= 0
        and not operation.stale_ms
        and operation.cache_control is None
        and operation.space is Space.KEYS
        and len(operation.value) <= _SHORT
    )


def _finished(call: PackedCall, run: _Run, stop: int) -> PackedCall:
    if run.keys:
        run.finish(call)
    call.stop = stop
    return call
