"""The slow log: what is told of, how it is kept, and that nothing half-written is shown."""

from __future__ import annotations

import time

import msgspec
import pytest

from keyrack.engines.contract import Delete, Refusal, Remember, Result, Set, Why
from keyrack.http.slow_log import SlowLog
from keyrack.shared.counters import SLOW, Counters
from keyrack.shared.slow_ring import ENTRIES, TEXT_BYTES, SlowRing

MS = 1_000_000


@pytest.fixture
def counters() -> Counters:
    """Counters of two workers."""
    return Counters.create(2)


def test_the_entries_of_all_workers_are_told_newest_first(counters: Counters) -> None:
    first, second = SlowLog(counters, 0, MS), SlowLog(counters, 1, MS)
    first.read("get", b"a", 2 * MS, 10)
    second.read("get", b"b", 3 * MS, 10)
    first.read("get", b"c", 4 * MS, 10)
    for log in (first, second):
        assert [(e.key, e.worker, e.ms) for e in log.entries(10)] == [
            ("c", 0, 4.0), ("b", 1, 3.0), ("a", 0, 2.0),
        ]  # fmt: skip
    assert [entry.key for entry in first.entries(1)] == ["c"]
    assert counters.total(SLOW) == 3


def test_the_oldest_make_room_for_the_newest(counters: Counters) -> None:
    log = SlowLog(counters, 0, MS)
    for number in range(ENTRIES + 10):
        log.read("get", b"%d" % number, MS, None)
    keys = {entry.key for entry in log.entries(1000)}
    assert keys == {str(number) for number in range(10, ENTRIES + 10)}


def test_a_worker_that_is_replaced_goes_on_behind_what_was_told(counters: Counters) -> None:
    SlowLog(counters, 0, MS).read("get", b"before", MS, None)
    SlowLog(counters, 0, MS).read("get", b"after", MS, None)
    assert {entry.key for entry in SlowLog(counters, 1, MS).entries(9)} == {"before", "after"}


def test_what_was_cleared_is_not_told(counters: Counters) -> None:
    log = SlowLog(counters, 0, MS)
    log.read("get", b"before", MS, None)
    SlowLog(counters, 1, MS).clear()
    log.read("get", b"after", MS, None)
    assert [entry.key for entry in log.entries(9)] == ["after"]


def test_a_write_of_nothing_is_not_told(counters: Counters) -> None:
    log = SlowLog(counters, 0, MS)
    log.commit([(), (Set(b"k", b"v"),)], [(), ()], 0, 2 * MS)
    assert [entry.key for entry in log.entries(9)] == ["k"]
    assert counters.total(SLOW) == 1


def test_a_slow_commit_says_what_it_waited_for(counters: Counters) -> None:
    log = SlowLog(counters, 0, MS)
    log.lock_waited(70 * MS)  # an earlier commit's
    began = time.monotonic_ns()
    log.lock_waited(30 * MS)
    log.synced(5 * MS)
    done = (Result(1, False),)
    writes = [(Set(b"a", b"12345"),), (Delete(b"b"),), (Set(b"c", b"1"), Delete(b"d"))]
    log.commit(writes, [done, Refusal(Why.FULL), (*done, *done)], began, 40 * MS)
    found = {entry.operation: entry for entry in log.entries(9)}
    assert {(one.ms, one.lock_ms, one.disk_ms, one.together) for one in found.values()} == {
        (40.0, 30.0, 5.0, 3)
    }
    assert (found["set"].key, found["set"].bytes, found["set"].refusal) == ("a", 5, None)
    assert (found["delete"].key, found["delete"].refusal) == ("b", "full")
    assert (found["batch"].key, found["batch"].bytes) == ("c", 1)


def test_a_write_that_is_remembered_is_told_by_its_key(counters: Counters) -> None:
    """Not by the name under which its answer is kept for a repeated Idempotency-Key."""
    log = SlowLog(counters, 0, MS)
    kept = Remember(b"\xb0\x00name", b"fingerprint", 1000)
    done = Result(1, False)
    writes = [(kept, Set(b"one", b"v")), (kept, Set(b"a", b"v"), Delete(b"b"))]
    log.commit(writes, [(done, done), (done, done, done)], time.monotonic_ns(), 5 * MS)
    assert {(e.operation, e.key) for e in log.entries(9)} == {("set", "one"), ("batch", "a")}


def test_a_few_writes_of_a_large_commit_stand_for_all_and_all_are_counted(
    counters: Counters,
) -> None:
    log = SlowLog(counters, 0, MS)
    writes = [(Set(b"%d" % number, b""),) for number in range(100)]
    log.commit(writes, [(Result(1, False),)] * 100, 0, MS)
    assert len(log.entries(1000)) == 8
    assert counters.total(SLOW) == 100


def test_a_turn_is_told_of_only_where_nothing_in_it_was(counters: Counters) -> None:
    log = SlowLog(counters, 0, MS)
    began = time.monotonic_ns()
    log.turn(began, 20 * MS, 3, 1)
    log.read("get", b"cause", 15 * MS, None)
    log.turn(began, 20 * MS, 1, 0)
    assert [entry.operation for entry in log.entries(9)] == ["get", "turn"]
    assert (log.entries(9)[1].reads, log.entries(9)[1].writes) == (3, 1)


@pytest.mark.parametrize("key", [b"k" * 511, b"\xff" * 511, b"\x00" * 511, b'"' * 511])
def test_a_key_of_any_kind_makes_an_entry_that_is_whole(counters: Counters, key: bytes) -> None:
    log = SlowLog(counters, 0, MS)
    log.commit([(Set(key, b""),)], [(Result(1, False),)], 0, MS)
    (entry,) = log.entries(9)
    assert entry.operation == "set"
    assert entry.key is None or len(entry.key) <= 161


def test_an_entry_that_is_being_written_is_passed_over() -> None:
    ring = SlowRing(1)
    ring.add(0, 0, b"whole")
    ring.add(0, 1, b"half")
    # What is there while the second text is replaced.
    ring._memory[8 + 512 + 8 : 8 + 512 + 16] = (-1).to_bytes(8, "little", signed=True)
    assert ring.texts() == [b"whole"]


def test_a_text_that_is_too_long_is_cut() -> None:
    ring = SlowRing(1)
    ring.add(0, 0, b"x" * (TEXT_BYTES + 50))
    ring.add(0, 1, b"next")
    assert ring.texts() == [b"x" * TEXT_BYTES, b"next"]


def test_entries_are_small_json() -> None:
    made = Counters.create(1)
    SlowLog(made, 0, MS).read("get", b"a", MS, None)
    (text,) = made.slow_ring.texts()
    assert set(msgspec.json.decode(text)) == {"operation", "ms", "time", "key"}
