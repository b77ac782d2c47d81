"""A snapshot is the store at one moment: taken while it is written to, and loaded at a start."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from engine_support.children import only
from engine_support.contents import contents
from engine_support.kept import KeptStore
from engine_support.processes import Child
from engine_support.world import MIB, attempt, done, drop, history, put, rounds, value_of

from keyrack.engines.contract import (
    JSON,
    Change,
    Get,
    Refusal,
    Remember,
    Set,
    Space,
    StoreError,
    StoreFormatUnknown,
    StoreInUse,
    StoreTooSmall,
    Touch,
    Why,
)
from keyrack.engines.embedded import locking
from keyrack.engines.embedded.durability import data_directory, snapshot, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def kept(shm: Path, tmp_path: Path) -> Iterator[KeptStore]:
    """A store of which snapshots are taken; every test ends with its audit."""
    store = KeptStore(shm, tmp_path)
    yield store
    problems = store.engine.check()
    store.close()
    assert problems == []


def fill(store: KeptStore) -> None:
    """Put in something of every kind that there is."""
    engine = store.engine
    put(engine, b"plain")
    put(engine, b"ends", ttl_ms=60_000)
    put(engine, b"long", os.urandom(1 * MIB), ttl_ms=3_600_000)
    put(engine, b"three pages", os.urandom(10_000))
    put(engine, b"k" * 511, b"")
    done(engine, Set(b"json", b'{"a":1}', JSON))
    done(engine, Set(b"odd", b"\0\xff", "odd/one; a=b"))
    put(engine, b"gone")
    drop(engine, b"gone")
    done(engine, Set(b"a lock", b"holder", ttl_ms=30_000, space=Space.LOCKS))
    done(engine, Remember(b"a name", b"print", 60_000), Set(b"once", b"only"), Get(b"long"))
    done(engine, Touch(b"three pages", 5_000))


def snapshots(store: KeptStore) -> list[int]:
    return store.data.snapshots()


# What is in it


def test_everything_comes_back_as_it_was(kept: KeptStore) -> None:
    fill(kept)
    before = contents(kept.engine)
    assert len(before["events"]) == 11
    kept.take()
    kept.lose_memory()
    assert contents(kept.engine) == before
    assert kept.started.troubles == []
    assert kept.started.facts == [
        f"Snapshot 1 of {kept.data.path} was loaded: 8 keys, with 0 later transactions of the "
        "journal."
    ]


def test_a_remembered_outcome_is_given_again_after_the_memory_was_lost(kept: KeptStore) -> None:
    name = Remember(b"a name", b"print", 60_000)
    first = attempt(kept.engine, name, Set(b"k", b"v"))
    kept.take()
    kept.lose_memory()
    assert attempt(kept.engine, name, Set(b"k", b"v")) == first
    other = Remember(b"a name", b"other", 60_000)
    assert attempt(kept.engine, other, Set(b"k", b"v")) == Refusal(Why.REUSED)


def test_revisions_go_on_and_the_events_reach_back(kept: KeptStore) -> None:
    early = put(kept.engine, b"early").revision
    late = put(kept.engine, b"late").revision
    kept.take()
    kept.lose_memory()
    assert [event.revision for event in kept.engine.events(early)] == [late]
    assert kept.engine.history()[0] < early
    assert put(kept.engine, b"next").revision > late


def test_what_came_after_the_snapshot_is_gone_and_so_are_its_revisions(kept: KeptStore) -> None:
    put(kept.engine, b"k", b"kept")
    kept.take()
    lost = put(kept.engine, b"k", b"lost").revision
    kept.lose_memory()
    assert value_of(kept.engine, b"k") == b"kept"
    assert put(kept.engine, b"k").revision > lost


def test_an_end_is_a_moment_that_comes_also_while_the_service_is_down(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeptStore(shm, tmp_path)
    put(store.engine, b"short", ttl_ms=5_000)
    put(store.engine, b"long", ttl_ms=60_000)
    store.take()
    now = time.time_ns()
    monkeypatch.setattr("keyrack.engines.embedded.clock.time.time_ns", lambda: now + 10_000_000_000)
    store.lose_memory()
    assert value_of(store.engine, b"short") is None
    record = store.engine.get(b"long")
    assert record is not None
    assert 49_000 < record.expires_at - store.engine.now() <= 50_000
    assert store.engine.expire(10).expired == 1
    assert history(store.engine)[-1] == (Change.EXPIRE, b"short")
    store.close()


def test_the_clock_does_not_go_back_when_the_wall_clock_was_set_back(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeptStore(shm, tmp_path)
    put(store.engine, b"k", ttl_ms=60_000)
    store.clock.advance(1_000)
    store.take()
    taken_at = store.engine.now()
    now = time.time_ns()
    monkeypatch.setattr("keyrack.engines.embedded.clock.time.time_ns", lambda: now - 3600 * 10**9)
    store.lose_memory()
    assert store.engine.now() == taken_at
    record = store.engine.get(b"k")
    assert record is not None
    assert record.expires_at - taken_at == 59_000
    store.close()


# One moment


def test_a_snapshot_is_the_store_at_one_moment_however_it_is_written_to(kept: KeptStore) -> None:
    for number in range(20_000):
        put(kept.engine, b"%05d" % number, b"x" * 50)
    kept.close()
    with Child("lockstep", kept.memory, kept.size, kept.disk) as child:
        assert child.hear() == "open"
        for _ in range(rounds(5)):
            with Child("take_snapshot", kept.memory, kept.size, kept.disk) as taker:
                said = taker.hear().split()
                assert said[0] == "taken", said
                path = f"{kept.disk}/snapshot-{int(said[1]):016d}"
            assert int(said[2]) > 0, "nothing was written meanwhile: the test shows nothing"
            latest: dict[bytes, bytes | None] = {}
            for _, block in snapshot.read(path):
                latest |= {key: raw for place, key, raw in block if place == Space.KEYS}
            numbers = {raw[9:] for key, raw in latest.items() if raw and key.endswith(b" step")}
            assert len(numbers) == 1, numbers
            # In each step the key of the one before it is deleted.
            present = [key for key, raw in latest.items() if b" only " in key and raw]
            assert present == [only(int(numbers.pop()))]
    kept.open()


def nearly_full(shm: Path, tmp_path: Path) -> tuple[KeptStore, int]:
    """Make a store with little room, and say how many keys it holds."""
    store = KeptStore(shm, tmp_path, size=16 * MIB)
    number = 0
    while not isinstance(attempt(store.engine, Set(b"%06d" % number, b"x" * 500)), Refusal):
        number += 1
    for last in range(number * 3 // 4, number):
        drop(store.engine, b"%06d" % last)
    return store, number * 3 // 4


def refusals_of_replacing(store: KeptStore, keys: int, first: int) -> int:
    """Replace two hundred values all over the store, and return how often that was refused."""
    writes = (
        Set(b"%06d" % (number * 7919 % keys), b"y" * 500) for number in range(first, first + 200)
    )
    return sum(isinstance(attempt(store.engine, write), Refusal) for write in writes)


def test_a_store_with_little_room_is_written_to_while_a_snapshot_is_taken(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keys = nearly_full(shm, tmp_path)
    original = take_snapshot._Taking._records
    refused = []

    def records(self: take_snapshot._Taking, space: Space, after: bytes) -> object:
        refused.append(refusals_of_replacing(store, keys, len(refused) * 200))
        return original(self, space, after)

    monkeypatch.setattr(take_snapshot._Taking, "_records", records)
    store.take()
    assert len(refused) > 30
    assert sum(refused) == 0
    assert store.engine.check() == []
    # What would have been with one long transaction for all of it:
    with store.engine.database.read() as txn:
        assert txn.entries(store.engine.database.spaces[0]) == keys
        assert sum(refusals_of_replacing(store, keys, n * 200) for n in range(len(refused))) > 0
    store.close()


# When, and how many


def test_nothing_is_taken_when_nothing_was_changed(kept: KeptStore) -> None:
    hold = kept.engine.database
    put(kept.engine, b"k")
    assert hold.changed_since_snapshot()
    kept.take()
    assert not hold.changed_since_snapshot()
    assert value_of(kept.engine, b"k") == b"v"
    assert not hold.changed_since_snapshot()
    done(kept.engine, Touch(b"k", 1000))  # has no event and no revision, and is a change
    assert hold.changed_since_snapshot()
    kept.take()
    kept.lose_memory()
    assert not kept.engine.database.changed_since_snapshot()


def test_what_is_changed_while_a_snapshot_is_taken_makes_the_next_one_worth_while(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(kept.engine, b"k")
    rename = kept.data.files.rename

    def change_and_rename(old: str, new: str) -> None:
        put(kept.engine, b"late")
        rename(old, new)

    monkeypatch.setattr(kept.data.files, "rename", change_and_rename)
    kept.take()
    assert kept.engine.database.changed_since_snapshot()


def test_the_last_few_are_kept_and_nothing_else(kept: KeptStore) -> None:
    for number in range(5):
        put(kept.engine, b"k", b"%d" % number)
        kept.take()
    assert snapshots(kept) == [4, 5]
    assert sorted(os.listdir(kept.disk)) == [
        "high-water", "keyrack", "lock", "snapshot-0000000000000004", "snapshot-0000000000000005",
    ]  # fmt: skip


def test_one_that_fails_leaves_the_ones_before_it_and_a_store_that_goes_on(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(kept.engine, b"k", b"first")
    kept.take()

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(kept.data.files, "sync", fail)
        with pytest.raises(OSError, match="Input/output"):
            kept.take()
    assert snapshots(kept) == [1]
    assert not [name for name in os.listdir(kept.disk) if name.endswith(".part")]
    assert not kept.engine.database.position().on
    put(kept.engine, b"k", b"second")
    assert kept.engine.database.changed_since_snapshot()
    kept.take()
    kept.lose_memory()
    assert value_of(kept.engine, b"k") == b"second"


def test_a_disk_that_is_full_fails_the_snapshot_and_not_the_writes(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(kept.engine, b"k", b"first")
    original = take_snapshot._Taking._copy

    def full(descriptor: int, data: bytes, offset: int) -> None:
        raise OSError(28, "No space left on device")

    def copy(self: take_snapshot._Taking, writer: snapshot.Writer) -> None:
        original(self, writer)
        with monkeypatch.context() as patch:
            patch.setattr(kept.data.files, "write", full)
            assert not isinstance(attempt(kept.engine, Set(b"k", b"second")), Refusal)

    monkeypatch.setattr(take_snapshot._Taking, "_copy", copy)
    with pytest.raises(take_snapshot.SnapshotFailed, match="could not be written down"):
        kept.take()
    assert value_of(kept.engine, b"k") == b"second"
    assert snapshots(kept) == []


def test_a_process_that_is_killed_while_it_takes_one_leaves_nothing_that_lasts(
    kept: KeptStore,
) -> None:
    put(kept.engine, b"k", b"first")
    kept.take()
    with Child("die_taking", kept.memory, kept.size, kept.disk) as child:
        assert child.hear() == "dying"
        child.hear_all()
    assert snapshots(kept) == [1]
    put(kept.engine, b"k", b"second")
    kept.take()
    assert len(os.listdir(kept.disk)) == len(["high-water", "keyrack", "lock", "one", "three"])
    kept.lose_memory()
    assert value_of(kept.engine, b"k") == b"second"


# Damage


def damage(store: KeptStore, number: int) -> None:
    path = store.data.snapshot(number)
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes((byte ^ 4,)))


def test_a_damaged_newest_one_is_told_and_the_one_before_it_is_used(kept: KeptStore) -> None:
    for value in (b"older", b"newer"):
        put(kept.engine, b"k", value)
        kept.take()
    damage(kept, 2)
    kept.lose_memory()
    assert value_of(kept.engine, b"k") == b"older"
    damaged, renamed = kept.started.troubles
    path = kept.data.snapshot(2)
    assert damaged.startswith(f"{path} is damaged before byte ")
    assert renamed == f"{path} was not used. It is now {path}.set-aside."
    assert os.path.exists(f"{path}.set-aside")
    put(kept.engine, b"k", b"newest")
    kept.take()
    assert snapshots(kept) == [1, 3]


def test_when_none_is_good_the_service_does_not_begin_with_nothing(kept: KeptStore) -> None:
    put(kept.engine, b"k")
    kept.take()
    damage(kept, 1)
    kept.close()
    for file in kept.memory.iterdir():
        file.unlink()
    with pytest.raises(StoreError, match=r"None of the 1 snapshots in .* can be read"):
        kept.open()
    damage(kept, 1)
    kept.open()
    assert value_of(kept.engine, b"k") == b"v"


def test_a_snapshot_that_the_store_cannot_hold_is_refused_with_what_to_do(
    kept: KeptStore,
) -> None:
    for number in range(40):
        put(kept.engine, b"%d" % number, os.urandom(MIB // 2))
    kept.take()
    size, kept.size = kept.size, 16 * MIB
    with pytest.raises(StoreTooSmall, match="Give it more --memory"):
        kept.lose_memory()
    kept.size = size
    kept.open()
    assert kept.engine.usage().keys == 40


# Which is used: what is in memory, or what is on the disk


def test_a_store_that_outlived_the_service_is_newer_than_its_snapshot(kept: KeptStore) -> None:
    put(kept.engine, b"k", b"on disk")
    kept.take()
    put(kept.engine, b"k", b"in memory")
    kept.restart()
    assert value_of(kept.engine, b"k") == b"in memory"
    assert kept.started.facts == []


def test_a_store_of_another_start_of_the_machine_is_not_trusted(kept: KeptStore) -> None:
    put(kept.engine, b"k", b"on disk")
    kept.take()
    put(kept.engine, b"k", b"may be torn")
    kept.engine.database.move(lambda position: position._replace(boot=b"x" * 36))
    kept.restart()
    assert value_of(kept.engine, b"k") == b"on disk"


def test_a_snapshot_that_was_put_there_meanwhile_is_what_the_operator_wants(
    kept: KeptStore,
) -> None:
    put(kept.engine, b"k", b"good")
    kept.take()
    good = (kept.disk / "snapshot-0000000000000001").read_bytes()
    put(kept.engine, b"k", b"bad")
    put(kept.engine, b"another")
    kept.take()
    kept.close()
    (kept.disk / "snapshot-0000000000000003").write_bytes(good)
    kept.open()
    assert value_of(kept.engine, b"k") == b"good"
    assert value_of(kept.engine, b"another") is None


def test_loading_that_was_broken_off_is_done_again(kept: KeptStore) -> None:
    for number in range(1000):
        put(kept.engine, b"%d" % number)
    kept.take()
    kept.close()
    for file in kept.memory.iterdir():
        file.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keyrack.engines.embedded.durability.recovery._Loader.finish", None)
        with pytest.raises(TypeError):
            kept.open()
    kept.open()
    assert kept.engine.usage().keys == 1000


def test_a_store_and_a_data_directory_that_do_not_know_each_other_are_not_mixed(
    kept: KeptStore, shm: Path, tmp_path: Path
) -> None:
    put(kept.engine, b"k", b"here")
    kept.take()
    other = KeptStore(shm / "store", tmp_path / "other")
    put(other.engine, b"k", b"there")
    other.take()
    other.close()
    here, kept.disk = kept.disk, other.disk
    with pytest.raises(StoreError, match=r"holds data that .* does not know, and both have some"):
        kept.restart()
    kept.disk = here
    kept.open()
    assert value_of(kept.engine, b"k") == b"here"


def test_a_store_that_was_kept_nowhere_is_taken_over_by_an_empty_data_directory(
    kept: KeptStore, tmp_path: Path
) -> None:
    put(kept.engine, b"k")
    kept.disk = tmp_path / "another"
    kept.restart()
    assert value_of(kept.engine, b"k") == b"v"
    kept.take()
    kept.lose_memory()
    assert value_of(kept.engine, b"k") == b"v"


# The data directory


def test_a_data_directory_belongs_to_one_service(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_PATIENCE_SECONDS", 0.1)
    with pytest.raises(StoreInUse, match="is in use by another service"):
        data_directory.take(str(kept.disk))


def test_a_directory_with_other_files_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(StoreFormatUnknown, match=r"holds other files \(thesis.txt"):
        data_directory.take(str(tmp_path))


def test_a_data_directory_of_another_version_is_refused(kept: KeptStore, tmp_path: Path) -> None:
    head = kept.disk / "keyrack"
    text = head.read_text()
    first, name, _ = text.splitlines(keepends=True)
    lines = first.replace("data 1", "data 9") + name
    head.write_text(f"{lines}{data_directory._checksum(lines)}\n")
    with pytest.raises(StoreFormatUnknown, match=r"has the format 'keyrack data 9', and this"):
        kept.restart()
    head.write_text(text)
    kept.open()


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"--data-dir .* cannot be used: Not a directory"):
        data_directory.take(str(tmp_path / "file" / "data"))
