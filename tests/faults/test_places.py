"""Where the store lives fills up, is read-only, or is memory that others want as well."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from consistency.lives import kill_everything, stored
from consistency.storm import Client, Service, audit, store
from keyrack_server import Server, refused_start

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20


@contextlib.contextmanager
def mounted(options: str) -> Iterator[Path]:
    """A file system in memory of its own."""
    with store() as point:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", point]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs root: " + " ".join(command))
        try:
            yield Path(point)
        finally:
            subprocess.run(["umount", "--lazy", point], check=True)


def fill(point: Path) -> Path:
    """Write a file that leaves nothing to others."""
    other = point / "other"
    with other.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return other


def put_until_refused(client: Client, size: int, most: int = 50_000) -> list[str]:
    """Set keys until one is refused for want of room; return those that were set."""
    keys = []
    for number in range(most):
        answer = client.insist("PUT", f"/v1/keys/{size}-{number}", b"x" * size)
        if answer.status == 507:
            assert answer.json["type"] == "/docs/problems/store-full"
            return keys
        assert answer.status in (201, 204), answer
        keys.append(f"{size}-{number}")
    raise AssertionError("it never got full")


def assert_it_is_as_full_stores_are(client: Client, keys: list[str]) -> None:
    """Reads and deletes go on, writes that need room are refused, nothing has died."""
    for key in keys[:50]:
        assert client.insist("GET", f"/v1/keys/{key}").status == 200
    for _ in range(200):
        assert client.insist("PUT", "/v1/keys/more", b"x" * 3000).status == 507
    assert client.insist("DELETE", f"/v1/keys/{keys[0]}").status == 204
    assert client.insist("GET", "/healthz").status == 200
    assert client.lost == 0


def test_others_fill_the_file_system_and_nothing_is_lost() -> None:
    with mounted("size=64m") as point:
        directory = str(point / "store")
        with Service("--store", directory, workers=2, memory="48m") as server:
            pids = server.worker_pids()
            client = Client(server)
            first = [f"first-{number}" for number in range(2000)]
            for key in first:
                assert client.insist("PUT", f"/v1/keys/{key}", b"v").status == 201
            other = fill(point)
            keys = put_until_refused(client, 3000)
            assert_it_is_as_full_stores_are(client, first)
            other.unlink()
            # It recovers by itself.
            assert client.insist("PUT", "/v1/keys/more", b"x" * 3000).status == 201
            assert server.worker_pids() == pids
            assert len(server.log_lines()) == 1, server.log()
            client.close()
            kept = stored(server).keys()
            assert kept >= {*first[1:], *keys}
        assert audit(directory) == []


def test_what_is_killed_in_a_full_file_system_is_found_again() -> None:
    with mounted("size=64m") as point:
        directory = str(point / "store")
        server = Service("--store", directory, workers=2, memory="32m")
        client = Client(server)
        keys = [f"k{number}" for number in range(3000)]
        for key in keys:
            assert client.insist("PUT", f"/v1/keys/{key}", b"v").status == 201
        fill(point)
        put_until_refused(client, 3000)
        client.close()
        kill_everything(server)
        server.process.wait()
        server._log.close()
        time.sleep(0.2)
        # The limit that was asked for cannot be had now, and that is said.
        assert "can hold" in refused(directory, "--memory", "32m")
        assert "has room for" in refused(directory)
        (point / "other").unlink()
        with Service("--store", directory, workers=1, memory="32m") as again:
            assert stored(again).keys() >= set(keys)
        assert audit(directory) == []


def refused(directory: str, *flags: str) -> str:
    """Return what a service says that cannot start on a store."""
    return refused_start("--port", "0", "--store", directory, *flags)


def test_a_read_only_file_system_is_refused_with_a_sentence() -> None:
    with mounted("size=64m") as point:
        directory = str(point / "store")
        with Service("--store", directory, workers=1, memory="32m") as server:
            server.put("k", b"v")
        subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)
        assert "Read-only file system" in refused(directory)
        assert "Read-only file system" in refused(str(point / "new"))
        subprocess.run(["mount", "-o", "remount,rw", str(point)], check=True)
        with Service("--store", directory, workers=1, memory="32m") as server:
            assert server.ask("GET", "/v1/keys/k").body == b"v"


# Control groups


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group with a memory limit in bytes."""
    for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                       ("/sys/fs/cgroup", "memory.max")):  # fmt: skip
        group = Path(root, f"keyrack-test-{os.getpid()}")
        if not Path(root, "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
            (group / name).write_text(str(limit))
        except OSError as error:
            with contextlib.suppress(OSError):
                group.rmdir()
            pytest.skip(f"control groups cannot be made here: {error}")
        try:
            yield group
        finally:
            remove(group)
        return
    pytest.skip("there are no control groups with memory here")


def remove(group: Path) -> None:
    for _ in range(50):
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{group} is still in use")


def killed_for_memory(group: Path) -> int:
    """Return how many processes of a group the kernel has killed."""
    for name in ("memory.oom_control", "memory.events"):
        if (group / name).exists():
            words = (group / name).read_text().split()
            return int(words[words.index("oom_kill") + 1])
    raise AssertionError("the group does not tell")


def test_a_store_that_is_full_stays_within_the_memory_of_its_control_group() -> None:
    with memory_group(160 * MIB) as group:
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        with Server(workers=2, memory=None, prefix=("sh", "-c", enter, "sh")) as server:
            (line,) = server.log_lines()
            assert line["memory"] == 80 * MIB
            client = Client(server)
            keys = put_until_refused(client, 20_000)
            put_until_refused(client, 3000)
            assert_it_is_as_full_stores_are(client, keys)
            client.close()
            used = sum(int((group / name).read_text()) for name in (
                "memory.usage_in_bytes", "memory.current") if (group / name).exists())  # fmt: skip
            print(f"{len(keys)} values of 20 kB, {used / MIB:.0f} MiB of 160 MiB used")
            assert killed_for_memory(group) == 0
            assert len(server.log_lines()) == 1


def test_a_limit_beyond_the_control_group_s_is_refused(tmp_path: Path) -> None:
    with memory_group(160 * MIB) as group:
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        said = refused_start("--port", "0", "--memory", "200m", prefix=("sh", "-c", enter, "sh"))
        assert "this machine or container allows 160 MiB" in said
