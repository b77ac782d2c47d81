"""One request of the wide lane and its answer: what runs an ASGI application for a connection.

uvicorn's request cycle does the protocol of ASGI. This module begins it, feeds it a body that is
still arriving, and lets go of it where the body will never be whole.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from keyrack.http import contract

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.server import ServerState

    from keyrack.http.message import Request


class AsgiHost(NamedTuple):
    """What serves ASGI requests in a worker, as uvicorn gives it to each of its connections."""

    config: Config
    server: ServerState
    state: dict[str, Any]


class AsgiExchange:
    """A request that the wide lane serves. `answered` is called when its answer is complete.

    `more_body` says that the body is still arriving: `feed` it, and `end_body` when it is whole.
    """

    __slots__ = ("_cycle", "_flow", "_transport")

    def __init__(
        self,
        request: Request,
        host: AsgiHost,
        transport: asyncio.Transport,
        flow: FlowControl,
        log: logging.Logger,
        answered: Callable[[], None],
        *,
        more_body: bool,
        keep_alive: bool,
    ) -> None:
        self._transport = transport
        self._flow = flow
        self._cycle = RequestResponseCycle(
            scope=_scope(request, transport, host.state),  # type: ignore[arg-type]  # a plain dict is one
            transport=transport,
            flow=flow,
            logger=log,
            access_logger=log,
            access_log=False,
            default_headers=host.server.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=answered,
        )
        self._cycle.body += request.body
        self._cycle.more_body = more_body
        if not more_body:
            self._cycle.message_event.set()
        task = asyncio.get_running_loop().create_task(self._cycle.run_asgi(host.config.loaded_app))
        host.server.tasks.add(task)
        task.add_done_callback(host.server.tasks.discard)

    @property
    def has_begun_to_answer(self) -> bool:
        """Whether the head of the answer has been sent."""
        return self._cycle.response_started

    def feed(self, data: bytes) -> None:
        """Pass on a piece of the body; read no more of it while the application is behind."""
        self._cycle.body += data
        if len(self._cycle.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self._cycle.message_event.set()

    def end_body(self) -> None:
        """Say that the body is whole."""
        self._cycle.more_body = False
        self._cycle.message_event.set()

    def close_after_answer(self) -> None:
        """Have the answer be the connection's last one."""
        self._cycle.keep_alive = False

    def disconnect(self) -> None:
        """Say that the client is gone."""
        self._cycle.disconnected = True
        self._cycle.message_event.set()

    def abandon(self) -> None:
        """Let go of a request whose body will not be whole. Nobody is told of its answer."""
        self._cycle.on_response = lambda: None
        self.disconnect()
        if self._cycle.response_started:
            self._transport.abort()


def _scope(request: Request, transport: asyncio.Transport, state: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method.decode("ascii"),
        "scheme": "https" if is_ssl(transport) else "http",
        "path": contract.path_text(request.path),
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.head.fields),
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "state": state.copy(),
        "keyrack.request": request,
    }
