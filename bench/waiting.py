"""What clients that wait cost: reads with `Prefer: wait=`, each on a connection of its own.

While they come, one connection reads after every few of them, and the most CPU time that the
service took until such a read was answered is how long it held others up, the collector included.
When all are there nobody sends anything, and the CPU time that the service takes, less what it took
before they came, is what they cost.
"""

from __future__ import annotations

import json
import resource
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench import procstat, wire
from bench.errors import BenchError
from bench.peers import Keyrack

if TYPE_CHECKING:
    from bench.peers import Bench

COMING: Final = 5_000
"""Clients that come while holds are watched."""
THERE: Final = 10_000
"""Clients that are there while the service's CPU time is."""
_A_STEP: Final = 4
_SPARE_FILES: Final = 200
_REQUEST: Final = (
    "GET /v1/keys/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    'If-None-Match: "{revision}"\r\nPrefer: wait=60\r\n\r\n'
)


@dataclass(frozen=True)
class Waiting:
    """The longest hold (ms of CPU time); what those who wait cost, as a share of a core; memory."""

    coming: int
    worst_ms: float
    there: int
    busy: float
    bytes_each: float


def waiting_clients(bench: Bench) -> Waiting:
    """Start a server and have clients wait at it."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < THERE + _SPARE_FILES:
        raise BenchError(f"a process may not have {THERE + _SPARE_FILES} open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (THERE + _SPARE_FILES,) * 2)
    server = Keyrack(bench, label="waiting")
    sockets: list[socket.socket] = []
    try:
        server.start()
        server.check()
        return _watch(server, sockets, bench.settings.idle_seconds)
    finally:
        for one in sockets:
            one.close()
        server.stop()


def _watch(server: Keyrack, sockets: list[socket.socket], seconds: float) -> Waiting:
    before = procstat.private_bytes(server.pids(), "Pss_Anon")
    alone = _busy(server, seconds)
    request = _REQUEST.format(key=wire.key(0), revision=_revision(server.port)).encode()
    worst = _worst_while_coming(server, request, sockets)
    while len(sockets) < THERE:
        sockets.append(_waiting(server.port, request))
    time.sleep(3)  # until whatever their coming has begun is over
    grown = procstat.private_bytes(server.pids(), "Pss_Anon") - before
    cost = max(0.0, _busy(server, seconds) - alone)
    _check_all_wait(sockets)
    return Waiting(COMING, worst, THERE, cost, grown / THERE)


def _busy(server: Keyrack, seconds: float) -> float:
    used, began = procstat.cpu_seconds(server.pids()), time.monotonic()
    time.sleep(seconds)
    return (procstat.cpu_seconds(server.pids()) - used) / (time.monotonic() - began)


def _revision(port: int) -> int:
    status, answer = wire.exchange(port, "GET", f"/v1/keys?prefix={wire.key(0)}")
    if status != 200:
        raise BenchError(f"the key to wait for was answered {status}: {answer[:200]!r}")
    return int(json.loads(answer)["keys"][0]["revision"])


def _worst_while_coming(server: Keyrack, waits: bytes, sockets: list[socket.socket]) -> float:
    """Return the most CPU time (ms) that the service took until a read behind a few was answered.

    Time on the wall would count what neighbours take, and a long hold is when they do.
    """
    read = wire.http_request("GET", f"/get/{wire.key(0)}")
    pids, worst = server.pids(), 0.0
    with socket.create_connection((wire.HOST, server.port), timeout=20) as other:
        while len(sockets) < COMING:
            before = procstat.cpu_seconds(pids)
            sockets.extend(_waiting(server.port, waits) for _ in range(_A_STEP))
            other.sendall(read)
            if not other.recv(4096).startswith(b"HTTP/1.1 200"):
                raise BenchError("a read beside clients that wait failed")
            worst = max(worst, procstat.cpu_seconds(pids) - before)
    return worst * 1e3


def _waiting(port: int, request: bytes) -> socket.socket:
    made = socket.create_connection((wire.HOST, port), timeout=20)
    made.sendall(request)
    return made


def _check_all_wait(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.setblocking(False)
        try:
            raise BenchError(f"a client that should wait was answered {one.recv(100)!r}")
        except BlockingIOError:
            continue
