"""What the bench asks of every peer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench import procstat, wire
from bench.errors import BenchError
from bench.load import Load, Run, wrk
from bench.process import Process, free_port
from bench.scenarios import SEED_LOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.settings import Settings


@dataclass(frozen=True)
class Bench:
    """The settings of this run and a folder for configurations and logs that goes away with it."""

    settings: Settings
    scratch: Path


class Peer(ABC):
    """A server (or several) with a fixed set of loads. `loads` maps names to what wrk sends."""

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    loads: ClassVar[Mapping[str, Load]] = SEED_LOADS

    def __init__(self, bench: Bench, cores: Sequence[int] | None = None, label: str = "") -> None:
        """Bound to the server's core unless `cores` says otherwise; `label` names its files."""
        self.bench = bench
        self.cores = cores or [bench.settings.server_core]
        self.label = label or self.name
        self.client_cores = [bench.settings.client_core]
        self.keys = bench.settings.keys
        self.port = free_port()
        self._processes: list[Process] = []

    @abstractmethod
    def start(self) -> None:
        """Start and return when it answers."""

    @abstractmethod
    def preload(self) -> None:
        """Store keys 0 to `self.keys` - 1, in the fastest way that leaves what clients would."""

    @abstractmethod
    def version(self) -> str:
        """Names and versions of the programs behind this peer."""

    def launch(
        self, command: Sequence[str | Path], port: int, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start one program of this peer and wait until its port is open."""
        log = self.bench.scratch / f"{self.label}-{len(self._processes)}.log"
        process = Process(command, self.cores, log, environment)
        self._processes.append(process)
        process.wait_for_port(port)
        return process

    def stop(self) -> None:
        """End every program that was started."""
        while self._processes:
            self._processes.pop().stop()

    def pids(self) -> list[int]:
        """All processes of this peer, as they are now."""
        return [pid for process in self._processes for pid in process.tree()]

    def memory(self) -> int:
        """Bytes of memory this peer holds; the bench takes the difference around the preload.

        The sum of PSS over all processes: memory that several of them share counts once.
        """
        return procstat.private_bytes(self.pids())

    def run(self, load: str) -> Run:
        """Put one load on the server from the client's cores."""
        settings = self.bench.settings
        return wrk(
            self.port,
            self.loads[load],
            keys=self.keys,
            seconds=settings.seconds,
            connections=settings.connections,
            cores=self.client_cores,
        )

    def check(self) -> None:
        """Write a value and read it back: a server that answers wrongly must not be measured."""
        key, value = wire.key(0), wire.value(0)
        for load in ("set", "get"):
            request = self.loads[load].read
            path, body = (
                text.replace("$k", key).replace("$v", value)
                for text in (request.path, request.body)
            )
            status, answer = wire.exchange(
                self.port, request.method, path, body, request.media_type
            )
            if status != 200 or (load == "get" and value.encode() not in answer):
                raise BenchError(f"{self.name} answered {status} to {load}: {answer[:200]!r}")
