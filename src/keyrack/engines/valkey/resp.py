"""One connection that speaks RESP, the protocol of Valkey.

Replies have no numbers: the n-th one answers the n-th command. So a connection that lost count, or
whose oldest reply is late, is closed and everything that waits on it fails; nobody can get an
answer that was another's. A call whose asker is gone keeps its place in the line all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from libvalkey import ProtocolError, Reader, ReplyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Done: TypeAlias = "Callable[[Any], None]"
"""Called once: with the reply, with a `ReplyError`, or with `Lost`."""

LARGE: Final = 1 << 16
"""Bytes from which on pieces are handed to the system as they are, without a copy."""

_log = logging.getLogger("keyrack.valkey")


class Lost(Exception):
    """The connection ended before the reply: the command may have been carried out or not."""


def encode(parts: Sequence[bytes]) -> bytes:
    """Return a command as it is sent."""
    return b"*%d\r\n%b" % (len(parts), encode_arguments(parts))


def encode_arguments(parts: Iterable[bytes]) -> bytes:
    """Return a command's parts as they are sent, without their number."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class Call:
    """A command that is sent, or waits to be. `slot` says where it belongs in a cluster.

    `data` is its bytes, in pieces where they are many.
    """

    __slots__ = ("asked", "data", "divisible", "done", "sent", "slot", "tries")

    def __init__(self, slot: int, data: bytes | list[bytes], done: Done) -> None:
        self.slot = slot
        self.data = data
        self.done = done
        self.asked = 0.0
        """When it was asked for, and when it was sent last (seconds of the loop's clock)."""
        self.sent = 0.0
        self.tries = 0
        self.divisible = False
        """Whether the asker asks in parts when the keys are at several servers."""


class ValkeyConnection(asyncio.Protocol):
    """A connection; `replied` is given every reply with its call, in order."""

    def __init__(self, replied: Callable[[Call, Any], None], lost: Callable[[], None]) -> None:
        self._replied = replied
        self.lost = lost
        """Called when the connection has ended, before its calls are failed."""
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None
        self._calls: deque[Call] = deque()
        self._unsent: list[bytes] = []
        self._retired = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = transport  # type: ignore[assignment]  # a stream's has all we need

    def send(self, call: Call, now: float) -> None:
        """Send a command with the next `flush`."""
        call.sent = now
        if isinstance(call.data, bytes):
            self._unsent.append(call.data)
        else:
            self._unsent += call.data
        self._calls.append(call)

    def flush(self) -> None:
        """Hand what is unsent to the system."""
        unsent = self._unsent
        if unsent and self._transport is not None:
            self._unsent = []
            if len(unsent) == 1:
                self._transport.write(unsent[0])
            elif sum(map(len, unsent)) < LARGE:
                self._transport.write(b"".join(unsent))
            else:
                self._transport.writelines(unsent)

    def write(self, data: bytes) -> None:
        """Hand bytes to the system that no reply belongs to."""
        if self._transport is not None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Give each reply to its call."""
        reader, calls = self._reader, self._calls
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                if not calls:
                    self.close()
                    return
                self._tell(calls.popleft(), reply)
            if self._retired and not calls:
                self.close()
        except ProtocolError:
            self.close()

    def _tell(self, call: Call, reply: Any) -> None:
        """Hand a reply on. One call's trouble must not cost the others their replies."""
        try:
            self._replied(call, reply)
        except Exception:
            _log.exception("a reply could not be taken")

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what waits."""
        calls, self._calls = self._calls, deque()
        self.lost()
        for call in calls:
            try:
                call.done(Lost())
            except Exception:
                _log.exception("a lost call could not be concluded")

    def late(self, now: float, limit: float) -> bool:
        """Tell whether the oldest call has waited for more than `limit` seconds."""
        return bool(self._calls) and self._calls[0].sent < now - limit

    def retire(self) -> None:
        """End when everything that was sent has its reply."""
        self._retired = True
        if not self._calls:
            self.close()

    def close(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()


def code_of(error: ReplyError) -> str:
    """Return the first word of an error reply: what kind of error it is."""
    return str(error).partition(" ")[0]
