"""Who watches on a worker, and who is told what next.

A watcher costs one write to its socket each time it is told something, which is nearly all that
telling costs. So what happens is told in rounds, in which every watcher that there is news for has
its turn once. Three things keep the lag of thousands short, and the worker free for others:

- A turn tells everything that is known by then, not what was known when the round began: news
  waits for one round at most, and not for the end of one and the whole of the next.
- Watchers with equal interests share bytes. A message is made once; what several are told from the
  same message on is joined and framed once.
- A round goes in slices of a few dozen watchers, with requests served in between.

Messages are counted from the beginning of their group, and a watcher knows which one is its next.
Each is kept until a round has passed everybody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.engines.contract import Change
from keyrack.http import events as wire
from keyrack.http.reply import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.contract import Event, Record
    from keyrack.http.reply import Sink

    Value = Callable[[bytes], Record | None]

_WATCHERS_A_SLICE: Final = 64
_BYTES_A_SLICE: Final = 1 << 20
_CROWDED: Final = 1 << 16
"""Bytes of a group's messages after which no more are read before its watchers had their turns."""
_FULL: Final = 1 << 18
"""Bytes of a group's messages after which its watchers are told the rest from the log."""
_HEARTBEAT: Final = Chunk(wire.HEARTBEAT)


class Interests(NamedTuple):
    """Which events and how a watcher wants them. Watchers with equal interests share bytes."""

    prefixes: tuple[bytes, ...]
    values: bool
    chosen: bool = False
    """The prefixes were chosen for the client, which is then told of them."""


class Watcher:
    """A client that watches. `sent` is the last revision that it has been told of."""

    __slots__ = ("group", "interests", "position", "sent", "sink", "synced")

    def __init__(self, interests: Interests, sink: Sink, sent: int) -> None:
        self.interests = interests
        self.sink = sink
        self.sent = sent
        self.synced = False
        self.group: Group | None = None
        self.position = 0
        """The number of the message that it is told next."""


class Group:
    """Watchers with equal interests, and the messages that not all of them have been told."""

    __slots__ = (
        "_chunks",
        "_first",
        "_mark",
        "_messages",
        "_revisions",
        "end",
        "full",
        "interests",
        "reached",
        "size",
        "watchers",
    )

    def __init__(self, interests: Interests) -> None:
        self.interests = interests
        self.watchers: dict[Watcher, None] = {}
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
        self.full = self.size > _FULL

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


class Audience:
    """The watchers of one worker that are up to date. `behind` takes those that do not keep up."""

    def __init__(self, behind: Callable[[Watcher], None]) -> None:
        self._behind = behind
        self._groups: dict[Interests, Group] = {}
        self._index: dict[bytes, list[Group]] | None = None
        """Which groups watch a prefix; None when groups have come or gone since it was made."""
        self._lengths: list[int] = []
        self._queue: deque[Watcher] = deque()
        self._fresh: dict[Group, None] = {}
        """Groups with messages that have come since the present round began."""
        self._passing: dict[Group, None] = {}
        self._beat_due = False
        self._beating = False
        self._seen = 0

    def __bool__(self) -> bool:
        """Whether anybody is here."""
        return bool(self._groups)

    def __iter__(self) -> Iterator[Watcher]:
        """Yield all watchers. They may leave meanwhile."""
        for group in list(self._groups.values()):
            yield from list(group.watchers)

    @property
    def crowded(self) -> bool:
        """Whether what is there should be told before more is read."""
        return any(group.size > _CROWDED for group in self._fresh)

    @property
    def waits(self) -> bool:
        """Whether there is news for the next round."""
        return bool(self._fresh or self._queue or self._beat_due)

    # Coming and going

    def join(self, watcher: Watcher) -> None:
        """Tell a watcher what happens from now on."""
        group = self._groups.get(watcher.interests)
        if group is None or group.full:
            group = self._groups[watcher.interests] = Group(watcher.interests)
            self._index = None
        watcher.group = group
        watcher.position = group.end
        group.watchers[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        """Tell it no more."""
        group, watcher.group = watcher.group, None
        if group is None:
            return
        del group.watchers[watcher]
        if not group.watchers and self._groups.get(group.interests) is group:
            del self._groups[group.interests]
            self._index = None

    # News

    def sort(self, events: list[Event]) -> dict[Group, list[Event]]:
        """Return which events each group is to be told of.

        A thousand watchers of a prefix each cost a look-up for each length of prefix, not a
        thousand comparisons for each event.
        """
        if self._index is None:
            self._index = {}
            for group in self._groups.values():
                for prefix in group.interests.prefixes:
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

    def add(self, sorted_: dict[Group, list[Event]], seen: int, value: Value) -> None:
        """Have groups told of events; `seen` is the revision up to which that is all."""
        self._seen = seen
        for group, events in sorted_.items():
            values = group.interests.values
            for event in events:
                group.add(event.revision, message(event, values, value))
                if group.full:
                    break
            else:
                group.reached = seen
            self._fresh[group] = None

    def beat(self) -> None:
        """Give everybody a sign of life with the next round."""
        self._beat_due = True

    # Rounds

    def begin_round(self) -> None:
        """Let everybody for whom there is news have a turn."""
        self._passing, self._fresh = self._fresh, {}
        for group in self._passing:
            group.begin_round()
            self._queue += group.watchers
        if self._beat_due:
            self._beat_due = False
            self._beating = True
            self._queue += self

    def tell_some(self) -> bool:
        """Give the next few their turns; say whether others still wait for theirs."""
        queue = self._queue
        size = 0
        for _ in range(min(_WATCHERS_A_SLICE, len(queue))):
            watcher = queue.popleft()
            group = watcher.group
            if group is None:
                continue  # it left
            if watcher.position != group.end:
                size += self._tell(watcher, group)
                if size > _BYTES_A_SLICE:
                    break
            elif self._beating:
                self._sign(watcher)
        return bool(queue)

    def end_round(self) -> None:
        """Everybody had a turn: let go of what has been told."""
        self._beating = False
        for group in self._passing:
            group.end_round()
        self._passing = {}

    def _tell(self, watcher: Watcher, group: Group) -> int:
        first, chunk = group.news(watcher.position)
        if watcher.sent >= first:
            # It came with more than the others had been told, and gets the rest apart.
            self._fall_behind(watcher)
            return 0
        if not watcher.sink.push(chunk):
            watcher.sent = first - 1
            self._fall_behind(watcher)
            return 0
        watcher.position = group.end
        watcher.sent = group.reached
        if group.full:
            self._fall_behind(watcher)
        return len(chunk.data)

    def _fall_behind(self, watcher: Watcher) -> None:
        self.leave(watcher)
        self._behind(watcher)

    def _sign(self, watcher: Watcher) -> None:
        if watcher.sent < self._seen:
            watcher.sent = self._seen
            watcher.sink.push(Chunk(wire.bookmark(self._seen)))
        else:
            watcher.sink.push(_HEARTBEAT)


def message(event: Event, values: bool, value: Value) -> bytes:
    """Return the message of an event, with the value that its key has now where that is wanted."""
    if not values:
        return wire.plain(event)
    return wire.with_value(event, value(event.key) if event.change is Change.SET else None)
