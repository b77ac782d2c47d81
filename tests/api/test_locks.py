"""Locks: one holder at a time, tokens that grow, an end to the millisecond, and a fair queue."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, eventually, quoted, until
from keyrack_server import Server, Wire, request

if TYPE_CHECKING:
    from keyrack_server import Answer


def take(client: Client, name: str, owner: str = "me", ttl: float = 60, **members: Any) -> Answer:
    return client.post(f"/v1/locks/{quoted(name)}", {"owner": owner, "ttl": ttl, **members})


def taken(client: Client, name: str, owner: str = "me", ttl: float = 60) -> str:
    answer = take(client, name, owner, ttl)
    assert answer.status == 201, answer
    token: str = answer.json["token"]
    return token


def release(client: Client, name: str, token: str) -> int:
    return client.delete(f"/v1/locks/{quoted(name)}?token={token}").status


def waiting(server: Server, name: str, owner: str, seconds: int = 10, ttl: float = 60) -> Wire:
    wire = server.connect(20)
    body = b'{"owner":"%b","ttl":%b}' % (owner.encode(), str(ttl).encode())
    wire.send(
        request(
            "POST",
            f"/v1/locks/{quoted(name)}",
            body,
            Content_Type="application/json",
            Prefer=f"wait={seconds}",
        )
    )
    assert wire.nothing_comes(0.05), "it does not wait"
    return wire


# Taking, holding, giving back


def test_whoever_is_refused_is_told_who_held_it_then(server: Server, key: str) -> None:
    """Also when it was given back before the answer was made, as happens all the time here."""
    target = f"/v1/locks/{quoted(key)}"
    refusals: list[Any] = []

    def compete(owner: str) -> None:
        body = b'{"owner":"%b","ttl":60}' % owner.encode()
        with server.connect() as wire:
            for _ in range(300):
                answer = wire.ask(request("POST", target, body, Content_Type="application/json"))
                if answer.status == 201:
                    token = answer.json["token"]
                    assert wire.ask(request("DELETE", f"{target}?token={token}")).status == 204
                else:
                    assert answer.status == 409
                    refusals.append(answer.json)

    threads = [threading.Thread(target=compete, args=(f"job-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(refusals) > 100, "nobody competed"
    assert [one for one in refusals if {"owner", "ttl"} - one.keys()] == []


def test_a_free_lock_is_taken(client: Client, key: str) -> None:
    answer = take(client, key, "job-7", 30)
    assert answer.status == 201
    token = answer.json.pop("token")
    assert answer.json | {"token": token} == {
        "name": key,
        "owner": "job-7",
        "token": token,
        "ttl": 30.0,
    }
    assert token.isdigit()


def test_a_held_lock_is_refused_with_its_holder(client: Client, key: str) -> None:
    token = taken(client, key, "first", 30)
    answer = take(client, key, "second")
    assert answer.status == 409
    assert answer.json["type"] == "/docs/problems/lock-held"
    assert answer.json["owner"] == "first"
    assert token not in answer.body.decode(), "with it anybody could give the lock back"
    assert 25 < answer.json["ttl"] <= 30
    assert 25 <= int(answer["Retry-After"]) <= 30


def test_the_same_owner_does_not_get_it_twice(client: Client, key: str) -> None:
    taken(client, key, "me")
    assert take(client, key, "me").status == 409


def test_its_own_owner_is_told_that_it_has_it(client: Client, key: str) -> None:
    taken(client, key, "me")
    detail = take(client, key, "me").json["detail"]
    assert "already" in detail
    assert "token" in detail


def test_a_second_release_is_told_what_is_so(client: Client, key: str) -> None:
    token = taken(client, key)
    assert release(client, key, token) == 204
    answer = client.delete(f"/v1/locks/{key}?token={token}")
    assert answer.status == 404
    assert "given back" in answer.json["detail"]


# Seen and taken away by others


def test_locks_are_listed_in_pages(client: Client, key: str) -> None:
    names = [f"{key}/{number:02}" for number in range(25)]
    for name in names:
        taken(client, name, f"owner of {name}", 50)
    client.put(f"{key}/00 is a key", b"and no lock")
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = client.get(f"/v1/locks?prefix={key}/&limit=10{after}").json
        found += page["locks"]
        assert len(page["locks"]) <= 10
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert [one["name"] for one in found] == names
    assert [one["owner"] for one in found] == [f"owner of {name}" for name in names]
    assert all(set(one) == {"name", "owner", "ttl"} and 40 < one["ttl"] <= 50 for one in found)


@pytest.mark.parametrize("query", ["?limit=0", "?limit=1001", "?values=true", "?prefix=%zz"])
def test_a_page_of_locks_takes_what_it_knows(client: Client, query: str) -> None:
    assert client.get(f"/v1/locks{query}").status == 400


def test_a_lock_can_be_taken_from_a_holder_that_is_gone(client: Client, key: str) -> None:
    old = taken(client, key, "gone", 3600)
    assert client.delete(f"/v1/locks/{key}?force=true").status == 204
    new = taken(client, key, "next", 30)
    assert int(new) > int(old)
    assert release(client, key, old) == 409
    check = {"op": "check", "lock": key, "token": old}
    assert client.batch(check, {"op": "set", "key": key, "value": 1}).status == 409
    client.delete(f"/v1/locks/{key}?force=true")
    assert client.delete(f"/v1/locks/{key}?force=true").status == 404


def test_a_forced_release_says_so_and_names_no_token(client: Client, key: str) -> None:
    token = taken(client, key)
    for query in ("", "?force=false", f"?force=true&token={token}", "?force=yes"):
        assert client.delete(f"/v1/locks/{key}{query}").status == 400
    assert client.get(f"/v1/locks/{key}").status == 200


def test_show_names_holder_and_time_left(client: Client, key: str) -> None:
    assert client.get(f"/v1/locks/{key}").status == 404
    token = taken(client, key, "me", 50)
    answer = client.get(f"/v1/locks/{key}")
    assert token not in answer.body.decode(), "with it anybody could give the lock back"
    found = answer.json
    left = found.pop("ttl")
    assert found == {"name": key, "owner": "me"}
    assert 45 < left <= 50
    assert client.ask("HEAD", f"/v1/locks/{key}").status == 200


def test_a_lock_is_given_back_with_its_token(client: Client, key: str) -> None:
    token = taken(client, key)
    assert release(client, key, token) == 204
    assert client.get(f"/v1/locks/{key}").json["type"] == "/docs/problems/lock-not-held"
    taken(client, key)


def test_another_token_does_not_give_it_back(client: Client, key: str) -> None:
    token = taken(client, key)
    answer = client.delete(f"/v1/locks/{key}?token=5")
    assert (answer.status, answer.json["owner"]) == (409, "me")
    assert release(client, key, str(int(token) + 1)) == 409
    assert client.get(f"/v1/locks/{key}").json["owner"] == "me"


def test_an_old_token_is_of_no_use(client: Client, key: str) -> None:
    old = taken(client, key)
    assert release(client, key, old) == 204
    assert release(client, key, old) == 404
    new = taken(client, key)
    assert release(client, key, old) == 409
    assert take(client, key, token=old).status == 409
    assert release(client, key, new) == 204


@pytest.mark.parametrize("query", ["", "?token=", "?token=abc", "?token=-5", "?owner=me"])
def test_a_release_names_a_token(client: Client, key: str, query: str) -> None:
    taken(client, key)
    assert client.delete(f"/v1/locks/{key}{query}").status == 400
    assert client.get(f"/v1/locks/{key}").status == 200


def test_renewing_keeps_token_and_owner(client: Client, key: str) -> None:
    token = taken(client, key, "me", 5)
    answer = take(client, key, "me", 500, token=token)
    assert (answer.status, answer.json["token"], answer.json["ttl"]) == (200, token, 500.0)
    assert client.get(f"/v1/locks/{key}").json["ttl"] > 400
    renamed = take(client, key, "somebody else", 50, token=token)
    assert renamed.json["owner"] == client.get(f"/v1/locks/{key}").json["owner"] == "me"


def test_renewing_what_is_not_held_is_404(client: Client, key: str) -> None:
    assert take(client, key, token="5").status == 404
    token = taken(client, key, ttl=0.02)
    time.sleep(0.03)
    answer = take(client, key, token=token)
    assert (answer.status, answer.json["type"]) == (404, "/docs/problems/lock-not-held")
    assert client.get(f"/v1/locks/{key}").status == 404


def test_tokens_grow_from_holder_to_holder(two: list[Client], key: str) -> None:
    tokens = []
    for number in range(20):
        tokens.append(int(taken(two[number % 2], key)))
        two[number % 2].put(key)
        assert release(two[(number + 1) % 2], key, str(tokens[-1])) == 204
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("name", ["a/b/c", "..", "a b", "\u00e9\U0001f511", "\n", "%2F", "x" * 511])
def test_any_name_is_a_lock(client: Client, name: str) -> None:
    token = taken(client, name)
    assert client.get(f"/v1/locks/{quoted(name)}").json["name"] == name
    assert release(client, name, token) == 204


def test_a_lock_is_no_key(client: Client, key: str) -> None:
    taken(client, key)
    assert client.get(f"/v1/keys/{key}").status == 404
    assert client.get(f"/v1/keys?prefix={key}").json["keys"] == []
    client.put(key)
    client.delete(f"/v1/keys/{key}")
    assert client.get(f"/v1/locks/{key}").status == 200
    kinds = [event["event"] for event in client.get(f"/v1/events/{key}").json["events"]]
    assert kinds == ["delete", "set"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"owner":"a"}',
        b'{"ttl":5}',
        b'{"owner":"","ttl":5}',
        b'{"owner":"a","ttl":null}',
        b'{"owner":"a","ttl":0}',
        b'{"owner":"a","ttl":-1}',
        b'{"owner":"a","ttl":"5"}',
        b'{"owner":"a","ttl":1e1}',
        b'{"owner":5,"ttl":5}',
        b'{"owner":"a","ttl":5,"wait":5}',
        b'{"owner":"a","ttl":5,"token":5}',
        b'{"owner":"a","ttl":5,"token":"-5"}',
        b'{"owner":"a","ttl":5,"token":"5\\n"}',
        b'{"owner":"%b","ttl":5}' % (b"a" * 512),
        b'{"owner":"\\ud800","ttl":5}',
        b"[]",
        b"",
    ],
)
def test_a_request_that_is_not_understood_takes_nothing(
    client: Client, key: str, body: bytes
) -> None:
    assert client.post(f"/v1/locks/{key}", body).status == 400
    assert client.get(f"/v1/locks/{key}").status == 404


# Its end


@pytest.mark.time_limits
def test_the_end_of_its_time_frees_it_to_the_millisecond(client: Client, key: str) -> None:
    def late() -> float:
        began = time.monotonic()
        taken(client, key, ttl=0.2)
        while take(client, key, ttl=0.001).status != 201:
            pass
        elapsed = time.monotonic() - began
        assert elapsed > 0.199
        time.sleep(0.003)
        return elapsed - 0.2

    eventually(late, 0.03)


@pytest.mark.time_limits
def test_who_waits_gets_it_when_its_time_is_over(client: Client, server: Server, key: str) -> None:
    def late() -> float:
        began = time.monotonic()
        taken(client, key, ttl=0.3)
        wire = waiting(server, key, "waiter", ttl=0.01)
        assert wire.answer().status == 201
        wire.close()
        elapsed = time.monotonic() - began
        assert elapsed > 0.299
        time.sleep(0.02)
        return elapsed - 0.3

    eventually(late, 0.03)


def test_a_renewed_lock_is_waited_for_longer(client: Client, server: Server, key: str) -> None:
    token = taken(client, key, ttl=0.2)
    wire = waiting(server, key, "waiter")
    assert take(client, key, ttl=0.6, token=token).status == 200
    assert wire.nothing_comes(0.35)
    assert wire.answer().status == 201
    wire.close()


# Waiting


def test_a_free_lock_is_taken_at_once_although_waiting_is_allowed(client: Client, key: str) -> None:
    answer = client.post(f"/v1/locks/{key}", {"owner": "a", "ttl": 5}, Prefer="wait=10")
    assert answer.status == 201


def test_waiters_get_it_in_order_of_arrival(client: Client, server: Server, key: str) -> None:
    token = taken(client, key)
    wires = [waiting(server, key, f"waiter {number}") for number in range(6)]
    for number, wire in enumerate(wires):
        assert release(client, key, token) == 204
        answer = wire.answer()
        assert (answer.status, answer.json["owner"]) == (201, f"waiter {number}")
        assert int(answer.json["token"]) > int(token)
        token = answer.json["token"]
        assert all(other.nothing_comes(0.01) for other in wires[number + 1 :])
    for wire in wires:
        wire.close()


def test_waiters_of_any_worker_get_it(pair: Server, two: list[Client], key: str) -> None:
    token = taken(two[0], key)
    wires = [waiting(pair, key, f"{number}") for number in range(8)]
    served = []
    while len(served) < 8:
        assert release(two[len(served) % 2], key, token) == 204
        assert until(lambda: two[0].get(f"/v1/locks/{key}").status == 200)
        owner = two[0].get(f"/v1/locks/{key}").json["owner"]
        answer = wires[int(owner)].answer()
        assert (answer.status, answer.json["owner"]) == (201, owner)
        served.append(owner)
        token = answer.json["token"]
    assert sorted(served) == [str(number) for number in range(8)]
    for wire in wires:
        wire.close()


@pytest.mark.time_limits
def test_when_the_wait_is_over_it_is_409(client: Client, server: Server, key: str) -> None:
    taken(client, key, "holder", 60)
    began = time.monotonic()
    wire = waiting(server, key, "waiter", 1)
    answer = wire.answer()
    wire.close()
    assert (answer.status, answer.json["owner"]) == (409, "holder")
    assert 0.9 < time.monotonic() - began < 9


@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
def test_a_waiter_that_leaves_is_passed_over(
    client: Client, server: Server, key: str, leave: str
) -> None:
    token = taken(client, key)
    gone, stays = waiting(server, key, "gone"), waiting(server, key, "stays")
    getattr(gone, leave)()
    time.sleep(0.05)
    release(client, key, token)
    assert stays.answer().json["owner"] == "stays"
    stays.close()
    gone.close()


def test_who_waits_may_renew_and_release_meanwhile(
    client: Client, server: Server, key: str
) -> None:
    """Renewing does not wait, although it says that it may."""
    token = taken(client, key)
    answer = client.post(
        f"/v1/locks/{key}", {"owner": "me", "ttl": 5, "token": token}, Prefer="wait=30"
    )
    assert answer.status == 200


def test_only_one_holds_it(pair: Server, key: str) -> None:
    """Eight clients over two workers add to a number without a counter; nothing is lost."""
    with Client(pair) as client:
        client.put(key, b"0")

    def work() -> None:
        with Client(pair) as mine:
            for _ in range(15):
                answer = mine.post(f"/v1/locks/{key}", {"owner": "x", "ttl": 30}, Prefer="wait=30")
                assert answer.status == 201, answer
                number = int(mine.get(f"/v1/keys/{key}").body)
                mine.put(key, str(number + 1).encode())
                assert release(mine, key, answer.json["token"]) == 204

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Client(pair) as client:
        assert client.shown(key) == "120"


def test_idempotency_and_waiting_do_not_go_together(client: Client, key: str) -> None:
    answer = client.post(
        f"/v1/locks/{key}", {"owner": "a", "ttl": 5}, Prefer="wait=5", Idempotency_Key=key
    )
    assert answer.status == 400
    assert client.get(f"/v1/locks/{key}").status == 404
