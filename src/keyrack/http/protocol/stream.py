"""An answer that goes on until its client leaves: a watch, as its connection sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.http.api.statuses import STATUS_LINES
from keyrack.http.protocol.outlet import CLOSE
from keyrack.http.watch import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.http.protocol.outlet import Outlet
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Stream
    from keyrack.http.watch.sink import Chunk, Subscription

_MOST_UNSENT: Final = 1 << 18
"""Bytes that may wait for a client before no more are sent to it."""
_LAST_CHUNK: Final = b"0\r\n\r\n"


class StreamedAnswer:
    """One client's stream. The connection ends with it. `held` is called when more waits for it."""

    __slots__ = ("_chunked", "_count_held", "_outlet", "_subscription", "request")

    ends_with_input = True
    """Who watches waits for us; closing its side is how it says goodbye."""
    held = 0

    def __init__(self, request: Request, outlet: Outlet, count_held: Callable[[], None]) -> None:
        self.request = request
        self._outlet = outlet
        self._count_held = count_held
        self._chunked = not request.head.http_1_0
        self._subscription: Subscription | None = None
        """What sends to it."""

    def start(self, stream: Stream, stamp: bytes) -> None:
        """Send the header section, which has the fields of every answer (`stamp`), and begin."""
        parts = [STATUS_LINES[200], stamp, self.request.head.shared]
        parts += [b"%b: %b\r\n" % field for field in stream.headers]
        if self._chunked:
            parts.append(b"Transfer-Encoding: chunked\r\n")
        self._outlet.transport.write(b"".join((*parts, CLOSE)))
        if self.request.method == b"HEAD":
            self._outlet.transport.close()
        else:
            self._subscription = stream.start(self)

    @property
    def full(self) -> bool:
        """Whether the client is so far behind that nothing more should be sent to it now."""
        # Only where the transport has said that it holds much is it asked how much.
        outlet = self._outlet
        return outlet.is_blocked and outlet.transport.get_write_buffer_size() > _MOST_UNSENT

    def push(self, chunk: Chunk) -> None:
        """Send a piece of the stream."""
        if self._outlet.transport.is_closing():
            return
        self._outlet.transport.write(chunk.framed if self._chunked else chunk.data)
        if self._outlet.is_blocked:
            self._count_held()

    def resume(self) -> None:
        """Go on: the client has taken all that was sent to it."""
        if self._subscription is not None:
            self._subscription.resume()

    def finish(self, reset: bytes = messages.RESET) -> None:
        """Tell the client that it missed something, or may no longer watch; end the stream."""
        if self._chunked:
            reset = b"%x\r\n%b\r\n%b" % (len(reset), reset, _LAST_CHUNK)
        self._outlet.transport.write(reset)
        self._end()

    def break_off(self) -> None:
        """End the stream where it is; the client goes on with another connection."""
        if self._subscription is None:
            return  # it has ended already, and the client is about to know
        if self._chunked:
            self._outlet.transport.write(_LAST_CHUNK)
        self._end()

    def disconnect(self) -> None:
        """Learn that the client is gone."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _end(self) -> None:
        self.disconnect()
        self._outlet.transport.close()
