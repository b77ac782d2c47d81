"""One request of the wide lane and its answer: what runs an ASGI application for a connection.

The connection begins it, feeds it a body that is still arriving, and lets go of it where the body
will never be whole. An answer goes out as its client takes it: what the application sends next is
asked for only when the transport can take more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from keyrack.http import problems
from keyrack.http.api import codec
from keyrack.http.api.statuses import STATUS_LINES
from keyrack.http.client_memory import LARGE
from keyrack.http.streamed import ClientGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from keyrack.http.problems import Problem
    from keyrack.http.protocol.outlet import Outlet
    from keyrack.http.protocol.request import Request
    from keyrack.http.worker_context import WorkerContext


_STEP_BYTES: Final = LARGE
"""Bytes of a longer answer that the transport is given at once."""


class AsgiHost(NamedTuple):
    """What serves ASGI requests in a worker, as uvicorn gives it to each of its connections."""

    config: Config
    server: ServerState
    state: dict[str, Any]

    def serve(self, exchange: AsgiExchange) -> None:
        """Begin to serve a request; a server that ends waits for it."""
        task = exchange.start(self.config.loaded_app, self.state)
        self.server.tasks.add(task)
        task.add_done_callback(self.server.tasks.discard)


class AsgiExchange:
    """A request that the wide lane serves. `answered` is called when its answer is complete.

    `more_body` says that the body is still arriving: `feed` it, and `end_body` when it is whole.
    """

    ends_with_input = False
    """A client may have said all that it has to say, and wait for its answer."""

    __slots__ = (
        "_answered",
        "_body",
        "_chunked",
        "_complete",
        "_gone",
        "_keep_alive",
        "_left",
        "_more_body",
        "_news",
        "_outlet",
        "_unsent",
        "_worker",
        "broken",
        "has_begun_to_answer",
        "request",
    )

    def __init__(
        self,
        request: Request,
        outlet: Outlet,
        worker: WorkerContext,
        answered: Callable[[], None],
        *,
        more_body: bool,
        keep_alive: bool,
    ) -> None:
        self.request = request
        self._outlet = outlet
        self._worker = worker
        self._answered = answered
        self._keep_alive = keep_alive
        self._gone = False
        """The client is, or nothing of this is wanted any more."""
        self._news = asyncio.Event()
        """There is something to receive."""

        # The body that arrives
        self._body = bytearray(request.body)
        self._more_body = more_body
        if not more_body:
            self._news.set()

        self.broken: Problem | None = None
        """Why the body will not be whole."""

        # The answer
        self.has_begun_to_answer = False
        self._complete = False
        self._chunked = False
        self._left: int | None = None
        """Bytes of the body that are still to be sent; None where its length is not known."""
        self._unsent = 0
        """Bytes that the application has given and the transport has not been given yet."""

    # The connection's side

    @property
    def awaits_body(self) -> bool:
        """Whether its body is not whole yet."""
        return self._more_body

    @property
    def held(self) -> int:
        """Bytes that are held for this request, besides what the transport holds."""
        return len(self.request.body) + len(self._body) + self._unsent

    def start(self, application: ASGIApp, state: dict[str, Any]) -> asyncio.Task[None]:
        """Begin to serve the request; return the task that does."""
        return self._worker.loop.create_task(self._run(application, self._scope(state)))

    def feed(self, data: bytes) -> None:
        """Pass on a piece of the body; read no more of it while the application is behind."""
        self._body += data
        if len(self._body) > HIGH_WATER_LIMIT:
            self._outlet.flow.pause_reading()
        self._news.set()

    def end_body(self) -> None:
        """Say that the body is whole."""
        self._more_body = False
        self._news.set()

    def close_after_answer(self) -> None:
        """Have the answer be the connection's last one."""
        self._keep_alive = False

    def disconnect(self) -> None:
        """Say that the client is gone."""
        self._gone = True
        self._news.set()

    def break_body(self, problem: Problem) -> bool:
        """Say why the body will not be whole; tell whether the application is to answer that.

        It receives the end of the connection, and finds the problem in its scope.
        """
        if self.has_begun_to_answer:
            return False
        self.broken = problem
        self._keep_alive = False
        self._news.set()
        return True

    def abandon(self) -> None:
        """Let go of a request whose body will not be whole. Nobody is told of its answer."""
        self.disconnect()
        if self.has_begun_to_answer:
            self._outlet.transport.abort()

    # The application's side

    async def receive(self) -> Message:
        """ASGI: return what has come of the body, or that the client is gone or answered."""
        if not (self._gone or self._complete or self.broken):
            self._outlet.flow.resume_reading()
            await self._news.wait()
            self._news.clear()
        if self._gone or self._complete or self.broken:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    async def send(self, message: Message) -> None:
        """ASGI: send a part of the answer, and return when there is room for more.

        Raises `ClientGone` where a stream should end: there is nobody to take more of it.
        """
        if self._gone:
            if message.get("more_body", False):
                raise ClientGone
            return
        if message["type"] == "http.response.start":
            fields = list(message.get("headers", ()))
            if self._has_room_for(fields):
                self._begin_answer(message["status"], fields)
            else:
                self._refuse()
            return
        body, more_body = message.get("body", b""), message.get("more_body", False)
        if len(body) > _STEP_BYTES:
            if not await self._send_in_steps(memoryview(body)):
                return
        else:
            self._send_body(body)
        if not more_body:
            self._end_answer()
        elif self._outlet.flow.write_paused:
            await self._outlet.flow.drain()

    async def _send_in_steps(self, body: memoryview) -> bool:
        """Give the transport no more than a step before the client has taken most of the last.

        Return whether the client is still there.
        """
        self._unsent = len(body)
        for start in range(0, len(body), _STEP_BYTES):
            if self._outlet.flow.write_paused:
                self._give_way()
                await self._outlet.flow.drain()
            elif start:
                await asyncio.sleep(0)  # a client that takes everything at once is not alone
            if self._gone:
                break
            # A copy, so that a client that does not take the last step does not keep all of them.
            self._send_body(bytes(body[start : start + _STEP_BYTES]))
        self._unsent = 0
        return not self._gone

    async def _run(self, application: ASGIApp, scope: dict[str, Any]) -> None:
        try:
            await application(scope, self.receive, self.send)
        except Exception:
            self._worker.log.exception("serving failed", extra={"path": scope["path"]})
        if self._complete or self._gone:
            return
        if self.has_begun_to_answer:
            self._outlet.transport.abort()  # so that the client does not take it for whole
        else:
            self._begin_answer(500, [(b"content-length", b"0")])
            self._end_answer()

    def _has_room_for(self, fields: list[tuple[bytes, bytes]]) -> bool:
        lengths = [int(value) for name, value in fields if name.lower() == b"content-length"]
        size = min(lengths[0], _STEP_BYTES) if lengths else _STEP_BYTES
        return size <= LARGE or self._worker.client_memory.has_room(size, self.held)

    def _give_way(self) -> None:
        """Cut a client that does not take its answer, if there is no room for what it leaves."""
        if not self._worker.client_memory.has_room(self.held, self.held):
            self._worker.client_memory.count_cut()
            self._outlet.transport.abort()

    def _refuse(self) -> None:
        """Answer that there is no room for the answer, and take no more of it."""
        problem = self._worker.client_memory.refusal()
        status, fields, body = problems.answer(problem, self.request.path)
        self._begin_answer(status, [*fields, (b"content-length", b"%d" % len(body))])
        self._send_body(body)
        self._end_answer()
        self.disconnect()

    def _begin_answer(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.has_begun_to_answer = True
        names = {name.lower(): value for name, value in fields}
        if b"content-length" in names:
            self._left = int(names[b"content-length"])
        elif status not in (204, 304) and self.request.method != b"HEAD":
            self._chunked = not self.request.head.http_1_0
            self._keep_alive = self._keep_alive and self._chunked
            if self._chunked:
                fields.append((b"Transfer-Encoding", b"chunked"))
        if not self._keep_alive:
            fields.append((b"Connection", b"close"))
        elif self.request.head.http_1_0:
            fields.append((b"Connection", b"keep-alive"))
        parts = [STATUS_LINES[status], self._worker.tick.stamp, self.request.head.shared]
        parts += [b"%b: %b\r\n" % field for field in fields]
        self._outlet.transport.write(b"".join((*parts, b"\r\n")))

    def _send_body(self, body: bytes) -> None:
        if not body or self.request.method == b"HEAD":
            return
        if self._chunked:
            self._outlet.transport.writelines((b"%x\r\n" % len(body), body, b"\r\n"))
            return
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the answer is longer than its Content-Length")
        self._outlet.transport.write(body)

    def _end_answer(self) -> None:
        if self._left and self.request.method != b"HEAD":
            raise RuntimeError("the answer is shorter than its Content-Length")
        self._complete = True
        self._news.set()
        if self._chunked:
            self._outlet.transport.write(b"0\r\n\r\n")
        if not self._keep_alive and self.broken is None:
            self._outlet.transport.close()
        self._answered()

    def _scope(self, state: dict[str, Any]) -> dict[str, Any]:
        request, transport = self.request, self._outlet.transport
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if request.head.http_1_0 else "1.1",
            "method": request.method.decode("ascii"),
            "scheme": "https" if is_ssl(transport) else "http",
            "path": codec.path_text(request.path),
            "raw_path": request.path,
            "query_string": request.query,
            "root_path": "",
            "headers": list(request.head.fields),
            "server": get_local_addr(transport),
            "client": get_remote_addr(transport),
            "state": state.copy(),
            "keyrack.request": request,
            "keyrack.broken": lambda: self.broken,
        }
