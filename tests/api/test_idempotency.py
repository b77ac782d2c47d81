"""`Idempotency-Key`: a write that is sent again is not done again, and gets the first answer."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client
from keyrack_server import Server

from keyrack.engines.contract import Add, Refusal, Remember, Why

if TYPE_CHECKING:
    from api_support.inside import Inside
    from keyrack_server import Answer

REQUESTS = {
    "batch": ("/v1/batch", {"operations": [{"op": "add", "key": "{key}"}]}),
    "batch of several": (
        "/v1/batch",
        {
            "operations": [
                {"op": "set", "key": "{key}v", "value": {"a": 1.5}},
                {"op": "get", "key": "{key}v"},
                {"op": "add", "key": "{key}"},
            ]
        },
    ),
    "counter": ("/v1/counters/{key}", {"delta": "1"}),
    "lock": ("/v1/locks/{key}", {"owner": "me", "ttl": 60}),
}


def named(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return value.replace("{key}", key)
    if isinstance(value, list):
        return [named(one, key) for one in value]
    if isinstance(value, dict):
        return {name: named(one, key) for name, one in value.items()}
    return value


def same(first: Answer, second: Answer) -> bool:
    def shape(answer: Answer) -> Any:
        return answer.status, answer.body, [f for f in answer.fields if f[0] != "date"]

    return shape(first) == shape(second)


@pytest.mark.parametrize(("path", "body"), REQUESTS.values(), ids=REQUESTS)
def test_the_first_answer_is_given_again_by_any_worker(
    two: list[Client], key: str, path: str, body: Any
) -> None:
    path, body = named(path, key), named(body, key)
    first = two[0].post(path, body, Idempotency_Key=key)
    assert first.status in (200, 201)
    revision = two[0].get("/v1/info").json["revision"]
    for client in (*two, *two):
        assert same(first, client.post(path, body, Idempotency_Key=key))
    assert two[1].get("/v1/info").json["revision"] == revision


def test_the_answer_does_not_follow_later_changes(client: Client, key: str) -> None:
    client.put(key, b"old")
    body = {"operations": [{"op": "get", "key": key}]}
    first = client.post("/v1/batch", body, Idempotency_Key=key)
    client.put(key, b"new")
    assert same(first, client.post("/v1/batch", body, Idempotency_Key=key))


def test_without_the_key_it_is_done_each_time(client: Client, key: str) -> None:
    for _ in range(3):
        client.post(f"/v1/counters/{key}", {})
    assert client.shown(key) == "3"


def test_another_key_is_another_request(client: Client, key: str) -> None:
    for number in range(3):
        client.post(f"/v1/counters/{key}", {}, Idempotency_Key=f"{key}/{number}")
    assert client.shown(key) == "3"


# Refusals


def test_a_refusal_is_given_again(two: list[Client], key: str) -> None:
    two[0].put(key, b"text")
    answers = [two[0].post(f"/v1/counters/{key}", {}, Idempotency_Key=key)]
    two[0].put(key, b"1")
    answers += [one.post(f"/v1/counters/{key}", {}, Idempotency_Key=key) for one in two]
    assert [answer.status for answer in answers] == [409, 409, 409]
    assert all(same(answers[0], other) for other in answers)
    assert two[0].shown(key) == "1"


def test_a_refused_batch_is_refused_again(client: Client, key: str) -> None:
    body = {"operations": [{"op": "check", "key": key, "if_match": "*"}]}
    first = client.post("/v1/batch", body, Idempotency_Key=key)
    client.put(key)
    assert first.status == 409
    assert same(first, client.post("/v1/batch", body, Idempotency_Key=key))


def test_a_lock_that_was_refused_is_refused_again(client: Client, key: str) -> None:
    """Also when it is free meanwhile: 409 each time, never that nobody holds it."""
    token = client.post(f"/v1/locks/{key}", {"owner": "holder", "ttl": 60}).json["token"]
    body = {"owner": "me", "ttl": 60}
    assert client.post(f"/v1/locks/{key}", body, Idempotency_Key=key).status == 409
    client.delete(f"/v1/locks/{key}?token={token}")
    assert client.post(f"/v1/locks/{key}", body, Idempotency_Key=key).status == 409
    assert client.post(f"/v1/locks/{key}", body, Idempotency_Key=f"{key} again").status == 201


def test_what_is_malformed_is_not_remembered(client: Client, key: str) -> None:
    assert client.post(f"/v1/counters/{key}", b"{", Idempotency_Key=key).status == 400
    assert client.post(f"/v1/counters/{key}", {}, Idempotency_Key=key).status == 200


# Another request under the same key


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/counters/{key}", b'{"delta":"2"}'),
        ("/v1/counters/{key}", b'{"delta": "1"}'),
        ("/v1/counters/{key}x", b'{"delta":"1"}'),
        ("/v1/batch", b'{"operations":[{"op":"add","key":"{key}"}]}'),
        ("/v1/locks/{key}", b'{"owner":"me","ttl":5}'),
    ],
)
def test_another_request_under_the_key_is_422(
    two: list[Client], key: str, path: str, body: bytes
) -> None:
    two[0].post(f"/v1/counters/{key}", b'{"delta":"1"}', Idempotency_Key=key)
    answer = two[1].post(
        named(path, key), body.replace(b"{key}", key.encode()), Idempotency_Key=key
    )
    assert (answer.status, answer.json["type"]) == (422, "/docs/problems/idempotency-key-reused")
    assert two[0].shown(key) == "1"


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_key_has_1_to_255_characters(client: Client, key: str, name: str) -> None:
    assert client.post(f"/v1/counters/{key}", {}, Idempotency_Key=name).status == 400
    assert client.shown(key) is None


@pytest.mark.parametrize("name", ["x", '"quoted"', "a b", "\u00e9\u00ff", "x" * 255, "%2F/.."])
def test_a_key_may_have_any_characters(client: Client, key: str, name: str) -> None:
    name = (key + name)[-255:]
    for _ in range(2):
        answer = client.post(f"/v1/counters/{key}", {}, Idempotency_Key=name)
    assert answer.json["value"] == "1"


def test_the_seed_api_and_other_methods_know_it_too(client: Client, key: str) -> None:
    """Otherwise a retry would overwrite what was written since."""
    asked = {"key": key, "value": "a"}
    first = client.post("/set", asked, Idempotency_Key=f"{key} set")
    client.put(key, b"b")
    assert same(first, client.post("/set", asked, Idempotency_Key=f"{key} set"))
    assert client.shown(key) == "b"
    first = client.ask("PUT", f"/v1/keys/{key}", b"c", Idempotency_Key=f"{key} put")
    client.put(key, b"d")
    again = client.ask("PUT", f"/v1/keys/{key}", b"c", Idempotency_Key=f"{key} put")
    assert (again.status, again["ETag"]) == (first.status, first["ETag"])
    assert client.shown(key) == "d"


CHANGED = {
    "If-Match": {"If_Match": "*"},
    "If-None-Match": {"If_None_Match": '"1"'},
    "its media type": {"Content_Type": "text/css"},
}


@pytest.mark.parametrize("fields", CHANGED.values(), ids=CHANGED)
def test_a_retry_with_other_fields_that_count_is_another_request(
    client: Client, key: str, fields: dict[str, str]
) -> None:
    target = f"/v1/keys/{key}"
    client.ask("PUT", target, b"c", Idempotency_Key=key)
    answer = client.ask("PUT", target, b"c", Idempotency_Key=key, **fields)
    assert answer.status == 422
    assert client.ask("PUT", target, b"c", Idempotency_Key=key).status == 201


def test_a_repeated_renewal_is_told_what_it_was_told_first(client: Client, key: str) -> None:
    """Also when somebody else has the lock by now."""
    token = client.post(f"/v1/locks/{key}", {"owner": "me", "ttl": 60}).json["token"]
    renewal = {"owner": "me", "ttl": 60, "token": token}
    first = client.post(f"/v1/locks/{key}", renewal, Idempotency_Key=key)
    assert first.status == 200
    client.delete(f"/v1/locks/{key}?token={token}")
    client.post(f"/v1/locks/{key}", {"owner": "another", "ttl": 60})
    assert same(first, client.post(f"/v1/locks/{key}", renewal, Idempotency_Key=key))


def test_a_repeated_refusal_of_a_lock_is_the_same_to_the_byte(client: Client, key: str) -> None:
    client.post(f"/v1/locks/{key}", {"owner": "holder", "ttl": 60})
    body = {"owner": "me", "ttl": 60}
    first = client.post(f"/v1/locks/{key}", body, Idempotency_Key=key)
    assert first.status == 409
    assert first.json["owner"] == "holder"
    time.sleep(0.05)
    assert same(first, client.post(f"/v1/locks/{key}", body, Idempotency_Key=key))
    client.delete(f"/v1/locks/{key}?force=true")
    assert same(first, client.post(f"/v1/locks/{key}", body, Idempotency_Key=key))


# At the same time


def test_twins_that_are_sent_at_the_same_time_are_done_once(pair: Server, key: str) -> None:
    answers: list[Answer] = []
    ready = threading.Barrier(20)

    def send() -> None:
        with Client(pair) as client:
            ready.wait()
            answers.append(client.post(f"/v1/counters/{key}", {}, Idempotency_Key=key))

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert all(same(answers[0], other) for other in answers)
    with Client(pair) as client:
        assert client.shown(key) == "1"


# How long


def test_it_is_forgotten_after_its_time(inside: Inside) -> None:
    kept = round(inside.limits.idempotency_ttl * 1000)
    write = (Remember(b"name", b"fingerprint", kept), Add(b"n", 1))

    def number() -> int | None:
        (outcome,) = inside.engine.write([write])
        assert not isinstance(outcome, Refusal)
        return outcome[0].number

    assert [number(), number()] == [1, 1]
    inside.clock.advance(inside.limits.idempotency_ttl - 0.001)
    assert number() == 1
    inside.clock.advance(0.001)
    assert number() == 2


def test_ten_minutes_are_promised(client: Client) -> None:
    assert client.get("/v1/limits").json["idempotency_seconds"] == 600


@pytest.mark.time_limits
def test_the_time_and_the_longest_wait_can_be_set() -> None:
    with Server("--idempotency-ttl", "1", "--max-wait", "0.2") as server, Client(server) as one:
        limits = one.get("/v1/limits").json
        assert (limits["idempotency_seconds"], limits["wait_seconds"]) == (1, 0.2)
        first = one.post("/v1/counters/n", {}, Idempotency_Key="name")
        assert one.post("/v1/counters/n", {}, Idempotency_Key="name").json == first.json
        time.sleep(1.05)
        assert one.post("/v1/counters/n", {}, Idempotency_Key="name").json["value"] == "2"
        began = time.monotonic()
        tag = one.get("/v1/keys/n")["ETag"]
        assert one.get("/v1/keys/n", If_None_Match=tag, Prefer="wait=60").status == 304
        # A wait counts from the turn of the loop that read the request: it began before.
        assert 0.15 <= time.monotonic() - began < 20


def test_another_fingerprint_is_refused_only_while_it_is_kept(inside: Inside) -> None:
    first = (Remember(b"name", b"one", 1000), Add(b"n", 1))
    other = (Remember(b"name", b"two", 1000), Add(b"n", 1))
    inside.engine.write([first])
    (refusal,) = inside.engine.write([other])
    assert isinstance(refusal, Refusal)
    assert refusal.why is Why.REUSED
    inside.clock.advance(1)
    (outcome,) = inside.engine.write([other])
    assert not isinstance(outcome, Refusal)


def test_what_is_remembered_is_no_key(client: Client, key: str) -> None:
    client.post(f"/v1/counters/{key}", {}, Idempotency_Key=key)
    names = [entry["key"] for entry in client.get(f"/v1/keys?prefix={key}").json["keys"]]
    assert names.count(key) == 1
    time.sleep(0.01)
    assert len(client.get(f"/v1/events/{key}").json["events"]) == 1
