"""Whatever is killed, and whenever: what was answered is kept, and the others go on."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from itertools import count
from typing import TYPE_CHECKING

import lmdb
import pytest

from consistency.lives import (
    kill_everything,
    kill_the_supervisor,
    listens,
    stored,
    written_until_killed,
)
from consistency.storm import Client, Service, audit, in_threads, service, store, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack_server import Server

KILLS = max(200, 20 * int(os.environ.get("KEYRACK_TEST_ROUNDS", "1")))
WORKERS = 8
WRITERS = 4
PAUSE = 0.04


class UniqueWriter:
    """Writes each key once, and notes which of them were answered and how long that took."""

    def __init__(self, server: Server, number: int, over: threading.Event) -> None:
        self._client = Client(server)
        self._number = number
        self._over = over
        self.answered: list[str] = []
        self.asked = 0
        self.slowest = 0.0

    def run(self) -> None:
        for number in count():
            if self._over.is_set():
                break
            began = time.monotonic()
            key = f"{self._number}/{number}"
            answer = self._client.ask("PUT", f"/v1/keys/{key}", key.encode())
            self.asked += 1
            if answer is not None:
                assert answer.status == 201, answer
                self.answered.append(key)
            self.slowest = max(self.slowest, time.monotonic() - began)
        self._client.close()


@pytest.mark.timeout(60 + KILLS)
def test_every_answered_write_is_kept_while_workers_are_killed() -> None:
    chance = random.Random(1)
    with service(WORKERS) as (server, _):
        over = threading.Event()
        writers = [UniqueWriter(server, number, over) for number in range(WRITERS)]

        def kill() -> None:
            kills = 0
            try:
                while kills < KILLS:
                    time.sleep(chance.uniform(0, 2 * PAUSE))
                    kills += bool(server.kill_worker(chance))
            finally:
                over.set()

        began = time.monotonic()
        in_threads([kill, *(writer.run for writer in writers)])
        found = stored(server)
        answered = {key for writer in writers for key in writer.answered}
        asked = sum(writer.asked for writer in writers)
        slowest = max(writer.slowest for writer in writers)
        print(f"{KILLS} kills in {time.monotonic() - began:.0f} s, {asked} writes, ", end="")
        print(f"{asked - len(answered)} lost answers, slowest {slowest:.2f} s")
    assert answered - found.keys() == set()
    assert all(key == value for key, value in found.items())
    assert len(found) <= asked


@pytest.mark.timing
def test_a_killed_worker_is_replaced_within_a_second_while_the_others_serve() -> None:
    chance = random.Random(2)
    with service(2) as (server, _):
        times = []
        for _ in range(3):
            time.sleep(1.1)  # one that ended young would be given a rest first
            others = [server.connect() for _ in range(8)]
            before = set(server.worker_pids())
            killed = server.kill_worker(chance)
            times.append(until(lambda b=before: _replaced(server, b), 30, "a new worker"))
            assert killed not in server.worker_pids()
            _assert_the_others_were_served(others)
        print("replaced after " + ", ".join(f"{seconds:.2f}" for seconds in times) + " s")
    assert max(times) < 1.0


def _replaced(server: Service, before: set[int]) -> bool:
    now = set(server.worker_pids())
    if now == before or len(now) < len(before):
        return False
    return server.ask("GET", "/v1/info").json["workers"] == len(before)


def _assert_the_others_were_served(connections: list) -> None:
    alive = 0
    for wire in connections:
        with wire, contextlib.suppress(EOFError, ConnectionError):
            alive += wire.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 200
    assert alive


@pytest.mark.timing
def test_requests_go_on_at_the_surviving_worker_while_the_other_is_replaced() -> None:
    with service(2) as (server, _):
        time.sleep(1.1)
        clients = [Client(server) for _ in range(8)]
        for client in clients:
            client.insist("GET", "/healthz")
        server.kill_worker(random.Random(3))
        survivors = [client for client in clients if client.ask("GET", "/healthz") is not None]
        gaps, last = [], time.monotonic()
        while len(gaps) < 2000:
            survivors[0].insist("PUT", "/v1/keys/k", b"v")
            now = time.monotonic()
            gaps.append(now - last)
            last = now
        assert survivors[0].lost == 0
        assert len(survivors) < len(clients)
        for client in clients:
            client.close()
        print(f"longest time without an answer {max(gaps) * 1000:.0f} ms")
    assert max(gaps) < 0.5


def test_readers_of_killed_workers_are_cleared() -> None:
    chance = random.Random(4)
    with service(2) as (server, directory):
        kills = 0
        while kills < 4:
            for _ in range(20):
                server.ask("GET", "/get/k")
            kills += bool(server.kill_worker(chance))
            time.sleep(0.2)
        until(lambda: server.ask("GET", "/v1/info").json["workers"] == 2, 30, "both are back")
        assert _readers(directory) <= set(server.worker_pids())


def _readers(directory: str) -> set[int]:
    """The processes that have a place in the store's table of readers."""
    options = {"max_dbs": 5, "max_readers": 1022, "create": False, "lib_version": 0}
    with lmdb.open(directory, **options) as environment:
        lines = environment.readers().splitlines()[1:]
    return {int(line.split()[0]) for line in lines} - {os.getpid()}


# The supervisor, and everything


@pytest.mark.parametrize("kill", [kill_the_supervisor, kill_everything])
def test_a_named_store_is_found_again_after_a_kill(kill: Callable[[Service], None]) -> None:
    with store() as directory:
        answered: dict[str, str] = {}
        newest = 0
        for life in range(2):
            server = Service("--store", directory, workers=2, memory="512m")
            assert answered.items() <= stored(server).items()
            answered |= written_until_killed(server, life, lambda s=server: kill(s))
            server.process.wait()
            until(lambda s=server: not listens(s), 30, "the workers ended")
            server._log.close()
            with Service("--store", directory, workers=1, memory="512m") as next_one:
                assert answered.items() <= stored(next_one).items()
                revision = int(next_one.put("revision", b"").strip('"'))
                assert revision > newest
                newest = revision
            assert audit(directory) == []
