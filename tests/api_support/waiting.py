"""Clients of a hub without sockets: one that watches, one that waits for a key to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.http import eager

if TYPE_CHECKING:
    from collections.abc import Callable

    from api_support.inside import Inside
    from keyrack.http.watch.sink import Chunk, Subscription
    from keyrack.http.watch.subscribers import Filter


class Sink:
    """A client that keeps what it is told. While it is `full` it reads nothing."""

    subscription: Subscription

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self.chunks: list[Chunk] = []
        self.ended = False
        self.full = False
        self._told = told

    def push(self, chunk: Chunk) -> None:
        assert not self.full, "nothing is sent to one that is full"
        self.chunks.append(chunk)
        self._told()

    def finish(self) -> None:
        self.ended = True

    def drain(self) -> None:
        """Read all that was sent, and go on reading."""
        self.full = False
        self.subscription.resume()

    @property
    def data(self) -> bytes:
        """All that was told."""
        return b"".join(chunk.data for chunk in self.chunks)


def watch(inside: Inside, filter_: Filter, since: int | None, sink: Any) -> Callable[[], None]:
    """Watch; return what ends it."""
    sink.subscription = inside.hub.watch(filter_, since, sink)
    end: Callable[[], None] = sink.subscription.close
    return end


def wait(
    inside: Inside, key: bytes, seconds: float, look: Callable[[bool], object]
) -> Callable[[], None]:
    """Look whenever a key may have changed, as a waiting read does; return what ends it."""
    gone: list[bool] = []

    async def read() -> None:
        with inside.hub.keys.waiting(key, seconds) as waiter:
            going = True
            while going and not gone:
                going = await waiter.change()
                look(not going)

    running = eager.run(read(), lambda _: None)

    def leave() -> None:
        gone.append(True)
        if running is not None:
            running.cancel()

    return leave
