"""The journal: what was committed is in it, and what is not an entry is not taken for one."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import lmdb
import pytest
from engine_support.contents import contents
from engine_support.kept import KeptStore
from engine_support.processes import Child
from engine_support.world import attempt, done, drop, put, value_of

from keyrack.engines.contract import (
    ANY,
    CacheControl,
    Check,
    Condition,
    Delete,
    Refusal,
    Set,
    StoreFormatUnknown,
    Touch,
    Why,
)
from keyrack.engines.embedded.database import WriteTransaction
from keyrack.engines.embedded.durability import changes, journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyrack.engines.embedded.durability.changes import Change


@pytest.fixture
def kept(shm: Path, tmp_path: Path) -> Iterator[KeptStore]:
    """A store whose every write is kept; every test ends with its audit."""
    store = KeptStore(shm, tmp_path, strict=True)
    yield store
    problems = store.engine.check()
    store.close()
    assert problems == []


def path_of(store: KeptStore) -> str:
    """Return the path of the journal that is written to."""
    return store.data.journal(store.data.journals()[-1])


def entries(store: KeptStore) -> list[list[Change]]:
    """Return the changes of each entry of the journal that is written to."""
    position = store.engine.database.position()
    reader = journal.JournalReader(store.data, position.number)
    first = reader.header.first
    found = [list(changes.unpack(e.payload)) for e in reader.entries(journal.START, first - 1)]
    reader.close()
    return found


def forget_memory(store: KeptStore) -> None:
    """Remove what is in memory, of a store that is closed."""
    for file in store.memory.iterdir():
        file.unlink()


# Its bytes


@pytest.mark.parametrize(
    ("version", "head"),
    [
        (1, "00 00 00 16 c1 16 9f 0f 00 00 00 00 00 00 00 07 "),
        (2, "00 00 00 16 5b 62 3e 61 00 00 00 00 00 00 00 07 00 00 00 02 "),
    ],
)
def test_the_bytes_of_each_version_stay_as_they_are(version: int, head: str) -> None:
    header = journal.JournalHeader(1, 1, b"12345678", version=version)
    payload = changes.pack([(0, b"k", b"record"), (1, b"l", None)])
    assert journal.pack_entry(header, 7, 4, payload).hex(" ") == (
        head + "00 00 01 00 00 00 06 6b 72 65 63 6f 72 64 81 00 01 00 00 00 00 6c"
    )


def test_a_journal_of_version_1_is_read(kept: KeptStore) -> None:
    put(kept.engine, b"k", b"v")
    before = contents(kept.engine)
    path, payloads = path_of(kept), [changes.pack(found) for found in entries(kept)]
    first = kept.engine.database.position().sequence
    header = journal.JournalHeader(1, first, b"12345678", version=1)
    head = journal._HEADER.pack(b"keyrack journal\n", 1, 0, 1, header.first, header.salt)
    kept.close()
    with open(path, "wb") as file:
        file.write(head + journal._digest(head))
        file.write(journal.pack_entry(header, header.first, 0, payloads[0]))
    # An earlier version knew no mark, and had no checksum in the head.
    os.unlink(kept.data.mark())
    head_path = kept.disk / "keyrack"
    head_path.write_text("".join(head_path.read_text().splitlines(keepends=True)[:2]))
    forget_memory(kept)
    kept.open()
    assert contents(kept.engine) == before
    assert kept.started.troubles == []


def test_another_version_is_refused_with_a_sentence(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "VERSION", 6)
    with pytest.raises(StoreFormatUnknown, match=r"has the format 5, and this version .* reads 6"):
        journal.JournalReader(kept.data, 1)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_journal_of_an_earlier_version_is_read(kept: KeptStore, version: int) -> None:
    put(kept.engine, b"k", b"v")
    before = contents(kept.engine)
    path, payloads = path_of(kept), [changes.pack(found) for found in entries(kept)]
    first = kept.engine.database.position().sequence
    header = journal.JournalHeader(1, first, b"12345678", version=version)
    head = journal._HEADER.pack(b"keyrack journal\n", version, 1, 1, header.first, header.salt)
    kept.close()
    with open(path, "wb") as file:
        file.write(head + journal._digest(head))
        file.write(journal.pack_entry(header, header.first, header.first - 1, payloads[0]))
    forget_memory(kept)
    kept.open()
    assert contents(kept.engine) == before


# What is in it


def test_each_transaction_is_one_entry_with_what_is_there_after_it(kept: KeptStore) -> None:
    put(kept.engine, b"a", b"1")
    done(kept.engine, Set(b"b", b"2"), Set(b"b", b"3"), Delete(b"a"))
    first, second = entries(kept)
    assert [(place, key) for place, key, _ in first] == [(0, b"a"), (3, first[1][1])]
    assert {(place, key): raw and raw[9:] for place, key, raw in second[:-1]} == {
        (0, b"b"): b"3",
        (0, b"a"): None,
    }


def test_what_changes_nothing_is_not_written_down(kept: KeptStore) -> None:
    attempt(kept.engine, Check(b"missing", Condition(match=ANY)))
    attempt(kept.engine, Set(b"a", b"1"), Check(b"missing", Condition(match=ANY)))
    drop(kept.engine, b"missing")
    for changed in entries(kept):
        assert all(raw is None for _, _, raw in changed)


def test_every_way_of_changing_a_record_is_written_down(kept: KeptStore) -> None:
    put(kept.engine, b"ends", ttl_ms=10)
    put(kept.engine, b"touched")
    done(kept.engine, Touch(b"touched", 5_000))
    put(kept.engine, b"long", os.urandom(200_000))
    put(kept.engine, b"long and touched", os.urandom(50_000))
    done(kept.engine, Touch(b"long and touched", 5_000))
    kept.clock.advance(20)
    assert kept.engine.expire(10).expired == 1
    before = contents(kept.engine)
    assert kept.sync()
    kept.lose_memory()
    assert contents(kept.engine) == before


def test_old_events_that_were_trimmed_do_no_harm_when_they_come_back(
    shm: Path, tmp_path: Path
) -> None:
    store = KeptStore(shm, tmp_path, strict=True, events=10)
    for number in range(500):
        put(store.engine, b"%d" % (number % 20))
    while store.engine.trim(100):
        pass
    revision = store.engine.usage().revision
    assert store.sync()
    store.lose_memory()
    assert store.engine.usage().events >= 10
    while store.engine.trim(100):
        pass
    events = list(store.engine.events())
    assert events[-1].revision == revision
    assert [e.revision for e in events] == list(range(events[0].revision, revision + 1))
    assert store.engine.check() == []
    store.close()


# What is not in it


def test_the_tail_that_is_torn_is_not_read(kept: KeptStore) -> None:
    for number in range(3):
        put(kept.engine, b"%d" % number)
    path, size = path_of(kept), os.path.getsize(path_of(kept))
    kept.close()
    os.truncate(path, size - 1)
    for file in kept.memory.iterdir():
        file.unlink()
    kept.open()
    assert [value_of(kept.engine, b"%d" % number) for number in range(3)] == [b"v", b"v", None]


def test_a_transaction_that_is_given_up_leaves_no_entry(kept: KeptStore) -> None:
    put(kept.engine, b"first")
    database = kept.engine.database
    with contextlib.suppress(ZeroDivisionError), database.write(100, grows=True) as txn:
        txn.put(b"never", b"x" * 20, database.spaces[0])
        raise ZeroDivisionError
    put(kept.engine, b"second")
    assert kept.sync()
    kept.lose_memory()
    assert [value_of(kept.engine, key) for key in (b"first", b"second", b"never")] == [
        b"v",
        b"v",
        None,
    ]


def test_an_entry_whose_commit_failed_is_taken_back(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(kept.engine, b"first")
    real = WriteTransaction.__init__

    class NoRoom:
        """A transaction that cannot be committed."""

        def __init__(self, txn: lmdb.Transaction[bytes]) -> None:
            self._txn = txn

        def __getattr__(self, name: str) -> object:
            return getattr(self._txn, name)

        def commit(self) -> None:
            self._txn.abort()
            raise lmdb.MapFullError("no room")

    def init(self: WriteTransaction, database: object, raw: object, *rest: object) -> None:
        real(self, database, NoRoom(raw), *rest)  # type: ignore[arg-type]  # stands in for one

    with monkeypatch.context() as patch:
        patch.setattr(WriteTransaction, "__init__", init)
        assert attempt(kept.engine, Set(b"refused", b"v")) == Refusal(Why.FULL)
    assert len(entries(kept)) == 1
    kept.lose_memory()
    assert value_of(kept.engine, b"refused") is None


@pytest.mark.parametrize("when", ["made", "before"])
def test_a_writer_that_is_killed_holding_the_lock_leaves_nothing_that_counts(
    kept: KeptStore, when: str
) -> None:
    put(kept.engine, b"first")
    with Child("die_kept", kept.memory, kept.size, kept.disk, when) as child:
        assert child.hear() == "dying"
        child.hear_all()
    put(kept.engine, b"second", b"longer than what the dead one wrote")
    assert kept.sync()
    before = contents(kept.engine)
    assert b"never" not in before["KEYS"]
    kept.lose_memory()
    assert contents(kept.engine) == before


def test_what_a_dead_writer_left_at_the_end_is_not_read_when_the_next_life_goes_on(
    kept: KeptStore,
) -> None:
    put(kept.engine, b"first")
    with Child("die_kept", kept.memory, kept.size, kept.disk, "made") as child:
        assert child.hear() == "dying"
        child.hear_all()
    kept.restart()
    put(kept.engine, b"second")
    assert kept.sync()
    before = contents(kept.engine)
    assert b"never" not in before["KEYS"]
    kept.lose_memory()
    assert contents(kept.engine) == before


def test_bytes_of_another_journal_are_no_entry(kept: KeptStore) -> None:
    """A user may store what looks like an entry; without the file's salt it is none."""
    put(kept.engine, b"k")
    position = kept.engine.database.position()
    payload = changes.pack([(0, b"forged", b"\0" * 8 + b"\0v")])
    header = journal.JournalHeader(position.number, 1, b"\0" * 8)
    forged = journal.pack_entry(header, position.sequence + 1, position.sequence, payload)
    with open(path_of(kept), "r+b") as file:
        file.seek(position.offset)
        file.write(forged)
    assert len(entries(kept)) == 1


def test_with_a_damaged_newest_snapshot_nothing_is_lost(kept: KeptStore) -> None:
    put(kept.engine, b"first")
    kept.take()
    put(kept.engine, b"second")
    kept.take()
    put(kept.engine, b"third")
    assert kept.sync()
    os.truncate(kept.data.snapshot(kept.data.snapshots()[-1]), 90)
    before = contents(kept.engine)
    kept.lose_memory()
    assert contents(kept.engine) == before
    assert "is cut off, or damaged" in kept.started.troubles[0]
    assert "was not used. It is now" in kept.started.troubles[1]


def test_journals_are_kept_as_long_as_a_snapshot_needs_them(kept: KeptStore) -> None:
    for _ in range(4):
        put(kept.engine, b"k")
        kept.take()
    snapshots = kept.data.snapshots()
    assert len(snapshots) == 2
    assert kept.data.journals() == snapshots


def test_what_caches_may_do_with_a_value_comes_back(kept: KeptStore) -> None:
    caching = CacheControl(30, 60, public=True)
    for key, value, ttl in ((b"short", b"v", 0), (b"long", b"0123456789" * 2000, 60_000)):
        done(kept.engine, Set(key, value, ttl_ms=ttl, cache_control=caching))
    kept.close()
    forget_memory(kept)
    kept.open()
    for key in (b"short", b"long"):
        record = kept.engine.get(key)
        assert record is not None
        assert record.cache_control == caching
    assert kept.engine.check() == []
