"""The embedded engine's audit of itself: each kind of damage, done to the database, is told."""

from __future__ import annotations

from contextlib import contextmanager
from struct import Struct
from typing import TYPE_CHECKING

import pytest
from engine_support.world import done, drop, put

from keyrack.engines import record as wire
from keyrack.engines.contract import Change, Set
from keyrack.engines.embedded import eventlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_support.driven import Driven
    from engine_support.world import EmbeddedWorld

    from keyrack.engines.embedded.database import WriteTransaction

STATE = b"keyrack:state"
PAIR = Struct(">QQ")
STATE_FORM = Struct(">QQQ")


@pytest.fixture
def engine(embedded: EmbeddedWorld) -> Driven:
    """A store with a key that stays, one that ends, and one that was deleted."""
    engine = embedded.engine
    put(engine, b"stays")
    put(engine, b"ends", ttl_ms=1000)
    put(engine, b"gone", ttl_ms=1000)
    drop(engine, b"gone")
    assert engine.check() == []
    return engine


@contextmanager
def tampering(engine: Driven) -> Iterator[WriteTransaction]:
    with engine.database.load(0) as txn:
        yield txn


def revision_of(engine: Driven, key: bytes) -> int:
    record = engine.get(key)
    assert record is not None
    return record.revision


def set_state(engine: Driven, revision: int = 0, events: int = 0) -> None:
    """Change the last revision and the number of events by so much."""
    with tampering(engine) as txn:
        last, number, size = STATE_FORM.unpack(txn.note(STATE) or b"")
        txn.put_note(STATE, STATE_FORM.pack(last + revision, number + events, size))


def log(engine: Driven, last: int, *changes: tuple[Change, bytes]) -> None:
    """Add an entry of the log that ends with revision `last`, and count it."""
    draft = eventlog.Draft(last - len(changes))
    for change, key in changes:
        draft.note(change, key)
    with tampering(engine) as txn:
        txn.put(eventlog.encode_revision(last), draft.pack(1), engine.database.events)
    set_state(engine, events=len(changes))


def store(engine: Driven, key: bytes, raw: bytes) -> None:
    """Put bytes in the place of a record."""
    with tampering(engine) as txn:
        txn.put(key, raw, engine.database.spaces[0])


def test_an_empty_store_is_sound(embedded: EmbeddedWorld) -> None:
    assert embedded.engine.check() == []


def test_a_store_of_which_the_events_were_trimmed_is_sound(embedded: EmbeddedWorld) -> None:
    for number in range(embedded.events + 20):
        put(embedded.engine, b"%d" % number)
        drop(embedded.engine, b"%d" % (number - number % 3))
    embedded.engine.trim(1000)
    assert embedded.engine.check() == []


def test_a_record_that_the_expiry_index_does_not_know_is_found(engine: Driven) -> None:
    record = engine.get(b"ends")
    assert record is not None
    with tampering(engine) as txn:
        txn.pop(PAIR.pack(record.expires_at, record.revision), engine.database.expiry)
    (problem,) = engine.check()
    assert problem == f"b'ends' ends at {record.expires_at}, and the expiry index does not know"


@pytest.mark.parametrize("key", [b"stays", b"ends", b"gone", b"never"])
def test_an_index_entry_without_its_record_is_found(engine: Driven, key: bytes) -> None:
    with tampering(engine) as txn:
        txn.put(PAIR.pack(77, 5), key, engine.database.expiry)
    assert engine.check() == [f"the expiry index names {key!r} at 77, and no record agrees"]


def test_an_index_entry_that_names_another_key_is_found(engine: Driven) -> None:
    record = engine.get(b"ends")
    assert record is not None
    with tampering(engine) as txn:
        txn.put(PAIR.pack(record.expires_at, record.revision), b"stays", engine.database.expiry)
    first, second = engine.check()
    assert first.startswith("b'ends' ends at")
    assert second.startswith("the expiry index names b'stays'")


def test_a_record_newer_than_the_store_is_found(engine: Driven) -> None:
    revision = engine.usage().revision + 1
    store(engine, b"stays", wire.pack(revision, b"v"))
    assert f"b'stays' has revision {revision}, newer than the store" in engine.check()


def test_a_revision_that_was_given_twice_is_found(engine: Driven) -> None:
    revision = revision_of(engine, b"stays")
    store(engine, b"twin", wire.pack(revision, b"v"))
    assert f"revision {revision} was given twice" in engine.check()


def test_a_record_without_its_event_is_found(engine: Driven) -> None:
    set_state(engine, revision=1)
    revision = engine.usage().revision
    store(engine, b"secret", wire.pack(revision, b"v"))
    (problem,) = engine.check()
    assert problem == f"b'secret' has revision {revision}, and its last event is None"


def test_a_record_whose_last_event_is_another_is_found(engine: Driven) -> None:
    last = engine.usage().revision + 1
    set_state(engine, revision=1)
    log(engine, last, (Change.DELETE, b"stays"))
    (problem,) = engine.check()
    assert problem.startswith(f"b'stays' has revision {revision_of(engine, b'stays')}, and")


def test_an_event_without_its_record_is_found(engine: Driven) -> None:
    revision = revision_of(engine, b"stays")
    with tampering(engine) as txn:
        txn.pop(b"stays", engine.database.spaces[0])
    assert engine.check() == [f"event {revision} set b'stays', and there is no such record"]


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_wrong_number_of_events_is_found(engine: Driven, difference: int) -> None:
    set_state(engine, events=difference)
    assert engine.check() == [f"the log holds 4 events and says {4 + difference}"]


def test_an_event_newer_than_the_store_is_found(engine: Driven) -> None:
    last = engine.usage().revision
    log(engine, last + 2, (Change.DELETE, b"x"), (Change.DELETE, b"x"))
    assert engine.check() == [f"event {last + 2} is newer than the store's revision {last}"]


def test_events_out_of_order_are_found(engine: Driven) -> None:
    last = engine.usage().revision
    set_state(engine, revision=1)
    log(engine, last + 1, (Change.DELETE, b"x"), (Change.DELETE, b"x"))
    assert engine.check() == [f"event {last} comes after event {last}"]


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("records", b"short", b"\x00"),
        ("records", b"unknown type", bytes(8) + b"\x7e"),
        ("expiry", b"short", b"stays"),
        ("events", b"\xff" * 8, b"\x00"),
        ("events", b"\xff" * 8, PAIR.pack(1, 1 << 32)[:12] + b"\x09\x00\x01k"),
    ],
)
def test_what_cannot_be_read_at_all_is_found(
    engine: Driven, table: str, key: bytes, value: bytes
) -> None:
    """Told as a sentence like everything else, instead of ending the audit with an exception."""
    with tampering(engine) as txn:
        database = engine.database
        tables = {
            "records": database.spaces[0],
            "expiry": database.expiry,
            "events": database.events,
        }
        txn.put(key, value, tables[table])
    assert engine.check() != []


@pytest.mark.parametrize("change", ["one is gone", "all are gone", "one is too many", "nobody's"])
def test_pieces_that_no_record_agrees_with_are_found(engine: Driven, change: str) -> None:
    put(engine, b"long", b"x" * 10_000)
    assert engine.check() == []
    with tampering(engine) as txn:
        pieces = engine.database.pieces
        keys = [key for key, _ in txn.cursor(pieces)]
        if change.endswith("gone"):
            for key in keys[: 1 if change.startswith("one") else None]:
                txn.pop(key, pieces)
        else:
            extra = keys[-1][:-1] + b"\xff" if change.startswith("one") else b"\x01" + bytes(12)
            txn.put(extra, b"x", pieces)
    (problem,) = engine.check()
    assert "pieces of" in problem


def test_no_more_than_twenty_problems_are_told(engine: Driven) -> None:
    for number in range(30):
        store(engine, b"%d" % number, wire.pack(1 << 60, b""))
    assert len(engine.check()) == 20


def test_a_stale_copy_that_is_not_counted_is_told(embedded: EmbeddedWorld) -> None:
    engine = embedded.engine
    done(engine, Set(b"k", b"v", ttl_ms=5, stale_ms=1000))
    embedded.clock.advance(5)
    engine.expire(1)
    assert engine.check() == []
    with tampering(engine) as txn:
        txn.put_stale_copies(7)
    assert engine.check() == ["1 records are stale copies, and the store says 7"]


def test_a_stale_copy_whose_key_has_not_ended_is_told(embedded: EmbeddedWorld) -> None:
    engine = embedded.engine
    done(engine, Set(b"k", b"v", ttl_ms=5, stale_ms=1000))
    with tampering(engine) as txn:
        raw = txn.get(b"k", txn.database.spaces[0])
        assert raw is not None
        txn.put(b"k", wire.as_copy(raw), txn.database.spaces[0])
    told = " ".join(engine.check())
    assert "is a stale copy, and its last event is" in told
    assert "and the expiry index does not know" in told
