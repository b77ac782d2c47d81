"""Watching keys: what a stream of server-sent events means, and how it goes on when it breaks off.

Nothing here touches a socket. `Watching` knows the position, makes the request that goes on from
there, and turns what comes into events, each once and in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from keyrack.client import chance, json_text, many, wire
from keyrack.client.batching import loaded
from keyrack.client.errors import HistoryGone, ProtocolError, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.client.calls import ApiCall
    from keyrack.client.keys import KeyCalls
    from keyrack.client.many import ScanPage

SILENCE_SECONDS: Final = 45.0
"""A stream without a byte for so long is dead: a sign of life comes every 15 s."""
_LONGEST_LINE_BYTES: Final = 1 << 28
_LEAST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 5.0
_CHANGES: Final = frozenset(("set", "delete", "expire", "evict"))
_PAGE_KEYS: Final = 1000


class WatchEvent(NamedTuple):
    """A change: `kind` is `set`, `delete`, `expire` or `evict`.

    `value` is the key's when the event was sent, where values were asked for; `has_value` tells
    whether there was one. `synced` is False for what a listing told, whose time is not known.
    """

    kind: str
    key: str
    revision: int
    time: str | None
    value: Any = None
    has_value: bool = False
    synced: bool = True


class Reset(NamedTuple):
    """What was told before does not count any more: all present keys follow, then `Synced`."""

    revision: int


class Synced(NamedTuple):
    """Everything up to a revision has been told."""

    revision: int


WatchItem: TypeAlias = WatchEvent | Reset | Synced


class Message(NamedTuple):
    """A message of an event stream."""

    id: str
    event: str
    data: str


class EventStream:
    """Takes the bytes of a `text/event-stream` as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are whole now. Raises `ProtocolError`."""
        if b"\n" not in data:
            self._rest += data
            if len(self._rest) > _LONGEST_LINE_BYTES:
                raise ProtocolError("A line of the event stream is too long.")
            return []
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        found = [self._line(line) for line in lines]
        return [message for message in found if message is not None]

    def _line(self, raw: bytes) -> Message | None:
        try:
            line = raw.rstrip(b"\r").decode()
        except UnicodeDecodeError:
            raise ProtocolError("The event stream is not UTF-8.") from None
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in self._fields:
                value = self._fields["data"] + "\n" + value
            if name:
                self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        return Message(fields.get("id", ""), fields.get("event", ""), fields["data"])


class Watching:
    """Where a watch is. `position` can be kept, and given as `since` to another one."""

    def __init__(
        self,
        keys: KeyCalls,
        prefixes: tuple[str | bytes, ...],
        since: int | None,
        values: bool,
        resync: bool,
    ) -> None:
        self._keys = keys
        self._prefixes = tuple(keys.requests.prefix_of(one) for one in prefixes or ("",))
        self._values = values
        self.resync = resync
        self.position = since
        self._stream = EventStream()
        self._failures = 0
        self._gone: HistoryGone | None = None

    @property
    def must_list(self) -> bool:
        """Whether all present keys have to be listed before the next stream."""
        return self.resync and self.position is None

    def request(self) -> bytes:
        """Return the request that goes on from the position."""
        self._stream = EventStream()
        asked: list[tuple[str, str | bytes]] = [("prefix", prefix) for prefix in self._prefixes]
        if self._values:
            asked.append(("values", "true"))
        if self.position is not None:
            asked.append(("since", str(self.position)))
        fields = b"Accept: text/event-stream\r\n"
        return self._keys.requests.request(b"GET", b"/v1/watch" + wire.query(asked), fields)

    def feed(self, data: bytes) -> Iterator[WatchItem]:
        """Yield what the bytes of the stream tell; the position goes on with what is taken.

        Raises `ProtocolError` or `HistoryGone`.
        """
        for message in self._stream.feed(data):
            self._failures = 0
            if (item := self._item(message)) is not None:
                yield item

    def _item(self, message: Message) -> WatchItem | None:
        if message.event == "reset":
            if '"reason":"revoked"' in message.data:
                return None  # the next request is told why it may not watch any more
            gone = HistoryGone(410, "This watch was too far behind. List the keys, then watch.")
            self.lost(gone)
            return None
        if not message.id.isdigit() or len(message.id) > 19:
            raise ProtocolError("An event of the watch has no revision.")
        revision = int(message.id)
        known, self.position = self.position, revision
        if message.event == "synced":
            return Synced(revision) if self.resync else None
        if message.event not in _CHANGES or (known is not None and revision <= known):
            # What was told already, or is of a kind that is not known here, is passed over.
            self.position = revision if known is None else max(known, revision)
            return None
        return self._change(message)

    def _change(self, message: Message) -> WatchEvent:
        try:
            shown = json_text.loads(message.data)
        except (ValueError, RecursionError):
            raise ProtocolError("An event of the watch cannot be read.") from None
        told = many.key_event(self._keys.requests, message.event, shown)
        if "value" not in shown:
            return WatchEvent(*told)
        value = loaded(self._keys, shown, self._keys.requests.key(told.key))
        return WatchEvent(*told, value=value, has_value=True)

    def lost(self, error: HistoryGone) -> None:
        """Begin anew with a listing, or raise the error where that is not wanted."""
        if not self.resync:
            raise error
        self.position = None

    def backoff(self) -> float:
        """Return how long to wait before the next try, after one that failed."""
        longest = min(_LONGEST_BACKOFF_SECONDS, _LEAST_BACKOFF_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        return chance.uniform(longest / 2, longest)

    # The listing

    def page(self, prefix: bytes, after: str | None) -> ApiCall[ScanPage]:
        """Return the call for a page of the listing."""
        plain = self._keys.requests.prefix
        return many.page(
            self._keys, prefix[len(plain) :], after, _PAGE_KEYS, None, self._values, False
        )

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """The prefixes that are watched, the client's own included."""
        return self._prefixes

    def listed(self, page: ScanPage) -> Iterator[WatchEvent]:
        """Yield what a page of the listing tells."""
        for item in page.items:
            if isinstance(item, many.ScanEntry):
                yield WatchEvent(
                    "set",
                    item.key,
                    int(item.etag.strip('"')),
                    None,
                    item.value,
                    has_value=self._values,
                    synced=False,
                )


def ends_a_watch(error: Refused) -> bool:
    """Tell whether a refusal is the end of a watch, because asking again would change nothing."""
    return error.status < 500 and error.status not in (408, 429)
