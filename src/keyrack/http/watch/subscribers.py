"""Who watches on a worker and keeps up, and who is told what next.

A subscriber costs one write to its socket each time it is told something, which is nearly all that
telling costs. So what happens is told in rounds, in which every subscriber that there is news for
has its turn once. Three things keep the lag of thousands short, and the worker free for others:

- A turn tells everything that is known by then, not what was known when the round began: news
  waits for one round at most, and not for the end of one and the whole of the next.
- Subscribers with equal filters share bytes. A message is made once; what several are told from the
  same message on is joined and framed once.
- A round goes in slices of a few dozen subscribers, with requests served in between.

Messages are counted from the beginning of their group; a subscriber knows which one is its next.
Each is kept until a round has passed everybody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.engines.contract import Change
from keyrack.http.watch import messages
from keyrack.http.watch.sink import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from keyrack.engines.contract import Event, Record
    from keyrack.http.watch.sink import Sink

    Values = Mapping[bytes, Record | None]

_SUBSCRIBERS_A_SLICE: Final = 64
_BYTES_A_SLICE: Final = 1 << 20
_BACKLOG_BYTES: Final = 1 << 16
"""Bytes of a group's messages after which no more are read before all had their turns."""
_FULL_BYTES: Final = 1 << 18
"""Bytes of a group's messages after which its subscribers are told the rest from the log."""
_HEARTBEAT: Final = Chunk(messages.HEARTBEAT)


class Filter(NamedTuple):
    """Which events and how a subscriber wants them. Subscribers with equal filters share bytes."""

    prefixes: tuple[bytes, ...]
    values: bool
    chosen: bool = False
    """The prefixes were chosen for the client, which is then told of them."""


class Subscriber:
    """A client that watches. `sent` is the last revision that it has been told of."""

    __slots__ = ("filter", "group", "position", "sent", "sink", "synced")

    def __init__(self, filter_: Filter, sink: Sink, sent: int) -> None:
        self.filter = filter_
        self.sink = sink
        self.sent = sent
        self.synced = False
        """It has been told that what comes now is news."""
        self.group: Group | None = None
        self.position = 0
        """The number of the message that it is told next."""


class Group:
    """Subscribers with equal filters, and the messages that not all of them have been told."""

    __slots__ = (
        "_chunks",
        "_first",
        "_mark",
        "_messages",
        "_revisions",
        "end",
        "filter",
        "full",
        "reached",
        "size",
        "subscribers",
    )

    def __init__(self, filter_: Filter) -> None:
        self.filter = filter_
        self.subscribers: dict[Subscriber, None] = {}
        self.end = 0
        """The number of the next message."""
        self.reached = 0
        """The revision that the messages reach; all wanted events up to it are in them."""
        self.size = 0
        self.full = False
        self._messages: list[bytes] = []
        self._revisions: list[int] = []
        self._first = 0
        self._mark = 0
        self._chunks: dict[int, tuple[int, Chunk]] = {}

    def add(self, revision: int, message: bytes) -> None:
        """Have a message told, unless there are too many."""
        if self.full:
            return
        self._messages.append(message)
        self._revisions.append(revision)
        self._chunks.clear()
        self.end += 1
        self.reached = revision
        self.size += len(message)
        self.full = self.size > _FULL_BYTES

    def news(self, position: int) -> tuple[int, Chunk]:
        """Return the revision of a message, and the bytes from it on."""
        found = self._chunks.get(position)
        if found is None:
            start = position - self._first
            chunk = Chunk(b"".join(self._messages[start:]))
            found = self._chunks[position] = self._revisions[start], chunk
        return found

    def begin_round(self) -> None:
        """Remember what everybody will have been told at the end of this round, at least."""
        self._mark = self.end

    def end_round(self) -> None:
        """Let go of the messages that everybody has been told."""
        told = self._mark - self._first
        self.size -= sum(map(len, self._messages[:told]))
        del self._messages[:told], self._revisions[:told]
        self._chunks.clear()
        self._first = self._mark


class Subscribers:
    """The subscribers of one worker that are synced. `behind` takes those that do not keep up."""

    def __init__(self, behind: Callable[[Subscriber], None]) -> None:
        self._behind = behind
        self._groups: dict[Filter, Group] = {}
        self._index: dict[bytes, list[Group]] | None = None
        """Which groups watch a prefix; None when groups have come or gone since it was made."""
        self._lengths: list[int] = []
        self._queue: deque[Subscriber] = deque()
        self._fresh: dict[Group, None] = {}
        """Groups with messages that have come since the present round began."""
        self._passing: dict[Group, None] = {}
        self._beat_due = False
        self._beating = False
        self._seen = 0

    def __bool__(self) -> bool:
        """Whether anybody is here."""
        return bool(self._groups)

    def __len__(self) -> int:
        """Return how many are here."""
        return sum(len(group.subscribers) for group in self._groups.values())

    def __iter__(self) -> Iterator[Subscriber]:
        """Yield all subscribers. They may leave meanwhile."""
        for group in list(self._groups.values()):
            yield from list(group.subscribers)

    @property
    def backlogged(self) -> bool:
        """Whether what is there should be told before more is read."""
        return any(group.size > _BACKLOG_BYTES for group in self._fresh)

    @property
    def waits(self) -> bool:
        """Whether there is news for the next round."""
        return bool(self._fresh or self._queue or self._beat_due)

    # Coming and going

    def join(self, subscriber: Subscriber) -> None:
        """Tell a subscriber what happens from now on."""
        group = self._groups.get(subscriber.filter)
        if group is None or group.full:
            group = self._groups[subscriber.filter] = Group(subscriber.filter)
            self._index = None
        subscriber.group = group
        subscriber.position = group.end
        group.subscribers[subscriber] = None

    def leave(self, subscriber: Subscriber) -> None:
        """Tell it no more."""
        group, subscriber.group = subscriber.group, None
        if group is None:
            return
        del group.subscribers[subscriber]
        if not group.subscribers and self._groups.get(group.filter) is group:
            del self._groups[group.filter]
            self._index = None

    # News

    def sort(self, events: list[Event]) -> dict[Group, list[Event]]:
        """Return which events each group is to be told of.

        A thousand subscribers of a prefix each cost a look-up for each length of prefix, not a
        thousand comparisons for each event.
        """
        if self._index is None:
            self._index = {}
            for group in self._groups.values():
                for prefix in group.filter.prefixes:
                    self._index.setdefault(prefix, []).append(group)
            self._lengths = sorted({len(prefix) for prefix in self._index})
        found: dict[Group, list[Event]] = {}
        for event in events:
            if event.change > Change.EVICT:
                continue
            for length in self._lengths:
                for group in self._index.get(event.key[:length], ()):
                    wanted = found.setdefault(group, [])
                    if not wanted or wanted[-1] is not event:
                        wanted.append(event)
        return found

    def add(self, group: Group, events: list[Event], values: Values) -> None:
        """Have a group told of events, as many as it may hold; `values` are those of its keys."""
        for event in events:
            group.add(event.revision, message(event, group.filter.values, values))
            if group.full:
                break
        self._fresh[group] = None

    def know(self, groups: Iterable[Group], seen: int) -> None:
        """Note that groups have everything that they are to be told up to a revision."""
        self._seen = seen
        for group in groups:
            if not group.full:
                group.reached = seen

    def beat(self) -> None:
        """Give everybody a sign of life with the next round."""
        self._beat_due = True

    # Rounds

    def begin_round(self) -> None:
        """Let everybody for whom there is news have a turn."""
        self._passing, self._fresh = self._fresh, {}
        for group in self._passing:
            group.begin_round()
            self._queue += group.subscribers
        if self._beat_due:
            self._beat_due = False
            self._beating = True
            self._queue += self

    def tell_some(self) -> bool:
        """Give the next few their turns; say whether others still wait for theirs."""
        queue = self._queue
        size = 0
        for _ in range(min(_SUBSCRIBERS_A_SLICE, len(queue))):
            subscriber = queue.popleft()
            group = subscriber.group
            if group is None:
                continue  # it left
            if subscriber.position != group.end:
                size += self._tell(subscriber, group)
                if size > _BYTES_A_SLICE:
                    break
            elif self._beating:
                self._sign(subscriber)
        return bool(queue)

    def end_round(self) -> None:
        """Everybody had a turn: let go of what has been told."""
        self._beating = False
        for group in self._passing:
            group.end_round()
        self._passing = {}

    def _tell(self, subscriber: Subscriber, group: Group) -> int:
        first, chunk = group.news(subscriber.position)
        if subscriber.sent >= first:
            # It came with more than the others had been told, and gets the rest apart.
            self._fall_behind(subscriber)
            return 0
        if subscriber.sink.full:
            subscriber.sent = first - 1
            self._fall_behind(subscriber)
            return 0
        subscriber.sink.push(chunk)
        subscriber.position = group.end
        subscriber.sent = group.reached
        if group.full:
            self._fall_behind(subscriber)
        return len(chunk.data)

    def _fall_behind(self, subscriber: Subscriber) -> None:
        self.leave(subscriber)
        self._behind(subscriber)

    def _sign(self, subscriber: Subscriber) -> None:
        if subscriber.sent < self._seen:
            subscriber.sent = self._seen
            subscriber.sink.push(Chunk(messages.bookmark(self._seen)))
        else:
            subscriber.sink.push(_HEARTBEAT)


def message(event: Event, with_value: bool, values: Values) -> bytes:
    """Return the message of an event, with the value that its key has now where that is wanted."""
    if not with_value:
        return messages.plain(event)
    record = values.get(event.key) if event.change is Change.SET else None
    return messages.with_value(event, record)
