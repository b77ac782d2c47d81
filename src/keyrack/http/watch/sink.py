"""Where a stream goes, and what sends to it: the two sides of a connection that is watched."""

from __future__ import annotations

from typing import Protocol


class Chunk:
    """A piece of a stream, framed once for all who get it."""

    __slots__ = ("data", "framed")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.framed = b"%x\r\n%b\r\n" % (len(data), data)
        """As a chunk of HTTP/1.1."""


class Sink(Protocol):
    """Where a stream goes."""

    @property
    def full(self) -> bool:
        """Whether the client is so far behind that nothing more should be sent to it now."""

    def push(self, chunk: Chunk) -> None:
        """Send bytes."""

    def finish(self) -> None:
        """End the stream."""


class Subscription(Protocol):
    """What sends to a sink."""

    def resume(self) -> None:
        """Go on: the client has taken all that was sent to it."""

    def close(self) -> None:
        """End: the client has left."""
