"""The hub of one worker, without sockets: signs of life, and what must not happen between."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from api_support.inside import Inside
from api_support.waiting import Sink as Client
from api_support.waiting import wait, watch

from keyrack.engines.contract import ANY, Condition, Delete, Set, Space
from keyrack.http import eager
from keyrack.http.answer import Answer
from keyrack.http.api import locks
from keyrack.http.watch import hub as hubs
from keyrack.http.watch.subscribers import Filter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyrack.engines.contract import Outcome

ALL = Filter((b"",), values=False)


class Sink(Client):
    """A client that watches."""

    def keys(self) -> list[str]:
        """Return the keys of the changes that were told."""
        found = []
        for block in self.data.decode().split("\n\n"):
            fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
            if "data" in fields and "key" in json.loads(fields["data"]):
                found.append(json.loads(fields["data"])["key"])
        return found


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "_BEAT", 0.02)


def put(inside: Inside, *keys: bytes) -> None:
    inside.engine.write([tuple(Set(key, b"v") for key in keys)])


def tick(inside: Inside, *keys: bytes) -> None:
    """Write as a request does, and let the hub tell it."""
    for key in keys:
        inside.tick.submit((Set(key, b"v"),), lambda outcome: None)
    inside.spin()
    inside.pass_round()


# Signs of life


@pytest.mark.usefixtures("quick_beats")
def test_a_quiet_stream_gets_comments(inside: Inside) -> None:
    sink = Sink()
    leave = watch(inside, ALL, None, sink)
    inside.until(lambda: sink.data.count(b": still here\n\n") >= 2)
    leave()
    before = sink.data
    inside.spin(0.1)
    assert sink.data == before


@pytest.mark.usefixtures("quick_beats")
def test_a_watcher_of_quiet_prefixes_gets_bookmarks(inside: Inside) -> None:
    sink = Sink()
    leave = watch(inside, Filter((b"quiet/",), values=False), None, sink)
    tick(inside, b"busy/1", b"busy/2")
    newest = inside.engine.history()[1]
    inside.until(lambda: b"bookmark" in sink.data)
    assert b'id: %d\nevent: bookmark\ndata: {"revision":"%d"}\n\n' % (newest, newest) in sink.data
    assert sink.data.count(b"bookmark") == 1
    leave()


@pytest.mark.usefixtures("quick_beats")
def test_nothing_beats_when_nobody_watches(inside: Inside) -> None:
    leave = watch(inside, ALL, None, Sink())
    leave()
    inside.spin(0.06)
    assert not inside.hub.active
    assert inside.interested == [True, False]


# Watchers


def test_watchers_that_leave_leave_nothing_behind(inside: Inside) -> None:
    leaves = [
        watch(inside, Filter((b"%d" % number,), values=False), None, Sink()) for number in range(10)
    ]
    assert inside.interested == [True]
    for leave in leaves:
        leave()
        leave()
    assert inside.interested[-1] is False
    assert not inside.hub.active


def test_one_that_is_behind_is_told_later_and_others_at_once(inside: Inside) -> None:
    slow, quick = Sink(), Sink()
    ends = [watch(inside, ALL, None, sink) for sink in (slow, quick)]
    slow.full = True
    tick(inside, b"a", b"b")
    assert slow.keys() == []
    assert quick.keys() == ["a", "b"]
    slow.drain()
    inside.settle()
    assert slow.keys() == ["a", "b"]
    tick(inside, b"c")
    assert slow.keys() == quick.keys() == ["a", "b", "c"]
    for end in ends:
        end()


def test_who_catches_up_is_not_forgotten_when_another_leaves(inside: Inside) -> None:
    """The one that left had the same interests; the worker must go on being woken."""
    start = inside.engine.history()[1]
    for number in range(40):
        put(inside, *(b"%02d/%03d" % (number, n) for n in range(200)))
    leave_first = watch(inside, ALL, None, Sink())
    sink = Sink()
    leave = watch(inside, ALL, start, sink)
    assert b"synced" not in sink.data, "the history is told in several pieces"
    leave_first()
    inside.settle()
    assert b"synced" in sink.data
    assert inside.interested[-1] is True
    tick(inside, b"news")
    assert sink.keys()[-1] == "news"
    assert len(sink.keys()) == 8001
    leave()
    assert inside.interested[-1] is False


def test_who_leaves_while_it_catches_up_is_told_no_more(inside: Inside) -> None:
    start = inside.engine.history()[1]
    for number in range(40):
        put(inside, *(b"%02d/%03d" % (number, n) for n in range(200)))
    sink = Sink()
    leave = watch(inside, ALL, start, sink)
    told = len(sink.data)
    leave()
    inside.spin(0.05)
    assert len(sink.data) == told
    assert not inside.hub.active


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Inside]:
    one = Inside(tmp_path / "short", events=10)
    yield one
    one.close()


def forget(inside: Inside, *keys: bytes) -> None:
    """Have changes made and forgotten by another worker before this one looks."""
    for key in keys:
        put(inside, key)
    for number in range(40):
        put(inside, b"filler%d" % number)
    while inside.engine.trim(100):
        pass


def test_lost_history_resets_watchers(short: Inside) -> None:
    sink = Sink()
    leave = watch(short, ALL, None, sink)
    forget(short, b"lost")
    short.hub.wake()
    short.spin(0.05)
    assert sink.ended
    leave()


def test_lost_history_resets_who_catches_up(short: Inside) -> None:
    short.engine.log.keep(100_000)
    start = short.engine.history()[1]
    for number in range(40):
        put(short, *(b"%02d/%03d" % (number, n) for n in range(200)))
    sink = Sink()
    leave = watch(short, ALL, start, sink)
    short.engine.log.keep(10)
    forget(short)
    short.spin(0.2)
    assert sink.ended or len(sink.keys()) >= 8000
    leave()


def test_lost_history_wakes_waiting_reads(short: Inside) -> None:
    """An event that was forgotten before it was read must not leave its reader waiting."""
    looks: list[bool] = []

    def look(last: bool) -> bool:
        looks.append(last)
        return short.engine.get(b"lost") is not None

    leave = wait(short, b"lost", 30, look)
    forget(short, b"lost")
    short.hub.wake()
    short.spin(0.05)
    assert looks == [False, False]
    leave()


# Locks

FREE = Condition(none_match=ANY)


def taking(owner: bytes, ttl: int = 60_000) -> tuple[Set]:
    return (Set(b"lock", owner, ttl_ms=ttl, condition=FREE, space=Space.LOCKS),)


def wait_for_lock(inside: Inside, owner: bytes, answers: list[Any], seconds: float = 5) -> Any:
    def done(outcome: Outcome) -> None:
        answers.append(Answer(201 if isinstance(outcome, tuple) else 409, (), owner))

    async def wait() -> None:
        # As a connection does it, inside the loop.
        waits.append(
            eager.run(locks.take_in_turn(b"lock", taking(owner), seconds, inside.context), done)
        )

    waits: list[Any] = []
    inside.run(wait())
    return waits[0].cancel


def release(inside: Inside) -> None:
    inside.tick.submit((Delete(b"lock", space=Space.LOCKS),), lambda outcome: None)


def test_who_gives_up_in_the_moment_of_its_turn_leaves_no_lock_behind(inside: Inside) -> None:
    """Its attempt is on the way when the client leaves: nobody would ever release that lock."""
    answers: list[Any] = []
    inside.engine.write([taking(b"holder")])
    leave = wait_for_lock(inside, b"waiter", answers)
    release(inside)

    async def leave_while_it_tries() -> None:
        inside.tick.flush()
        while not inside.tick._writes:
            await asyncio.sleep(0)
        leave()

    inside.run(leave_while_it_tries())
    inside.spin(0.05)
    assert answers == []
    assert inside.engine.lock_of(b"lock") is None


def test_a_wait_that_ends_in_the_moment_of_its_turn_is_answered_truly(inside: Inside) -> None:
    answers: list[Any] = []
    inside.engine.write([taking(b"holder")])
    wait_for_lock(inside, b"waiter", answers, 0.05)
    inside.spin()
    inside.engine.write([(Delete(b"lock", space=Space.LOCKS),)])
    _block_until(inside, 0.08)
    inside.hub.locks.call_first(b"lock")
    inside.spin(0.05)
    (answer,) = answers
    held = inside.engine.lock_of(b"lock")
    assert answer.status == (201 if held is not None else 409)


def _block_until(inside: Inside, seconds: float) -> None:
    """Let time pass while the loop does not run."""
    end = inside.loop.time() + seconds
    while inside.loop.time() < end:
        pass


def test_waiters_are_served_in_order_of_arrival(inside: Inside) -> None:
    answers: list[Any] = []
    inside.engine.write([taking(b"holder")])
    for number in range(5):
        wait_for_lock(inside, b"%d" % number, answers)
    inside.spin()
    for served in range(5):
        release(inside)
        inside.spin(0.05)
        assert [answer.body for answer in answers] == [b"%d" % n for n in range(served + 1)]
    assert not inside.hub.active


def test_one_that_leaves_the_queue_is_passed_over(inside: Inside) -> None:
    answers: list[Any] = []
    inside.engine.write([taking(b"holder")])
    leaves = [wait_for_lock(inside, b"%d" % number, answers) for number in range(3)]
    inside.spin()
    leaves[0]()
    leaves[1]()
    release(inside)
    inside.spin(0.05)
    assert [answer.body for answer in answers] == [b"2"]


def test_a_defect_in_one_answer_leaves_nobody_waiting(inside: Inside) -> None:
    """Many writes share a commit; all of them are concluded."""
    concluded: list[int] = []

    async def work() -> None:
        for number in range(3):
            inside.tick.submit(
                (Set(b"%d" % number, b"v"),), lambda _, n=number: concluded.append(n)
            )
        await asyncio.sleep(0)

    inside.run(work())
    inside.spin()
    assert concluded == [0, 1, 2]
