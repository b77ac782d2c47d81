"""Services that take over from each other, on TCP, TLS or a Unix socket."""

from __future__ import annotations

import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

from keyrack_server import Answer, Server, Wire, request

if TYPE_CHECKING:
    from pathlib import Path

_END_SECONDS = 30.0


class Address:
    """Where a service listens: the flags that say so, and how a client gets there."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.port = 0
        self._path = str(directory / "socket")
        self.flags: tuple[str, ...] = ()
        if kind == "uds":
            self.flags = ("--uds", self._path)
        elif kind == "tls":
            certificate, key = _certificate(directory)
            self.flags = ("--tls-cert", certificate, "--tls-key", key)
            self._context = ssl.create_default_context(cafile=certificate)
            self._context.check_hostname = False

    def connect(self, timeout: float = 10.0) -> Wire:
        """Open a connection."""
        if self.kind == "uds":
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(timeout)
            made.connect(self._path)
            return Wire.over(made)
        wire = Wire(self.port, timeout)
        if self.kind == "tls":
            wire.socket = self._context.wrap_socket(wire.socket)
        return wire

    def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Answer:
        """Send one request on a connection of its own."""
        with self.connect() as wire:
            return wire.ask(request(method, target, body, **fields))


def _certificate(directory: Path) -> tuple[str, str]:
    certificate, key = str(directory / "cert"), str(directory / "key")
    words = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout"
    command = [*words.split(), key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class Generation(Server):
    """One of several services with the same address and store, each taking over from the last."""

    def __init__(self, address: Address, store: str, *flags: str, workers: int = 2) -> None:
        self._address = address
        super().__init__(
            *address.flags, "--store", store, "--takeover", *flags, workers=workers, memory="64m"
        )

    def _answering(self, urls: list[str]) -> int:
        if self._address.kind != "uds":
            self._address.port = int(urls[0].rpartition(":")[2])
        assert self._address.ask("GET", "/healthz").status == 200
        return self._address.port

    def says(self, event: str) -> bool:
        """Tell whether an event is in the log."""
        return any(line.get("event") == event for line in self.log_lines())

    def wait_for_its_end(self) -> None:
        """Wait until it has ended by itself, in order; its log has nothing to complain of."""
        assert self.process.wait(_END_SECONDS) == 0, self.log()
        self.stop()


class Generations:
    """Services one after the other; on the way out none is left over, whatever has happened."""

    def __init__(self, address: Address, store: str) -> None:
        self._address = address
        self._store = store
        self._all: list[Generation] = []

    def start(self, *flags: str, workers: int = 2) -> Generation:
        """Start one that takes over from the last, if there is one."""
        self._all.append(Generation(self._address, self._store, *flags, workers=workers))
        return self._all[-1]

    def __enter__(self) -> Generations:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for one in self._all:
            if one.process.poll() is None:
                one._end()
            one._log.close()
