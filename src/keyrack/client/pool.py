"""Connections of a client without an event loop, and the pool that keeps them.

A connection goes back to the pool only when the last byte of its answer was read. Whatever else
happens, an interrupt included, it is closed: no answer can be taken for another request's.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from keyrack.client import wire
from keyrack.client.attempt import NoAnswer, unreachable
from keyrack.client.errors import ProtocolError, UnreachableTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.client.address import Endpoint
    from keyrack.client.calls import ApiCall
    from keyrack.client.wire import Response

_READ_BYTES: Final = 1 << 16
_TIMEVAL: Final = Struct("ll")
MAX_IDLE_SECONDS: Final = 60.0
"""A connection that was idle for longer is not used again: the server closes it after 90 s."""
UNPROVEN_SECONDS: Final = 1.0
"""A connection that was idle for longer is looked at before it is used."""


class SyncConnection:
    """One connection. `reused` tells whether it has brought an answer; `since` when it last did.

    `gone` is called once, when it is closed. An exception that a signal's handler raises can lose
    a connection anywhere, so that is when nobody has it any more, at the latest.
    """

    __slots__ = ("_gone", "_seconds", "_socket", "reused", "since")

    def __init__(self, address: Endpoint, seconds: float, gone: Callable[[], None] | None) -> None:
        self._gone: Callable[[], None] | None = None
        self._socket = _connected(address, seconds)
        if type(self._socket) is socket.socket:
            self._socket.settimeout(None)
        _limit(self._socket, seconds)
        self._gone = gone
        self._seconds = seconds
        self.reused = False
        self.since = 0.0

    def exchange(self, call: ApiCall[object], seconds: float, deadline: float) -> Response:
        """Send a request and return its answer. Raises `NoAnswer`.

        `seconds` is what is left until `deadline` when this is called on a connection that is open.
        """
        try:
            if self._seconds != seconds:
                self._wait_at_most(seconds)
            self._socket.sendall(call.data)
        except OSError as error:
            return self._answer_to_unsent(call, error, deadline)
        try:
            data = self._socket.recv(_READ_BYTES)
            answer = wire.whole(data, call.bodyless)
        except (OSError, ProtocolError) as error:
            raise NoAnswer(error, sent=True) from error
        if answer is None:
            answer = self._rest_of_answer(data, call, deadline)
        self.reused = True
        return answer

    def _rest_of_answer(self, data: bytes, call: ApiCall[object], deadline: float) -> Response:
        reader = wire.ResponseReader(call.bodyless)
        try:
            while data:
                if (answer := reader.feed(data)) is not None:
                    # What nobody asked for may come behind it: such a connection is not kept.
                    answer.closes = answer.closes or bool(reader.rest)
                    return answer
                self._wait_at_most(deadline - time.monotonic())
                data = self._socket.recv(_READ_BYTES)
            if reader.begun:
                return reader.close()
        except (OSError, ProtocolError) as error:
            raise NoAnswer(error, sent=True, begun=reader.begun) from error
        raise NoAnswer(None, sent=True)

    def _answer_to_unsent(self, call: ApiCall[object], error: OSError, deadline: float) -> Response:
        """Return the answer of a server that refused a request before it had read all of it."""
        if isinstance(error, ConnectionError):
            with contextlib.suppress(NoAnswer, OSError):
                self._wait_at_most(min(1.0, deadline - time.monotonic()))
                answer = self._rest_of_answer(self._socket.recv(_READ_BYTES), call, deadline)
                answer.closes = True
                return answer
        raise NoAnswer(error, sent=False) from error

    def exchange_many(
        self, calls: list[ApiCall[Any]], deadline: float
    ) -> tuple[wire.PipelineReader, NoAnswer | None]:
        """Send requests at once and read their answers; with what ended that early, if it did."""
        reader = wire.PipelineReader([call.bodyless for call in calls])
        try:
            self.send(b"".join([call.data for call in calls]), deadline)
            while not reader.done:
                data = self.read(deadline)
                if not data:
                    return reader, NoAnswer(None, sent=True, begun=bool(reader.answers))
                reader.feed(data)
        except (OSError, ProtocolError) as error:
            return reader, NoAnswer(error, sent=True, begun=True)
        self.reused = True
        return reader, None

    def stream(
        self, request: bytes, deadline: float
    ) -> tuple[wire.ResponseHead, wire.ResponseBody, bytes]:
        """Send a request; return the head of its answer, its body, and what came of the body."""
        try:
            self._wait_at_most(deadline - time.monotonic())
            self._socket.sendall(request)
        except OSError as error:
            raise NoAnswer(error, sent=False) from error
        return self.read_head(deadline)

    def send(self, data: bytes, deadline: float) -> None:
        """Send bytes. Raises `OSError`."""
        self._wait_at_most(deadline - time.monotonic())
        self._socket.sendall(data)

    def read_head(self, deadline: float) -> tuple[wire.ResponseHead, wire.ResponseBody, bytes]:
        """Return the head of an answer, its body, and what came of the body. Raises `NoAnswer`."""
        buffer = b""
        try:
            while True:
                data = self.read(deadline)
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

    def read(self, deadline: float) -> bytes:
        """Return what comes next, nothing when the connection has ended. Raises `OSError`."""
        self._wait_at_most(deadline - time.monotonic())
        return self._socket.recv(_READ_BYTES)

    def _wait_at_most(self, seconds: float) -> None:
        if seconds <= 0:
            raise TimeoutError("timed out")
        self._seconds = seconds
        _limit(self._socket, seconds)

    def is_usable(self, now: float) -> bool:
        """Tell whether the server is likely to take another request here."""
        idle = now - self.since
        if idle <= UNPROVEN_SECONDS:
            return True
        # Anything to read before a request was sent is the end of the connection.
        return idle <= MAX_IDLE_SECONDS and not _is_readable(self._socket)

    def close(self) -> None:
        """Close."""
        self._socket.close()
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()

    def shut_down(self) -> None:
        """End what another thread waits for here."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Close this process' share of a connection that belongs to another one."""
        self._gone = None
        self._socket.close()

    def __del__(self) -> None:
        if self._gone is not None:
            self.close()


def _limit(sock: socket.socket, seconds: float) -> None:
    """Have the kernel end what waits longer than so many seconds, with `BlockingIOError`.

    With Python's own limit each `send` and `recv` is two calls of the system: it asks first whether
    the socket is ready. TLS needs that.
    """
    if type(sock) is not socket.socket:
        sock.settimeout(seconds)
        return
    microseconds = max(1, int(seconds * 1e6))
    limit = _TIMEVAL.pack(*divmod(microseconds, 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _connected(address: Endpoint, seconds: float) -> socket.socket:
    """Open a connection. Raises `Unreachable`."""
    try:
        if address.local is not None:
            return address.local.connect()
        if address.uds is not None:
            return _unix(address.uds, seconds)
        sock = socket.create_connection((address.host, address.port), seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls is None:
            return sock
        return address.tls.wrap_socket(sock, server_hostname=address.host)
    except (OSError, ValueError) as error:
        raise unreachable(error, address.shown) from error


def _unix(path: str, seconds: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(seconds)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


class Pool:
    """Connections to one address. Any number of threads may use it.

    Taking an idle connection and putting it back are single operations of a deque, without a lock.
    """

    def __init__(self, address: Endpoint, connect_timeout: float, max_connections: int) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._max = max_connections
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._idle: deque[SyncConnection] = deque()
        self._room = threading.Condition()
        self._open = 0
        self._waiting = 0

    def forget(self) -> None:
        """Begin anew in the child of a fork: the connections are the parent's, and stay open there.

        Locks are made anew, too: a thread that held one is not in the child.
        """
        mine = self._idle
        self._begin()
        for connection in mine:
            connection.forget()

    def close(self) -> None:
        """Close what is idle. What is in use is closed by who uses it, or goes on to be used."""
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def exchange(
        self, call: ApiCall[object], seconds: float, deadline: float
    ) -> tuple[Response, bool]:
        """Send a call's request and return its answer, and whether the connection was reused.

        Raises `Unreachable`, `Ambiguous` or `ProtocolError`.
        """
        connection = self._take(deadline)
        while True:
            reused = connection.reused
            try:
                if not reused:
                    seconds = deadline - time.monotonic()
                answer = connection.exchange(call, seconds, deadline)
            except NoAnswer as lost:
                connection.close()
                if not (reused and lost.is_stale(call)):
                    raise lost.error(call, self._address.shown) from lost.cause
            except BaseException:
                connection.close()
                raise
            else:
                self.put_back(connection, answer.closes)
                return answer, reused
            connection = self.open(deadline)

    def exchange_many(
        self, calls: list[ApiCall[Any]], deadline: float
    ) -> tuple[list[Response], NoAnswer | None]:
        """Send requests at once; return the answers that came, and why no more did.

        Raises `Unreachable`.
        """
        connection = self._take(deadline)
        try:
            reader, lost = connection.exchange_many(calls, deadline)
        except BaseException:
            connection.close()
            raise
        self.put_back(connection, reader.closes or lost is not None)
        return reader.answers, lost

    @contextlib.contextmanager
    def own(self, deadline: float) -> Iterator[SyncConnection]:
        """Open a connection for a stream, and close it afterwards. It counts for no limit."""
        connection = self._connected(deadline, None)
        try:
            yield connection
        finally:
            connection.close()

    def _take(self, deadline: float) -> SyncConnection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self.open(deadline)
            if connection.is_usable(time.monotonic()):
                return connection
            connection.close()

    def open(self, deadline: float) -> SyncConnection:
        """Open a connection, or wait until one may be opened. Raises `Unreachable`."""
        with self._room:
            if self._open >= self._max and (found := self._wait_for_room(deadline)) is not None:
                return found
            self._open += 1
        try:
            return self._connected(deadline, self._make_room)
        except BaseException:
            self._make_room()
            raise

    def _connected(self, deadline: float, gone: Callable[[], None] | None) -> SyncConnection:
        seconds = min(self._connect_timeout, deadline - time.monotonic())
        if seconds <= 0:
            raise unreachable(TimeoutError(), self._address.shown)
        return SyncConnection(self._address, seconds, gone)

    def _wait_for_room(self, deadline: float) -> SyncConnection | None:
        """Wait until a connection is idle, and return it, or until another may be opened."""
        self._waiting += 1
        try:
            while self._open >= self._max:
                # Whoever puts one back looks for those who wait, after it has put it back.
                with contextlib.suppress(IndexError):
                    return self._idle.pop()
                if not self._room.wait(deadline - time.monotonic()):
                    raise UnreachableTimeout(
                        f"All {self._max} connections to {self._address.shown} were in use until "
                        "the time was over. Raise max_connections, or use fewer threads."
                    )
        finally:
            self._waiting -= 1
        return None

    def put_back(self, connection: SyncConnection, closes: bool) -> None:
        """Take back a connection whose answer was read to its end."""
        if closes:
            connection.close()
            return
        connection.since = time.monotonic()
        self._idle.append(connection)
        if self._waiting:
            with self._room:
                self._room.notify()

    def _make_room(self) -> None:
        with self._room:
            self._open -= 1
            self._room.notify()


_pools: WeakSet[Pool] = WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_after_fork)
