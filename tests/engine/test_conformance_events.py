"""Every engine: the events, which feed watches and answer where a key went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_support.world import (
    EVENTS_KEPT,
    attempt,
    done,
    drop,
    history,
    needs_all_keys_together,
    put,
)

from keyrack.engines.contract import ANY, Change, Condition, Delete, Event, Set

if TYPE_CHECKING:
    from engine_support.driven import Driven
    from engine_support.world import World


def test_a_new_store_has_no_events(engine: Driven) -> None:
    assert list(engine.events()) == []


def test_each_change_is_an_event_with_its_time(world: World) -> None:
    start = world.engine.now()
    first = put(world.engine, b"k").revision
    world.clock.advance(20)
    second = drop(world.engine, b"k").revision
    assert list(world.engine.events()) == [
        Event(first, Change.SET, b"k", start),
        Event(second, Change.DELETE, b"k", start + 20),
    ]


def test_events_of_one_write_and_one_call_are_told_one_by_one_in_order(engine: Driven) -> None:
    needs_all_keys_together(engine)
    engine.write([(Set(b"a", b""), Set(b"b", b"")), (Delete(b"a"),), (Set(b"c", b""),)])
    events = list(engine.events())
    assert [event.key for event in events] == [b"a", b"b", b"a", b"c"]
    revisions = [event.revision for event in events]
    assert revisions == list(range(revisions[0], revisions[0] + 4))


def test_events_after_a_revision_are_those_above_it(engine: Driven) -> None:
    """Also in the middle of what was committed together."""
    needs_all_keys_together(engine)
    engine.write([tuple(Set(b"%d" % i, b"") for i in range(j, j + 4)) for j in (0, 4, 8)])
    events = list(engine.events())
    for position, event in enumerate(events):
        assert list(engine.events(event.revision)) == events[position + 1 :]
    assert list(engine.events(events[0].revision - 1)) == events


def test_a_refused_write_is_no_event(engine: Driven) -> None:
    attempt(engine, Set(b"a", b""), Set(b"b", b"", condition=Condition(match=ANY)))
    assert history(engine) == []


def test_events_survive_a_restart(world: World) -> None:
    put(world.engine, b"k")
    before = list(world.engine.events())
    world.restart()
    assert list(world.engine.events()) == before


def test_events_that_come_while_others_are_read_are_read_too(engine: Driven) -> None:
    put(engine, b"a")
    events = engine.events()
    assert next(events).key == b"a"
    put(engine, b"b")
    drop(engine, b"a")
    assert [(event.change, event.key) for event in events] == [
        (Change.SET, b"b"),
        (Change.DELETE, b"a"),
    ]


# Events of one key


def of_key(engine: Driven, key: bytes, limit: int) -> list[Event]:
    """The events of a key, asked for with a limit until there are no more."""
    found, before = engine.events_of(key, None, limit)
    while before is not None:
        more, before = engine.events_of(key, before, limit)
        assert len(more) <= limit
        found += more
    return found


def test_events_of_a_key_are_told_newest_first(engine: Driven) -> None:
    put(engine, b"k")
    put(engine, b"kk")
    drop(engine, b"k")
    put(engine, b"k")
    events = [event for event in engine.events() if event.key == b"k"]
    assert of_key(engine, b"k", 10) == events[::-1]
    assert of_key(engine, b"none", 10) == []


def test_events_of_a_key_go_on_where_they_were_cut(engine: Driven) -> None:
    """Also in the middle of what was committed together."""
    needs_all_keys_together(engine)
    for _ in range(3):
        done(engine, Set(b"a", b""), Set(b"k", b""), Delete(b"k"), Set(b"k", b""), Set(b"b", b""))
    events = [event for event in engine.events() if event.key == b"k"]
    assert len(events) == 9
    for limit in range(1, 11):
        assert of_key(engine, b"k", limit) == events[::-1]


# Trimming


def test_trimming_keeps_what_it_must(engine: Driven) -> None:
    for number in range(EVENTS_KEPT):
        put(engine, b"%d" % number)
    assert engine.trim(100) == 0
    put(engine, b"one more")
    assert engine.trim(100) == 1
    assert engine.usage().events == len(list(engine.events())) == EVENTS_KEPT


def test_trimming_removes_the_oldest_and_no_more_than_it_may(engine: Driven) -> None:
    for number in range(EVENTS_KEPT + 10):
        put(engine, b"%d" % number)
    before = list(engine.events())
    assert engine.trim(4) == 4
    assert list(engine.events()) == before[4:]
    assert [engine.trim(4), engine.trim(4), engine.trim(4)] == [4, 2, 0]
    assert list(engine.events()) == before[10:]


def test_trimming_never_cuts_into_the_number_kept(engine: Driven) -> None:
    """What was committed together may go only together."""
    needs_all_keys_together(engine)
    for _ in range(7):
        done(engine, *(Set(b"%d" % i, b"") for i in range(40)))
    while engine.trim(3):
        pass
    assert EVENTS_KEPT <= engine.usage().events < EVENTS_KEPT + 40


def test_trimming_takes_no_record_away(engine: Driven) -> None:
    engine.write([(Set(b"%03d" % i, b"v", ttl_ms=1000),) for i in range(200)])
    for number in range(EVENTS_KEPT):
        put(engine, b"%d" % number)
    engine.trim(100)
    assert engine.usage().keys == 200 + EVENTS_KEPT


def test_a_reader_of_events_goes_on_behind_a_trim(engine: Driven) -> None:
    for number in range(EVENTS_KEPT + 10):
        put(engine, b"%d" % number)
    events = engine.events()
    next(events)
    engine.trim(10)
    assert len(list(events)) == EVENTS_KEPT
