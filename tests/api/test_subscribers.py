"""How watchers are told together: in slices, each change once and in order, bytes shared."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

import pytest
from api_support import waiting
from api_support.waiting import Sink as Told
from api_support.waiting import wait

from keyrack.engines.contract import TEXT, Change, Event, Record, Set
from keyrack.http.watch import hub as hubs
from keyrack.http.watch.subscribers import Filter, Subscriber, Subscribers

if TYPE_CHECKING:
    from collections.abc import Callable

    from api_support.inside import Inside


ALL = Filter((b"",), values=False)
SLICE = 64


class Sink(Told):
    """A client that watches."""

    def finish(self) -> None:
        raise AssertionError("nothing is lost in these tests")

    @property
    def keys(self) -> list[str]:
        """The keys of the changes that were told."""
        blocks = b"".join(chunk.data for chunk in self.chunks).decode().split("\n\n")
        lines = [line for block in blocks for line in block.split("\n")]
        data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        return [one["key"] for one in data if "key" in one]


def change(inside: Inside, key: str, value: bytes = b"") -> None:
    inside.engine.write([(Set(key.encode(), value),)])
    inside.hub.wake()


def watch(inside: Inside, sink: Sink, filter_: Filter = ALL) -> Callable[[], None]:
    return waiting.watch(inside, filter_, None, sink)


def most_in_a_step(inside: Inside, moments: list[int], wanted: int) -> int:
    """Run the loop until `moments` has so many entries; return the most that came in one step."""

    async def count() -> int:
        most = steps = 0
        while len(moments) < wanted:
            before = len(moments)
            await asyncio.sleep(0)
            most = max(most, len(moments) - before)
            steps += 1
            assert steps < 1_000_000
        return most

    return int(inside.run(count()))


def test_a_round_leaves_time_for_others(inside: Inside) -> None:
    """Two hundred watchers are told in one round, a few dozen in each step of the loop."""
    moments: list[int] = []
    sinks = [Sink(lambda: moments.append(1)) for _ in range(200)]
    leaves = [watch(inside, sink) for sink in sinks]
    inside.settle()
    moments.clear()
    change(inside, "a")
    assert most_in_a_step(inside, moments, 200) <= SLICE
    assert all(sink.keys == ["a"] for sink in sinks)
    for leave in leaves:
        leave()


def test_readers_of_one_key_are_woken_a_few_at_a_time(inside: Inside) -> None:
    looks: list[int] = []
    leaves = [wait(inside, b"a", 30, lambda last: looks.append(1)) for _ in range(200)]
    inside.settle()
    looks.clear()
    change(inside, "a")
    assert most_in_a_step(inside, looks, 200) <= SLICE
    for leave in leaves:
        leave()
    assert not inside.hub.active


def test_who_stopped_waiting_meanwhile_is_not_woken(inside: Inside) -> None:
    """The first to be woken makes all others leave, most of whom are to be woken next."""
    looks: list[int] = []
    leaves: list[Callable[[], None]] = []

    def look(last: bool) -> None:
        looks.append(1)
        if len(looks) > 200:
            for leave in leaves:
                leave()

    leaves += [wait(inside, b"a", 30, look) for _ in range(200)]
    inside.settle()
    assert len(looks) == 200
    change(inside, "a")
    inside.settle()
    assert len(looks) == 201
    assert not inside.hub.active


@pytest.mark.usefixtures("trying_again_at_once")
def test_a_defect_is_not_the_end_of_all_rounds(inside: Inside) -> None:
    def look(last: bool) -> None:
        if inside.engine.get(b"bad") is not None:
            raise RuntimeError("a defect")

    leave_bad = wait(inside, b"bad", 30, look)
    sink = Sink()
    leave = watch(inside, sink)
    change(inside, "bad")
    inside.settle()
    change(inside, "b")
    inside.settle()
    assert sink.keys == ["bad", "b"]
    leave()
    leave_bad()


@pytest.fixture
def trying_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "_AWAY_PAUSE", 0.001)


@pytest.mark.usefixtures("beats_now")
def test_signs_of_life_leave_time_for_others(inside: Inside) -> None:
    moments: list[int] = []
    leaves = [watch(inside, Sink(lambda: moments.append(1))) for _ in range(200)]
    moments.clear()
    inside.hub._beats()
    assert most_in_a_step(inside, moments, 200) <= SLICE
    for leave in leaves:
        leave()


@pytest.fixture
def beats_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """No beat comes by itself."""
    monkeypatch.setattr(hubs, "_BEAT", 1000.0)


def test_who_is_told_late_in_a_round_is_told_what_came_meanwhile(inside: Inside) -> None:
    """The lag is one round at most, not the rest of one and the whole of the next."""
    sinks = [Sink() for _ in range(200)]
    first = Sink(lambda: change(inside, "b") if first.keys == ["a"] else None)
    leaves = [watch(inside, sink) for sink in (first, *sinks)]
    inside.settle()
    for sink in sinks:
        sink.chunks.clear()
    change(inside, "a")
    inside.settle()
    assert all(sink.keys == ["a", "b"] for sink in (first, *sinks))
    pieces = [len(sink.chunks) for sink in sinks]
    assert pieces[: SLICE // 2] == [2] * (SLICE // 2)
    assert pieces[-SLICE:] == [1] * SLICE
    for leave in leaves:
        leave()


def test_equal_filter__share_bytes(inside: Inside) -> None:
    sinks = [Sink() for _ in range(3)]
    other = Sink()
    leaves = [watch(inside, sink) for sink in sinks]
    leaves.append(watch(inside, other, Filter((b"a",), values=True)))
    inside.settle()
    change(inside, "a")
    inside.settle()
    assert len({id(sink.chunks[-1]) for sink in sinks}) == 1
    assert other.chunks[-1].data != sinks[0].chunks[-1].data
    for leave in leaves:
        leave()


def test_more_than_fits_in_one_piece_is_told_in_several(inside: Inside) -> None:
    sinks = [Sink() for _ in range(3)]
    leaves = [watch(inside, sink, Filter((b"",), values=True)) for sink in sinks]
    inside.settle()
    for number in range(20):
        change(inside, f"{number:02}", b"v" * 100_000)
    inside.settle()
    for sink in sinks:
        assert sink.keys == [f"{number:02}" for number in range(20)]
        assert max(len(chunk.data) for chunk in sink.chunks) < 400_000
    for leave in leaves:
        leave()


def test_told_messages_are_let_go(inside: Inside) -> None:
    leave = watch(inside, Sink())
    for number in range(50):
        change(inside, f"{number}")
        inside.settle()
    inside.settle()
    (group,) = inside.hub._synced._groups.values()
    assert group.size == 0
    assert group._messages == group._revisions == []
    leave()


# By itself


def events(*revisions: int) -> list[Event]:
    return [Event(revision, Change.SET, b"k%d" % revision, 0) for revision in revisions]


def add(subscribers: Subscribers, some: list[Event], value: bytes = b"") -> None:
    """Have the groups of subscribers told of events, with the next round."""
    groups = subscribers.sort(some)
    for group, wanted in groups.items():
        subscribers.add(group, wanted, {event.key: Record(value, TEXT, 1) for event in wanted})
    subscribers.know(groups, some[-1].revision)


def tell(subscribers: Subscribers, some: list[Event]) -> None:
    """Have the subscribers told of events, in one round."""
    add(subscribers, some)
    subscribers.begin_round()
    while subscribers.tell_some():
        pass
    subscribers.end_round()


def test_who_knows_more_than_the_others_is_not_told_it_again() -> None:
    """It came from another worker, with a position that this one has not read up to."""
    behind: list[Subscriber] = []
    subscribers = Subscribers(behind.append)
    ahead, usual = Subscriber(ALL, Sink(), 10), Subscriber(ALL, Sink(), 8)
    subscribers.join(ahead)
    subscribers.join(usual)
    tell(subscribers, events(9, 10, 11))
    assert ahead.sink.keys == []
    assert usual.sink.keys == ["k9", "k10", "k11"]
    assert behind == [ahead]
    assert ahead.sent == 10


def test_who_joins_after_too_much_has_come_is_told_what_comes_then() -> None:
    behind: list[Subscriber] = []
    subscribers = Subscribers(behind.append)
    wish = Filter((b"",), values=True)
    early, late = Subscriber(wish, Sink(), 0), Subscriber(wish, Sink(), 2)
    subscribers.join(early)
    add(subscribers, events(1, 2), b"v" * 300_000)
    subscribers.join(late)
    tell(subscribers, events(3))
    assert late.sink.keys == ["k3"]
    assert early.sink.keys == ["k1"]
    assert behind == [early]
    assert early.sent == 1


# All together


class Client:
    """A watcher that may come, leave and stop reading, and the changes that it may know of."""

    def __init__(self, inside: Inside, filter_: Filter, before: list[str]) -> None:
        self.prefixes = tuple(prefix.decode() for prefix in filter_.prefixes)
        self.sink = Sink()
        self.history = [key for key in before if key.startswith(self.prefixes)]
        self.since = len(self.history)
        self.leave = watch(inside, self.sink, filter_)

    def must_have_been_told(self, everything: bool) -> None:
        """Each change once and in order, from when it came (or a little before) to the present."""
        keys = self.sink.keys
        start = self.history.index(keys[0]) if keys else self.since
        assert start <= self.since
        assert keys == self.history[start : start + len(keys)]
        assert not everything or start + len(keys) == len(self.history)


@pytest.mark.parametrize("seed", range(6))
def test_everybody_is_told_everything_once_whoever_comes_leaves_or_stalls(
    inside: Inside, seed: int
) -> None:
    chance = random.Random(seed)
    wishes = [ALL, Filter((b"a",), values=False), Filter((b"b", b"ab"), values=True)]
    clients: list[Client] = []
    history: list[str] = []
    gone: list[tuple[Client, int]] = []
    for number in range(400):
        what = chance.random()
        if what < 0.3:
            clients.append(Client(inside, chance.choice(wishes), history))
        elif what < 0.4 and clients:
            leaving = clients.pop(chance.randrange(len(clients)))
            leaving.leave()
            gone.append((leaving, len(leaving.sink.chunks)))
        elif what < 0.5 and clients:
            stalling = chance.choice(clients)
            if stalling.sink.full:
                stalling.sink.drain()
            else:
                stalling.sink.full = True
        elif what < 0.9:
            key = f"{chance.choice(['a', 'b', 'ab', 'c'])}{number}"
            change(inside, key)
            history.append(key)
            for client in clients:
                if key.startswith(client.prefixes):
                    client.history.append(key)
        for _ in range(chance.randrange(3)):
            inside.spin()
    for client in clients:
        client.sink.drain()
    inside.settle()
    for client in clients:
        client.must_have_been_told(everything=True)
        client.leave()
    for client, told in gone:
        assert len(client.sink.chunks) == told
        client.must_have_been_told(everything=False)
    assert not inside.hub.active
