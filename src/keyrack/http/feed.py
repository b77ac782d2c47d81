"""What a worker's waiting clients are told about changes: watchers, waiting reads, waiting locks.

Every worker with waiting clients reads the event log once for all of them. It is woken by its own
commits and, through an eventfd, by those of other workers; while nothing changes nothing runs,
however many wait. How watchers are told is in `audience`; those that come with an old position, or
do not keep up, are told from the log, one by one, until they are up to date.

Between two rounds news gathers for as long as the last one took, up to 5 ms: so a watcher costs one
write a round, and not one a change. Others are served between the slices of a round, not after it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from keyrack.engines.contract import Change, Condition, Delete, Refusal, Space, StoreAway, Why
from keyrack.http import eager
from keyrack.http import events as wire
from keyrack.http.audience import Audience, Interests, Watcher, message
from keyrack.http.reply import Chunk

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from keyrack.engines.contract import Engine, Event, Outcome, Record, Write
    from keyrack.http.audience import Group
    from keyrack.http.reply import Sink
    from keyrack.http.turn import Turn

    Value: TypeAlias = Callable[[bytes], Record | None]

T = TypeVar("T")

_LONGEST_PAUSE: Final = 0.005
_EVENTS_A_ROUND: Final = 500
_PIECE: Final = 1 << 18
"""Bytes of events that are sent at once."""
_READERS_A_STEP: Final = 64
_SLOW_PAUSE: Final = 0.02
_AWAY_PAUSE: Final = 0.5
"""Until a store that did not answer is asked again."""
_BEAT: Final = 15.0
"""Seconds between two signs of life on a stream on which nothing happens."""

_log = logging.getLogger("keyrack.http")


class Reader:
    """A client that waits for a key to change. `gone` means that it does not any more."""

    __slots__ = ("gone", "look")

    def __init__(self, look: Callable[[bool], None]) -> None:
        self.look = look
        self.gone = False


class LockWaiter:
    """A client that waits for a lock. `gone` means that it does not want it any more."""

    __slots__ = ("done", "gone", "write")

    def __init__(self, write: Write, done: Callable[[Outcome], None]) -> None:
        self.write = write
        self.done = done
        self.gone = False


class Feed:
    """The waiting clients of one worker. `interested` tells other workers whether to wake it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        turn: Turn,
        interested: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._turn = turn
        self._interested = interested
        self._audience = Audience(self._fall_behind)
        self._catching_up: set[Watcher] = set()
        self._readers: dict[bytes, dict[Reader, None]] = {}
        self._looking: deque[Reader] = deque()
        """Those whose key has changed."""
        self._queues: dict[bytes, deque[LockWaiter]] = {}
        self._lock_timers: dict[bytes, asyncio.TimerHandle] = {}
        self._seen = 0
        self._started = False
        """Whether `_seen` holds: changes after it are told, whatever happens."""
        self._until_started: list[Callable[[], None]] = []
        self._round: asyncio.Handle | None = None
        """What begins the next round."""
        self._in_round = False
        self._more = False
        """Something was committed that has not been read yet."""
        self._round_began = 0.0
        self._rests_until = 0.0
        self._beat: asyncio.TimerHandle | None = None

    def submit(self, write: Write, conclude: Callable[[Outcome], None]) -> None:
        """Have a write done with the others of this turn."""
        self._turn.submit(write, conclude)

    def soon(self, work: Callable[[], None]) -> None:
        """Have something done in the next turn."""
        self._loop.call_soon(work)

    @property
    def active(self) -> bool:
        """Whether anybody waits."""
        return bool(self._audience or self._catching_up or self._readers or self._queues)

    def wake(self) -> None:
        """Something was committed, here or elsewhere."""
        self._more = True
        if self._started and self._round is None and not self._in_round:
            pause = max(0.0, self._rests_until - time.monotonic())
            self._round = self._loop.call_later(pause, self._guarded, self._run)

    def _join(self) -> None:
        """Become interested: from the present revision on nothing is missed."""
        if not self.active:
            self._interested(True)
            self._beat = self._loop.call_later(_BEAT, self._beats)
            self._find_start()

    def _find_start(self) -> None:
        later = partial(self._loop.call_later, _AWAY_PAUSE, self._find_start)
        _when_told(self._engine.history(), self._start, later)

    def _start(self, history: tuple[int, int]) -> None:
        if self._started:
            return
        self._started = True
        self._seen = history[1]
        waiting, self._until_started = self._until_started, []
        for work in waiting:
            work()
        if self._more:
            self.wake()

    def _when_started(self, work: Callable[[], None]) -> None:
        if self._started:
            work()
        else:
            self._until_started.append(work)

    def _part(self) -> None:
        if not self.active:
            self._interested(False)
            self._started = False
            if self._beat is not None:
                self._beat.cancel()
                self._beat = None

    # Rounds

    def _guarded(self, step: Callable[[], None]) -> None:
        """Take a step of a round. A defect must not be the end of all rounds."""
        try:
            step()
        except Exception:
            _log.exception("telling what has changed failed; it is tried again")
            self._in_round = False
            self._loop.call_later(_AWAY_PAUSE, self.wake)

    def _run(self) -> None:
        self._round = None
        if not self._started:
            return  # whoever waits now begins with what is read then
        self._in_round = True
        self._round_began = time.monotonic()
        self._read_news(self._begin_telling)

    def _read_news(self, then: Callable[[], None]) -> None:
        self._more = False

        def away() -> None:
            self._loop.call_later(_AWAY_PAUSE, self.wake)
            then()

        self._read_log(self._seen, partial(self._take_news, then), away)

    def _take_news(self, then: Callable[[], None], events: list[Event], missed: bool) -> None:
        if missed:
            self._miss()
        if events:
            self._seen = max(self._seen, events[-1].revision)
        groups = self._audience.sort(events)
        wanted = [
            event for group, some in groups.items() if group.interests.values for event in some
        ]
        self._read_values(wanted, partial(self._pass_on, then, events, groups))

    def _pass_on(
        self,
        then: Callable[[], None],
        events: list[Event],
        groups: dict[Group, list[Event]],
        value: Value,
    ) -> None:
        if events:
            self._audience.add(groups, events[-1].revision, value)
        for event in events:
            self._tell_waiters(event)
        self._more = self._more or len(events) >= _EVENTS_A_ROUND
        then()

    def _begin_telling(self) -> None:
        self._audience.begin_round()
        self._tell_some()

    def _tell_some(self) -> None:
        """Tell a few dozen; what is written to them goes out before the next step."""
        readers_left = self._look_some()
        left = self._audience.tell_some() or readers_left
        self._loop.call_soon(self._guarded, self._tell_more if left else self._end_round)

    def _look_some(self) -> bool:
        """Let some of those whose key has changed look at it; say whether others are left."""
        for _ in range(min(_READERS_A_STEP, len(self._looking))):
            reader = self._looking.popleft()
            if not reader.gone:
                reader.look(False)
        return bool(self._looking)

    def _tell_more(self) -> None:
        if self._more and self._started and not self._audience.crowded:
            self._read_news(self._tell_some)
        else:
            self._tell_some()

    def _end_round(self) -> None:
        self._audience.end_round()
        self._in_round = False
        now = time.monotonic()
        self._rests_until = now + min(now - self._round_began, _LONGEST_PAUSE)
        if self._more or self._audience.waits:
            self.wake()

    def _read_log(
        self, after: int, then: Callable[[list[Event], bool], None], away: Callable[[], object]
    ) -> None:
        """Call `then` with events after a revision and whether some were forgotten before them."""

        def look_back(events: list[Event]) -> None:
            if events and events[0].revision == after + 1:
                then(events, False)
            else:
                history = self._engine.history(after)
                _when_told(history, lambda reach: then(events, reach[0] > after), away)

        _when_told(self._engine.events_after(after, _EVENTS_A_ROUND), look_back, away)

    def _read_values(self, events: list[Event], then: Callable[[Value], None]) -> None:
        """Call `then` with a function that knows the values that keys have now."""
        if self._engine.get_now is not None:
            then(self._engine.get_now)
            return
        keys = {event.key for event in events if event.change is Change.SET}
        _when_told(self._values_of(list(keys)), then, _nothing)

    async def _values_of(self, keys: list[bytes]) -> Value:
        """Read keys together. What cannot be read now is told without its value."""
        known: dict[bytes, Record | None] = {}
        try:
            known.update(zip(keys, await self._engine.get_many(keys), strict=True))
        except StoreAway:
            _log.warning("values of changes could not be read; they are told without")
        return known.get

    def _miss(self) -> None:
        """Something happened that cannot be told any more: begin anew, or look again."""
        for watcher in self._audience:
            self._reset(watcher)
        for readers in self._readers.values():
            self._looking += readers
        for name in list(self._queues):
            self._try_lock(name)

    def _tell_waiters(self, event: Event) -> None:
        if event.change is Change.UNLOCK:
            self._try_lock(event.key)
        elif event.change <= Change.EVICT:
            self._looking += self._readers.get(event.key, ())

    # Watchers

    def watch(self, interests: Interests, since: int | None, sink: Sink) -> Callable[[], None]:
        """Tell `sink` of changes from now on, or first of those after `since`.

        The caller has made sure that the log still reaches back to `since`. Returns what ends it.
        """
        self._join()
        watcher = Watcher(interests, sink, since or 0)
        self._catching_up.add(watcher)

        def begin() -> None:
            if since is None:
                watcher.sent = self._seen
            self._catch_up(watcher)

        def leave() -> None:
            self._catching_up.discard(watcher)
            self._audience.leave(watcher)
            self._part()

        sink.push(Chunk(wire.OPENING))
        self._when_started(begin)
        return leave

    def _catch_up(self, watcher: Watcher) -> None:
        """Send a piece of the history, and join the others when nothing is left of it.

        The log is the buffer of those that read slowly: it is read on as they take what was sent.
        """
        if watcher not in self._catching_up:
            return
        if watcher.sent >= self._seen:
            self._join_audience(watcher)
            return
        later = partial(self._loop.call_later, _AWAY_PAUSE, self._catch_up, watcher)
        self._read_log(watcher.sent, partial(self._catch_up_with, watcher), later)

    def _catch_up_with(self, watcher: Watcher, events: list[Event], missed: bool) -> None:
        if watcher not in self._catching_up:
            return
        if missed:
            self._reset(watcher)
            return
        # What the others have not been told yet, this one is told with them.
        events = [event for event in events if event.revision <= self._seen]
        if not events:
            watcher.sent = self._seen
            self._join_audience(watcher)
            return
        wanted = events if watcher.interests.values else []
        self._read_values(wanted, partial(self._send_piece, watcher, events))

    def _send_piece(self, watcher: Watcher, events: list[Event], value: Value) -> None:
        data, reached = _piece(watcher.interests, events, value)
        if data and not watcher.sink.push(Chunk(data)):
            self._loop.call_later(_SLOW_PAUSE, self._catch_up, watcher)
            return
        watcher.sent = reached
        self._loop.call_soon(self._catch_up, watcher)

    def _join_audience(self, watcher: Watcher) -> None:
        self._catching_up.discard(watcher)
        if not watcher.synced:
            watcher.synced = True
            interests = watcher.interests
            prefixes = interests.prefixes if interests.chosen else None
            watcher.sink.push(Chunk(wire.synced(watcher.sent, prefixes)))
        self._audience.join(watcher)

    def _fall_behind(self, watcher: Watcher) -> None:
        self._catching_up.add(watcher)
        self._loop.call_later(_SLOW_PAUSE, self._catch_up, watcher)

    def _reset(self, watcher: Watcher) -> None:
        """Tell a client that the log does not reach back to it any more, and close."""
        self._catching_up.discard(watcher)
        self._audience.leave(watcher)
        watcher.sink.finish()

    def _beats(self) -> None:
        self._beat = self._loop.call_later(_BEAT, self._beats)
        # Nothing is known that could lose a wake-up; if something does, it costs one beat.
        self._audience.beat()
        self.wake()

    # Waiting reads

    def wait(self, key: bytes, seconds: float, look: Callable[[bool], None]) -> Callable[[], None]:
        """Call `look(False)` now and whenever a key may have changed.

        After `seconds` it is called with True instead, once, and that is all. Returns what ends
        it before.
        """
        self._join()
        reader = Reader(look)
        self._readers.setdefault(key, {})[reader] = None

        def leave() -> None:
            if reader.gone:
                return
            reader.gone = True
            timer.cancel()
            del self._readers[key][reader]
            if not self._readers[key]:
                del self._readers[key]
            self._part()

        def over() -> None:
            leave()
            look(True)

        timer = self._loop.call_later(seconds, over)
        self._when_started(partial(look, False))
        return leave

    # Waiting for locks

    async def take_lock(self, name: bytes, write: Write, seconds: float) -> Outcome:
        """Take a lock when it is this client's turn, at most `seconds` from now."""
        self._join()
        coming: asyncio.Future[Outcome] = self._loop.create_future()
        waiter = LockWaiter(write, coming.set_result)
        queue = self._queues.setdefault(name, deque())
        queue.append(waiter)

        def over() -> None:
            # Once more: this time the refusal is the answer.
            if self._leave_queue(name, waiter):
                self.submit(write, last)

        def last(outcome: Outcome) -> None:
            if waiter.gone:
                self._give_back(name, outcome)
            else:
                coming.set_result(outcome)

        timer = self._loop.call_later(seconds, over)
        if len(queue) == 1:
            self._when_started(partial(self._try_lock, name))
        try:
            return await coming
        finally:
            waiter.gone = True
            timer.cancel()
            self._leave_queue(name, waiter)

    def _leave_queue(self, name: bytes, waiter: LockWaiter) -> bool:
        queue = self._queues.get(name)
        if queue is None or waiter not in queue:
            return False
        queue.remove(waiter)
        if not queue:
            del self._queues[name]
            timer = self._lock_timers.pop(name, None)
            if timer is not None:
                timer.cancel()
        self._part()
        return True

    def _try_lock(self, name: bytes) -> None:
        """Let the first in the queue try; it goes on waiting when somebody else was faster."""
        queue = self._queues.get(name)
        if not queue:
            return
        waiter = queue[0]

        def conclude(outcome: Outcome) -> None:
            if isinstance(outcome, Refusal) and outcome.why is Why.CONDITION:
                self._await_end(name)
                return
            if self._leave_queue(name, waiter):
                waiter.done(outcome)
            else:
                self._give_back(name, outcome)

        self.submit(waiter.write, conclude)

    def _give_back(self, name: bytes, outcome: Outcome) -> None:
        """Release a lock that was taken for a client that had left by then."""
        if not isinstance(outcome, Refusal):
            held = Condition(match=frozenset((outcome[0].revision,)))
            self.submit((Delete(name, held, Space.LOCKS),), lambda _: None)

    def _await_end(self, name: bytes) -> None:
        """Try again when the holder's time is over, if it does not give the lock back before."""
        later = partial(self._try_lock_in, name, _AWAY_PAUSE)
        _when_told(self._engine.lock_of(name), partial(self._await_end_of, name), later)

    def _await_end_of(self, name: bytes, record: Record | None) -> None:
        left = 0.0 if record is None else (record.expires_at - self._engine.now()) / 1000
        self._try_lock_in(name, max(0.0, left) + 0.001)

    def _try_lock_in(self, name: bytes, seconds: float) -> None:
        timer = self._lock_timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        if name in self._queues:
            self._lock_timers[name] = self._loop.call_later(seconds, self._try_lock, name)


def _piece(interests: Interests, events: list[Event], value: Value) -> tuple[bytes, int]:
    """Return the bytes for events, as many as are sent at once, and the revision they reach."""
    parts: list[bytes] = []
    size = 0
    for event in events:
        if event.change > Change.EVICT or not event.key.startswith(interests.prefixes):
            continue
        parts.append(message(event, interests.values, value))
        size += len(parts[-1])
        if size > _PIECE:
            return b"".join(parts), event.revision
    return b"".join(parts), events[-1].revision


def _when_told(
    question: Awaitable[T], then: Callable[[T], None], away: Callable[[], object]
) -> None:
    """Call `then` with the engine's answer, or `away` if the store is."""

    async def ask() -> None:
        try:
            answer = await question
        except StoreAway:
            away()
            return
        except Exception:
            _log.exception("the engine failed")
            away()
            return
        then(answer)

    eager.run(ask(), _ignore)


def _ignore(_: None) -> None:
    """Do nothing with it."""


def _nothing() -> None:
    """Do nothing."""
