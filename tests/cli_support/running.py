"""Runs `keyrack` and tells what came of it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from keyrack_server.server import clean_environment

from keyrack import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Ended(NamedTuple):
    """An exit code and what was printed."""

    code: int
    out: bytes
    err: str


class Keyrack:
    """The command line in this process, where it starts a hundred times faster."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run a verb that is given its words."""
        with _streams(stdin) as (out, err):
            code = cli.run(list(arguments))
        return Ended(code, out.getvalue(), err.getvalue().decode())

    def out(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a verb that must succeed, and return what it printed."""
        ended = self(*arguments, stdin=stdin)
        assert ended.code == 0, ended
        return ended.out.decode()


@contextmanager
def _streams(stdin: bytes) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    kept = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)))
    sys.stdout = io.TextIOWrapper(out, "utf-8", "backslashreplace", write_through=True)
    sys.stderr = io.TextIOWrapper(err, "utf-8", "backslashreplace", write_through=True)
    try:
        yield out, err
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout.detach()
        sys.stderr.detach()
        sys.stdin, sys.stdout, sys.stderr = kept


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process that runs `keyrack` by its name.

    `home` is its home directory, so that nothing of whoever runs the tests is read.
    """
    program = home / "bin" / "keyrack"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m keyrack "$@"\n')
        program.chmod(0o755)
    paths = f"{program.parent}:{os.environ['PATH']}"
    return {
        **clean_environment(),
        "PATH": paths,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "KEYRACK_URL": url,
        **more,
    }


def shell(
    line: str, url: str, home: Path, *, name: str = "bash", seconds: float = 60.0, **more: str
) -> Ended:
    """Run shell text, in which `keyrack` is the command line, in the home directory."""
    done = subprocess.run(
        [name, "-c", line],
        cwd=home,
        env=environment(url, home, **more),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=seconds,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))
