"""Connections of a client on an event loop, and the pool that keeps them: one for each loop.

A connection is in use by one task at a time and goes back to the pool only when the last byte of
its answer was read. A task that is cancelled closes its connection: nothing is shielded, so no
answer can be taken for another request's. No task and no timer belongs to a request; one timer
looks after the deadlines of all.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from keyrack.client import wire
from keyrack.client.attempt import NoAnswer, unreachable
from keyrack.client.errors import ProtocolError, UnreachableTimeout
from keyrack.client.pool import MAX_IDLE_SECONDS

if TYPE_CHECKING:
    from keyrack.client.address import Endpoint
    from keyrack.client.calls import ApiCall
    from keyrack.client.wire import Response

P = TypeVar("P", bound=asyncio.Protocol)

_HIGH_WATER_BYTES: Final = 1 << 18
"""Of a stream that is not read as fast as it comes; then it is not read from the network either."""
_LEAST_TICK_SECONDS: Final = 0.001


class AsyncConnection(asyncio.Protocol):
    """One connection, which has at most one request under way."""

    __slots__ = ("_answer", "_bodyless", "_lost", "_reader", "_transport", "deadline", "reused")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._reader: wire.ResponseReader | None = None
        self._bodyless = False
        self._lost = False
        self.reused = False
        self.deadline = 0.0

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # a stream's is a Transport

    def data_received(self, data: bytes) -> None:
        """Take what came of the answer."""
        answer = self._answer
        if answer is None:
            self.abort()  # nobody asked for anything
            return
        try:
            found = None
            if self._reader is None:
                found = wire.whole(data, self._bodyless)
            if found is None:
                found = self._more(data)
        except ProtocolError as error:
            self._fail(error)
            return
        if found is not None and not answer.done():
            self._answer = None
            answer.set_result(found)

    def _more(self, data: bytes) -> Response | None:
        if self._reader is None:
            self._reader = wire.ResponseReader(self._bodyless)
        found = self._reader.feed(data)
        if found is not None:
            # What nobody asked for may come behind it: such a connection is not kept.
            found.closes = found.closes or bool(self._reader.rest)
        return found

    def eof_received(self) -> None:
        """Take the end of what comes, which may be the end of an answer."""
        if self._answer is not None and self._reader is not None and self._reader.begun:
            try:
                found = self._reader.close()
            except ProtocolError as error:
                self._fail(error)
            else:
                if not self._answer.done():
                    self._answer.set_result(found)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for an answer that none will come."""
        self._lost = True
        self._fail(exc)

    # What the pool calls

    async def exchange(self, call: ApiCall[object], loop: asyncio.AbstractEventLoop) -> Response:
        """Send a request and return its answer. Raises `NoAnswer`."""
        transport = self._transport
        if transport is None or self._lost:
            raise NoAnswer(None, sent=False)
        self._answer = answer = loop.create_future()
        self._reader = None
        self._bodyless = call.bodyless
        transport.write(call.data)
        found: Response = await answer
        self.reused = True
        return found

    @property
    def is_usable(self) -> bool:
        """Tell whether the server has left it open."""
        return not self._lost and self._transport is not None and not self._transport.is_closing()

    def expire(self) -> None:
        """End a request whose time is over."""
        self._fail(TimeoutError())

    def _fail(self, error: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            begun = self._reader is not None and self._reader.begun
            answer.set_exception(NoAnswer(error, sent=True, begun=begun))
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


class AsyncPool:
    """Connections to one address, on one event loop."""

    def __init__(
        self,
        address: Endpoint,
        connect_timeout: float,
        max_connections: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._max = max_connections
        self.loop = loop
        self._idle: deque[tuple[AsyncConnection, float]] = deque()
        self._busy: set[AsyncConnection] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = math.inf

    async def exchange(self, call: ApiCall[object], deadline: float) -> tuple[Response, bool]:
        """Send a call's request and return its answer, and whether the connection was reused.

        `deadline` is on the monotonic clock. Raises `Unreachable`, `Ambiguous` or `ProtocolError`.
        """
        connection = self._take_idle() or await self._open(deadline)
        while True:
            reused = connection.reused
            connection.deadline = deadline
            self._busy.add(connection)
            if deadline < self._looks_at:
                self._look_at(deadline)
            try:
                answer = await connection.exchange(call, self.loop)
            except NoAnswer as lost:
                self._drop(connection)
                if not (reused and lost.is_stale(call)):
                    raise lost.error(call, self._address.shown) from lost.cause
            except BaseException:
                self._drop(connection)
                raise
            else:
                self._put_back(connection, answer.closes)
                return answer, reused
            connection = await self._open(deadline)

    def _take_idle(self) -> AsyncConnection | None:
        while self._idle:
            connection, since = self._idle.pop()
            if connection.is_usable and time.monotonic() - since <= MAX_IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _open(self, deadline: float) -> AsyncConnection:
        """Open a connection; where there are as many as may be, wait for one to be idle."""
        while len(self._busy) + self._opening >= self._max:
            await self._wait_for_room(deadline)
            if (connection := self._take_idle()) is not None:
                return connection
        self._opening += 1
        try:
            return await connect(
                AsyncConnection, self._address, self._connect_timeout, deadline, self.loop
            )
        finally:
            self._opening -= 1
            self._wake_one()

    async def _wait_for_room(self, deadline: float) -> None:
        room: asyncio.Future[None] = self.loop.create_future()
        self._waiting.append(room)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await room
        except TimeoutError:
            raise UnreachableTimeout(
                f"All {self._max} connections to {self._address.shown} were in use until the time "
                "was over. Raise max_connections, or do less at a time."
            ) from None
        except BaseException:
            if room.done():
                self._wake_one()  # it was this one's turn, and it is gone
            raise
        finally:
            if room in self._waiting:
                self._waiting.remove(room)

    def _wake_one(self) -> None:
        while self._waiting:
            room = self._waiting.popleft()
            if not room.done():
                room.set_result(None)
                return

    def _put_back(self, connection: AsyncConnection, closes: bool) -> None:
        self._busy.discard(connection)
        if closes or not connection.is_usable:
            connection.abort()
        else:
            self._idle.append((connection, time.monotonic()))
        if self._waiting:
            self._wake_one()

    def _drop(self, connection: AsyncConnection) -> None:
        self._busy.discard(connection)
        connection.abort()
        if self._waiting:
            self._wake_one()

    # Deadlines

    def _look_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = deadline
        self._timer = self.loop.call_later(deadline - time.monotonic(), self._look)

    def _look(self) -> None:
        """End what has waited for too long, and look again when the next one's time is over."""
        self._timer = None
        self._looks_at = math.inf
        now = time.monotonic()
        for connection in [one for one in self._busy if one.deadline <= now]:
            connection.expire()
        waiting = [one.deadline for one in self._busy if one.deadline > now]
        if waiting:
            self._look_at(max(min(waiting), now + _LEAST_TICK_SECONDS))

    def close(self) -> None:
        """Close what is idle. What is in use is closed when its answer has come."""
        while self._idle:
            self._idle.pop()[0].abort()
        if self._timer is not None and not self._busy:
            self._timer.cancel()
            self._timer = None
            self._looks_at = math.inf


async def connect(
    kind: type[P],
    address: Endpoint,
    connect_timeout: float,
    deadline: float,
    loop: asyncio.AbstractEventLoop,
) -> P:
    """Open a connection. Raises `Unreachable`."""
    try:
        async with asyncio.timeout(min(deadline - time.monotonic(), connect_timeout)):
            if address.local is not None:
                _, protocol = await loop.create_connection(kind, sock=address.local.connect())
            elif address.uds is not None:
                _, protocol = await loop.create_unix_connection(kind, address.uds)
            else:
                _, protocol = await loop.create_connection(
                    kind, address.host, address.port, ssl=address.tls
                )
            return protocol
    except (OSError, ValueError) as error:
        raise unreachable(error, address.shown) from error


class StreamConnection(asyncio.Protocol):
    """A connection whose answer is read piece by piece, as fast as somebody takes the pieces."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # a stream's is a Transport

    def data_received(self, data: bytes) -> None:
        """Keep what came; read no more when that is much."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _HIGH_WATER_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who reads or writes that it is over."""
        self._ended = True
        self._error = exc
        self._tell()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Let the writer wait."""
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Let the writer go on."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def read(self, deadline: float) -> bytes:
        """Return what comes next, nothing when the connection has ended. Raises `OSError`."""
        if not self._pieces and not self._ended:
            self._news = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._news
        if not self._pieces:
            if self._error is not None:
                raise self._error
            return b""
        piece = self._pieces.popleft()
        self._size -= len(piece)
        if self._size <= _HIGH_WATER_BYTES and self._transport is not None and not self._ended:
            self._transport.resume_reading()
        return piece

    async def send(self, data: bytes, deadline: float) -> None:
        """Send bytes, as fast as they are taken. Raises `OSError`."""
        if self._ended or self._transport is None:
            raise self._error or ConnectionResetError("the connection is closed")
        self._transport.write(data)
        if self._room is not None:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._room

    async def read_head(
        self, deadline: float
    ) -> tuple[wire.ResponseHead, wire.ResponseBody, bytes]:
        """Return the head of an answer, its body, and what came of the body. Raises `NoAnswer`."""
        buffer = b""
        try:
            while True:
                data = await self.read(deadline)
                if not data:
                    raise NoAnswer(None, sent=True, begun=bool(buffer))
                buffer += data
                head = wire.read_head(buffer)
                while head is not None and head.status < 200:
                    buffer = buffer[len(head.data) :]
                    head = wire.read_head(buffer)
                if head is not None:
                    return head, wire.ResponseBody(head.length), buffer[len(head.data) :]
        except (OSError, ProtocolError) as error:
            raise NoAnswer(error, sent=True, begun=bool(buffer)) from error

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
