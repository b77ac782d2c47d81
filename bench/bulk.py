"""Filling a store in Redis: an import through Keyrack beside `redis-cli --pipe`.

Each gets a Redis of its own on the server's core, and as many pairs. Keyrack is there, too, and
keeps a revision, an event and an index for each key; redis-cli is on the client's core.
"""

from __future__ import annotations

import http.client
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench import packages, wire
from bench.errors import BenchError
from bench.peers.keyrack_valkey import KeyrackValkey
from bench.peers.redis import Redis

if TYPE_CHECKING:
    from bench.peers import Bench

MOST_KEYS: Final = 300_000


@dataclass(frozen=True)
class Import:
    """Seconds for so many pairs."""

    keys: int
    keyrack_seconds: float
    redis_seconds: float


def valkey_import(bench: Bench) -> Import:
    """Start both, and fill one after the other."""
    packages.require(Redis.packages, install=bench.settings.install)
    keys = min(bench.settings.keys, MOST_KEYS)
    with ExitStack() as running:
        ours, theirs = KeyrackValkey(bench, label="import"), Redis(bench, label="pipe")
        for peer in (ours, theirs):
            running.callback(peer.stop)
            peer.start()
        return Import(keys, _import(ours.port, keys), _pipe(bench, theirs.port, keys))


def _import(port: int, keys: int) -> float:
    lines = (f'{{"key":"{wire.key(n)}","value":"{wire.value(n)}"}}\n' for n in range(keys))
    body = "".join(lines).encode()
    connection = http.client.HTTPConnection(wire.HOST, port, timeout=120)
    began = time.monotonic()
    connection.request("POST", "/v1/import", body, {"Content-Type": "application/x-ndjson"})
    answer = connection.getresponse()
    report = answer.read()
    seconds = time.monotonic() - began
    connection.close()
    if answer.status != 200 or f'"imported":{keys},' not in report.decode().replace(" ", ""):
        raise BenchError(f"the import was answered {answer.status}: {report[:200]!r}")
    return seconds


def _pipe(bench: Bench, port: int, keys: int) -> float:
    file = bench.scratch / "pipe"
    commands = (wire.resp_command("SET", wire.key(n), wire.value(n)) for n in range(keys))
    file.write_bytes(b"".join(commands))
    core = str(bench.settings.client_core)
    command = ["taskset", "-c", core, "redis-cli", "-h", wire.HOST, "-p", str(port), "--pipe"]
    began = time.monotonic()
    with file.open("rb") as pairs:
        done = subprocess.run(command, stdin=pairs, capture_output=True, text=True, timeout=120)
    seconds = time.monotonic() - began
    if f"errors: 0, replies: {keys}" not in done.stdout:
        raise BenchError(f"redis-cli --pipe failed: {done.stdout[-200:]}")
    return seconds
