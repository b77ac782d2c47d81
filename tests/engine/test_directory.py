"""Where a store lives, how much it may hold, and that only one service has it."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import pytest
from engine_support.driven import Driven, embedded
from engine_support.processes import Child
from engine_support.world import MIB, put, value_of

from keyrack.engines.contract import StoreFormatUnknown, StoreInUse, StoreTooSmall
from keyrack.engines.embedded import directory, locking
from keyrack.engines.embedded.directory import MINIMUM, prepare, remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.embedded.directory import StoreDirectory

AVAILABLE = 1 << 30


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_PATIENCE_SECONDS", 0.1)


def unnamed(
    parent: Path, memory: int | None = MINIMUM, available: int = AVAILABLE
) -> StoreDirectory:
    return prepare(None, memory, available, 100, parent)


def named(path: Path, memory: int | None = MINIMUM, available: int = AVAILABLE) -> StoreDirectory:
    return prepare(str(path), memory, available, 100)


def with_file_system(monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
    monkeypatch.setattr(directory, "_capacity", lambda path: (total, free))


def use(place: StoreDirectory) -> Driven:
    return embedded(place.path, place.memory)


# Without a name


def test_a_store_without_a_name_is_made_and_removed(shm: Path) -> None:
    place = unnamed(shm)
    assert Path(place.path).parent == shm
    assert (place.named, place.memory) == (False, MINIMUM)
    engine = use(place)
    put(engine, b"k")
    engine.close()
    place.close()
    assert list(shm.iterdir()) == []


def test_two_services_without_names_have_stores_of_their_own(shm: Path) -> None:
    first, second = unnamed(shm), unnamed(shm)
    assert first.path != second.path
    second.close()
    assert Path(first.path, "data.mdb").exists()
    first.close()


def test_what_a_killed_service_left_is_removed_by_the_next(shm: Path) -> None:
    with Child("take_unnamed", shm) as child:
        left = Path(child.hear())
        child.kill()
    assert left.exists()
    place = unnamed(shm)
    assert not left.exists()
    place.close()


def test_the_store_of_a_living_service_is_not_removed(shm: Path) -> None:
    with Child("take_unnamed", shm) as child:
        theirs = Path(child.hear())
        assert remove_leftovers(shm) == []
        assert (theirs / "data.mdb").exists()
        assert child.end() == 0
    assert not theirs.exists()


def test_nothing_is_removed_that_does_not_say_it_may_be(shm: Path) -> None:
    """A store that was named happens to have such a name; another thing, too."""
    keeper = named(shm / "keyrack-of-mine")
    keeper.close()
    (shm / "keyrack-notes").mkdir()
    (shm / "keyrack.txt").touch()
    assert remove_leftovers(shm) == []
    assert len(list(shm.iterdir())) == 3


def test_a_leftover_that_is_named_is_kept_from_then_on(shm: Path) -> None:
    with Child("take_unnamed", shm) as child:
        left = Path(child.hear())
        child.kill()
    named(left).close()
    assert remove_leftovers(shm) == []
    assert left.exists()


# With a name


def test_a_named_store_is_kept_and_found_again(shm: Path) -> None:
    (shm / "below").mkdir()
    place = named(shm / "below" / "store")
    engine = use(place)
    last = put(engine, b"k", b"here").revision
    engine.close()
    place.close()
    again = named(shm / "below" / "store")
    engine = use(again)
    assert value_of(engine, b"k") == b"here"
    assert engine.usage().revision > last
    engine.close()
    again.close()


def test_only_its_user_may_look_into_a_store(shm: Path) -> None:
    place = named(shm / "store")
    paths = [Path(place.path), *Path(place.path).iterdir()]
    assert [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    place.close()


def test_a_store_is_refused_to_a_second_service_which_is_told_of_the_first(shm: Path) -> None:
    with Child("take", shm) as child:
        assert child.hear() == str(shm)
        with pytest.raises(StoreInUse, match=rf"\(process {child.pid}\).*another --store"):
            named(shm)
        assert child.end() == 0
    named(shm).close()


@pytest.mark.time_limits
def test_a_store_whose_service_is_just_ending_is_waited_for(
    shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_PATIENCE_SECONDS", 10)
    with Child("take", shm, 0.3) as child:
        assert child.hear() == str(shm)
        began = time.monotonic()
        named(shm).close()
        assert time.monotonic() - began < 9


def test_a_store_is_in_use_as_long_as_any_process_of_its_service_lives(shm: Path) -> None:
    with Child("take_and_fork", shm) as child:
        worker = int(child.hear())
        assert child._process.wait() == 1
        with pytest.raises(StoreInUse):
            named(shm)
        os.kill(worker, signal.SIGKILL)
        assert child.hear() == ""
    named(shm).close()


def test_a_refused_store_is_given_up(shm: Path) -> None:
    with pytest.raises(StoreTooSmall):
        named(shm, memory=2 * AVAILABLE)
    named(shm).close()


def test_a_refused_store_without_a_name_is_removed(shm: Path) -> None:
    with pytest.raises(StoreTooSmall):
        unnamed(shm, memory=2 * AVAILABLE)
    assert list(shm.iterdir()) == []


# What is no store


def test_a_directory_with_other_files_is_no_store(shm: Path) -> None:
    (shm / "letter.txt").write_text("dear")
    with pytest.raises(StoreFormatUnknown, match=r"other files \(letter\.txt, \.\.\.\)"):
        named(shm)
    assert [path.name for path in shm.iterdir()] == ["letter.txt"]


def test_other_files_are_no_store_though_one_is_called_lock(shm: Path) -> None:
    """Many programs have a file of that name; it is theirs, and stays as it is."""
    (shm / "letter.txt").write_text("dear")
    (shm / "lock").write_text("of another program")
    with pytest.raises(StoreFormatUnknown, match="other files"):
        named(shm)
    assert (shm / "lock").read_text() == "of another program"


def test_a_file_is_no_store(shm: Path) -> None:
    (shm / "file").touch()
    with pytest.raises(StoreFormatUnknown, match=r"file is a file. Name a directory"):
        named(shm / "file")


def test_a_store_of_another_version_is_refused(shm: Path) -> None:
    named(shm).close()
    with lmdb.open(str(shm), lib_version=0) as env, env.begin(write=True) as txn:
        txn.put(b"keyrack:format", b"keyrack 5")
    with pytest.raises(StoreFormatUnknown, match=r"has the format b'keyrack 5'.*b'keyrack 4'"):
        named(shm)


def test_a_database_of_another_program_is_refused_and_left_alone(shm: Path) -> None:
    with lmdb.open(str(shm), lib_version=0) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"stays")
    with pytest.raises(StoreFormatUnknown):
        named(shm)
    with lmdb.open(str(shm), lib_version=0) as env, env.begin() as txn:
        assert list(txn.cursor()) == [(b"theirs", b"stays")]


@pytest.mark.parametrize("content", [b"no database at all", b"\xff" * 8192])
def test_a_file_that_is_no_database_is_refused_and_left_alone(shm: Path, content: bytes) -> None:
    (shm / "data.mdb").write_bytes(content)
    with pytest.raises(StoreFormatUnknown):
        named(shm)
    assert (shm / "data.mdb").read_bytes() == content


# How much


def test_memory_beyond_what_the_service_may_use_is_refused(shm: Path) -> None:
    with pytest.raises(StoreTooSmall, match=r"--memory 2g .* allows 1024 MiB.*--memory 1g"):
        unnamed(shm, memory=2 << 30)


def test_memory_beyond_what_the_directory_holds_is_refused(
    shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_file_system(monkeypatch, 64 * MIB, 60 * MIB)
    with pytest.raises(StoreTooSmall, match=r"can hold 60 MiB.*--memory 60m, or .*--shm-size"):
        unnamed(shm, memory=61 * MIB)
    unnamed(shm, memory=60 * MIB).close()


def test_what_a_store_already_takes_counts_as_room_for_it(
    shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = named(shm, memory=60 * MIB)
    engine = use(place)
    put(engine, b"k", b"x" * 40 * MIB)
    engine.close()
    place.close()
    with_file_system(monkeypatch, 64 * MIB, 20 * MIB)
    named(shm, memory=60 * MIB).close()


def test_a_store_bigger_than_its_memory_is_refused(shm: Path) -> None:
    place = named(shm, memory=60 * MIB)
    engine = use(place)
    put(engine, b"k", b"x" * 40 * MIB)
    engine.close()
    place.close()
    with pytest.raises(StoreTooSmall, match=r"already takes 4\d MiB, more than --memory 30m"):
        named(shm, memory=30 * MIB)


def test_the_automatic_limit_is_half_of_what_is_available(
    shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_file_system(monkeypatch, AVAILABLE, AVAILABLE)
    place = unnamed(shm, memory=None)
    assert place.memory == AVAILABLE // 2
    assert not any("limited" in note for note in place.notes)
    place.close()


def test_the_automatic_limit_of_a_small_directory_is_what_it_holds_and_noted(
    shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's usual 64 MB; something is left to others."""
    with_file_system(monkeypatch, 64 * MIB, 64 * MIB)
    place = unnamed(shm, memory=None)
    assert 56 * MIB <= place.memory <= 63 * MIB
    (note,) = [note for note in place.notes if "limited" in note]
    assert f"limited to {place.memory // MIB} MiB" in note
    assert "512 MiB" in note
    assert "--shm-size" in note
    place.close()


def test_a_directory_too_small_for_any_store_is_refused(
    shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_file_system(monkeypatch, 64 * MIB, 8 * MIB)
    with pytest.raises(StoreTooSmall, match=r"needs 8 MiB.*--store"):
        unnamed(shm, memory=None)
    assert list(shm.iterdir()) == []


@pytest.mark.parametrize(("kind", "notes"), [("tmpfs", 0), ("ramfs", 0), ("ext4", 1)])
def test_a_store_that_is_not_in_memory_is_noted(shm: Path, kind: str, notes: int) -> None:
    found: list[str] = []
    mounts = f"none {shm} {kind} rw 0 0\n"
    directory._note_file_system(str(shm), found, lambda: mounts)
    assert len(found) == notes
    assert all(f"is on {kind}, not in memory" in note for note in found)


def as_somebody_else(work: Callable[[], object]) -> str:
    """Return what work returns, or the error it raises, in a process of another user."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setresuid(54321, 54321, 54321)
            os.write(writing, repr(work()).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize("shut", ["directory", "mark", "lock"])
def test_leftovers_of_somebody_else_are_passed_over(shut: str) -> None:
    """Anybody may make such directories in shared memory, with whatever rights."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        parent = Path(name)
        parent.chmod(0o777)
        other = parent / "keyrack-other"
        other.mkdir(mode=0o755)
        (other / "unnamed").touch(mode=0o600)
        (other / "lock").touch(mode=0o000)
        {"directory": other, "mark": other / "unnamed", "lock": other / "lock"}[shut].chmod(0)
        assert as_somebody_else(lambda: remove_leftovers(parent)) == "[]"
        made = as_somebody_else(lambda: directory._make_unnamed(parent)[0])
        assert made.startswith(repr(str(parent / "keyrack-"))[:-1])
        other.chmod(0o700)


@pytest.mark.parametrize("damage", [b"\xff" * 4096, b"\x7f" * 4096, bytes(4096), b"short"])
def test_words_that_say_nonsense_keep_no_store_from_being_used(shm: Path, damage: bytes) -> None:
    place = named(shm / "store")
    engine = use(place)
    put(engine, b"k", b"here")
    engine.close()
    place.close()
    (shm / "store" / "words").write_bytes(damage)
    again = named(shm / "store")
    engine = use(again)
    assert value_of(engine, b"k") == b"here"
    put(engine, b"l", b"there")
    engine.close()
    again.close()
