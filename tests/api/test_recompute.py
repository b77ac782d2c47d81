"""Stale copies for those who take them, and leases, so that one client recomputes a key."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, dechunked, until
from keyrack_server import request

if TYPE_CHECKING:
    from keyrack_server import Answer, Server, Wire

TAKES_STALE = {"Cache_Control": "max-stale"}
OFFERS = {"Prefer": "recompute=15"}


def end(client: Client, key: str, value: bytes = b"old", stale: str = "&stale=60") -> str:
    """Store a key, and return its ETag when it has ended."""
    revision = client.put(key, value, f"?ttl=0.03{stale}")
    assert until(lambda: client.get(f"/v1/keys/{key}").status == 404)
    return f'"{revision}"'


def token_of(answer: Answer) -> str:
    """Return the token of the lease that an answer carries."""
    match = re.fullmatch(r'"(\d+)"; ttl=(\d+)', answer["Keyrack-Recompute"])
    assert match is not None, answer
    return match[1]


def fill(client: Client, key: str, token: str, value: bytes = b"new", query: str = "") -> Answer:
    """Store what was computed."""
    return client.ask("PUT", f"/v1/keys/{key}{query}", value, Keyrack_Recompute=f'"{token}"')


def waiting(server: Server, key: str, seconds: int = 20, lease: int = 15) -> Wire:
    """Send a read that waits for a missing key, or for its lease; it does wait."""
    wire = server.connect()
    wire.send(request("GET", f"/v1/keys/{key}", Prefer=f"wait={seconds}, recompute={lease}"))
    assert wire.nothing_comes(0.05), "it does not wait"
    return wire


def exported(server: Server, prefix: str) -> bytes:
    return dechunked(server.raw(request("GET", f"/v1/export?prefix={prefix}")))[1]


# Stale copies


def test_a_stale_copy_is_for_those_who_take_it(server: Server, client: Client, key: str) -> None:
    tag = end(client, key)
    answer = client.get(f"/v1/keys/{key}", **TAKES_STALE)
    assert (answer.status, answer.body, answer["ETag"]) == (200, b"old", tag)
    assert answer["Cache-Status"] == "keyrack; hit; ttl=-1"
    assert (answer["Age"], answer["Keyrack-TTL"]) == ("0", "0.000")
    assert client.get(f"/get/{key}", **TAKES_STALE).status == 404
    assert client.get(f"/v1/keys?prefix={key}").json["keys"] == []
    assert client.get(f"/v1/keys?prefix={key}&count_only=true").json["count"] == 0
    assert exported(server, key) == b""
    assert client.get(f"/v1/keys/{key}", Cache_Control="no-cache, max-age=0").status == 404
    assert client.get(f"/v1/keys/{key}", Prefer="early=5, recompute=0").status == 404


def test_a_fresh_value_says_for_how_long_it_is(client: Client, key: str) -> None:
    client.put(key, b"v", "?ttl=100&stale=60")
    answer = client.get(f"/v1/keys/{key}", **TAKES_STALE)
    assert re.fullmatch(r"keyrack; hit; ttl=(9[89]|100)", answer["Cache-Status"])
    assert answer.get("Keyrack-Recompute") is None
    client.put(key)
    assert client.get(f"/v1/keys/{key}", **TAKES_STALE)["Cache-Status"] == "keyrack; hit"


def test_one_can_say_how_stale_a_value_may_be(client: Client, key: str) -> None:
    end(client, key)
    for directive in ("max-stale=60", 'no-cache, MAX-STALE="60"', "max-stale=99999999999999999"):
        assert client.get(f"/v1/keys/{key}", Cache_Control=directive).status == 200
    answer = client.get(f"/v1/keys/{key}", Cache_Control="max-stale=0")
    assert answer.status == 404
    assert answer["Cache-Status"] == "keyrack; fwd=miss"
    answer = client.get(f"/v1/keys/{key}", Cache_Control="max-stale=0", **OFFERS)
    assert (answer.status, token_of(answer) != "") == (404, True)


def test_a_key_without_a_stale_copy_is_missing_for_everybody(client: Client, key: str) -> None:
    end(client, key, stale="")
    answer = client.get(f"/v1/keys/{key}", **TAKES_STALE)
    assert (answer.status, answer["Cache-Status"]) == (404, "keyrack; fwd=miss")


def test_conditions_hold_for_stale_values_too(client: Client, key: str) -> None:
    tag = end(client, key)
    answer = client.get(f"/v1/keys/{key}", If_None_Match=tag, **TAKES_STALE)
    assert (answer.status, answer["Cache-Status"]) == (304, "keyrack; hit; ttl=-1")
    answer = client.get(f"/v1/keys/{key}", If_None_Match=tag, **OFFERS)
    assert (answer.status, token_of(answer) != "") == (304, True)
    answer = client.get(f"/v1/keys/{key}", If_Match='"1"', **OFFERS)
    assert (answer.status, answer.get("Keyrack-Recompute")) == (412, None)


@pytest.mark.parametrize(
    "write",
    [
        lambda client, key: client.post(
            "/set", {"key": key, "value": "old", "ttl": 0.03, "stale": 60}
        ),
        lambda client, key: client.batch(
            {"op": "set", "key": key, "value": "old", "ttl": 0.03, "stale": 60}
        ),
        lambda client, key: client.batch(
            {"op": "set", "key": key, "value": "old"},
            {"op": "touch", "key": key, "ttl": 0.03, "stale": 60},
        ),
        lambda client, key: client.post(
            "/v1/import",
            json.dumps({"key": key, "value": "old", "ttl": 0.03, "stale": 60}).encode(),
            Content_Type="application/x-ndjson",
        ),
    ],
    ids=["set", "batch", "touch", "import"],
)
def test_whatever_stores_a_key_can_have_a_stale_copy_kept(
    client: Client, key: str, write: Any
) -> None:
    assert write(client, key).status == 200
    assert until(lambda: client.get(f"/v1/keys/{key}").status == 404)
    assert client.get(f"/v1/keys/{key}", **TAKES_STALE).body == b"old"


def test_a_stale_copy_is_moved_with_its_key(server: Server, client: Client, key: str) -> None:
    client.put(key, b"v", "?ttl=100&stale=60")
    lines = exported(server, key)
    assert json.loads(lines)["stale"] == 60
    assert client.post("/v1/import", lines, Content_Type="application/x-ndjson").status == 200
    assert json.loads(exported(server, key))["stale"] == 60


@pytest.mark.parametrize(
    "send",
    [
        lambda client, key: client.ask("PUT", f"/v1/keys/{key}?stale=60", b"v"),
        lambda client, key: client.ask("PUT", f"/v1/keys/{key}?ttl=1&stale=none", b"v"),
        lambda client, key: client.post("/set", {"key": key, "value": "v", "stale": 60}),
        lambda client, key: client.ask("PATCH", f"/v1/keys/{key}?stale=60"),
        lambda client, key: client.ask("PATCH", f"/v1/keys/{key}?ttl=none&stale=60"),
    ],
)
def test_a_stale_copy_without_an_end_is_refused(client: Client, key: str, send: Any) -> None:
    answer = send(client, key)
    assert answer.status == 400
    assert "TTL" in answer.body.decode()


def test_deleting_removes_stale_copies_as_well(client: Client, key: str) -> None:
    for name in (f"{key}/1", f"{key}/2"):
        end(client, name)
    assert client.delete(f"/v1/keys/{key}/1").status == 404
    assert client.get(f"/v1/keys/{key}/1", **TAKES_STALE).status == 404
    assert client.get(f"/v1/keys/{key}/2", **TAKES_STALE).status == 200
    assert client.delete(f"/v1/keys?prefix={key}").json["deleted"] == 0
    assert client.get(f"/v1/keys/{key}/2", **TAKES_STALE).status == 404


# Leases


def test_one_client_is_given_the_lease_of_a_stale_key(client: Client, key: str) -> None:
    end(client, key)
    first, second = (client.get(f"/v1/keys/{key}", **OFFERS) for _ in range(2))
    assert (first.status, first.body, second.status, second.body) == (200, b"old") * 2
    assert first["Cache-Status"] == "keyrack; hit; ttl=-1"
    assert second.get("Keyrack-Recompute") is None
    assert second["Cache-Status"] == "keyrack; hit; ttl=-1; collapsed"
    assert fill(client, key, token_of(first), query="?ttl=60&stale=60").status == 201
    third = client.get(f"/v1/keys/{key}", **OFFERS)
    assert (third.body, third.get("Keyrack-Recompute")) == (b"new", None)


def test_one_client_is_given_the_lease_of_a_missing_key(client: Client, key: str) -> None:
    first, second = (client.get(f"/v1/keys/{key}", **OFFERS) for _ in range(2))
    assert (first.status, first["Cache-Status"]) == (404, "keyrack; fwd=miss")
    assert first["Keyrack-Recompute"].endswith("; ttl=15")
    assert second.status == 404
    assert second["Cache-Status"] == "keyrack; fwd=miss; collapsed"
    assert second["Retry-After"] == "1"
    assert fill(client, key, token_of(first)).status == 201
    assert client.get(f"/v1/keys/{key}").body == b"new"


def test_a_lease_lasts_five_minutes_at_most(client: Client, key: str) -> None:
    answer = client.get(f"/v1/keys/{key}", Prefer="recompute=9999")
    assert answer["Keyrack-Recompute"].endswith("; ttl=300")


def test_a_key_is_recomputed_before_its_end(client: Client, key: str) -> None:
    client.put(key, b"v", "?ttl=100&stale=60")
    assert client.get(f"/v1/keys/{key}", **OFFERS).get("Keyrack-Recompute") is None
    early = {"Prefer": "recompute=15, early=200"}
    first, second = (client.get(f"/v1/keys/{key}", **early) for _ in range(2))
    assert (first.status, first.body, second.status) == (200, b"v", 200)
    assert second["Cache-Status"].endswith("; collapsed")
    assert fill(client, key, token_of(first)).status == 204


@pytest.mark.parametrize(
    "change",
    [
        lambda client, key: client.put(key, b"newer"),
        lambda client, key: client.post("/set", {"key": key, "value": "newer"}),
        lambda client, key: client.delete(f"/v1/keys/{key}"),
        lambda client, key: client.delete(f"/v1/keys?prefix={key}"),
        lambda client, key: client.batch({"op": "add", "key": key}),
    ],
    ids=["put", "set", "delete", "delete by prefix", "add"],
)
def test_who_computed_slowly_overwrites_nothing_newer(
    client: Client, key: str, change: Any
) -> None:
    token = token_of(client.get(f"/v1/keys/{key}", **OFFERS))
    change(client, key)
    before = client.get(f"/v1/keys/{key}").body
    answer = fill(client, key, token)
    assert (answer.status, answer.json["type"]) == (412, "/docs/problems/lease-lost")
    assert client.get(f"/v1/keys/{key}").body == before


def test_a_lease_is_used_once(client: Client, key: str) -> None:
    token = token_of(client.get(f"/v1/keys/{key}", **OFFERS))
    assert fill(client, key, token, query="?ttl=60").status == 201
    assert fill(client, key, token).status == 412
    tag = client.get(f"/v1/keys/{key}")["ETag"]
    again = token_of(client.get(f"/v1/keys/{key}", Prefer="recompute=1, early=100"))
    answer = client.ask("PUT", f"/v1/keys/{key}", b"v", Keyrack_Recompute=again, If_Match=tag)
    assert answer.status == 204


def test_a_fill_is_repeated_with_its_idempotency_key(client: Client, key: str) -> None:
    token = token_of(client.get(f"/v1/keys/{key}", **OFFERS))
    fields = {"Keyrack_Recompute": token, "Idempotency_Key": f"fill-{key}"}
    first, second = (client.ask("PUT", f"/v1/keys/{key}", b"v", **fields) for _ in range(2))
    assert (first.status, first["ETag"]) == (second.status, second["ETag"])
    fields["Keyrack_Recompute"] = "1"
    assert client.ask("PUT", f"/v1/keys/{key}", b"v", **fields).status == 422


def test_a_lease_that_is_given_back_is_the_next_ones(
    server: Server, client: Client, key: str
) -> None:
    token = token_of(client.get(f"/v1/keys/{key}", **OFFERS))
    with waiting(server, key) as wire:
        assert client.delete(f"/v1/leases/{key}?token={token}").status == 204
        assert token_of(wire.answer()) != token
    answer = client.delete(f"/v1/leases/{key}?token={token}")
    assert (answer.status, answer.json["type"]) == (412, "/docs/problems/lease-lost")
    assert client.delete(f"/v1/leases/{key}").status == 400


@pytest.mark.parametrize("by", [0, 1], ids=["one worker", "another worker"])
def test_those_who_wait_for_a_missing_key_get_what_was_computed(
    pair: Server, two: list[Client], key: str, by: int
) -> None:
    token = token_of(two[by].get(f"/v1/keys/{key}", **OFFERS))
    wires = [waiting(pair, key) for _ in range(4)]
    assert fill(two[by], key, token).status == 201
    for wire in wires:
        with wire:
            answer = wire.answer()
            assert (answer.status, answer.body) == (200, b"new")
            assert answer["Cache-Status"] == "keyrack; hit"


def test_when_the_lease_ends_one_of_those_who_wait_gets_it(
    server: Server, client: Client, key: str
) -> None:
    client.get(f"/v1/keys/{key}", Prefer="recompute=1")
    wires = [waiting(server, key) for _ in range(3)]
    assert until(lambda: client.get(f"/v1/keys/{key}", **TAKES_STALE).status == 404)
    first = _first_answer(wires)
    fill(client, key, token_of(first))
    for wire in wires:
        assert wire.answer().body == b"new"
        wire.close()


def _first_answer(wires: list[Wire]) -> Answer:
    """Return the first answer that comes on any of some connections, and drop that one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for wire in wires:
            if not wire.nothing_comes(0.01):
                wires.remove(wire)
                with wire:
                    return wire.answer()
    raise AssertionError("nobody was given the lease")


def test_who_waited_long_enough_is_told_that_others_compute(
    server: Server, client: Client, key: str
) -> None:
    client.get(f"/v1/keys/{key}", **OFFERS)
    with waiting(server, key, seconds=1) as wire:
        answer = wire.answer()
    assert (answer.status, answer["Cache-Status"]) == (404, "keyrack; fwd=miss; collapsed")


def test_who_leaves_while_it_waits_takes_no_lease_along(
    server: Server, client: Client, key: str
) -> None:
    token = token_of(client.get(f"/v1/keys/{key}", **OFFERS))
    waiting(server, key).reset()
    time.sleep(0.05)
    client.delete(f"/v1/leases/{key}?token={token}")
    assert token_of(client.get(f"/v1/keys/{key}", **OFFERS)) != token


def test_asking_for_the_head_alone_takes_no_lease(client: Client, key: str) -> None:
    end(client, key)
    answer = client.ask("HEAD", f"/v1/keys/{key}", **OFFERS)
    assert (answer.status, answer.get("Keyrack-Recompute")) == (200, None)
    assert token_of(client.get(f"/v1/keys/{key}", **OFFERS))


def test_leases_are_none_of_the_locks_that_are_shown(client: Client, key: str) -> None:
    client.get(f"/v1/keys/{key}", **OFFERS)
    for limit in (1, 100):
        page = client.get(f"/v1/locks?limit={limit}").json
        assert all("\ufffd" not in lock["name"] for lock in page["locks"])
    assert page["next"] is None
    assert client.get(f"/v1/locks/%FF{key}").status == 400


def test_the_longest_keys_have_no_lease(client: Client, key: str) -> None:
    for size, given in ((510, True), (511, False)):
        name = key.ljust(size, "k")
        answer = client.get(f"/v1/keys/{name}", **OFFERS)
        assert (answer.get("Keyrack-Recompute") is not None) is given
        assert client.delete(f"/v1/keys?prefix={name}").status == 200


@pytest.mark.parametrize("token", ["", "x", '"12', '"12345678901234567890"', '"1", "2"'])
def test_a_token_that_is_none_is_refused(client: Client, key: str, token: str) -> None:
    answer = client.ask("PUT", f"/v1/keys/{key}", b"v", Keyrack_Recompute=token)
    assert answer.status == 400
    assert client.get(f"/v1/keys/{key}").status == 404


@pytest.mark.parametrize(
    "send",
    [
        lambda client, key, **f: client.post("/set", {"key": key, "value": "v"}, **f),
        lambda client, key, **f: client.batch({"op": "set", "key": key, "value": "v"}, **f),
        lambda client, key, **f: client.delete(f"/v1/keys/{key}", **f),
    ],
    ids=["set", "batch", "delete"],
)
def test_a_lease_is_honoured_or_refused(client: Client, key: str, send: Any) -> None:
    assert send(client, key, Keyrack_Recompute='"1"').status == 400


def test_what_came_of_leases_is_counted(client: Client, key: str) -> None:
    def counted() -> dict[str, float]:
        text = client.get("/metrics").body.decode()
        rows = re.findall(
            r'(recompute_leases_total\{outcome="\w+"\}|stale_served_total) (\d\S*)', text
        )
        return {name: float(value) for name, value in rows}

    before = counted()
    end(client, key)
    tokens = client.get(f"/v1/keys/{key}", **OFFERS)
    client.get(f"/v1/keys/{key}", **OFFERS)
    fill(client, key, token_of(tokens))
    fill(client, key, token_of(tokens))
    other = token_of(client.get(f"/v1/keys/{key}other", **OFFERS))
    client.delete(f"/v1/leases/{key}other?token={other}")
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {
        "stale_served_total": 2,
        'recompute_leases_total{outcome="granted"}': 2,
        'recompute_leases_total{outcome="collapsed"}': 1,
        'recompute_leases_total{outcome="filled"}': 1,
        'recompute_leases_total{outcome="lost"}': 1,
        'recompute_leases_total{outcome="returned"}': 1,
    }
