"""A disk that gets full under a service, and is given room again, without a restart."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from durable.kept_service import KeptService, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BALLAST = 14 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB, most of which is taken by a file that can be removed."""
    where = tmp_path / "small"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(where)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs root and the right to mount: a file system that gets full")
    try:
        (where / "ballast").write_bytes(bytes(BALLAST))
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def fill(server: KeptService, status: int) -> list[str]:
    """Write until a write is answered with a status, and return what was answered before."""
    stored = []
    with server.connect() as wire:
        for number in range(3000):
            key, value = f"k{number}", "x" * 20_000
            answer = wire.ask(
                f"PUT /v1/keys/{key} HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Length: {len(value)}\r\n\r\n{value}".encode()
            )
            if answer.status == status:
                assert b"disk" in answer.body
                return stored
            assert answer.status == 201, answer
            stored.append(key)
    raise AssertionError("the disk did not get full")


def test_a_full_disk_answers_507_and_takes_writes_again_when_there_is_room(
    small_disk: Path,
) -> None:
    disk = str(small_disk / "data")
    server = KeptService("commit", disk)
    stored = fill(server, 507)
    assert len(stored) > 100
    assert server.ask("GET", f"/v1/keys/{stored[0]}").status == 200
    assert server.ask("GET", "/healthz").status == 200
    (small_disk / "ballast").unlink()
    server.put("later", b"v")
    answered = {*stored, "later"}
    server.kill_all()
    with KeptService("commit", disk) as server:
        assert server.stored().keys() == answered


def test_a_full_disk_costs_snapshots_and_not_writes(small_disk: Path) -> None:
    disk = str(small_disk / "data")
    server = KeptService("snapshot", disk, "--snapshot-interval", "1")
    with server.connect() as wire:
        for number in range(400):
            value = "x" * 30_000
            head = f"PUT /v1/keys/k{number} HTTP/1.1\r\nHost: localhost\r\n"
            answer = wire.ask(f"{head}Content-Length: {len(value)}\r\n\r\n{value}".encode())
            assert answer.status == 201
    until(lambda: bool(server.said("snapshot_failed")), 10, "a snapshot that fails")
    assert server.ask("GET", "/v1/snapshot").status == 503
    assert b"keyrack_snapshots_failed_total 0.0" not in server.ask("GET", "/metrics").body
    assert b"keyrack_snapshots_failed_total" in server.ask("GET", "/metrics").body
    server.put("late", b"v")
    (small_disk / "ballast").unlink()
    taken = len(server.said("snapshot"))
    until(lambda: len(server.said("snapshot")) > taken, 10, "a snapshot that succeeds")
    server.kill_all()
    with KeptService("snapshot", disk) as server:
        assert len(server.stored()) == 401


def test_a_disk_that_fails_answers_503_and_takes_writes_again_when_it_works(disk: str) -> None:
    """A limit on the size of files stands for a disk that fails."""
    server = KeptService("commit", disk)
    server.put("before", b"v")
    pids = server.worker_pids()
    limit(pids, "1:")
    answer = server.ask("PUT", "/v1/keys/k", b"v")
    assert answer.status == 503
    assert answer["Retry-After"] == "1"
    assert server.ask("GET", "/v1/keys/before").status == 200
    limit(pids, "unlimited:")
    server.put("k", b"later")
    server.kill_all()
    with KeptService("commit", disk) as server:
        assert server.stored() == {"before": "v", "k": "later"}


def move_away(disk: str) -> None:
    os.rename(disk, f"{disk}.away")


def cover(disk: str) -> None:
    """As an unmounted file system leaves it: an empty directory is there instead."""
    move_away(disk)
    os.mkdir(disk)


def put_back(disk: str) -> None:
    if os.path.isdir(disk):
        assert os.listdir(disk) in ([], ["lock"]), "nothing was made in another's place"
        shutil.rmtree(disk)
    os.rename(f"{disk}.away", disk)


@pytest.mark.parametrize("take_away", [move_away, cover])
def test_when_the_data_directory_is_back_writes_are_taken_again(
    disk: str, take_away: Callable[[str], None]
) -> None:
    server = KeptService("commit", disk)
    server.put("before", b"v")
    take_away(disk)
    until(lambda: server.ask("PUT", "/v1/keys/k", b"refused").status == 503, 5, "a refusal")
    assert server.ask("GET", "/v1/keys/before").status == 200
    assert server.ask("GET", "/v1/snapshot").status == 503
    put_back(disk)
    until(lambda: server.ask("PUT", "/v1/keys/k", b"taken").status < 300, 10, "a write")
    said = [line["message"] for line in server.complaints()]
    assert len([line for line in said if f"the data directory {disk} is gone" in line]) == 1
    assert said.count(f"the data directory {disk} is back") == 1
    for _ in range(3):
        server.kill_all()
        server = KeptService("commit", disk)
        assert server.stored() == {"before": "v", "k": "taken"}
    server.kill_all()


@pytest.mark.parametrize("mode", ["snapshot", "commit"])
@pytest.mark.parametrize("take_away", [move_away, cover])
def test_a_service_that_ends_without_its_data_directory_says_so_and_spoils_nothing(
    disk: str, take_away: Callable[[str], None], mode: str
) -> None:
    server = KeptService(mode, disk)
    server.put("k", b"v")
    assert server.ask("GET", "/v1/snapshot").status == 200
    take_away(disk)
    assert server._end() == 1
    assert "may not be on the disk" in server.complaints()[-1]["message"]
    put_back(disk)
    for _ in range(3):
        with KeptService(mode, disk) as server:
            assert server.stored() == {"k": "v"}


def limit(pids: list[int], size: str) -> None:
    for pid in pids:
        subprocess.run(["prlimit", f"--pid={pid}", f"--fsize={size}"], check=True)
