"""Start a server in a process group of its own, wait until it answers, end it by its id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import PurePath
from typing import TYPE_CHECKING

from bench import procstat
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def _surroundings() -> dict[str, str]:
    """Return this process's environment without settings, like a token, of some other service."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KEYRACK_")}


class Process:
    """A running program, bound to the given cores, its output in a log file."""

    def __init__(
        self,
        command: Sequence[str | Path],
        cores: Sequence[int],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = PurePath(command[0]).name
        self.log = log
        pinned = ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)]
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**_surroundings(), **(environment or {})},
            )
        self.pid = self._popen.pid

    def tree(self) -> list[int]:
        """The ids of the program and its children, as they are now."""
        return procstat.tree(self.pid)

    def wait_for_port(self, port: int, seconds: float = 20.0) -> None:
        """Return when something listens on the port; raise with the log's end when it does not."""
        end = time.monotonic() + seconds
        while not _listens(port):
            if self._popen.poll() is not None or time.monotonic() > end:
                raise BenchError(f"{self.name} did not start: {self.log_end()}")
            time.sleep(0.002)

    def log_end(self) -> str:
        """The last lines of what the program wrote."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "it wrote nothing"

    def stop(self) -> None:
        """SIGTERM, ten seconds of grace, then SIGKILL, for the whole group."""
        if self._popen.poll() is None:
            os.killpg(self.pid, signal.SIGTERM)
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._popen.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
