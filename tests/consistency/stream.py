"""A client of `/v1/watch` that comes back, with `Last-Event-ID`, whenever its stream ends."""

from __future__ import annotations

import contextlib
import json
import random
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from keyrack_server import request

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from keyrack_server import Server, Wire

_SILENCE = 20.0
"""Seconds without a byte after which a stream is dead: it has a heartbeat every 15."""


END: Final = "the end of the watch"
"""A key that every watcher watches besides its prefixes; it leaves when that is set."""


class Told(NamedTuple):
    """A change that a watcher was told of."""

    revision: int
    event: str
    key: str


class Message(NamedTuple):
    """A message of an event stream."""

    id: str
    event: str
    data: str


class Stream:
    """The messages of one connection, until it ends."""

    def __init__(self, wire: Wire) -> None:
        self._socket: socket.socket = wire.socket
        self._raw = b""
        self._text = b""
        self.status = 0

    def messages(self) -> Iterator[list[Message]]:
        """Yield the whole messages of each piece that arrives; one that is cut off is dropped."""
        while data := self._received():
            self._raw += data
            self._take_head()
            while self._take_chunk():
                pass
            *whole, self._text = self._text.split(b"\n\n")
            yield [message for text in whole if (message := _parsed(text)) is not None]

    def _received(self) -> bytes:
        try:
            return self._socket.recv(1 << 18)
        except TimeoutError:
            raise AssertionError(f"nothing was sent for {_SILENCE:g} seconds") from None
        except OSError:
            return b""

    def _take_head(self) -> None:
        if self.status:
            return
        head, end, rest = self._raw.partition(b"\r\n\r\n")
        if end:
            self.status = int(head.split(b" ")[1])
            assert self.status == 200, self._raw
            self._raw = rest

    def _take_chunk(self) -> bool:
        size, end, rest = self._raw.partition(b"\r\n")
        if not self.status or not end or len(rest) < int(size, 16) + 2:
            return False
        self._text += rest[: int(size, 16)]
        self._raw = rest[int(size, 16) + 2 :]
        return True


def _parsed(text: bytes) -> Message | None:
    """Return a message, None for one that is only a comment or `retry`."""
    found = {"id": "", "event": "", "data": ""}
    for line in text.decode().split("\n"):
        name, _, value = line.partition(": ")
        if name in found:
            found[name] = value
    return Message(**found) if found["event"] else None


class Watcher:
    """Sees to it that it is told of every change under some prefixes, from `since` on.

    `leaves` is the probability with which it hangs up after a piece, for no reason.
    """

    def __init__(
        self, server: Server, prefixes: tuple[str, ...], since: int, leaves: float, seed: int
    ) -> None:
        self._server = server
        self._leaves = leaves
        self._chance = random.Random(seed)
        self.prefixes = prefixes
        self.since = since
        self.last_id = str(since)
        self.told: list[Told] = []
        self.connections = 0

    def run(self) -> None:
        """Watch until the key END is set."""
        while not self._enough():
            with contextlib.suppress(ConnectionError):
                self._watch_once()

    def _enough(self) -> bool:
        return bool(self.told) and self.told[-1].key == END

    def _watch_once(self) -> None:
        query = "&".join(f"prefix={prefix}" for prefix in (*self.prefixes, quote(END)))
        self.connections += 1
        with self._server.connect(_SILENCE) as wire:
            wire.send(request("GET", f"/v1/watch?{query}", Last_Event_ID=self.last_id))
            for messages in Stream(wire).messages():
                for message in messages:
                    self._take(message)
                if self._enough() or self._chance.random() < self._leaves:
                    return

    def _take(self, message: Message) -> None:
        assert message.event != "reset", "this watcher keeps up"
        if message.event not in ("synced", "bookmark"):
            data = json.loads(message.data)
            assert data["revision"] == message.id
            self.told.append(Told(int(message.id), message.event, data["key"]))
        self.last_id = message.id
