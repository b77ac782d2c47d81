"""Numbers that many add to, at workers that are killed meanwhile: nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import json
import random
from itertools import count
from typing import TYPE_CHECKING

import pytest

from consistency.storm import ROUNDS, Client, Killer, in_threads, service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack_server import Answer, Server

CLIENTS = 4
ADDITIONS = 700 * ROUNDS
JSON = "application/json"

pytestmark = pytest.mark.timeout(120 * ROUNDS)


def number(server: Server, key: str) -> int:
    """The number that a key holds."""
    return int(server.ask("GET", f"/v1/keys/{key}").body)


def added(
    server: Server, work: Callable[[Client, int, Iterator[int]], int], turns: int, kills: int = 3
) -> int:
    """Let clients work side by side; return the sum of what each of them says that it added.

    Each of them takes at least so many turns, and more until so many workers were killed.
    """
    killer = Killer(server, 0.3, seed=CLIENTS)

    def going_on() -> Iterator[int]:
        for turn in count():
            if turn >= turns and killer.kills >= kills:
                return
            yield turn

    def run(name: int) -> int:
        client = Client(server)
        try:
            return work(client, name, going_on())
        finally:
            client.close()

    with killer if kills else contextlib.nullcontext():
        return sum(in_threads([lambda n=name: run(n) for name in range(CLIENTS)]))


# Compare and set


def increment(client: Client, key: str) -> bool | None:
    """Add one by compare-and-set: whether it was done, None when the answer was lost."""
    read = client.insist("GET", f"/v1/keys/{key}")
    value = b"%d" % (int(read.body) + 1)
    written = client.ask("PUT", f"/v1/keys/{key}", value, If_Match=read["ETag"])
    if written is None:
        return None
    assert written.status in (204, 412), written
    return written.status == 204


def test_two_workers_increment_by_compare_and_set() -> None:
    with service(2) as (server, _):
        server.put("k", b"0")

        def work(client: Client, _: int, turns: Iterator[int]) -> int:
            return sum(increment(client, "k") is True for _ in turns)

        assert added(server, work, ADDITIONS, kills=0) == number(server, "k") > 0


def test_a_lost_compare_and_set_is_found_out_by_reading() -> None:
    """Who writes its own mark beside the number knows, by reading, whether a write was done."""
    with service(2) as (server, _):
        server.put("k", b"0 nobody 0")

        def work(client: Client, name: int, turns: Iterator[int]) -> int:
            done = 0
            for turn in turns:
                _increment_marked(client, b"%d" % name, turn)
                done += 1
            return done

        total = added(server, work, ADDITIONS // 4)
        assert int(server.ask("GET", "/v1/keys/k").body.split()[0]) == total


def _increment_marked(client: Client, name: bytes, turn: int) -> None:
    mark = b"%b %d" % (name, turn)
    while True:
        read = client.insist("GET", "/v1/keys/k")
        value, _, last = read.body.partition(b" ")
        # All marks that this client's lost writes may have left are kept, so none is overlooked.
        if mark in last.split(b","):
            return
        others = [one for one in last.split(b",") if not one.startswith(name + b" ")]
        body = b"%d %b" % (int(value) + 1, b",".join((*others, mark)))
        written = client.ask("PUT", "/v1/keys/k", body, If_Match=read["ETag"])
        if written is not None and written.status == 204:
            return


# Counters


def add(client: Client, key: str, delta: int, name: str) -> Answer:
    """Add under an Idempotency-Key, as often as it takes to get an answer."""
    body = json.dumps({"delta": str(delta)}).encode()
    fields = {"Content_Type": JSON, "Idempotency_Key": name}
    return client.insist("POST", f"/v1/counters/{key}", body, **fields)


def test_retried_additions_with_an_idempotency_key_are_done_once() -> None:
    with service(3) as (server, _):
        seen: list[tuple[int, int]] = []

        def work(client: Client, name: int, turns: Iterator[int]) -> int:
            total = 0
            chance = random.Random(name)
            for turn in turns:
                delta = chance.randrange(1, 4)
                first = add(client, "k", delta, f"{name}-{turn}")
                assert first.status == 200, first
                total += delta
                seen.append((int(first.json["revision"]), int(first.json["value"])))
                if chance.random() < 0.2:
                    again = add(client, "k", delta, f"{name}-{turn}")
                    assert again.json == first.json, "the first answer comes again"
            return total

        assert added(server, work, ADDITIONS) == number(server, "k")
    seen.sort()
    values = [value for _, value in seen]
    assert values == sorted(set(values)), "each addition made a new number, in revision order"


def test_without_an_idempotency_key_only_lost_answers_are_in_doubt() -> None:
    with service(2) as (server, _):
        lost = []

        def work(client: Client, _: int, turns: Iterator[int]) -> int:
            done = 0
            for _ in turns:
                fields = {"Content_Type": JSON}
                answer = client.ask("POST", "/v1/counters/k", b'{"delta":"1"}', **fields)
                done += answer is not None
            lost.append(client.lost)
            return done

        total = added(server, work, ADDITIONS)
        assert total <= number(server, "k") <= total + sum(lost)


# Several keys at once


def test_batches_move_amounts_and_the_sum_stays() -> None:
    """Readers never see money that is under way, and nothing is lost when workers die."""
    accounts = ("a", "b", "c")
    with service(3) as (server, _):
        for account in accounts:
            server.put(account, b"1000")

        def work(client: Client, name: int, turns: Iterator[int]) -> int:
            chance = random.Random(name)
            for turn in turns:
                giver, taker = chance.sample(accounts, 2)
                moved = _batch(client, _move(giver, taker, chance.randrange(9)), f"{name}-{turn}")
                assert moved.status == 200, moved
                shown = _batch(client, [{"op": "get", "key": key} for key in accounts])
                assert sum(int(result["value"]) for result in shown.json["results"]) == 3000
            return 0

        added(server, work, ADDITIONS // 2)
        assert sum(number(server, account) for account in accounts) == 3000


def _move(giver: str, taker: str, amount: int) -> list[dict[str, str]]:
    return [
        {"op": "add", "key": giver, "delta": str(-amount)},
        {"op": "add", "key": taker, "delta": str(amount)},
    ]


def _batch(client: Client, operations: list[dict[str, str]], name: str = "") -> Answer:
    body = json.dumps({"operations": operations}).encode()
    fields = {"Content_Type": JSON}
    if name:
        fields["Idempotency_Key"] = name
    return client.insist("POST", "/v1/batch", body, **fields)


# Locks


def test_a_lock_is_held_by_one_client_at_a_time_and_its_tokens_grow() -> None:
    """A number that is read and written under the lock, the write checked by its token."""
    with service(3) as (server, _):
        server.put("k", b"0")
        tokens: list[int] = []

        def work(client: Client, name: int, turns: Iterator[int]) -> int:
            done = 0
            for turn in turns:
                token = _locked(client, f"{name}-{turn}")
                tokens.append(int(token))
                value = b"%d" % (int(client.insist("GET", "/v1/keys/k").body) + 1)
                operations = [
                    {"op": "check", "lock": "l", "token": token},
                    {"op": "set", "key": "k", "value": value.decode()},
                ]
                done += _batch(client, operations, f"{name}-{turn}-set").status == 200
                client.insist("DELETE", f"/v1/locks/l?token={token}")
            return done

        assert added(server, work, ADDITIONS // 10) == number(server, "k") > 0
    assert tokens == sorted(set(tokens))


def _locked(client: Client, owner: str) -> str:
    body = json.dumps({"ttl": 0.5, "owner": owner}).encode()
    while True:
        fields = {"Content_Type": JSON, "Prefer": "wait=5"}
        answer = client.insist("POST", "/v1/locks/l", body, **fields)
        if answer.status == 201:
            return str(answer.json["token"])
