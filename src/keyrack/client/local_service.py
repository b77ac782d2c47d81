"""A service that runs in this very process, as a client sees it: `keyrack.open` makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket

    from keyrack.client.wire import Response


class LocalService(Protocol):
    """What takes the requests of clients in the same process."""

    def answer(self, request: bytes) -> Response | None:
        """Return the answer to a request, in the thread that asks.

        None for one that waits for something or may take long: it goes over a connection.
        Raises `Unreachable` where the service has ended.
        """

    def connect(self) -> socket.socket:
        """Return this side of a new connection to it. Raises `OSError` where it has ended."""
