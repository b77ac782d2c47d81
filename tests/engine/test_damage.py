"""Every file of a data directory is damaged in every way: nothing is lost in silence.

A start either finds all of it, or is refused and changes nothing, so that it is refused again: the
next one, and the one after that. In the mode `snapshot` an older snapshot may be used, and is told.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from engine_support.contents import contents
from engine_support.driven import embedded
from engine_support.kept import KeptStore
from engine_support.world import attempt, put

from keyrack.engines.contract import Set, Space, StoreError
from keyrack.engines.embedded.durability import high_water, journal, snapshot
from keyrack.engines.embedded.durability.examination import DataDamaged, examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

STARTS = 3


def flip_a_bit(path: str) -> None:
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        data[len(data) * 2 // 3] ^= 4
        file.seek(0)
        file.write(data)


def zero_a_byte(path: str) -> None:
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        place = next(at for at in range(len(data) // 2, len(data)) if data[at])
        data[place] = 0
        file.seek(0)
        file.write(data)


def zero_the_rest(path: str) -> None:
    size = os.path.getsize(path)
    os.truncate(path, size // 2)
    os.truncate(path, size)


def cut_in_half(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def cut_off_the_last_byte(path: str) -> None:
    os.truncate(path, os.path.getsize(path) - 1)


def change_the_first_byte(path: str) -> None:
    with open(path, "r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes((first[0] ^ 1,)))


def empty(path: str) -> None:
    os.truncate(path, 0)


def remove(path: str) -> None:
    os.unlink(path)


def make_unreadable(path: str) -> None:
    """As for a file of somebody else: the superuser, who may run this, reads those too."""
    os.unlink(path)
    os.symlink(os.path.basename(path), path)


DAMAGES = [
    flip_a_bit,
    zero_a_byte,
    zero_the_rest,
    cut_in_half,
    cut_off_the_last_byte,
    change_the_first_byte,
    empty,
    remove,
    make_unreadable,
]

COMMITTED = {
    "keyrack": "refused",
    "high-water": "whole",
    "snapshot-0000000000000002": "whole",
    "snapshot-0000000000000003": "whole",
    "journal-0000000000000002": "whole",
    "journal-0000000000000003": "refused",
    "journal-0000000000000004": "refused",
}
"""What is to come of damage to each file in the mode `commit`. The older snapshot and its journal
are there for the case that the newer snapshot is damaged, and the other way round."""

SNAPSHOTS = {
    "keyrack": "refused",
    "high-water": "whole",
    "snapshot-0000000000000001": "whole",
    "snapshot-0000000000000002": "older",
}


@pytest.fixture
def kept(shm: Path, tmp_path: Path) -> Iterator[KeptStore]:
    """A store in the mode `commit`: two snapshots, and a journal of a later life."""
    store = KeptStore(shm, tmp_path, strict=True)
    for life in range(3):
        fill(store, life)
        assert store.sync()
        if life < 2:
            store.take()
    store.restart()
    fill(store, 3)
    assert store.sync()
    assert sorted(os.listdir(store.disk)) == sorted([*COMMITTED, "lock"])
    yield store
    store.close()


def fill(store: KeptStore, life: int) -> None:
    for number in range(10):
        put(store.engine, b"%d/%d" % (life, number), b"v" * number * 10)
        put(store.engine, b"again", b"%d" % number)
        if number == 5:
            attempt(store.engine, Set(b"lock", b"me", ttl_ms=60_000, space=Space.LOCKS))


def files_of(store: KeptStore) -> dict[str, bytes]:
    """Return the names and bytes of all files but the lock, in which each start signs."""
    found = {}
    for name in os.listdir(store.disk):
        path = store.disk / name
        if name != "lock":
            found[name] = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
    return found


def forget_memory(store: KeptStore) -> None:
    shutil.rmtree(store.memory, ignore_errors=True)


def start(store: KeptStore) -> dict[str, Any] | None:
    """Start with nothing in memory, and return what is there; None when that is refused."""
    forget_memory(store)
    before = files_of(store)
    refusal = ""
    try:
        store.open()
    except StoreError as error:
        refusal = str(error)
    if refusal:
        assert str(store.disk) in refusal, "the sentence says where"
        assert files_of(store) == before, "what was refused is as it was"
        return None
    found = contents(store.engine)
    assert store.engine.check() == []
    store.close()
    return found


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", COMMITTED)
def test_committed_writes_are_there_or_the_start_is_refused_again_and_again(
    kept: KeptStore, name: str, damage: Callable[[str], None]
) -> None:
    before = contents(kept.engine)
    kept.close()
    path = str(kept.disk / name)
    with open(path, "rb") as file:
        good = file.read()
    damage(path)
    evidence = files_of(kept).get(name)
    found = [start(kept) for _ in range(STARTS)]
    refused = COMMITTED[name] == "refused" or damage is make_unreadable
    if name == "journal-0000000000000002":
        refused = False  # it is not read while the newest snapshot is good
    if name == "snapshot-0000000000000002":
        refused = False
    assert found == [None if refused else before] * STARTS
    if refused:
        if os.path.lexists(path):
            os.unlink(path)
        with open(path, "wb") as file:
            file.write(good)
        assert start(kept) == before, "with the good file back all is there"
    elif evidence is not None and name == "snapshot-0000000000000003":
        assert evidence in files_of(kept).values(), "what was damaged is set aside"
    kept.open()


@pytest.fixture
def snapshots(shm: Path, tmp_path: Path) -> Iterator[tuple[KeptStore, list[dict[str, Any]]]]:
    """A store in the mode `snapshot`, and what it held at each of two snapshots."""
    store = KeptStore(shm, tmp_path)
    states = []
    for life in range(2):
        fill(store, life)
        states.append(contents(store.engine))
        store.take()
    assert sorted(os.listdir(store.disk)) == sorted([*SNAPSHOTS, "lock"])
    store.close()
    yield store, states
    store.open()
    store.close()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_snapshot_is_used_or_the_start_is_refused_again_and_again(
    snapshots: tuple[KeptStore, list[dict[str, Any]]], name: str, damage: Callable[[str], None]
) -> None:
    store, (older, newer) = snapshots
    path = str(store.disk / name)
    with open(path, "rb") as file:
        good = file.read()
    damage(path)
    evidence = files_of(store).get(name)
    found = [start(store) for _ in range(STARTS)]
    if name == "keyrack" or (damage is make_unreadable and not name.endswith("1")):
        assert found == [None] * STARTS
        if os.path.lexists(path):
            os.unlink(path)
        with open(path, "wb") as file:
            file.write(good)
        assert start(store) == newer
    elif SNAPSHOTS[name] == "older":
        assert found == [older] * STARTS
        assert evidence is None or evidence in files_of(store).values()
        assert any("snapshot-0000000000000002" in line for line in store.started.troubles) or (
            evidence is not None
        )
    else:
        assert found == [newer] * STARTS


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_with_all_snapshots_damaged_nobody_begins_with_nothing(
    shm: Path, tmp_path: Path, strict: bool, damage: Callable[[str], None]
) -> None:
    store = KeptStore(shm, tmp_path, strict=strict)
    fill(store, 0)
    store.take()
    fill(store, 1)
    if strict:
        assert store.sync()
    else:
        store.take()
    before = contents(store.engine)
    store.close()
    saved = tmp_path / "saved"
    shutil.copytree(store.disk, saved)
    for number in store.data.snapshots():
        damage(store.data.snapshot(number))
    assert [start(store) for _ in range(STARTS)] == [None] * STARTS
    shutil.rmtree(store.disk)
    shutil.copytree(saved, store.disk)
    assert start(store) == before


@pytest.mark.parametrize("what", ["snapshot", "journal"])
def test_without_any_file_of_a_kind_nobody_begins_with_less(kept: KeptStore, what: str) -> None:
    kept.close()
    saved = files_of(kept)
    for name in saved:
        if name.startswith(what):
            os.unlink(kept.disk / name)
    assert [start(kept) for _ in range(STARTS)] == [None] * STARTS
    for name, data in saved.items():
        (kept.disk / name).write_bytes(data)
    kept.open()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
@pytest.mark.parametrize("module", [snapshot, journal, high_water])
def test_what_the_system_does_not_read_is_not_taken_for_damage(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch, module: ModuleType, number: int
) -> None:
    before = contents(kept.engine)
    kept.close()

    def fail(file: str | int, *rest: object) -> None:
        named = (file,) if isinstance(file, str) else ()
        raise OSError(number, os.strerror(number), *named)

    with monkeypatch.context() as patch:
        if module is journal:
            patch.setattr("keyrack.engines.embedded.durability.journal.os.pread", fail)
        else:
            patch.setattr(module, "open", fail, raising=False)
        assert [start(kept) for _ in range(STARTS)] == [None] * STARTS
        with pytest.raises(StoreError, match=f"{os.strerror(number)}. That is no damage, and"):
            kept.open()
    assert start(kept) == before
    kept.open()


# While the store is still in memory


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*COMMITTED, "lock"])
def test_what_is_in_memory_outlives_damage_on_the_disk(
    kept: KeptStore, name: str, damage: Callable[[str], None]
) -> None:
    """It is written down anew where it has to be, before it is gone on with."""
    before = contents(kept.engine)
    kept.close()
    path = str(kept.disk / name)
    with open(path, "rb") as file:
        good = file.read()
    damage(path)
    unread = name.endswith("2")
    refused = name == "keyrack" or (damage is make_unreadable and not unread)
    for _ in range(STARTS):
        if refused:
            with pytest.raises(StoreError, match=str(kept.disk)):
                kept.open()
        else:
            kept.open()
            assert contents(kept.engine) == before
            kept.close()
    if refused:
        if os.path.lexists(path):
            os.unlink(path)
        with open(path, "wb") as file:
            file.write(good)
    glimpsed = name.startswith("snapshot") and damage in (flip_a_bit, zero_a_byte, zero_the_rest)
    if not glimpsed:
        assert [start(kept) for _ in range(STARTS)] == [before] * STARTS
    kept.open()
    assert contents(kept.engine) == before


def put_back(store: KeptStore, backup: Path) -> None:
    """Put a backup of a data directory back in its place."""
    shutil.rmtree(store.disk)
    shutil.copytree(backup, store.disk)


@pytest.mark.parametrize("older", [True, False])
def test_a_backup_that_was_put_back_is_brought_up_to_the_store_in_memory(
    shm: Path, tmp_path: Path, older: bool
) -> None:
    store = KeptStore(shm, tmp_path, strict=True)
    fill(store, 0)
    assert store.sync()
    store.close()
    backup = tmp_path / "backup"
    shutil.copytree(store.disk, backup)
    store.open()
    if older:
        store.take()
    fill(store, 1)
    assert store.sync()
    before = contents(store.engine)
    store.close()
    put_back(store, backup)
    store.open()
    assert contents(store.engine) == before
    (warning,) = store.started.warnings
    assert "lacks changes that the store in memory has" in warning
    put(store.engine, b"later")
    assert store.sync()
    before = contents(store.engine)
    for _ in range(STARTS):
        store.lose_memory()
        assert contents(store.engine) == before
    assert store.started.warnings == []
    store.close()


@pytest.mark.parametrize("which", ["journal", "journal-0000000000000004", "snapshot"])
def test_files_that_are_missing_are_made_up_for_by_the_store_in_memory(
    kept: KeptStore, which: str
) -> None:
    before = contents(kept.engine)
    kept.close()
    for name in os.listdir(kept.disk):
        if name.startswith(which):
            os.unlink(kept.disk / name)
    kept.open()
    assert kept.started.warnings + kept.started.troubles != []
    assert contents(kept.engine) == before
    for _ in range(STARTS):
        kept.lose_memory()
        assert contents(kept.engine) == before


def test_a_snapshot_that_is_missing_is_taken_again_from_memory(shm: Path, tmp_path: Path) -> None:
    store = KeptStore(shm, tmp_path)
    fill(store, 0)
    store.take()
    before = contents(store.engine)
    store.close()
    os.unlink(store.data.snapshot(1))
    store.open()
    assert "lacks changes" in store.started.warnings[0]
    for _ in range(STARTS):
        store.lose_memory()
        assert contents(store.engine) == before
    store.close()


def test_a_store_that_another_service_went_on_without_is_not_gone_back_to(
    shm: Path, tmp_path: Path
) -> None:
    store = KeptStore(shm, tmp_path, strict=True)
    fill(store, 0)
    assert store.sync()
    store.close()
    other = KeptStore(shm / "other", tmp_path, strict=True)
    fill(other, 1)
    assert other.sync()
    before = contents(other.engine)
    other.close()
    store.open()
    assert contents(store.engine) == before
    store.lose_memory()
    assert contents(store.engine) == before
    store.close()


# Every byte and every entry of a journal


def journal_of(store: KeptStore) -> tuple[str, list[int]]:
    """Return the newest journal, and where each of its entries ends."""
    number = store.data.journals()[-1]
    with contextlib.closing(journal.JournalReader(store.data, number)) as reader:
        entries = list(reader.entries(journal.START, reader.header.first - 1))
    return store.data.journal(number), [entry.end for entry in entries]


def is_refused(store: KeptStore) -> bool:
    """Tell whether a start with an empty memory would be refused."""
    try:
        examine(store.data).refuse_losses()
    except DataDamaged:
        return True
    return False


@pytest.fixture
def acknowledged(shm: Path, tmp_path: Path) -> Iterator[KeptStore]:
    """A closed store in the mode `commit`, each of whose writes was synced before the next."""
    store = KeptStore(shm, tmp_path, strict=True)
    for number in range(20):
        put(store.engine, b"%d" % (number % 7), b"v" * number)
        assert store.sync()
    store.close()
    assert not is_refused(store)
    yield store
    forget_memory(store)


def test_every_bit_of_a_journal_counts(acknowledged: KeptStore) -> None:
    path, _ = journal_of(acknowledged)
    with open(path, "r+b") as file:
        good = file.read()
        for offset in range(len(good)):
            for changed in {good[offset] ^ 1 << bit for bit in range(8)} | {0}:
                if changed != good[offset]:
                    file.seek(offset)
                    file.write(bytes((changed,)))
                    file.flush()
                    assert is_refused(acknowledged), f"byte {offset}"
            file.seek(offset)
            file.write(good[offset : offset + 1])
            file.flush()
    assert not is_refused(acknowledged)


def test_a_journal_that_is_cut_off_anywhere_is_refused(acknowledged: KeptStore) -> None:
    path, _ = journal_of(acknowledged)
    for size in reversed(range(os.path.getsize(path))):
        os.truncate(path, size)
        assert is_refused(acknowledged), f"cut off at {size}"


@pytest.mark.parametrize("with_mark", [True, False])
def test_an_entry_that_is_not_there_is_noticed(acknowledged: KeptStore, with_mark: bool) -> None:
    """Without the mark the entries behind it tell of it, and of the last one nobody does."""
    path, ends = journal_of(acknowledged)
    if not with_mark:
        os.unlink(acknowledged.data.mark())
    with open(path, "r+b") as file:
        good = file.read()
        for begin, end in itertools.pairwise([journal.START, *ends]):
            for bytes_there in (bytes(end - begin), b""):
                file.seek(0)
                file.truncate()
                file.write(good[:begin] + bytes_there + good[end:])
                file.flush()
                last = end == ends[-1] and not with_mark
                assert is_refused(acknowledged) is not last, f"entry up to {end}"


def test_what_is_readable_behind_damage_is_counted(acknowledged: KeptStore) -> None:
    path, ends = journal_of(acknowledged)
    with open(path, "r+b") as file:
        file.seek(ends[4])
        file.write(bytes(ends[8] - ends[4]))
    found = examine(acknowledged.data)
    assert found.lost == 15
    assert found.readable_behind == 11


def test_what_was_never_synced_may_be_torn_in_any_way(shm: Path, tmp_path: Path) -> None:
    """A loss of power may leave later entries and not earlier ones: that is no damage."""
    store = KeptStore(shm, tmp_path, strict=True)
    put(store.engine, b"synced")
    assert store.sync()
    for number in range(10):
        put(store.engine, b"%d" % number)
    store.close()
    path, ends = journal_of(store)
    with open(path, "r+b") as file:
        good = file.read()
        for begin, end in itertools.pairwise(ends):
            file.seek(0)
            file.write(good[:begin] + bytes(end - begin) + good[end:])
            file.flush()
            assert not is_refused(store)
            file.seek(0)
            file.write(good[: ends[0] - 1] + b"?" + good[ends[0] :])
            file.flush()
            assert is_refused(store), "the one that was synced"


def test_a_refused_start_leaves_what_is_in_memory_alone(kept: KeptStore) -> None:
    """It may be older than the data directory, and it may be all that is left."""
    before = contents(kept.engine)
    kept.engine.database.move(lambda position: position._replace(boot=b"x" * 36))
    kept.close()
    with open(kept.data.journal(4), "rb") as file:
        good = file.read()
    flip_a_bit(kept.data.journal(4))
    for _ in range(STARTS):
        with pytest.raises(StoreError, match="keyrack data salvage"):
            kept.open()
        with contextlib.closing(embedded(str(kept.memory), kept.size, kept.events)) as engine:
            assert contents(engine) == before
    with open(kept.data.journal(4), "wb") as file:
        file.write(good)
    kept.open()
    assert contents(kept.engine) == before
