"""`keyrack data`: what is damaged is told, and gone on with only when somebody says so."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from engine_support.contents import contents
from engine_support.kept import KeptStore
from engine_support.world import attempt, memory_directory, put, value_of

from keyrack import cli
from keyrack.cli.table import commands_of
from keyrack.engines.contract import Set, Space, StoreError
from keyrack.engines.embedded import locking
from keyrack.engines.embedded.durability import journal, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptStore]:
    """A store in the mode `commit` with a snapshot of ten keys and ten more in its journal."""
    with memory_directory() as memory:
        store = KeptStore(memory, tmp_path, strict=True, keep=1)
        for number in range(10):
            put(store.engine, b"%d" % number, b"in a snapshot")
        attempt(store.engine, Set(b"lock", b"me", ttl_ms=60_000, space=Space.LOCKS))
        store.take()
        for number in range(5, 15):
            put(store.engine, b"%d" % number, b"in the journal")
            assert store.sync()
        yield store


def ends_of(store: KeptStore) -> list[int]:
    """Return where each entry of the only journal ends."""
    reader = journal.JournalReader(store.data, 2)
    ends = [entry.end for entry in reader.entries(journal.START, reader.header.first - 1)]
    reader.close()
    return ends


def flip(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ 16,)))


def close(store: KeptStore) -> None:
    """End, and lose what is in memory."""
    store.close()
    shutil.rmtree(store.memory)


def data(verb: str, store: KeptStore) -> int:
    return cli.run(["data", verb, "--data-dir", str(store.disk)])


@pytest.mark.parametrize("verb", commands_of("data"))
def test_every_verb_has_help(capsys: Capture, verb: str) -> None:
    assert cli.run(["data", verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: keyrack data {verb} ")


@pytest.mark.parametrize("arguments", [[], ["mend"], ["check"], ["salvage", "x"]])
def test_what_is_no_command_is_exit_code_2(capsys: Capture, arguments: list[str]) -> None:
    assert cli.run(["data", *arguments]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("verb", commands_of("data"))
def test_a_directory_that_is_none_is_refused_and_not_made(
    tmp_path: Path, capsys: Capture, verb: str
) -> None:
    assert cli.run(["data", verb, "--data-dir", str(tmp_path / "typo")]) == 1
    assert "is no data directory of Keyrack" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("verb", commands_of("data"))
def test_a_good_directory_is_called_good_and_left_alone(
    kept: KeptStore, capsys: Capture, verb: str
) -> None:
    before = contents(kept.engine)
    close(kept)
    names = sorted(os.listdir(kept.disk))
    assert data(verb, kept) == 0
    assert "Nothing that was promised is lost." in capsys.readouterr().out
    assert sorted(os.listdir(kept.disk)) == names
    kept.open()
    assert contents(kept.engine) == before
    kept.close()


def test_a_damaged_journal_is_salvaged_up_to_the_damage(kept: KeptStore, capsys: Capture) -> None:
    end = ends_of(kept)[3]
    close(kept)
    flip(kept.data.journal(2), end + 30)
    evidence = (kept.disk / "journal-0000000000000002").read_bytes()
    with pytest.raises(StoreError, match=r"keyrack data salvage"):
        kept.open()
    assert data("check", kept) == 1
    told = capsys.readouterr().out
    assert f"journal-0000000000000002 cannot be read from byte {end} on." in told
    assert "What can be read: snapshot 2 and 4 later transactions of the journals." in told
    assert "6 transactions are lost that are known to have been on the disk." in told
    assert "5 transactions behind the damage are whole." in told
    assert data("salvage", kept) == 0
    told = capsys.readouterr().out
    assert "6 transactions are lost" in told
    assert "  10 keys  " in told
    assert (kept.disk / "journal-0000000000000002.set-aside").read_bytes() == evidence
    for _ in range(3):
        kept.open()
        found = {int(key): value_of(kept.engine, key) for key in contents(kept.engine)["KEYS"]}
        assert found == {n: b"in a snapshot" if n < 5 else b"in the journal" for n in range(9)} | {
            9: b"in a snapshot"
        }
        assert kept.engine.lock_of(b"lock") is not None
        assert kept.engine.check() == []
        close(kept)


def test_after_a_salvage_everything_is_kept_as_before(kept: KeptStore) -> None:
    newest = kept.engine.usage().revision
    close(kept)
    flip(kept.data.journal(2), 200)
    assert data("salvage", kept) == 0
    kept.open()
    assert put(kept.engine, b"later", b"v").revision > newest, "also than what was lost"
    assert kept.sync()
    before = contents(kept.engine)
    for _ in range(3):
        kept.lose_memory()
        assert contents(kept.engine) == before
    assert kept.started.troubles == []
    kept.close()


def test_a_missing_journal_is_salvaged_as_the_snapshot(kept: KeptStore, capsys: Capture) -> None:
    close(kept)
    os.unlink(kept.data.journal(2))
    assert data("salvage", kept) == 0
    assert "10 transactions are lost" in capsys.readouterr().out
    kept.open()
    assert len(contents(kept.engine)["KEYS"]) == 10
    kept.close()


def test_of_a_damaged_snapshot_the_beginning_and_the_journal_are_used(
    kept: KeptStore, capsys: Capture
) -> None:
    for number in range(3000):
        put(kept.engine, b"many/%04d" % number, os.urandom(300))
    kept.take()
    put(kept.engine, b"many/2999", b"in the journal")
    assert kept.sync()
    size = os.path.getsize(kept.data.snapshot(3))
    close(kept)
    flip(kept.data.snapshot(3), size * 2 // 3)
    with pytest.raises(StoreError, match=r"None of the 1 snapshots"):
        kept.open()
    assert data("salvage", kept) == 0
    assert "only the records before the damage can be read" in capsys.readouterr().out
    assert snapshot.verify(kept.data.snapshot(4))[1].keys > 1000
    kept.open()
    found = contents(kept.engine)["KEYS"]
    assert 1000 < len(found) < 3000
    assert value_of(kept.engine, b"many/2999") == b"in the journal"
    assert kept.engine.check() == []
    kept.close()


def test_without_a_snapshot_the_journal_alone_is_used(kept: KeptStore, capsys: Capture) -> None:
    close(kept)
    os.unlink(kept.data.snapshot(2))
    assert data("check", kept) == 1
    assert data("salvage", kept) == 0
    assert "only the keys that the journals name" in capsys.readouterr().out
    kept.open()
    assert {int(key) for key in contents(kept.engine)["KEYS"]} == set(range(5, 15))
    kept.close()


def test_where_nothing_can_be_read_nothing_is_changed(kept: KeptStore, capsys: Capture) -> None:
    close(kept)
    os.truncate(kept.data.snapshot(2), 10)
    os.unlink(kept.data.journal(2))
    names = sorted(os.listdir(kept.disk))
    assert data("salvage", kept) == 1
    assert "Nothing can be read" in capsys.readouterr().err
    assert sorted(os.listdir(kept.disk)) == names


@pytest.mark.parametrize("damage", ["removed", "flipped", "cut off"])
def test_a_damaged_head_is_made_anew(kept: KeptStore, capsys: Capture, damage: str) -> None:
    before = contents(kept.engine)
    close(kept)
    head = kept.disk / "keyrack"
    good = head.read_bytes()
    if damage == "removed":
        head.unlink()
    elif damage == "flipped":
        flip(str(head), 20)
    else:
        os.truncate(head, 30)
    with pytest.raises(StoreError, match=r"is (damaged|missing).*keyrack data salvage"):
        kept.open()
    assert data("check", kept) == 1
    assert data("salvage", kept) == 0
    told = capsys.readouterr().out
    assert "was written anew" in told
    assert "Nothing that was promised is lost." in told
    assert head.read_bytes() == good
    kept.open()
    assert contents(kept.engine) == before
    kept.close()


def test_a_good_snapshot_that_is_restored_counts_instead_of_what_is_damaged(
    kept: KeptStore, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    shutil.copyfile(kept.data.snapshot(2), good)
    close(kept)
    flip(kept.data.journal(2), 300)
    evidence = (kept.disk / "journal-0000000000000002").read_bytes()
    with pytest.raises(StoreError, match="keyrack data salvage"):
        kept.open()
    assert cli.run(["snapshot", "restore", str(good), "--data-dir", str(kept.disk)]) == 0
    for _ in range(3):
        kept.open()
        assert set(contents(kept.engine)["KEYS"]) == {b"%d" % number for number in range(10)}
        close(kept)
    assert evidence in {path.read_bytes() for path in kept.disk.glob("journal*set-aside")}


@pytest.mark.parametrize("strict", [True, False])
def test_a_restored_snapshot_counts_at_every_start(
    kept: KeptStore, tmp_path: Path, strict: bool
) -> None:
    good = tmp_path / "good"
    shutil.copyfile(kept.data.snapshot(2), good)
    close(kept)
    for _ in range(2):
        assert cli.run(["snapshot", "restore", str(good), "--data-dir", str(kept.disk)]) == 0
    kept.strict = strict
    for _ in range(3):
        kept.open()
        assert set(contents(kept.engine)["KEYS"]) == {b"%d" % number for number in range(10)}
        assert kept.started.troubles == []
        close(kept)
    kept.open()
    kept.take()
    for _ in range(3):
        kept.lose_memory()
        assert set(contents(kept.engine)["KEYS"]) == {b"%d" % number for number in range(10)}
    kept.close()


def test_a_directory_in_use_is_left_alone(
    kept: KeptStore, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_PATIENCE_SECONDS", 0.1)
    assert data("salvage", kept) == 1
    assert "is in use by another service" in capsys.readouterr().err
    kept.close()
