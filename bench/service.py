"""Keyrack for the measurements that are not a load of wrk, and what the machine did meanwhile."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import environment, procstat, wire
from bench.peers.keyrack import SHARED_MEMORY, program
from bench.probe import probe_us
from bench.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

SERVER_CORE = 0
CLIENT_CORE = 1


class Service:
    """`keyrack serve` in a block: `with Service() as server:`.

    `store` is a directory that may hold a store already; without one there is a new one.
    """

    def __init__(
        self,
        cores: Sequence[int] = (SERVER_CORE,),
        workers: int = 1,
        memory: str = "2g",
        store: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.cores = cores
        self._scratch = tempfile.TemporaryDirectory(prefix="keyrack-bench-", dir=SHARED_MEMORY)
        self._store = store or Path(self._scratch.name, "store")
        self._command: list[str | Path] = [
            program(), "serve", "--host", wire.HOST, "--port", str(self.port),
            "--workers", str(workers), "--memory", memory, "--store", self._store, *options,
        ]  # fmt: skip
        self._process: Process | None = None

    def __enter__(self) -> Service:
        self._process = Process(self._command, self.cores, Path(self._scratch.name, "log"))
        self._process.wait_for_port(self.port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.stop()
        self._scratch.cleanup()

    def pids(self) -> list[int]:
        """The supervisor and its workers, as they are now."""
        assert self._process is not None
        return self._process.tree()

    def cpu_seconds(self) -> float:
        """CPU time that the service has used so far."""
        return procstat.cpu_seconds(self.pids())

    def private_bytes(self) -> int:
        """Memory of the processes that is not the store: what is not shared and no file backs."""
        return procstat.private_bytes(self.pids(), "Pss_Anon")


def machine() -> str:
    """One line about the machine and how fast it is now."""
    about = environment.describe()
    probes = ", ".join(f"{probe_us():.1f}" for _ in range(3))
    return (
        f"{about['date']}, commit {about['commit']}, {about['cpu']} ({about['cores']} cores), "
        f"Python {about['python']}; one byte over loopback: {probes} µs"
    )
