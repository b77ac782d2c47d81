"""Reading a watch: an answer that is a stream of chunks, and in it server-sent events."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from keyrack_server import Server, Wire, request

if TYPE_CHECKING:
    from collections.abc import Callable


class Message(NamedTuple):
    """One server-sent event."""

    id: int
    event: str
    data: dict[str, Any]


class Watch:
    """A connection that watches. Reads strictly: anything but chunks of whole messages fails."""

    def __init__(
        self, server: Server, query: str = "", timeout: float = 10.0, **fields: str
    ) -> None:
        self.wire = Wire(server.port, timeout)
        self.wire.send(request("GET", f"/v1/watch{query}", **fields))
        self._raw = b""
        self._text = b""
        self.ended = False
        try:
            self.head = self._head()
        except BaseException:
            self.wire.close()  # else the open socket fails a later test
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def _more(self) -> None:
        data = self.wire.socket.recv(1 << 18)
        if not data:
            raise EOFError("the stream ended without its last chunk")
        self._raw += data

    def _head(self) -> str:
        while b"\r\n\r\n" not in self._raw:
            self._more()
        head, _, self._raw = self._raw.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK"), head + self._raw
        return head.decode()

    def _chunk(self) -> None:
        while b"\r\n" not in self._raw:
            self._more()
        size, _, rest = self._raw.partition(b"\r\n")
        while len(rest) < int(size, 16) + 2:
            self._more()
            rest = self._raw.partition(b"\r\n")[2]
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        self._text += rest[:length]
        self._raw = rest[length + 2 :]
        self.ended = length == 0

    def next(self) -> Message:
        """Return the next message; comments and the opening are passed over."""
        while True:
            while b"\n\n" not in self._text:
                if self.ended:
                    raise EOFError("the stream is over")
                self._chunk()
            block, _, self._text = self._text.partition(b"\n\n")
            fields = dict(line.partition(": ")[::2] for line in block.decode().split("\n"))
            if "event" not in fields:
                assert block.startswith((b":", b"retry: ")), block
                continue
            assert set(fields) <= {"id", "event", "data"}, block
            return Message(int(fields.get("id", "-1")), fields["event"], json.loads(fields["data"]))

    def until(self, wanted: Callable[[Message], bool]) -> list[Message]:
        """Return the messages up to and with the first that is wanted."""
        found = [self.next()]
        while not wanted(found[-1]):
            found.append(self.next())
        return found

    def synced(self) -> list[Message]:
        """Return the history: what is told before `synced`."""
        return self.until(lambda message: message.event == "synced")[:-1]

    def changes(self, count: int) -> list[Message]:
        """Return so many changes; bookmarks are passed over."""
        found: list[Message] = []
        while len(found) < count:
            message = self.next()
            if message.event not in ("bookmark", "synced"):
                found.append(message)
        return found

    def silent(self, seconds: float = 0.3) -> bool:
        """Tell whether nothing more is told for a while."""
        assert not self._text
        assert not self._raw
        before = self.wire.socket.gettimeout()
        self.wire.socket.settimeout(seconds)
        try:
            self._more()
        except TimeoutError:
            return True
        finally:
            self.wire.socket.settimeout(before)
        return False

    def drained(self, seconds: float) -> bytes:
        """Read what comes until the stream ends or the time is over, and return the raw bytes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self._more()
            except (EOFError, ConnectionError):
                return self._raw
        return self._raw
