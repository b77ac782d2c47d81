"""What concurrent clients of several workers see is what one store would have answered."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from consistency.history import (
    Action,
    Add,
    Added,
    Answer,
    Delete,
    Done,
    Found,
    Get,
    Missing,
    Operation,
    Refused,
    Set,
    why_not_linearizable,
    why_not_ordered,
)
from consistency.storm import ROUNDS, Client, Killer, in_threads, service

if TYPE_CHECKING:
    import keyrack_server
    from keyrack_server import Server

CLIENTS = 8
OPERATIONS = 24_000
REGISTERS = ("r/0", "r/1", "r/2")
COUNTERS = ("c/0", "c/1")
PAUSE = 0.4
KILLS = 3


def revision_of(answer: keyrack_server.Answer) -> int:
    """The revision that an ETag names, 0 without one."""
    tag = answer.get("ETag")
    return 0 if tag is None else int(tag.strip('"'))


class Watched:
    """A client that notes what it asked, when, and what it was answered."""

    def __init__(self, server: Server, number: int) -> None:
        self._client = Client(server)
        self._chance = random.Random(number)
        self._number = number
        self._known: dict[str, int] = {}
        """The revision that it last saw of a key: what it compares with."""
        self.history: list[Operation] = []

    def run(self, operations: int, killer: Killer) -> list[Operation]:
        """Do at least so many operations, and more until so many workers were killed."""
        while len(self.history) < operations or killer.kills < KILLS:
            if self._chance.random() < 0.3:
                self._count(self._chance.choice(COUNTERS))
            else:
                self._register(self._chance.choice(REGISTERS))
        self._client.close()
        return self.history

    def _register(self, key: str) -> None:
        value = b"%d.%d" % (self._number, len(self.history))
        match = self._known.get(key, 0)
        kind = self._chance.randrange(100)
        if kind < 25:
            self._ask(key, Get(), "GET", f"/v1/keys/{key}")
        elif kind < 40:
            self._ask(key, Get(), "GET", f"/get/{key}")
        elif kind < 55:
            self._ask(key, Set(value), "PUT", f"/v1/keys/{key}", value)
        elif kind < 65:
            body = json.dumps({"key": key, "value": value.decode()}).encode()
            self._ask(key, Set(value), "POST", "/set", body, Content_Type="application/json")
        elif kind < 85 and match:
            fields = {"If_Match": f'"{match}"'}
            self._ask(key, Set(value, match), "PUT", f"/v1/keys/{key}", value, **fields)
        elif kind < 90:
            action = Set(value, create=True)
            self._ask(key, action, "PUT", f"/v1/keys/{key}", value, If_None_Match="*")
        elif kind < 95 and match:
            fields = {"If_Match": f'"{match}"'}
            self._ask(key, Delete(match), "DELETE", f"/v1/keys/{key}", **fields)
        else:
            self._ask(key, Delete(), "DELETE", f"/v1/keys/{key}")

    def _count(self, key: str) -> None:
        if self._chance.random() < 0.3:
            self._ask(key, Get(), "GET", f"/v1/keys/{key}")
        elif self._chance.random() < 0.02:
            self._ask(key, Delete(), "DELETE", f"/v1/keys/{key}")
        else:
            delta = self._chance.choice((1, 1, 1, 10))
            body = b'{"delta":"%d"}' % delta
            target = f"/v1/counters/{key}"
            self._ask(key, Add(delta), "POST", target, body, Content_Type="application/json")

    def _ask(
        self,
        key: str,
        action: Action,
        method: str,
        target: str,
        body: bytes | None = None,
        **fields: str,
    ) -> None:
        asked = time.perf_counter()
        raw = self._client.ask(method, target, body, **fields)
        # The connection of a killed worker ends after the worker did: from then on a lost
        # operation was done, or never is.
        answered = time.perf_counter()
        answer = None if raw is None else self._understood(key, action, raw)
        self.history.append(Operation(key, action, asked, answered, answer))

    def _understood(self, key: str, action: Action, raw: keyrack_server.Answer) -> Answer:
        revision = revision_of(raw)
        if revision:
            self._known[key] = revision
        if raw.status == 412:
            return Refused(revision)
        if raw.status == 404:
            return Missing()
        if isinstance(action, Add):
            assert raw.status == 200, raw
            assert raw.json["revision"] == str(revision)
            return Added(int(raw.json["value"]), revision)
        if isinstance(action, Get):
            assert raw.status == 200, raw
            return Found(raw.body if revision else raw.json["value"].encode(), revision)
        assert raw.status in (200, 201, 204), raw
        existed = None if raw.status == 200 else raw.status == 204
        return Done(revision, existed)


@pytest.mark.timeout(120 * ROUNDS)
@pytest.mark.parametrize("workers", [2, 3])
def test_a_history_is_linearizable_while_workers_are_killed(workers: int) -> None:
    with service(workers) as (server, _):
        share = OPERATIONS * ROUNDS // 2 // CLIENTS
        clients = [Watched(server, number) for number in range(CLIENTS)]
        with Killer(server, PAUSE, seed=workers) as killer:
            histories = in_threads([lambda c=client: c.run(share, killer) for client in clients])
    history = [operation for one in histories for operation in one]
    lost = sum(operation.answer is None for operation in history)
    print(f"{len(history)} operations, {lost} lost, {killer.kills} kills")
    assert why_not_ordered(history) is None
    assert why_not_linearizable(history) is None


def test_a_write_is_seen_by_whoever_asks_after_its_answer_at_any_worker() -> None:
    """The plainest case without a checker: write here, then read there, thousands of times."""
    with service(3) as (server, _):
        writer, readers = Client(server), [Client(server) for _ in range(6)]
        for number in range(500):
            value = b"%d" % number
            assert writer.insist("PUT", "/v1/keys/k", value).status in (201, 204)
            for reader in readers:
                assert reader.insist("GET", "/v1/keys/k").body == value
        for client in (writer, *readers):
            client.close()


def test_revisions_that_one_client_sees_of_a_key_never_go_back() -> None:
    with service(2) as (server, _):
        over = threading.Event()

        def write() -> list[int]:
            client = Client(server)
            answers = [client.insist("PUT", "/v1/keys/k", b"v") for _ in range(1500)]
            client.close()
            over.set()
            return [revision_of(answer) for answer in answers]

        def read() -> list[int]:
            client, seen = Client(server), []
            while not over.is_set():
                answer = client.insist("GET", "/v1/keys/k")
                seen += [revision_of(answer)] if answer.status == 200 else []
            client.close()
            return seen

        first, second, *reads = in_threads([write, write, read, read])
    assert len({*first, *second}) == 3000
    for seen in (first, second, *reads):
        assert seen == sorted(seen)
