"""Sends calls without an event loop: tries again where that is safe, and tells how it went."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, TypeVar

from keyrack.client import service
from keyrack.client.attempt import NoAnswer, fed
from keyrack.client.calls import ApiCall
from keyrack.client.config import Config, RequestEvent
from keyrack.client.errors import KeyrackError, ProtocolError, Refused
from keyrack.client.pipelining import windows
from keyrack.client.pool import Pool
from keyrack.client.refusals import refused
from keyrack.client.retry import TRY_AGAIN, Retry
from keyrack.client.steps import Pause
from keyrack.client.wire import Response, ResponseBody, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyrack.client.config import Observer
    from keyrack.client.pool import SyncConnection
    from keyrack.client.steps import Steps

T = TypeVar("T")


class Sender:
    """Sends calls to one service, from any number of threads."""

    def __init__(self, config: Config) -> None:
        self._where = config.address.shown
        self._timeout = config.timeout
        self._retries = config.retries
        self._on_event = config.on_event
        self.observer: Observer | None = None
        self.pool = Pool(config.address, config.connect_timeout, config.max_connections)

    def send(self, call: ApiCall[T], timeout: float | None = None) -> T:
        """Send a call and return what its answer means. Raises `KeyrackError`.

        `timeout` is in seconds, the client's if it is not given.
        """
        seconds = (timeout or self._timeout) + call.wait
        if self._on_event is not None or self.observer is not None:
            return self._send_told(call, seconds)
        deadline = time.monotonic() + seconds
        try:
            answer, _ = self.pool.exchange(call, seconds, deadline)
        except KeyrackError as failure:
            answer, _ = self._again(call, Retry(call, self._retries, deadline), failure)
        else:
            if answer.status in TRY_AGAIN:
                retry = Retry(call, self._retries, deadline)
                answer, _ = self._again(call, retry, refused(answer))
        return call.read(answer)

    def _again(
        self, call: ApiCall[object], retry: Retry, failure: KeyrackError
    ) -> tuple[Response, bool]:
        while True:
            time.sleep(retry.delay(failure))
            try:
                answer, reused = self.pool.exchange(call, retry.seconds, retry.deadline)
            except KeyrackError as error:
                failure = error
            else:
                if answer.status not in TRY_AGAIN:
                    return answer, reused
                failure = refused(answer)

    def _send_told(self, call: ApiCall[T], seconds: float) -> T:
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
                answer, reused = self.pool.exchange(call, seconds, retry.deadline)
                if answer.status in TRY_AGAIN:
                    raise refused(answer)
            except KeyrackError as failure:
                answer, reused = self._again(call, retry, failure)
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

    def run(self, steps: Steps[T]) -> T:
        """Do work that takes several calls, and return what comes of it."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    result = self.send(step)
                except KeyrackError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            done: T = end.value
            return done

    def pipeline(self, calls: list[ApiCall[Any]]) -> list[Any]:
        """Send calls, many at once; return for each what it means, or its exception."""
        results: list[Any] = []
        for window in windows(calls):
            try:
                answers, lost = self.pool.exchange_many(window, self._deadline())
            except KeyrackError as error:
                results += [error] * len(window)
                continue
            for number, call in enumerate(window):
                answer = answers[number] if number < len(answers) else None
                results.append(self._result(call, answer, lost))
        return results

    def _result(self, call: ApiCall[T], answer: Response | None, lost: NoAnswer | None) -> Any:
        try:
            if answer is not None and answer.status not in TRY_AGAIN:
                return call.read(answer)
            if call.repeatable:
                return self.send(call)
        except (KeyrackError, ValueError) as error:
            return error
        if answer is not None:
            return refused(answer)
        return (lost or NoAnswer(None, sent=True)).error(call, self._where)

    # Streams

    @contextlib.contextmanager
    def opened(self, request: bytes) -> Iterator[tuple[SyncConnection, ResponseBody, bytes]]:
        """Send a request; lend the connection, the body of its answer, and what came of it.

        Raises `Refused` when it is no success, and `KeyrackError` when it breaks off.
        """
        call = ApiCall("get", request, _never_read, True)
        try:
            with self.pool.own(self._deadline()) as connection:
                head, body, data = connection.stream(request, self._deadline())
                if head.status != 200:
                    raise refused(self._whole(connection, head, body, data))
                yield connection, body, data
        except NoAnswer as lost:
            raise lost.error(call, self._where) from lost.cause

    def stream(self, request: bytes) -> Iterator[bytes]:
        """Send a request and yield the pieces of its answer's body.

        Raises `Refused` when it is no success, and `KeyrackError` when it breaks off: what came
        before is not all.
        """
        with self.opened(request) as (connection, body, data):
            while True:
                if piece := fed(body, data):
                    yield piece
                if body.done:
                    return
                data = self._read(connection, body)

    def _whole(
        self, connection: SyncConnection, head: ResponseHead, body: ResponseBody, data: bytes
    ) -> Response:
        pieces = [fed(body, data)]
        while not body.done:
            pieces.append(fed(body, self._read(connection, body)))
        return Response(head.status, head.data, b"".join(pieces), True)

    def _read(self, connection: SyncConnection, body: ResponseBody) -> bytes:
        try:
            data = connection.read(self._deadline())
            if not data:
                body.close()
        except (OSError, ProtocolError) as error:
            raise NoAnswer(error, sent=True, begun=True) from error
        return data

    def upload(self, call: ApiCall[T], pieces: Iterable[bytes]) -> T:
        """Send a call's request with a body in pieces, however long, and return what is answered.

        The time for a call is the time for each piece.
        """
        try:
            with self.pool.own(self._deadline()) as connection:
                # A server that stops at an error answers before it has read all of it.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.send(call.data, self._deadline())
                    for piece in pieces:
                        if piece:
                            connection.send(service.chunk(piece), self._deadline())
                    connection.send(service.chunk(b""), self._deadline())
                head, body, data = connection.read_head(self._deadline())
                answer = self._whole(connection, head, body, data)
        except OSError as error:
            raise NoAnswer(error, sent=True).error(call, self._where) from error
        except NoAnswer as lost:
            raise lost.error(call, self._where) from lost.cause
        return call.read(answer)

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout


def _never_read(_: Response) -> None:
    raise AssertionError("the answer of a stream is read as it comes")
