"""`keyrack snapshot`: files are checked before they are believed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from engine_support.kept import KeptStore
from engine_support.world import memory_directory, put, value_of

from keyrack import cli
from keyrack.cli.table import commands_of
from keyrack.engines.embedded import locking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptStore]:
    """A store with two snapshots."""
    with memory_directory() as memory:
        store = KeptStore(memory, tmp_path)
        for value in (b"one", b"two"):
            put(store.engine, b"k", value)
            store.take()
        yield store
        store.close()


def cut_off(path: str) -> None:
    os.truncate(path, os.path.getsize(path) - 1)


@pytest.mark.parametrize("verb", commands_of("snapshot"))
def test_every_verb_has_help(capsys: Capture, verb: str) -> None:
    assert cli.run(["snapshot", verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: keyrack snapshot {verb} ")


@pytest.mark.parametrize("arguments", [[], ["take"], ["list"], ["restore", "x"]])
def test_what_is_no_command_is_exit_code_2(capsys: Capture, arguments: list[str]) -> None:
    assert cli.run(["snapshot", *arguments]) == 2
    assert capsys.readouterr().out == ""


def test_a_data_directory_is_listed_with_the_newest_first(kept: KeptStore, capsys: Capture) -> None:
    assert cli.run(["snapshot", "list", "--data-dir", str(kept.disk)]) == 0
    titles, first, second = capsys.readouterr().out.splitlines()
    assert titles.split() == ["FILE", "TAKEN", "REVISION", "KEYS", "BYTES"]
    assert first.startswith("snapshot-0000000000000002  20")
    assert first.split()[3] == "1"
    assert second.startswith("snapshot-0000000000000001")


def test_a_damaged_one_is_listed_as_such(kept: KeptStore, capsys: Capture) -> None:
    cut_off(kept.data.snapshot(2))
    assert cli.run(["snapshot", "list", "--data-dir", str(kept.disk)]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["FILE", "snapshot-0000000000000001"]
    assert "is cut off, or damaged" in err


def test_another_directory_is_no_data_directory(tmp_path: Path, capsys: Capture) -> None:
    assert cli.run(["snapshot", "list", "--data-dir", str(tmp_path)]) == 2
    assert "is no data directory of Keyrack" in capsys.readouterr().err


def test_every_file_is_verified_and_one_bad_one_counts(kept: KeptStore, capsys: Capture) -> None:
    paths = [kept.data.snapshot(number) for number in (1, 2)]
    assert cli.run(["snapshot", "verify", *paths]) == 0
    cut_off(paths[0])
    assert cli.run(["snapshot", "verify", *paths]) == 1
    out, err = capsys.readouterr()
    assert out.count(paths[1]) == 2
    assert paths[0] in err


def test_a_restored_snapshot_is_what_the_next_service_begins_with(
    kept: KeptStore, capsys: Capture
) -> None:
    older = kept.data.snapshot(1)
    kept.close()
    assert cli.run(["snapshot", "restore", older, "--data-dir", str(kept.disk)]) == 0
    assert "snapshot-0000000000000003  taken" in capsys.readouterr().out
    kept.open()
    assert value_of(kept.engine, b"k") == b"one"


def test_a_snapshot_of_elsewhere_begins_a_data_directory(kept: KeptStore, tmp_path: Path) -> None:
    kept.strict = True
    source = kept.data.snapshot(2)
    kept.close()
    kept.disk = tmp_path / "new"
    for file in kept.memory.iterdir():
        file.unlink()
    assert cli.run(["snapshot", "restore", source, "--data-dir", str(kept.disk)]) == 0
    kept.open()
    assert value_of(kept.engine, b"k") == b"two"
    put(kept.engine, b"k", b"three")
    assert kept.sync()
    kept.lose_memory()
    assert value_of(kept.engine, b"k") == b"three"


def test_what_is_damaged_is_not_restored(kept: KeptStore, tmp_path: Path, capsys: Capture) -> None:
    cut_off(kept.data.snapshot(2))
    there = str(tmp_path / "new")
    assert cli.run(["snapshot", "restore", kept.data.snapshot(2), "--data-dir", there]) == 1
    assert "is cut off, or damaged" in capsys.readouterr().err
    assert not os.path.exists(there)


def test_a_data_directory_in_use_is_left_alone(
    kept: KeptStore, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_PATIENCE_SECONDS", 0.1)
    source = kept.data.snapshot(1)
    assert cli.run(["snapshot", "restore", source, "--data-dir", str(kept.disk)]) == 1
    assert "is in use by another service" in capsys.readouterr().err
    assert kept.data.snapshots() == [1, 2]


def test_a_whole_file_that_does_not_fit_is_not_half_there(kept: KeptStore, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    kept.close()
    code = (
        "import resource, signal, sys; from keyrack import cli;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        f"sys.exit(cli.run(['snapshot', 'restore', {kept.data.snapshot(2)!r},"
        f" '--data-dir', {str(kept.disk)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert kept.data.snapshots() == [1, 2]
    assert not [name for name in os.listdir(kept.disk) if name.endswith(".part")]
    kept.open()
