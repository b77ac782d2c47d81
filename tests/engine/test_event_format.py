"""The stored bytes of the event log, too, are a promise."""

from __future__ import annotations

from engine_support.property import examples
from hypothesis import example, given
from hypothesis import strategies as st

from keyrack.engines.contract import MAX_KEY_BYTES, Change, Event
from keyrack.engines.embedded import eventlog

keys = st.binary(min_size=1, max_size=MAX_KEY_BYTES)
changes = st.lists(st.tuples(st.sampled_from(Change), keys), min_size=1, max_size=40)


def drafted(last: int, noted: list[tuple[Change, bytes]]) -> tuple[eventlog.Draft, list[int]]:
    draft = eventlog.Draft(last)
    return draft, [
        draft.set(key) if change is Change.SET else draft.note(change, key) for change, key in noted
    ]


@examples(200)
@given(st.integers(0, 2**63), changes, st.integers(0, 2**63))
@example(0, [(Change.SET, b"\xff" * MAX_KEY_BYTES)] * 300, 1)
def test_what_is_packed_is_unpacked(
    last: int, noted: list[tuple[Change, bytes]], time: int
) -> None:
    draft, revisions = drafted(last, noted)
    entry = draft.pack(time)
    events = list(eventlog.unpack(eventlog.encode_revision(draft.last), entry))
    expected = zip(revisions, noted, strict=True)
    assert events == [Event(revision, *change, time) for revision, change in expected]
    assert eventlog.count(entry) == len(noted)


@examples(100)
@given(st.integers(0, 2**63), changes)
def test_revisions_of_a_commit_follow_one_another(
    last: int, noted: list[tuple[Change, bytes]]
) -> None:
    draft, revisions = drafted(last, noted)
    assert revisions == list(range(last + 1, last + 1 + len(noted)))
    assert (draft.first, draft.last) == (revisions[0], revisions[-1])


@examples(100)
@given(changes, keys)
def test_the_end_of_an_earlier_value_comes_before_the_set_that_found_it(
    noted: list[tuple[Change, bytes]], key: bytes
) -> None:
    draft, revisions = drafted(10, noted)
    set_first = draft.set(key)
    assert draft.before_last(Change.EXPIRE, key) == set_first + 1 == revisions[-1] + 2
    after = draft.set(b"another")
    events = list(eventlog.unpack(eventlog.encode_revision(draft.last), draft.pack(7)))
    assert events[len(noted) :] == [
        Event(set_first, Change.EXPIRE, key, 7),
        Event(set_first + 1, Change.SET, key, 7),
        Event(after, Change.SET, b"another", 7),
    ]


def test_an_entry_of_version_1_is_read_and_written() -> None:
    stored = bytes.fromhex("0000000000000009 00000002 01 0001 61 04 0002 6262")
    draft, _ = drafted(4, [(Change.SET, b"a"), (Change.EVICT, b"bb")])
    assert draft.pack(9) == stored
    assert list(eventlog.unpack(bytes.fromhex("0000000000000006"), stored)) == [
        Event(5, Change.SET, b"a", 9),
        Event(6, Change.EVICT, b"bb", 9),
    ]


def test_the_number_of_a_change_never_changes() -> None:
    assert [(change.name, change.value) for change in Change] == [
        ("SET", 1),
        ("DELETE", 2),
        ("EXPIRE", 3),
        ("EVICT", 4),
        ("LOCK", 5),
        ("UNLOCK", 6),
    ]
