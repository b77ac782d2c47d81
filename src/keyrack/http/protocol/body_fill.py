"""The rest of a large body, read from the socket into the place where it is wanted.

What arrives in pieces is copied three times until it is one value: out of the transport's buffer,
by the parser, and when the pieces are joined. A body whose length is known needs none of that. Once
its head is judged and much of it is missing, this takes the place of its connection as what the
transport calls: the transport reads straight into the body. When it is whole, or is given up, the
connection is called again. No byte behind the body is read meanwhile.
"""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from keyrack.http.protocol.outlet import Outlet
    from keyrack.http.protocol.reader import MessageReader
    from keyrack.http.worker_context import WorkerContext


class Filled(Protocol):
    """The connection whose body this is."""

    used: float
    """When it was last used (coarse seconds)."""

    def settle(self) -> None:
        """Learn that a message has ended."""

    def count_held(self) -> None:
        """Learn that more or less is held for the client."""

    def eof_received(self) -> bool:
        """Learn that the client sends no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the client is gone."""

    def pause_writing(self) -> None:
        """Learn that the client does not read."""

    def resume_writing(self) -> None:
        """Learn that it reads again."""


class BodyFill(asyncio.BufferedProtocol):
    """Takes the bytes of one body, of which the parser has found the beginning."""

    def __init__(
        self,
        connection: Filled,
        own: asyncio.BaseProtocol,
        reader: MessageReader,
        outlet: Outlet,
        worker: WorkerContext,
    ) -> None:
        begun, size = reader.take_begun()
        # The one way to `bytes` that are filled in place and need no copy at the end.
        self._file = io.BytesIO()
        self._position = sum(map(self._file.write, begun))
        self._file.seek(size - 1)
        self._file.write(b"\0")
        self._view = self._file.getbuffer()
        self._connection = connection
        self._own = own
        self._reader = reader
        self._outlet = outlet
        self._worker = worker
        outlet.transport.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes belong."""
        return self._view[self._position :]

    def buffer_updated(self, nbytes: int) -> None:
        """Learn that so many bytes are there."""
        self._position += nbytes
        self._reader.count_body(nbytes)
        if self._reader.stopped:
            self._outlet.transport.set_protocol(self._own)
            self._outlet.discard(nbytes)
        elif self._position == len(self._view):
            # The transport holds the buffer until this returns.
            self._outlet.flow.pause_reading()
            self._worker.loop.call_soon(self._finish)
        self._connection.used = self._worker.tick.now
        self._connection.count_held()

    def _finish(self) -> None:
        self._view.release()
        if self._outlet.transport.is_closing():
            return
        self._outlet.transport.set_protocol(self._own)
        if not self._reader.stopped:
            self._reader.end_body(self._file.getvalue())
        self._connection.settle()
        self._connection.count_held()
        if not self._outlet.is_blocked:
            self._outlet.flow.resume_reading()

    def eof_received(self) -> bool:
        """Pass it on."""
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._connection.resume_writing()
