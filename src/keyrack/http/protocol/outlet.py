"""Where the answers of one connection go, and how far its client is behind with them."""

from __future__ import annotations

import contextlib
import os
import socket
from struct import Struct
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_remote_addr, is_ssl

from keyrack.http import problems
from keyrack.http.api.statuses import STATUS_LINES
from keyrack.http.client_memory import LARGE
from keyrack.shared.counters import ACCEPTED, BYTES_IN, BYTES_OUT

if TYPE_CHECKING:
    import asyncio

    from keyrack.http.answer import Answer
    from keyrack.http.worker_context import WorkerContext

CLOSE: Final = b"Connection: close\r\n\r\n"
KEEP: Final = b"\r\n"
KEEP_1_0: Final = b"Connection: keep-alive\r\n\r\n"
"""How a header section ends: with what becomes of the connection."""

_WITHOUT_BODY: Final = frozenset((204, 304))
_LINGER_BYTES: Final = 1 << 20
_TRAFFIC: Final = Struct("QQ").unpack_from
_TRAFFIC_AT: Final = 120
"""Where `struct tcp_info` has how many bytes the other side has acknowledged, and has sent."""
_TCP_INFO_BYTES: Final = 136


class Outlet:
    """A connection's transport, with what is known of its client's side."""

    __slots__ = (
        "_counted",
        "_discarded",
        "_untaken",
        "_worker",
        "client_is_done",
        "flow",
        "number",
        "since",
        "transport",
        "unread_since",
    )

    def __init__(self, transport: asyncio.Transport, worker: WorkerContext) -> None:
        self.transport = transport
        self.flow = FlowControl(transport)
        self._worker = worker
        self.client_is_done = False
        """It has said that it sends nothing more."""
        self.unread_since = 0.0
        """Since when much waits for it (coarse seconds); 0 while it takes what is sent."""
        self._untaken = 0
        """Bytes of what the transport holds, as long as it holds much."""
        self._discarded = 0
        """Bytes that have come since the last answer was given."""
        self.number = worker.tick.counters[ACCEPTED]
        """Tells the connection from all others of its worker, before it and after it."""
        self.since = worker.tick.now
        """When it began (coarse seconds)."""
        self._counted = (0, 0)
        """Bytes that were sent and have come, as far as they are counted."""

    @property
    def is_blocked(self) -> bool:
        """Whether much waits for the client: nothing more is served to it now."""
        return self.flow.write_paused

    @property
    def is_calm(self) -> bool:
        """Whether the client takes what is sent, and may send more."""
        return not (self.unread_since or self.client_is_done)

    @property
    def is_secure(self) -> bool:
        """Whether the connection is one of TLS, which cannot be closed one side at a time."""
        return is_ssl(self.transport)

    @property
    def held(self) -> int:
        """Bytes that wait for the client; 0 while they are few."""
        if not self.flow.write_paused:
            self._untaken = 0
            return 0
        # The transport lets go of an answer when all of it is taken, not bit by bit.
        self._untaken = max(self._untaken, self.transport.get_write_buffer_size())
        return self._untaken

    @property
    def owed(self) -> int:
        """Bytes of answers that the system has not taken yet, because the client has not."""
        return self.transport.get_write_buffer_size()

    @property
    def address(self) -> str:
        """Where the client is, without its port; empty on a Unix socket."""
        found = get_remote_addr(self.transport)
        return found[0] if found else ""

    @property
    def peer(self) -> str:
        """Who the client is, for the access log."""
        if self.transport.is_closing():
            return "gone"  # it went away while its write was done; uvloop knows it no more
        found = get_remote_addr(self.transport)
        return f"{found[0]}:{found[1]}" if found else "unix"

    @property
    def has_input(self) -> bool:
        """Whether the client has sent something that has not been read yet."""
        with self._socket() as own, contextlib.suppress(OSError):
            return bool(own.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False

    @property
    def is_reset(self) -> bool:
        """Whether the client has answered with a reset what was sent since it was done."""
        with self._socket() as own:
            return own.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def count_traffic(self) -> None:
        """Count the bytes that have come and gone since this was last called.

        The kernel counts them, so no request pays for it. A Unix socket's are not known.
        """
        own = self.transport.get_extra_info("socket")
        if own is None or own.family == socket.AF_UNIX:
            return
        with contextlib.suppress(OSError):
            info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            if len(info) < _TCP_INFO_BYTES:
                return  # a kernel that does not say
            sent, come = _TRAFFIC(info, _TRAFFIC_AT)
            counters = self._worker.tick.counters
            counters[BYTES_OUT] += sent - self._counted[0]
            counters[BYTES_IN] += come - self._counted[1]
            self._counted = sent, come

    def _socket(self) -> socket.socket:
        """Return the socket, as one to be closed by the caller: the transport shows but a part."""
        return socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))

    def probe(self) -> None:
        """Find out whether a client that is done is still there: who is gone answers with a reset.

        Everybody else passes over an interim answer (RFC 9110 section 15.2).
        """
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Backpressure

    def block(self) -> None:
        """Learn that the client is behind; nothing more is read from it."""
        self.unread_since = self._worker.tick.now
        self.flow.pause_writing()
        self.flow.pause_reading()

    def unblock(self) -> None:
        """Learn that the client has caught up, or is gone."""
        self.unread_since = 0.0
        self.flow.resume_writing()

    # Answers

    def write_answer(self, answer: Answer, method: bytes, end: bytes) -> None:
        """Send an answer to a request with this method; `end` is how its header section ends."""
        if len(answer.body) > LARGE and method != b"HEAD" and not self.has_room_for(answer.body):
            answer = problems.answer(self._worker.client_memory.refusal(), b"/v1/")
        if self.transport.is_closing():
            # The client went away while its write was done; uvloop raises on such a transport.
            return
        parts = [STATUS_LINES[answer.status], self._worker.tick.stamp]
        parts += [b"%b: %b\r\n" % field for field in answer.headers]
        if answer.status not in _WITHOUT_BODY:
            parts.append(b"Content-Length: %d\r\n" % len(answer.body))
        parts.append(end)
        if method == b"HEAD":
            self.write(b"".join(parts))
        elif len(answer.body) > LARGE:
            self.write_long(b"".join(parts), answer.body)
        else:
            parts.append(answer.body)
            self.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send bytes, which the client may not take at once."""
        self._untaken = len(data)
        self.transport.write(data)

    def write_long(self, head: bytes, body: bytes) -> None:
        """Send what would be long to put together."""
        self._untaken = len(head) + len(body)
        self.transport.writelines((head, body))

    def has_room_for(self, data: bytes) -> bool:
        """Tell whether a large answer may wait for the client."""
        return self._worker.client_memory.has_room(len(data), self.held)

    # Ends

    def linger(self) -> None:
        """Close so that what was sent arrives: what is still coming must not cause a reset."""
        self._discarded = 0
        if self.client_is_done or self.is_secure:
            self.transport.close()
        elif self.transport.can_write_eof():
            self.transport.write_eof()

    def discard(self, size: int) -> None:
        """Learn of bytes that came after the end and were thrown away: there may be some."""
        self._discarded += size
        if self._discarded > _LINGER_BYTES:
            self.transport.abort()
