"""A disk that gets full under a service, and is given room again, without a restart."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from durable.kept_service import KeptService, until

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def limit(pids: list[int], size: str) -> None:
    for pid in pids:
        subprocess.run(["prlimit", f"--pid={pid}", f"--fsize={size}"], check=True)
