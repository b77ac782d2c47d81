"""A thousand idle connections and two hundred hostile ones: normal clients hardly notice."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from consistency.storm import until
from keyrack_server import Server, request

from faults.load import Load, PlainClient, percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE = 1000
HOSTILE = 200
SECONDS = 5
_ATTEMPTS = 4
"""How often it is measured, at most: where other things run as well, the best attempt counts."""
_GATHERING = 20
"""Seconds that the attackers may take to come."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LARGE = 1 << 20
MODES = {
    "slow headers": "-H -i 1 -x 20",
    "slow body": "-B -i 1 -x 20 -s 100000 -t PUT",
    "slow read": "-X -w 512 -y 1024 -n 1 -z 32 -k 3",
}
P99 = 0.010
"""What normal clients may have to wait, in seconds, unless the machine alone takes so long."""


class Measured(NamedTuple):
    """What normal clients had to wait, and what serving them and all others cost."""

    p99: float
    """In seconds."""
    requests: int
    processor: float
    """Seconds of processor time that the workers took for each second."""

    def __str__(self) -> str:
        """Show it as the documentation quotes it."""
        wait = f"p99 {self.p99 * 1e3:.1f} ms of {self.requests} requests"
        return f"{wait}, workers {self.processor:.0%} of a core"


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> Iterator[None]:
    """Let this process have so many connections open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def measured(*servers: Server) -> list[Measured]:
    """Return for each server what three normal clients wait for it, all at the same time."""
    loads = [
        Load(*(PlainClient(server, number, pauses=(0.005,)) for number in range(3)))
        for server in servers
    ]
    began = [processor_seconds(server) for server in servers]
    with contextlib.ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
        time.sleep(SECONDS)
    found = []
    for server, load, before in zip(servers, loads, began, strict=True):
        assert load.failures == []
        processor = (processor_seconds(server) - before) / SECONDS
        found.append(Measured(percentile(load.latencies(), 0.99), load.requests, processor))
    return found


def processor_seconds(server: Server) -> float:
    """Return the processor time that the workers have taken so far."""
    ticks = 0
    for pid in server.worker_pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def attack(server: Server, mode: str) -> Iterator[None]:
    """Have slowhttptest at work while the block lasts; it must not find the service unavailable."""
    # Attackers are elsewhere: this one must not compete for the processors of the attacked.
    tool = ["nice", "-n", "19", "slowhttptest", *MODES[mode].split()]
    size = ["-c", str(HOSTILE), "-r", "1000", "-l", "120", "-p", "3"]
    command = [*tool, *size, "-u", f"http://127.0.0.1:{server.port}/v1/keys/large"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            there = IDLE + HOSTILE
            until(lambda: open_connections(server) >= there, _GATHERING, "all attackers are there")
            yield
            attacker.send_signal(signal.SIGINT)
            said = _COLOUR.sub("", attacker.communicate(timeout=30)[0])
        finally:
            attacker.kill()
    assert "service available:   YES" in said, said
    assert "service available:   NO" not in said, said


def open_connections(server: Server) -> int:
    metrics = server.ask("GET", "/metrics").body.decode()
    return int(float(metrics.partition("\nkeyrack_connections ")[2].partition("\n")[0]))


def is_bearable(attacked: Measured, alone: Measured) -> bool:
    """Tell whether it is as good as was promised, or as the machine itself lets it be."""
    cheap = attacked.processor < 0.1 + 3 * alone.processor
    return cheap and attacked.p99 < max(P99, 3 * alone.p99)


def best_of(server: Server, spared: Server) -> list[Measured]:
    """Measure until it is bearable, or a few times."""
    attempts = []
    for _ in range(_ATTEMPTS):
        attempts.append(measured(server, spared))
        if is_bearable(*attempts[-1]):
            break
    return min(attempts, key=lambda one: one[0].p99 / max(P99, 3 * one[1].p99))


@pytest.mark.timeout(180)
def test_normal_clients_are_served_while_others_are_slow_idle_or_hostile() -> None:
    """A second service that nobody attacks says what the machine alone makes clients wait."""
    if shutil.which("slowhttptest") is None:
        pytest.skip("slowhttptest is not installed: apt-get install slowhttptest")
    with Server(workers=2) as server, Server(workers=2) as spared, contextlib.ExitStack() as stack:
        server.put("large", bytes(LARGE))
        before = server.worker_memory()
        idle = [stack.enter_context(server.connect()) for _ in range(IDLE)]
        for wire in idle:
            assert wire.ask(request()).status == 200
        found = {}
        for mode in MODES:
            with attack(server, mode):
                found[mode] = best_of(server, spared)
                there = open_connections(server)
            print(f"\n{mode}, {there} connections: {found[mode][0]}; elsewhere {found[mode][1]}")
            assert there > IDLE + HOSTILE * 0.9
        grown = server.worker_memory() - before
        print(f"the workers' memory has grown by {grown / 1e6:.1f} MB")
        assert all(wire.ask(request()).status == 200 for wire in idle)
        # Who does not read is owed one answer, and no more.
        assert grown < HOSTILE * LARGE * 1.2 + (32 << 20)
    assert all(is_bearable(*one) for one in found.values()), found
