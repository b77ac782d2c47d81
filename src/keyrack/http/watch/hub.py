"""What a worker's waiting clients are told about changes: subscribers, waiting reads and locks.

Every worker with waiting clients reads the event log once for all of them, in a task that is woken
by the worker's own commits and, through an eventfd, by those of other workers; while nothing
changes nothing runs, however many wait. A subscriber is *synced* while it is told what happens as
it happens, together with all others (`subscribers`). It is *unsynced* while it is told from the
log, a piece at a time: at first, when it came with an old position, and whenever it does not keep
up. One whose connection is full is left alone until its client has read: where there are only such,
the log is not even read.

Between two rounds news gathers for as long as the last one took, up to 5 ms: so a subscriber costs
one write a round, and not one a change. Others are served between the slices of a round, not after
it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import LEASE, Change, StoreAway
from keyrack.http import eager
from keyrack.http.watch import messages
from keyrack.http.watch.sink import Chunk
from keyrack.http.watch.subscribers import Filter, Subscriber, Subscribers, message
from keyrack.http.watch.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Engine, Event
    from keyrack.http.eager import Running
    from keyrack.http.watch.sink import Sink, Subscription
    from keyrack.http.watch.subscribers import Group, Values

_LONGEST_PAUSE: Final = 0.005
_EVENTS_A_ROUND: Final = 500
_PIECE_BYTES: Final = 1 << 18
"""Bytes of events that are sent to an unsynced subscriber at once."""
_VALUES_A_READ: Final = 32
_AWAY_PAUSE: Final = 0.5
"""Until a store that did not answer is asked again."""
_BEAT: Final = 15.0
"""Seconds between two signs of life on a stream on which nothing happens."""

_log = logging.getLogger("keyrack.http")


class WatchHub:
    """The waiting clients of one worker. `interested` tells other workers whether to wake it.

    `keys` are the requests that wait for a key to change, `locks` those that wait for a lock.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        interested: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._interested = interested
        self.keys = Waiters(loop, self._join, self._part)
        self.locks = Waiters(loop, self._join, self._part)
        self._synced = Subscribers(self._fall_behind)
        self._unsynced: set[Subscriber] = set()
        self._ready: dict[Subscriber, None] = {}
        """Unsynced ones that can be told more; the others' connections are full."""
        self._seen = 0
        """The revision up to which those that are synced know everything, or soon will."""
        self._begun = False
        """Whether `_seen` holds: changes after it are told, whatever happens."""
        self._news = asyncio.Event()
        """Something was committed that has not been read yet."""
        self._behind = asyncio.Event()
        """Somebody is ready."""
        self._telling = False
        self._beginning: Running[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._beat: asyncio.TimerHandle | None = None
        self.resets = 0
        """How many subscribers were told that they have missed something, and ended."""

    @property
    def watchers(self) -> int:
        """How many subscribers there are."""
        return len(self._synced) + len(self._unsynced)

    @property
    def waiting(self) -> int:
        """How many requests wait for a key to change, or for a lock."""
        return len(self.keys) + len(self.locks)

    @property
    def active(self) -> bool:
        """Whether there is anybody who can be told something."""
        return bool(self._synced or self._ready or self.keys or self.locks)

    def wake(self) -> None:
        """Something was committed, here or elsewhere."""
        if self._tasks:
            self._news.set()

    def _join(self) -> bool:
        """Become interested; tell whether nothing that happens from now on is missed."""
        if not self._tasks:
            self._interested(True)
            self._beat = self._loop.call_later(_BEAT, self._beats)
            self._tasks = [
                self._loop.create_task(work) for work in (self._tell_news(), self._tell_history())
            ]
            # At once where the store is at hand: whoever comes first misses nothing either.
            self._beginning = eager.run(self._begin(), _ignore)
        return self._begun

    def _part(self) -> None:
        if self.active or not self._tasks:
            return
        self._interested(False)
        self._begun = False
        self._telling = False
        if self._beginning is not None:
            self._beginning.cancel()
        self._news.clear()
        self._behind.clear()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _beats(self) -> None:
        self._beat = self._loop.call_later(_BEAT, self._beats)
        # Nothing is known that could lose a wake-up; if something does, it costs one beat.
        self._synced.beat()
        self.wake()

    # News

    async def _tell_news(self) -> None:
        while True:
            await self._news.wait()
            if not self._begun:
                self._news.clear()  # all that is known then is read when it begins
                continue
            began = time.monotonic()
            self._telling = True
            try:
                await self._round()
            except Exception as error:
                # A defect must not be the end of all rounds.
                if not isinstance(error, StoreAway):
                    _log.exception("telling what has changed failed; it is tried again")
                self._news.set()
                await asyncio.sleep(_AWAY_PAUSE)
            self._telling = False
            await asyncio.sleep(min(time.monotonic() - began, _LONGEST_PAUSE))

    async def _begin(self) -> None:
        """Find the present revision, from which on nothing is missed."""
        while True:
            try:
                self._seen = (await self._engine.history())[1]
                break
            except Exception as error:
                if not isinstance(error, StoreAway):
                    _log.exception("the engine failed")
                await asyncio.sleep(_AWAY_PAUSE)
        self._begun = True
        for subscriber in self._unsynced:
            if subscriber.sent < 0:
                subscriber.sent = self._seen
        self.keys.call_everybody_soon()
        self.locks.call_everybody_soon()
        self._news.set()
        self._behind.set()

    async def _round(self) -> None:
        """Read what is new, and give everybody for whom there is some a turn.

        A turn tells all that is known by then: between two slices more is read, unless those that
        had their turns could not keep up with it.
        """
        await self._read_news()
        self._synced.begin_round()
        while self._tell_slice():
            await asyncio.sleep(0)
            if self._news.is_set() and not self._synced.backlogged:
                await self._read_news()
        self._synced.end_round()
        if self._synced.waits:
            self._news.set()

    def _tell_slice(self) -> bool:
        """Tell a few dozen; what is written to them goes out before the next slice."""
        left = [self._synced.tell_some(), self.keys.call_some(), self.locks.call_some()]
        return any(left)

    async def _read_news(self) -> None:
        self._news.clear()
        events, missed = await self._read_log(self._seen)
        if missed:
            newest = (await self._engine.history())[1]
            self._miss()
            # Where changes that were told are lost, the history ends below what was seen.
            self._seen = newest if not events else self._seen
        if not events:
            return
        # Now and not when values have come: whoever joins meanwhile must not miss these.
        self._seen = seen = max(self._seen, events[-1].revision)
        groups = self._synced.sort(events)
        try:
            for group, wanted in groups.items():
                await self._add(group, wanted)
        except Exception:
            self._miss()
            raise
        self._synced.know(groups, seen)
        for event in events:
            if event.change is Change.UNLOCK and event.key.startswith(LEASE):
                self.keys.call_all_soon(event.key.removeprefix(LEASE))
            elif event.change is Change.UNLOCK:
                self.locks.call_first(event.key)
            elif event.change <= Change.EVICT:
                self.keys.call_all_soon(event.key)
        if len(events) >= _EVENTS_A_ROUND:
            self._news.set()

    async def _add(self, group: Group, events: list[Event]) -> None:
        """Have a group told of events, with values where it wants them, as far as it can hold."""
        if not group.filter.values:
            self._synced.add(group, events, {})
            return
        for start in range(0, len(events), _VALUES_A_READ):
            if group.full:
                return
            some = events[start : start + _VALUES_A_READ]
            self._synced.add(group, some, await self._values(some))

    async def _read_log(self, after: int) -> tuple[list[Event], bool]:
        """Return events after a revision, and whether some were forgotten before them."""
        events = await self._engine.events_after(after, _EVENTS_A_ROUND)
        if events and events[0].revision == after + 1:
            return events, False
        return events, (await self._engine.history(after))[0] > after

    async def _values(self, events: list[Event]) -> Values:
        """Return the values that the keys of events have now, none if they cannot be read now."""
        keys = list({event.key for event in events if event.change is Change.SET})
        if not keys:
            return {}
        try:
            return dict(zip(keys, await self._engine.get_many(keys), strict=True))
        except StoreAway:
            return {}

    def _miss(self) -> None:
        """Something happened that cannot be told any more: begin anew, or look again."""
        missed = [one for one in self._unsynced if one.sent >= self._seen]
        for subscriber in [*self._synced, *missed]:
            self._reset(subscriber)
        self.keys.call_everybody_soon()
        self.locks.call_everybody_soon()

    # Subscribers

    def watch(
        self, filter_: Filter, since: int | None, sink: Sink, first: bytes = b""
    ) -> Subscription:
        """Tell `sink` of changes from now on, or first of those after `since`.

        The caller has made sure that the log still reaches back to `since`. `first` is told before
        anything else.
        """
        begun = self._join()
        present = self._seen if begun else -1
        subscriber = Subscriber(filter_, sink, present if since is None else since)
        sink.push(Chunk(messages.OPENING + first))
        self._fall_behind(subscriber)
        return _Watching(self, subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Tell a subscriber no more."""
        self._unsynced.discard(subscriber)
        self._ready.pop(subscriber, None)
        self._synced.leave(subscriber)
        self._part()

    def resume(self, subscriber: Subscriber) -> None:
        """Tell a subscriber more, whose client has read what it was told."""
        if subscriber in self._unsynced:
            self._join()
            self._ready.pop(subscriber, None)
            self._ready[subscriber] = None
            self._behind.set()

    def _fall_behind(self, subscriber: Subscriber) -> None:
        """Tell a subscriber from the log, or when its client has read, if it is full."""
        self._ready.pop(subscriber, None)
        self._unsynced.add(subscriber)
        if subscriber.sink.full:
            self._part()
        else:
            self.resume(subscriber)

    async def _tell_history(self) -> None:
        """Tell those that are ready what they have not been told, each a piece in its turn."""
        while True:
            await self._behind.wait()
            if not self._ready or not self._begun:
                self._behind.clear()
                continue
            subscriber = next(iter(self._ready))
            try:
                await self._catch_up(subscriber)
            except Exception as error:
                if not isinstance(error, StoreAway):
                    _log.exception("telling what has changed failed; it is tried again")
                self.resume(subscriber)
                await asyncio.sleep(_AWAY_PAUSE)
            await asyncio.sleep(0)

    async def _catch_up(self, subscriber: Subscriber) -> None:
        """Send a piece of the history; one for whom nothing is left of it is synced then.

        The log is the buffer of those that read slowly: it is read on as they take what was sent.
        """
        missed, data, reached = False, b"", self._seen
        if subscriber.sent < self._seen:
            missed, data, reached = await self._history_for(subscriber)
        if subscriber not in self._unsynced:
            return  # it has left meanwhile
        if missed:
            self._reset(subscriber)
            return
        if data:
            subscriber.sink.push(Chunk(data))
        subscriber.sent = max(subscriber.sent, reached)
        if subscriber.sent < self._seen or subscriber.sink.full:
            self._fall_behind(subscriber)
            return
        self._unsynced.discard(subscriber)
        self._ready.pop(subscriber, None)
        if not subscriber.synced:
            subscriber.synced = True
            filter_ = subscriber.filter
            prefixes = filter_.prefixes if filter_.chosen else None
            subscriber.sink.push(Chunk(messages.synced(subscriber.sent, prefixes)))
        self._synced.join(subscriber)

    async def _history_for(self, subscriber: Subscriber) -> tuple[bool, bytes, int]:
        """Return whether some of it is gone, else a piece of it and the revision it reaches."""
        seen = self._seen
        events, missed = await self._read_log(subscriber.sent)
        # What the others have not been told yet, this one is told with them.
        events = [event for event in events if event.revision <= seen]
        if missed or not events:
            return missed, b"", seen
        wanted = [event for event in events if _wants(subscriber.filter, event)]
        parts: list[bytes] = []
        size = 0
        for start in range(0, len(wanted), _VALUES_A_READ):
            some = wanted[start : start + _VALUES_A_READ]
            values = await self._values(some) if subscriber.filter.values else {}
            for event in some:
                parts.append(message(event, subscriber.filter.values, values))
                size += len(parts[-1])
                if size > _PIECE_BYTES:
                    return False, b"".join(parts), event.revision
        return False, b"".join(parts), events[-1].revision

    def _reset(self, subscriber: Subscriber) -> None:
        """Tell a client that the log does not reach back to it any more, and close."""
        self._unsynced.discard(subscriber)
        self._ready.pop(subscriber, None)
        self._synced.leave(subscriber)
        self.resets += 1
        subscriber.sink.finish()


class _Watching:
    """A subscriber's connection to the hub."""

    __slots__ = ("_hub", "_subscriber")

    def __init__(self, hub: WatchHub, subscriber: Subscriber) -> None:
        self._hub = hub
        self._subscriber = subscriber

    def resume(self) -> None:
        """Go on: the client has taken all that was sent to it."""
        self._hub.resume(self._subscriber)

    def close(self) -> None:
        """End: the client has left."""
        self._hub.leave(self._subscriber)


def _ignore(_: None) -> None:
    """Do nothing with it."""


def _wants(filter_: Filter, event: Event) -> bool:
    return event.change <= Change.EVICT and event.key.startswith(filter_.prefixes)
