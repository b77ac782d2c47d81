"""A holder of a lock that was paused for too long writes nothing: the store keeps it out.

The scenario is Martin Kleppmann's, in "How to do distributed locking" (2016): a client gets a lock,
is paused for longer than the lock lasts, and then writes what it had in mind before.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from keyrack_server import Server, request
from keyrack_server.server import clean_environment

from consistency.storm import ROUNDS, Client, in_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = {"Content_Type": "application/json"}
LOCK, KEY = "%7Bjobs%7D", "/v1/keys/%7Bjobs%7D/1"
CLIENTS = 6
TAKES = 4
TTL = 0.1
HOLDER = """
import keyrack, sys
client = keyrack.Client(sys.argv[1])
lock = client.lock("{jobs}", ttl=5.0, renew=False)
lock.acquire()
client.set("{jobs}/1", "old plan", lock=lock)
print("held", flush=True)
sys.stdin.readline()
# It looks at no clock, as a paused process cannot know that it was paused.
lock.taken(lock.token, __import__("time").monotonic())
try:
    client.set("{jobs}/1", "late", lock=lock)
    print("written", flush=True)
except keyrack.LockLost:
    print("lock lost", flush=True)
"""


def held(token: str) -> dict[str, str]:
    return {"Keyrack_Lock": f'"{LOCK}"; token={token}'}


@pytest.fixture(scope="module")
def fenced() -> Iterator[Server]:
    with Server(workers=2, memory="64m") as server:
        body = json.dumps({"keys": "{jobs}/*", "lock": "{jobs}"}).encode()
        assert server.ask("PUT", "/v1/fences/jobs", body, **JSON).status == 201
        yield server


def take(server: Server, ttl: float) -> str:
    """Take the lock as soon as it is free, and return its token."""
    body = json.dumps({"owner": "other", "ttl": ttl}).encode()
    with server.connect(60) as wire:
        asked = request("POST", f"/v1/locks/{LOCK}", body, Prefer="wait=30", **JSON)
        answer = wire.ask(asked)
    assert answer.status == 201, answer
    return str(answer.json["token"])


def test_a_process_that_was_stopped_while_it_held_the_lock_writes_nothing(fenced: Server) -> None:
    url = f"http://127.0.0.1:{fenced.port}"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        assert fenced.ask("GET", KEY).body == b"old plan"
        os.kill(holder.pid, signal.SIGSTOP)
        token = take(fenced, 60)
        assert fenced.ask("PUT", KEY, b"new plan", **held(token)).status == 204
        os.kill(holder.pid, signal.SIGCONT)
        holder.stdin.write("go on\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "lock lost\n"
        assert fenced.ask("GET", KEY).body == b"new plan"
        answer = fenced.ask("DELETE", f"/v1/locks/{LOCK}?token={token}")
        assert answer.status == 204
    finally:
        holder.kill()
        holder.communicate()


class Written(NamedTuple):
    """A write that was acknowledged: the revision that it got, and the token that it named."""

    revision: int
    token: int


class Holder:
    """A client that takes the lock again and again, and is often paused for too long."""

    def __init__(self, server: Server, number: int) -> None:
        self._client = Client(server)
        self._chance = random.Random(number)
        self.written: list[Written] = []
        self.kept_out = 0

    def run(self, takes: int) -> None:
        body = json.dumps({"owner": "storm", "ttl": TTL}).encode()
        for turn in range(takes):
            answer = self._client.insist("POST", f"/v1/locks/{LOCK}", body, **JSON)
            while answer.status != 201:
                time.sleep(self._chance.random() * TTL / 4)
                answer = self._client.insist("POST", f"/v1/locks/{LOCK}", body, **JSON)
            for _ in range(3):
                if self._chance.random() < 0.4:
                    time.sleep(self._chance.random() * TTL * 2)
                self._write(turn, answer.json["token"])
        self._client.close()

    def _write(self, turn: int, token: str) -> None:
        answer = self._client.insist("PUT", KEY, b"%d" % turn, **held(token))
        if answer.status == 412:
            assert answer.json["type"] == "/docs/problems/lock-lost"
            self.kept_out += 1
            return
        assert answer.status in (201, 204), answer
        self.written.append(Written(int(answer["ETag"].strip('"')), int(token)))


def test_no_write_comes_behind_one_of_a_later_holder(fenced: Server) -> None:
    """In the order of the store's revisions tokens never fall, whoever was paused for how long."""
    holders = [Holder(fenced, number) for number in range(CLIENTS)]
    in_threads([lambda holder=holder: holder.run(TAKES * ROUNDS) for holder in holders])
    written = sorted(one for holder in holders for one in holder.written)
    tokens = [one.token for one in written]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) > 2, "the lock went from hand to hand"
    assert sum(holder.kept_out for holder in holders) > 0, "some came too late"
