"""Processes that want one key at once: one of them computes it for each of its ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from keyrack.client import Client

PROCESSES = 20
READER = """
import json, sys, time
from keyrack import Client

url, key, reads, compute, lease, ttl = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
computed = 0

def value():
    global computed
    print("computing", flush=True)
    time.sleep(compute)
    computed += 1
    return "value"

with Client(url, timeout=60) as client:
    for _ in range(int(reads)):
        found = client.get_or_compute(key, value, ttl=ttl, stale=600, lease=lease, wait=60)
        assert found == "value", found
        time.sleep(0.02)
print(json.dumps(computed))
"""


def reader(
    url: str, key: str, reads: int, compute: float, lease: float, ttl: float
) -> subprocess.Popen[str]:
    """Start a process that reads a key so often, and computes it where that falls to it."""
    numbers = map(str, (reads, compute, lease, ttl))
    command = [sys.executable, "-c", READER, url, key, *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def computed_by(process: subprocess.Popen[str]) -> int:
    """Wait for a process, and return how often it has computed the key."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found: Any = json.loads(output.splitlines()[-1])
    return int(found)


def ends(client: Client, key: str) -> int:
    """Return how often a key has ended; that it was missing at first is one."""
    return 1 + sum(event.kind == "expire" for event in client.history(key, limit=1000))


def test_a_key_is_computed_once_for_each_of_its_ends_by_all_processes_together(url: str) -> None:
    key = "stampede"
    processes = [reader(url, key, 40, 0.1, 300, 0.3) for _ in range(PROCESSES)]
    computed = sum(map(computed_by, processes))
    with Client(url) as client:
        # The last end may have come after the last read.
        assert ends(client, key) - 1 <= computed <= ends(client, key)
        assert computed >= 2


def test_when_who_computes_is_killed_one_other_does_it_after_the_lease(url: str) -> None:
    key = "killed"
    first = reader(url, key, 1, 600, 1, 3600)
    assert first.stdout is not None
    assert first.stdout.readline() == "computing\n"
    processes = [reader(url, key, 1, 0.1, 300, 3600) for _ in range(PROCESSES)]
    time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert sum(map(computed_by, processes)) == 1
