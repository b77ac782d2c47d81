"""Sends calls on an event loop: tries again where that is safe, and tells how it went."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from keyrack.client import service
from keyrack.client.async_pool import AsyncPool, StreamConnection, connect
from keyrack.client.attempt import NoAnswer, fed
from keyrack.client.calls import ApiCall
from keyrack.client.config import Config, RequestEvent
from keyrack.client.errors import KeyrackError, ProtocolError, Refused, Unreachable
from keyrack.client.pipelining import windows
from keyrack.client.refusals import refused
from keyrack.client.retry import TRY_AGAIN, Retry
from keyrack.client.steps import Pause
from keyrack.client.wire import PipelineReader, Response, ResponseBody, ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from keyrack.client.config import Observer
    from keyrack.client.steps import Steps

T = TypeVar("T")


class AsyncSender:
    """Sends calls to one service. Each event loop has connections of its own."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._where = config.address.shown
        self._timeout = config.timeout
        self._retries = config.retries
        self._on_event = config.on_event
        self.observer: Observer | None = None
        self._pools: dict[asyncio.AbstractEventLoop, AsyncPool] = {}
        self._pool: AsyncPool | None = None
        self.background: set[asyncio.Task[None]] = set()
        """What goes on by itself until it ends or the client is closed."""
        _senders.add(self)

    def _pool_of(self, loop: asyncio.AbstractEventLoop) -> AsyncPool:
        pool = self._pools.get(loop)
        if pool is None:
            for other in [one for one in self._pools if one.is_closed()]:
                del self._pools[other]
            config = self._config
            pool = AsyncPool(config.address, config.connect_timeout, config.max_connections, loop)
            self._pools[loop] = pool
        self._pool = pool
        return pool

    def forget(self) -> None:
        """Begin anew in the child of a fork: connections and their loops are the parent's."""
        _kept_for_the_parent.append(self._pools)
        _kept_for_the_parent.append(self.background)
        self._pools = {}
        self._pool = None
        self.background = set()

    async def close(self) -> None:
        """End what goes on by itself, and close the idle connections of the running loop."""
        self._pool = None
        loop = asyncio.get_running_loop()
        mine = [task for task in self.background if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        pool = self._pools.pop(loop, None)
        if pool is not None:
            pool.close()

    async def send(self, call: ApiCall[T], timeout: float | None = None) -> T:
        """Send a call and return what its answer means. Raises `KeyrackError`.

        `timeout` is in seconds, the client's if it is not given.
        """
        loop = asyncio.get_running_loop()
        pool = self._pool
        if pool is None or pool.loop is not loop:
            pool = self._pool_of(loop)
        seconds = (timeout or self._timeout) + call.wait
        if self._on_event is not None or self.observer is not None:
            return await self._send_told(call, pool, seconds)
        deadline = time.monotonic() + seconds
        try:
            answer, _ = await pool.exchange(call, deadline)
        except KeyrackError as failure:
            answer, _ = await self._again(call, Retry(call, self._retries, deadline), failure)
        else:
            if answer.status in TRY_AGAIN:
                retry = Retry(call, self._retries, deadline)
                answer, _ = await self._again(call, retry, refused(answer))
        return call.read(answer)

    async def _again(
        self, call: ApiCall[object], retry: Retry, failure: KeyrackError
    ) -> tuple[Response, bool]:
        pool = self._pool_of(asyncio.get_running_loop())
        while True:
            await asyncio.sleep(retry.delay(failure))
            try:
                answer, reused = await pool.exchange(call, retry.deadline)
            except KeyrackError as error:
                failure = error
            else:
                if answer.status not in TRY_AGAIN:
                    return answer, reused
                failure = refused(answer)

    async def _send_told(self, call: ApiCall[T], pool: AsyncPool, seconds: float) -> T:
        """Send a call, and tell `on_event` and the observer how it went."""
        began = time.monotonic()
        observed = None if self.observer is None else self.observer.started(call.operation)
        if observed is not None and observed.fields:
            call = call.with_fields(observed.fields)
        retry = Retry(call, self._retries, began + seconds)
        status, reused = 0, False
        error: BaseException | None = None
        try:
            try:
                answer, reused = await pool.exchange(call, retry.deadline)
                if answer.status in TRY_AGAIN:
                    raise refused(answer)
            except KeyrackError as failure:
                answer, reused = await self._again(call, retry, failure)
            status = answer.status
            return call.read(answer)
        except BaseException as failure:
            error = failure
            if isinstance(failure, Refused):
                status = failure.status
            raise
        finally:
            event = RequestEvent(
                call.operation, status, time.monotonic() - began, retry.made, reused
            )
            if observed is not None:
                observed.ended(event, error)
            if self._on_event is not None:
                self._on_event(event)

    async def run(self, steps: Steps[T]) -> T:
        """Do work that takes several calls, and return what comes of it."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    result = await self.send(step)
                except KeyrackError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            done: T = end.value
            return done

    async def pipeline(self, calls: list[ApiCall[Any]]) -> list[Any]:
        """Send calls, many at once; return for each what it means, or its exception."""
        results: list[Any] = []
        try:
            async with self._own() as connection:
                for window in windows(calls):
                    answers, lost = await self._window(connection, window)
                    for number, call in enumerate(window):
                        answer = answers[number] if number < len(answers) else None
                        results.append(await self._result(call, answer, lost))
        except Unreachable as error:
            results += [error] * (len(calls) - len(results))
        return results

    async def _window(
        self, connection: StreamConnection, calls: list[ApiCall[Any]]
    ) -> tuple[list[Response], NoAnswer | None]:
        deadline = self._deadline()
        reader = PipelineReader([call.bodyless for call in calls])
        try:
            await connection.send(b"".join([call.data for call in calls]), deadline)
            while not reader.done:
                data = await connection.read(deadline)
                if not data:
                    return reader.answers, NoAnswer(None, sent=True)
                reader.feed(data)
        except (OSError, ProtocolError) as error:
            return reader.answers, NoAnswer(error, sent=True, begun=True)
        return reader.answers, None

    async def _result(
        self, call: ApiCall[T], answer: Response | None, lost: NoAnswer | None
    ) -> Any:
        try:
            if answer is not None and answer.status not in TRY_AGAIN:
                return call.read(answer)
            if call.repeatable:
                return await self.send(call)
        except (KeyrackError, ValueError) as error:
            return error
        if answer is not None:
            return refused(answer)
        return (lost or NoAnswer(None, sent=True)).error(call, self._where)

    # Streams

    @contextlib.asynccontextmanager
    async def opened(
        self, request: bytes
    ) -> AsyncIterator[tuple[StreamConnection, ResponseBody, bytes]]:
        """Send a request; lend the connection, the body of its answer, and what came of it.

        Raises `Refused` when it is no success, and `KeyrackError` when it breaks off.
        """
        call = ApiCall("get", request, _never_read, True)
        try:
            async with self._own() as connection:
                try:
                    await connection.send(request, self._deadline())
                except OSError as error:
                    raise NoAnswer(error, sent=False) from error
                head, body, data = await connection.read_head(self._deadline())
                if head.status != 200:
                    raise refused(await self._whole(connection, head, body, data))
                yield connection, body, data
        except NoAnswer as lost:
            raise lost.error(call, self._where) from lost.cause

    async def stream(self, request: bytes) -> AsyncIterator[bytes]:
        """Send a request and yield the pieces of its answer's body.

        Raises `Refused` when it is no success, and `KeyrackError` when it breaks off: what came
        before is not all.
        """
        async with self.opened(request) as (connection, body, data):
            while True:
                if piece := fed(body, data):
                    yield piece
                if body.done:
                    return
                data = await self._read(connection, body)

    async def upload(self, call: ApiCall[T], pieces: Iterable[bytes] | AsyncIterable[bytes]) -> T:
        """Send a call's request with a body in pieces, however long, and return what is answered.

        The time for a call is the time for each piece.
        """
        try:
            async with self._own() as connection:
                # A server that stops at an error answers before it has read all of it.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    await connection.send(call.data, self._deadline())
                    async for piece in _each(pieces):
                        if piece:
                            await connection.send(service.chunk(piece), self._deadline())
                    await connection.send(service.chunk(b""), self._deadline())
                head, body, data = await connection.read_head(self._deadline())
                answer = await self._whole(connection, head, body, data)
        except OSError as error:
            raise NoAnswer(error, sent=True).error(call, self._where) from error
        except NoAnswer as lost:
            raise lost.error(call, self._where) from lost.cause
        return call.read(answer)

    @contextlib.asynccontextmanager
    async def _own(self) -> AsyncIterator[StreamConnection]:
        """Open a connection for a stream, and close it afterwards. It counts for no limit."""
        config, loop = self._config, asyncio.get_running_loop()
        connection = await connect(
            StreamConnection, config.address, config.connect_timeout, self._deadline(), loop
        )
        try:
            yield connection
        finally:
            connection.abort()

    async def _whole(
        self, connection: StreamConnection, head: ResponseHead, body: ResponseBody, data: bytes
    ) -> Response:
        pieces = [fed(body, data)]
        while not body.done:
            pieces.append(fed(body, await self._read(connection, body)))
        return Response(head.status, head.data, b"".join(pieces), True)

    async def _read(self, connection: StreamConnection, body: ResponseBody) -> bytes:
        try:
            data = await connection.read(self._deadline())
            if not data:
                body.close()
        except (OSError, ProtocolError) as error:
            raise NoAnswer(error, sent=True, begun=True) from error
        return data

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout


async def _each(pieces: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


def _never_read(_: Response) -> None:
    raise AssertionError("the answer of a stream is read as it comes")


_senders: WeakSet[AsyncSender] = WeakSet()
_kept_for_the_parent: list[object] = []
"""What a child of a fork must not end: closing it would reach into the parent's event loop."""


def _after_fork() -> None:
    for sender in list(_senders):
        sender.forget()


os.register_at_fork(after_in_child=_after_fork)
