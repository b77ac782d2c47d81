"""A limit of the system that is too small for what was asked for is named in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from keyrack_server import ON_VALKEY, Server
from keyrack_server.server import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(ON_VALKEY, reason="the limits are about a store in memory"),
]


def limited(limit: str, *flags: str) -> tuple[str, ...]:
    serve = [sys.executable, "-m", "keyrack", "serve", "--port", "0", "--workers", "2", *flags]
    return ("sh", "-c", f'ulimit {limit} && exec "$@"', "sh", *serve)


@pytest.mark.parametrize(
    ("limit", "flags", "named"),
    [
        ("-f 40000", ("--memory", "64m"), "ulimit -f"),
        ("-f 4000", (), "ulimit -f"),
        ("-v 400000", ("--memory", "700m"), "ulimit -v"),
        ("-d 20000", ("--memory", "64m"), "ulimit -d"),
        ("-n 14", ("--memory", "16m"), "ulimit -n"),
    ],
)
def test_a_limit_that_is_too_small_is_named(limit: str, flags: tuple[str, ...], named: str) -> None:
    done = subprocess.run(
        limited(limit, *flags),
        capture_output=True, text=True, timeout=30, check=False, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert named in json.loads(line)["message"], line


def test_a_store_of_automatic_size_fits_into_the_limit_on_file_sizes() -> None:
    server = Server(memory=None, prefix=("sh", "-c", 'ulimit -f 40000 && exec "$@"', "sh"))
    (ready,) = [line for line in server.log_lines() if line.get("event") == "ready"]
    assert 8 << 20 <= ready["memory"] <= 40000 * 512
    assert any("ulimit -f" in line["message"] for line in server.log_lines())
    server.tell_to_end()
    assert server.process.wait(15) == 0


# Directories that are missing


@pytest.mark.parametrize("flag", ["--store", "--uds", "--data-dir"])
def test_only_the_last_part_of_a_path_is_made(flag: str, tmp_path: Path) -> None:
    """A typo further up would begin an empty store, and nobody would notice."""
    path = tmp_path / "missing" / "last"
    flags = ("--durability", "snapshot") if flag == "--data-dir" else ()
    command = [sys.executable, "-m", "keyrack", "serve", "--port", "0", "--memory", "16m", *flags]
    done = subprocess.run(
        [*command, flag, str(path)],
        capture_output=True, text=True, timeout=30, check=False, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 1, done
    message = json.loads(done.stderr.splitlines()[-1])["message"]
    assert flag in message
    assert f"{tmp_path / 'missing'} does not exist" in message
    assert not (tmp_path / "missing").exists()
