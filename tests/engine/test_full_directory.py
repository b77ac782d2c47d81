"""The store's file system is filled by somebody else: nothing dies, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from engine_support.processes import Child
from engine_support.world import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMORY = 32 * MIB
MOUNT = ("mount", "-t", "tmpfs", "-o", f"size={20 * MIB}", "tmpfs")


@pytest.fixture
def mounted(shm: Path) -> Iterator[Path]:
    """A file system of its own in memory, smaller than the stores that are put there."""
    point = shm / "mounted"
    point.mkdir()
    command = [*MOUNT, str(point)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs root: " + " ".join(command))
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


def fill_directory(point: Path) -> Path:
    """Write a file that leaves nothing to others."""
    other = point / "other"
    free = os.statvfs(point).f_bavail * 4096
    other.write_bytes(bytes(free))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (point / "more").write_bytes(b"x")
    (point / "more").unlink()
    return other


def fill_store(child: Child, size: int, most: int = 100_000) -> list[bytes]:
    """Set keys until one is refused, and return those that were set."""
    keys: list[bytes] = []
    while len(keys) < most:
        key = b"%d-%d" % (size, len(keys))
        if child.call("set", key, b"x" * size) is None:
            break
        keys.append(key)
    return keys


@pytest.fixture
def writer(mounted: Path) -> Iterator[Child]:
    """Another process that has a store there open: it would be the one to die."""
    store = mounted / "store"
    store.mkdir()
    with Child("serve", store, MEMORY) as child:
        assert child.hear() == "open"
        yield child
        assert child.call("check") == []
        assert child.end() == 0


@pytest.mark.parametrize("size", [1000, 3000, 100_000])
def test_writes_are_refused_and_reads_and_deletes_go_on(
    mounted: Path, writer: Child, size: int
) -> None:
    keys = fill_store(writer, size, most=20)
    other = fill_directory(mounted)
    keys += fill_store(writer, size + 1)
    assert writer.call("set", b"more", b"x" * size) is None
    assert all(writer.call("get", key) is not None for key in keys)
    assert all(writer.call("delete", key) is True for key in keys)
    other.unlink()
    assert writer.call("set", b"more", b"x" * size) is not None
    assert len(fill_store(writer, size, most=20)) == 20


def test_the_store_itself_may_fill_the_directory(mounted: Path, writer: Child) -> None:
    """Its limit is above what is there, as when the directory was made smaller."""
    keys = fill_store(writer, 50_000)
    assert len(keys) > 200
    assert all(writer.call("delete", key) is True for key in keys)


def test_the_first_write_of_a_store_may_meet_a_full_directory(mounted: Path, writer: Child) -> None:
    other = fill_directory(mounted)
    assert writer.call("set", b"k", b"v") is None
    assert writer.call("get", b"k") is None
    other.unlink()
    assert writer.call("set", b"k", b"v") is not None


def test_sweeps_and_trims_go_on_in_a_full_directory(mounted: Path, writer: Child) -> None:
    writer.call("set", b"k", b"v", "text/plain", 1)
    fill_store(writer, 1000, most=2000)
    fill_directory(mounted)
    fill_store(writer, 1000)
    assert writer.call("expire", 64).startswith("Sweep(expired=1")
    assert writer.call("trim", 64) == 0
    assert writer.call("get", b"k") is None


def test_a_store_in_a_full_directory_is_opened_and_emptied_by_another_process(
    mounted: Path, writer: Child
) -> None:
    keys = fill_store(writer, 1000, most=500)
    fill_directory(mounted)
    keys += fill_store(writer, 1001)
    with Child("serve", mounted / "store", MEMORY) as other:
        assert other.hear() == "open"
        other.call("begin_life")
        assert all(other.call("delete", key) is True for key in keys)
        assert other.end() == 0


def test_many_readers_may_come_in_a_full_directory(mounted: Path, writer: Child) -> None:
    """The file of the readers grows with their number, and is mapped like the data."""
    writer.call("set", b"k", b"v")
    fill_directory(mounted)
    assert writer.call("readers", 900) == 900
    assert writer.call("get", b"k") == b"v"
