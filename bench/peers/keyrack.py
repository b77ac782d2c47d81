"""Keyrack itself: one worker on the server's core, or several on all cores."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench import procstat, wire
from bench.errors import BenchError
from bench.load import Load, fill
from bench.peers.base import Bench, Peer
from bench.scenarios import LARGE_KEYS, LOADS, SIZES, TOKEN_LOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHARED_MEMORY = Path("/dev/shm")


class Keyrack(Peer):
    """`keyrack serve` with its defaults, except for workers, memory and the place of the store."""

    name = "keyrack"
    title = "Keyrack"
    loads: ClassVar[Mapping[str, Load]] = {**LOADS, **TOKEN_LOADS}

    def __init__(
        self,
        bench: Bench,
        cores: Sequence[int] | None = None,
        label: str = "",
        workers: int = 1,
    ) -> None:
        super().__init__(bench, cores, label)
        self.workers = workers
        self._store: tempfile.TemporaryDirectory[str] | None = None

    def command(self, store: str) -> list[str | Path]:
        """The command line of the server. The store is named so that its size can be read."""
        options = {"host": wire.HOST, "port": self.port, "workers": self.workers, "memory": "1g"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [program(), "serve", *words, "--store", store]

    def start(self) -> None:
        place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self._store = tempfile.TemporaryDirectory(prefix="keyrack-bench-", dir=place)
        self.launch(self.command(f"{self._store.name}/store"), self.port)

    def stop(self) -> None:
        super().stop()
        if self._store:
            self._store.cleanup()
            self._store = None

    def preload(self) -> None:
        """Through its own API, as clients would."""
        fill(self.port, self.keys, self.client_cores[-1])

    def store_large(self) -> None:
        """Store the long values that some loads read."""
        for name, size in SIZES.items():
            for number in range(LARGE_KEYS):
                path = self.loads[f"get-{name}"].read.path.replace("$k", wire.key(number))
                status, answer = wire.exchange(
                    self.port, "PUT", path, "x" * size, "application/octet-stream"
                )
                if status not in (201, 204):
                    raise BenchError(f"{path} was answered {status}: {answer[:200]!r}")

    def memory(self) -> int:
        """Anonymous memory of all processes plus the blocks of the store's files.

        Every worker maps the store's file, so that its pages are in the RSS of each and in the PSS
        of all: counting the file once, by its blocks, and of the processes only what no file backs,
        counts every page once, also pages that no process has touched lately.
        """
        files = procstat.stored_bytes(Path(self._store.name)) if self._store else 0
        return procstat.private_bytes(self.pids(), "Pss_Anon") + files

    def version(self) -> str:
        done = subprocess.run([program(), "--version"], capture_output=True, text=True)
        return done.stdout.strip() or done.stderr.strip()


def program() -> Path:
    """The `keyrack` command beside the Python that runs the bench, else the one on the path."""
    beside = Path(sys.executable).with_name("keyrack")
    found = beside if beside.exists() else shutil.which("keyrack")
    if not found:
        raise BenchError(
            "the keyrack command is missing: install the project into this environment"
        )
    return Path(found)
