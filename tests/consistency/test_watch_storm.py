"""Every watcher is told of each change once, in order, with no gap, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from itertools import pairwise, product
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from keyrack_server import request

from consistency.storm import ROUNDS, Client, Killer, in_threads, opened, service, until
from consistency.stream import END, Told, Watcher
from keyrack.engines.contract import Change

if TYPE_CHECKING:
    from pathlib import Path

    from keyrack_server import Answer, Server

SECONDS = 6.0 * ROUNDS
WRITERS = 3
WATCHED = (("a/",), ("b/",), ("a/", "b/"), ("",), ("c/", "a/1"), ("nothing/",))
LEAVES = (0.0, 0.02, 0.3)
"""How often watchers come back: when their worker was killed, now and then, all the time."""


class Writer:
    """Changes keys in every way there is, and notes of which changes it knows the revision."""

    def __init__(self, server: Server, number: int, over: threading.Event) -> None:
        self._client = Client(server)
        self._chance = random.Random(number)
        self._over = over
        self.known: list[Told] = []

    def run(self) -> None:
        while not self._over.is_set():
            self._change(f"{self._chance.choice('abc')}/{self._chance.randrange(20)}")
            # In bursts, so that watchers are told of one change and of many at once.
            if self._chance.random() < 0.01:
                time.sleep(self._chance.uniform(0, 0.05))
        self._client.close()

    def _change(self, key: str) -> None:
        kind = self._chance.randrange(10)
        if kind < 4:
            self._note(key, self._client.ask("PUT", f"/v1/keys/{key}", b"v"))
        elif kind < 5:
            self._note(key, self._client.ask("PUT", f"/v1/keys/{key}?ttl=0.03", b"v"))
        elif kind < 7:
            self._client.ask("DELETE", f"/v1/keys/{key}")
        elif kind < 8:
            fields = {"If_None_Match": "*"}
            self._note(key, self._client.ask("PUT", f"/v1/keys/{key}", b"v", **fields))
        else:
            self._batch(key, f"{self._chance.choice('abc')}/x")

    def _batch(self, *keys: str) -> None:
        operations = [{"op": "set", "key": key, "value": "v"} for key in keys]
        body = json.dumps({"operations": operations}).encode()
        answer = self._client.ask("POST", "/v1/batch", body, Content_Type="application/json")
        if answer is not None:
            assert answer.status == 200, answer
            for result in answer.json["results"]:
                self.known.append(Told(int(result["revision"]), "set", result["key"]))

    def _note(self, key: str, answer: Answer | None) -> None:
        if answer is not None and answer.status in (201, 204):
            self.known.append(Told(int(answer["ETag"].strip('"')), "set", key))


def logged(store: str, since: int) -> list[Told]:
    """The changes of keys after a revision, as the store's own log holds them."""
    with opened(store) as engine:
        assert engine.history()[0] <= since, "the log is too short for this storm"
        return [
            Told(event.revision, event.change.name.lower(), event.key.decode())
            for event in engine.events(since)
            if event.change <= Change.EVICT
        ]


def newest(server: Server) -> int:
    """The store's revision now."""
    return int(server.ask("GET", "/v1/keys?count_only=true").json["revision"])


def wait_for_quiet(server: Server) -> None:
    """Return when no key is left that ends."""
    until(lambda: server.ask("GET", "/v1/info").json["keys_with_ttl"] == 0, 10, "all keys ended")


@pytest.mark.timeout(120 * ROUNDS)
@pytest.mark.parametrize("workers", [2, 3])
def test_watchers_are_told_of_each_change_once_while_workers_are_killed(workers: int) -> None:
    with service(workers, "--events", "1000000") as (server, store):
        since = newest(server)
        watchers = [
            Watcher(server, prefixes, since, leaves, seed)
            for seed, (prefixes, leaves) in enumerate(product(WATCHED, LEAVES))
        ]
        over = threading.Event()
        writers = [Writer(server, number, over) for number in range(WRITERS)]

        def storm() -> None:
            try:
                with Killer(server, 0.5, seed=workers) as killer:
                    time.sleep(SECONDS)
            finally:
                over.set()
            print(f"{killer.kills} kills")
            assert killer.kills

        def write() -> None:
            try:
                in_threads([storm, *(writer.run for writer in writers)])
                wait_for_quiet(server)
            finally:
                server.put(quote(END), b"")

        in_threads([write, *(watcher.run for watcher in watchers)])
        log = logged(store, since)
    known = {told for writer in writers for told in writer.known}
    print(f"{len(log)} changes, {sum(watcher.connections for watcher in watchers)} connections")
    assert known <= set(log), "what was answered is in the log"
    for watcher in watchers:
        told = watcher.told
        assert all(one.revision < two.revision for one, two in pairwise(told)), _repeated(told)
        assert told == [one for one in log if one.key.startswith((*watcher.prefixes, END))]


def _repeated(told: list[Told]) -> str:
    wrong = [(one, two) for one, two in pairwise(told) if one.revision >= two.revision]
    return f"told twice or out of order, {len(wrong)} times: {wrong[:3]}"


# A worker that dies between its commit and waking the others

DIES = """
import os, signal
from keyrack.shared import counters

wake_others = counters.Counters.wake_others

def dies(self, me):
    if os.path.exists({flag!r}):
        os.unlink({flag!r})
        if {noted}:
            for worker in range(self.workers):
                self.slot(worker)[counters._SIGNALLED] = 1
        os.kill(os.getpid(), signal.SIGKILL)
    wake_others(self, me)

counters.Counters.wake_others = dies
"""


@pytest.mark.parametrize("noted", [False, True], ids=["before it wakes", "while it wakes"])
def test_the_last_change_of_a_dying_worker_is_told_at_once(
    noted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "die"
    (tmp_path / "sitecustomize.py").write_text(DIES.format(flag=str(flag), noted=noted))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with service(3) as (server, _):
        watchers = [Watcher(server, ("k",), newest(server), 0.0, seed) for seed in range(8)]

        def change() -> None:
            try:
                until(lambda: _watching(server) == len(watchers), 10, "all are watching")
                flag.touch()
                server.raw(request("PUT", "/v1/keys/k", b"v"))
                # Nobody changes anything more: only the one change may wake the watchers.
                until(lambda: all(watcher.told for watcher in watchers), 5, "all were told")
                server.put(quote(END), b"")
            except BaseException:
                for _ in range(50):  # at every worker: those that are not woken know their own
                    server.put(quote(END), b"")
                raise

        in_threads([change, *(watcher.run for watcher in watchers)])
    assert not flag.exists()
    for watcher in watchers:
        assert [told.key for told in watcher.told] == ["k", END]


def _watching(server: Server) -> int:
    """How many watchers the service has begun to serve."""
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith("keyrack_http_requests_total") and 'operation="watch"' in line
    )
