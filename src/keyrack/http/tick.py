"""A tick, one turn of a worker's event loop: what the requests that arrived in it share.

Writes that arrive in the same tick share a transaction, which is what makes them cheap, and their
answers are sent when it is committed. The clock is read twice in a tick, not twice for a request:
every answer of a tick counts as having taken until the tick's end, so the histogram shows what a
client waited inside this process, and never less.
"""

from __future__ import annotations

import logging
import time
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from keyrack.engines.contract import Refusal, Set, Why
from keyrack.http import eager
from keyrack.http.answer import Answer
from keyrack.shared.counters import (
    BUCKETS,
    SIZE_BUCKETS,
    bucket,
    duration_word,
    latency_word,
    size_bucket,
    size_word,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Engine, Outcome, Record, Write
    from keyrack.http.protocol.request import Request

    Conclude = Callable[[Outcome], None]

_READ: Final = latency_word("read")
_WRITE: Final = latency_word("write")
_TURN: Final = duration_word("turn")
_COMMIT: Final = duration_word("commit")
_SIZES: Final = size_word()
_LAST: Final = BUCKETS - 1
_COMMITS_A_SIZE: Final = 8
"""Of so many commits one has the size of its first value counted."""

_STAMP: Final = b"Server: keyrack\r\nCross-Origin-Resource-Policy: same-origin\r\nDate: %b\r\n"
"""The fields of every answer."""

NEVER: Final = 1 << 62
"""In place of a limit: nothing is slow, or large."""

_log = logging.getLogger("keyrack.engine")


def _nobody_waits() -> None:
    """What is committed is told to nobody."""


class SlowWatch(Protocol):
    """What is told of what took long; see `keyrack.http.slow_log`."""

    slow_ns: int
    large: int

    def turn(self, began: int, took: int, reads: int, writes: int) -> None:
        """Learn that a turn was slow."""

    def commit(
        self, writes: Sequence[Write], outcomes: Sequence[Outcome], began: int, took: int
    ) -> None:
        """Learn that writes which were done together were slow."""

    def request(self, name: str, request: Request, status: int, took: int, size: int) -> None:
        """Learn of a request that was slow, or whose answer is large."""

    def read(self, name: str, key: bytes, took: int, size: int | None) -> None:
        """Learn of such a read, of the most frequent kind."""


class Unwatched:
    """In the place of a slow log where there is none: nothing is ever slow, or large."""

    slow_ns = NEVER
    large = NEVER

    def turn(self, began: int, took: int, reads: int, writes: int) -> None:
        """Do nothing."""

    def commit(
        self, writes: Sequence[Write], outcomes: Sequence[Outcome], began: int, took: int
    ) -> None:
        """Do nothing."""

    def request(self, name: str, request: Request, status: int, took: int, size: int) -> None:
        """Do nothing."""

    def read(self, name: str, key: bytes, took: int, size: int | None) -> None:
        """Do nothing."""


class Tick:
    """The present tick of one worker. `counters` are the worker's slot of the shared ones.

    `committed` is called after commits, so that who waits for changes is told. `common` are further
    lines of every answer.
    """

    __slots__ = (
        "_commits",
        "_conclusions",
        "_engine",
        "_loop",
        "_stamp",
        "_write_now",
        "_writes",
        "committed",
        "counters",
        "get_now",
        "not_found",
        "now",
        "ok_json",
        "reads",
        "running",
        "set_ok",
        "slow",
        "stamp",
        "started",
        "writes",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        counters: memoryview,
        committed: Callable[[], None] = _nobody_waits,
        common: bytes = b"",
        slow: SlowWatch | None = None,
    ) -> None:
        self._loop = loop
        self._engine = engine
        self.get_now: Callable[[bytes], Record | None] | None = engine.get_now
        self._write_now = engine.write_now
        self.slow: SlowWatch = slow or Unwatched()
        self.counters = counters
        self._commits = 0
        self.committed = committed

        # This tick
        self.running = False
        self.started = 0
        """When it began, in ns of the monotonic clock."""
        self._writes: list[Write] = []
        self._conclusions: list[Conclude] = []
        self.reads = 0
        self.writes = 0

        # This second
        self._stamp = _STAMP + common
        self.refresh()

    def refresh(self) -> None:
        """Make what holds for a second: the coarse clock and the beginnings of frequent answers."""
        self.now = time.monotonic()
        self.stamp = self._stamp % formatdate(usegmt=True).encode()
        self.ok_json = _json_head(b"200 OK", self.stamp)
        self.set_ok = self.ok_json + _framed(SET_OK.body)
        self.not_found = _json_head(b"404 Not Found", self.stamp) + _framed(NOT_FOUND.body)

    def begin(self) -> None:
        """Begin the tick; call before a request is served, unless it is `running`."""
        self.running = True
        self.started = time.monotonic_ns()
        self._loop.call_soon(self._end)

    def submit(self, write: Write, conclude: Conclude) -> None:
        """Have a write done at the end of this tick, and `conclude` called with its outcome."""
        if not self.running:
            self.begin()
        self._writes.append(write)
        self._conclusions.append(conclude)

    def write(self, write: Write) -> asyncio.Future[Outcome]:
        """Have a write done at the end of this tick; the future is given its outcome."""
        coming: asyncio.Future[Outcome] = self._loop.create_future()
        self.submit(write, partial(_settle, coming))
        return coming

    def write_many(self, writes: Sequence[Write]) -> asyncio.Future[list[Outcome]]:
        """Have writes done at the end of this tick; the future is given an outcome for each."""
        coming: asyncio.Future[list[Outcome]] = self._loop.create_future()
        if not writes:
            coming.set_result([])
            return coming
        if not self.running:
            self.begin()
        self._writes += writes
        self._conclusions += [_Collected(coming, len(writes)).take] * len(writes)
        return coming

    def flush(self) -> None:
        """Do the writes that wait now, and conclude each when it is done."""
        if self._writes:
            writes, self._writes = self._writes, []
            conclusions, self._conclusions = self._conclusions, []
            if self._write_now is None:
                conclude = partial(self._conclude, conclusions, self.started)
                eager.run(self._written(writes), conclude)
                return
            began = time.monotonic_ns()
            try:
                outcomes = self._write_now(writes)
            except Exception:
                outcomes = _broken(writes)
            self._measure(writes, outcomes, began)
            self._conclude(conclusions, self.started, outcomes)

    async def _written(self, writes: list[Write]) -> Sequence[Outcome]:
        began = time.monotonic_ns()
        try:
            outcomes = await self._engine.write(writes)
        except Exception:
            outcomes = _broken(writes)
        self._measure(writes, outcomes, began)
        return outcomes

    def _measure(self, writes: list[Write], outcomes: Sequence[Outcome], began: int) -> None:
        """Count how long writes took together, and now and then the size of a value.

        Of all of them it would cost each write as much as its parsing.
        """
        counters = self.counters
        took = time.monotonic_ns() - began
        # `counters.observe`, without its calls.
        counters[_COMMIT + min((took // 1000).bit_length(), _LAST)] += 1
        counters[_COMMIT + BUCKETS] += took
        if took >= self.slow.slow_ns:
            self.slow.commit(writes, outcomes, began, took)
        self._commits += 1
        if not self._commits % _COMMITS_A_SIZE:
            self._note_size(writes[0])

    def _note_size(self, write: Write) -> None:
        # A line of an import that could not be read is a write of nothing.
        if write and type(first := write[0]) is Set:
            size = len(first.value)
            self.counters[_SIZES + size_bucket(size)] += 1
            self.counters[_SIZES + SIZE_BUCKETS] += size

    def _conclude(
        self, conclusions: list[Conclude], started: int, outcomes: Sequence[Outcome]
    ) -> None:
        if self.running and started == self.started:
            self.writes += len(conclusions)
        else:
            self._observe(_WRITE, time.monotonic_ns() - started, len(conclusions))
        for conclude, outcome in zip(conclusions, outcomes, strict=True):
            try:
                conclude(outcome)
            except Exception:
                # One client's trouble must not cost the others their answers.
                _log.exception("an answer could not be given")
        self.committed()

    def _end(self) -> None:
        try:
            if self._writes:
                self.flush()
        finally:
            self.running = False
            if self._writes:
                # An outcome led to another write; it belongs to a tick of its own.
                self._loop.call_soon(self.begin)
        elapsed = time.monotonic_ns() - self.started
        counters, place = self.counters, min((elapsed // 1000).bit_length(), _LAST)
        counters[_TURN + place] += 1
        counters[_TURN + BUCKETS] += elapsed
        if elapsed >= self.slow.slow_ns:
            self.slow.turn(self.started, elapsed, self.reads, self.writes)
        if self.reads:
            counters[_READ + place] += self.reads
            counters[_READ + BUCKETS] += elapsed * self.reads
            self.reads = 0
        if self.writes:
            counters[_WRITE + place] += self.writes
            counters[_WRITE + BUCKETS] += elapsed * self.writes
            self.writes = 0

    def observe_read(self, started: int) -> int:
        """Count a read that is answered now; the tick that it came in `started` then (ns).

        Returns how long it took, in ns.
        """
        took = time.monotonic_ns() - started
        self._observe(_READ, took, 1)
        return took

    def observe(self, lane: int, nanoseconds: int) -> None:
        """Count a request in a lane's histogram, and how long it took."""
        self._observe(lane, nanoseconds, 1)

    def _observe(self, lane: int, nanoseconds: int, requests: int) -> None:
        self.counters[lane + bucket(nanoseconds)] += requests
        self.counters[lane + BUCKETS] += nanoseconds * requests


def _broken(writes: list[Write]) -> list[Outcome]:
    """Return outcomes for writes with which the engine failed: no client may be left waiting."""
    _log.exception("the engine failed with %d writes to do", len(writes))
    return [Refusal(Why.BROKEN)] * len(writes)


def _settle(coming: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not coming.done():
        coming.set_result(outcome)


class _Collected:
    """The outcomes of writes that were submitted together: they come in the same order."""

    __slots__ = ("_coming", "_number", "_outcomes")

    def __init__(self, coming: asyncio.Future[list[Outcome]], number: int) -> None:
        self._coming = coming
        self._number = number
        self._outcomes: list[Outcome] = []

    def take(self, outcome: Outcome) -> None:
        """Take an outcome, and give all to whoever waits when it is the last."""
        self._outcomes.append(outcome)
        if len(self._outcomes) == self._number and not self._coming.done():
            self._coming.set_result(self._outcomes)


JSON_HEADERS: Final = (
    (b"Content-Type", b"application/json"),
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
)
SET_OK: Final = Answer(
    200, JSON_HEADERS, b'{"status":"success","message":"key-value pair is set successfully"}'
)
NOT_FOUND: Final = Answer(404, JSON_HEADERS, b'{"status":"error","message":"Key not found"}')


def _json_head(status: bytes, stamp: bytes) -> bytes:
    fields = b"".join(b"%b: %b\r\n" % field for field in JSON_HEADERS)
    return b"HTTP/1.1 %b\r\n%b%bContent-Length: " % (status, stamp, fields)


def _framed(body: bytes) -> bytes:
    return b"%d\r\n\r\n%b" % (len(body), body)
