"""Deletions that can be undone."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, quoted
from keyrack_server import ON_VALKEY, Server

from keyrack.engines.contract import Set
from keyrack.http.api import deleting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api_support.inside import Inside

JSON = {"Content_Type": "application/json"}


def undo(client: Client, number: str) -> dict[str, Any]:
    """Undo a deletion, which must be there, and return what came of it."""
    answer = client.post(f"/v1/undo/{number}", b"")
    assert answer.status == 200, answer
    return answer.json


def of(client: Client, number: str) -> dict[str, Any] | None:
    """Return an undo as the list shows it, None where it does not."""
    found = client.get("/v1/undo?limit=1000").json["undos"]
    return next((one for one in found if one["undo"] == number), None)


def seconds_until(text: str) -> float:
    return (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()


def test_a_prefix_that_was_deleted_comes_back(client: Client, key: str) -> None:
    values = {f"{key}/{number}": b"v%d" % number for number in range(100)}
    for name, value in values.items():
        client.put(name, value)
    gone = client.delete(f"/v1/keys?prefix={key}/&undo=600").json
    assert gone.keys() == {"deleted", "revision", "undo", "until"}
    assert gone["deleted"] == 100
    assert 500 < seconds_until(gone["until"]) < 700
    assert client.get(f"/v1/keys?prefix={key}&count_only=true").json["count"] == 0
    shown = of(client, gone["undo"])
    assert shown is not None
    assert (shown["prefix"], shown["deleted"], shown["left"]) == (f"{key}/", 100, 100)
    back = undo(client, gone["undo"])
    assert (back["restored"], back["kept_newer"], back["ended"], back["gone"]) == (100, 0, 0, 0)
    for name, value in values.items():
        assert client.get(f"/v1/keys/{name}").body == value
    assert of(client, gone["undo"]) is None


def test_a_key_that_was_deleted_comes_back_with_a_new_revision(client: Client, key: str) -> None:
    before = client.put(key, b"{}", Content_Type="application/json")
    gone = client.delete(f"/v1/keys/{key}?undo=60")
    assert gone.status == 200
    assert gone.json.keys() == {"deleted", "revision", "undo", "until"}
    assert gone["Keyrack-Undo"] == gone.json["undo"]
    assert gone["Cache-Control"] == "no-store"
    assert client.get(f"/v1/keys/{key}").status == 404
    assert (of(client, gone.json["undo"]) or {})["key"] == key
    assert undo(client, gone.json["undo"])["restored"] == 1
    answer = client.get(f"/v1/keys/{key}")
    assert (answer.body, answer["Content-Type"]) == (b"{}", "application/json")
    assert int(answer["ETag"].strip('"')) > int(gone.json["revision"]) > int(before)


def test_without_undo_a_delete_is_for_good(client: Client, key: str) -> None:
    client.put(key)
    answer = client.delete(f"/v1/keys/{key}")
    assert (answer.status, answer.body) == (204, b"")
    assert "keyrack-undo" not in dict(answer.fields)
    client.put(key)
    assert client.delete(f"/v1/keys/{key}?undo=0").status == 204
    client.put(key)
    assert "undo" not in client.delete(f"/v1/keys?prefix={key}").json


def test_a_delete_that_finds_nothing_has_no_undo(client: Client, key: str) -> None:
    assert client.delete(f"/v1/keys/{key}?undo=60").status == 404
    gone = client.delete(f"/v1/keys?prefix={key}&undo=60").json
    assert (gone["deleted"], gone["undo"], gone["until"]) == (0, None, None)


def test_the_condition_of_a_delete_counts(client: Client, key: str) -> None:
    etag = client.put(key)
    other = client.delete(f"/v1/keys/{key}?undo=60", If_Match='"1"')
    assert (other.status, other["ETag"]) == (412, f'"{etag}"')
    assert client.delete(f"/v1/keys/{key}?undo=60", If_Match=f'"{etag}"').status == 200


@pytest.mark.parametrize("value", ["-1", "604801", "1.5", "soon", ""])
@pytest.mark.parametrize("target", ["/v1/keys/k", "/v1/keys"])
def test_for_how_long_is_a_whole_number_of_seconds_up_to_a_week(
    client: Client, target: str, value: str
) -> None:
    answer = client.delete(f"{target}?{'' if target.endswith('k') else 'prefix=k&'}undo={value}")
    assert answer.status == 400
    assert answer.json["type"] == "/docs/problems/bad-parameter"


def test_a_key_that_was_set_again_is_kept(client: Client, key: str) -> None:
    client.put(f"{key}/a", b"old")
    client.put(f"{key}/b", b"old")
    number = client.delete(f"/v1/keys?prefix={key}/&undo=60").json["undo"]
    client.put(f"{key}/a", b"new")
    back = undo(client, number)
    assert (back["restored"], back["kept_newer"]) == (1, 1)
    assert client.get(f"/v1/keys/{key}/a").body == b"new"
    assert client.get(f"/v1/keys/{key}/b").body == b"old"
    client.delete(f"/v1/keys/{key}/a")
    back = undo(client, number)
    assert (back["restored"], back["kept_newer"]) == (2, 0)
    assert client.get(f"/v1/keys/{key}/a").body == b"old"


def test_to_undo_again_answers_the_same(client: Client, key: str) -> None:
    client.put(key)
    number = client.delete(f"/v1/keys/{key}?undo=60").json["undo"]
    first = undo(client, number)
    assert {**undo(client, number), "revision": ""} == {**first, "revision": ""}
    assert first["restored"] == 1


def test_a_ttl_goes_on_in_the_trash(client: Client, key: str) -> None:
    client.put(f"{key}/soon", query="?ttl=0.05")
    client.put(f"{key}/late", query="?ttl=100")
    number = client.delete(f"/v1/keys?prefix={key}/&undo=60").json["undo"]
    time.sleep(0.1)
    back = undo(client, number)
    assert (back["restored"], back["ended"]) == (1, 1)
    left = float(client.get(f"/v1/keys/{key}/late")["Keyrack-TTL"])
    assert 1 < left < 100


def test_an_undo_has_an_end(client: Client, key: str) -> None:
    client.put(key, b"v" * 100_000)
    number = client.delete(f"/v1/keys/{key}?undo=1").json["undo"]
    deadline = time.monotonic() + 20
    while of(client, number) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = client.post(f"/v1/undo/{number}", b"")
    assert answer.status == 404
    assert answer.json["type"] == "/docs/problems/undo-not-found"
    assert client.get(f"/v1/keys/{key}").status == 404


@pytest.mark.parametrize("number", ["1", "x", "99999999999999999999", "1%200", "a/b"])
def test_what_is_no_undo_is_not_found(client: Client, number: str) -> None:
    answer = client.post(f"/v1/undo/{number}", b"")
    assert answer.status == 404
    assert answer.json["type"] == "/docs/problems/undo-not-found"


def test_a_retry_of_a_delete_is_answered_with_the_same_undo(client: Client, key: str) -> None:
    client.put(key, b"1")
    name = f"again-{key}"
    first = client.delete(f"/v1/keys/{key}?undo=60", Idempotency_Key=name)
    client.put(key, b"2")
    again = client.delete(f"/v1/keys/{key}?undo=60", Idempotency_Key=name)
    assert again.json == first.json
    assert client.get(f"/v1/keys/{key}").body == b"2"


def test_the_deletions_of_a_batch_are_undone_together(client: Client, key: str) -> None:
    for name in ("a", "b"):
        client.put(f"{key}{name}")
    operations = [
        {"op": "delete", "key": f"{key}a"},
        {"op": "set", "key": f"{key}c", "value": "v"},
        {"op": "delete", "key": f"{key}b"},
        {"op": "delete", "key": f"{key}none"},
    ]
    answer = client.post("/v1/batch", {"operations": operations, "undo": 60}).json
    assert [one["existed"] for one in answer["results"]] == [True, False, True, False]
    assert all("value" not in one for one in answer["results"])
    back = undo(client, answer["undo"])
    assert (back["deleted"], back["restored"]) == (2, 2)
    assert (
        client.shown(f"{key}a") == client.shown(f"{key}b") == client.shown(f"{key}c")[:0] + "value"
    )


def test_a_batch_that_deletes_nothing_has_no_undo(client: Client, key: str) -> None:
    operations = [{"op": "delete", "key": key}, {"op": "get", "key": key}]
    answer = client.post("/v1/batch", {"operations": operations, "undo": 60})
    assert answer.json.keys() == {"results"}
    for value in (-1, 604801, 1.5, "60"):
        bad = client.post("/v1/batch", {"operations": operations, "undo": value})
        assert bad.json["type"] == "/docs/problems/bad-json"


def test_undos_are_listed_in_pages(client: Client, key: str) -> None:
    numbers = []
    for number in range(3):
        client.put(f"{key}{number}")
        numbers.append(client.delete(f"/v1/keys/{key}{number}?undo=60").json["undo"])
    first = client.get("/v1/undo?limit=2").json
    assert [one["undo"] for one in first["undos"]] == [numbers[2], numbers[1]]
    assert first["next"] == numbers[1]
    rest = client.get(f"/v1/undo?limit=1&before={first['next']}").json
    assert [one["undo"] for one in rest["undos"]] == [numbers[0]]
    last = client.get("/v1/undo?limit=1000").json
    assert last["next"] is None


def test_the_trash_is_counted(client: Client, key: str) -> None:
    def gauge(name: str) -> float:
        text = client.get("/metrics").body.decode()
        return float(text.split(f"\nkeyrack_{name} ")[1].split("\n")[0])

    keys = gauge("trash_keys")
    size = 0 if ON_VALKEY else gauge("trash_bytes")  # Valkey does not tell
    client.put(key, b"v" * 10_000)
    client.delete(f"/v1/keys/{key}?undo=60")
    assert gauge("trash_keys") == keys + 1
    assert ON_VALKEY or gauge("trash_bytes") > size + 10_000


# Only what was not changed since


def test_what_was_changed_after_the_dry_run_is_left_alone(client: Client, key: str) -> None:
    for name in ("a", "b", "c"):
        client.put(f"{key}/{name}")
    dry = client.delete(f"/v1/keys?prefix={key}/&dry_run=true").json
    client.put(f"{key}/b", b"changed")
    client.put(f"{key}/new")
    gone = client.delete(f"/v1/keys?prefix={key}/&at={dry['revision']}").json
    assert (gone["deleted"], gone["kept_newer"]) == (2, 2)
    assert client.shown(f"{key}/b") == "changed"
    assert client.shown(f"{key}/new") == "value"
    assert client.shown(f"{key}/a") is None


def test_a_revision_that_is_none_is_refused(client: Client, key: str) -> None:
    for value in ("x", "-1", "1.0"):
        answer = client.delete(f"/v1/keys?prefix={key}/&at={value}")
        assert answer.status == 400, value


def test_both_go_together(client: Client, key: str) -> None:
    client.put(f"{key}/a")
    revision = client.delete(f"/v1/keys?prefix={key}/&dry_run=true").json["revision"]
    client.put(f"{key}/b")
    gone = client.delete(f"/v1/keys?prefix={key}/&at={revision}&undo=60").json
    assert (gone["deleted"], gone["kept_newer"]) == (1, 1)
    assert undo(client, gone["undo"])["restored"] == 1


def test_what_is_set_while_a_prefix_is_deleted_counts_as_newer(inside: Inside) -> None:
    engine = inside.engine
    engine.write([(Set(b"k%d" % number, b""),) for number in range(3)])
    now = engine.history()[1]
    engine.write([(Set(b"k1", b"newer"),)])
    given = {b"prefix": b"k", b"at": b"%d" % now, b"undo": b"60"}
    done = inside.run(deleting.by_prefix(given, inside.context))
    assert (done.deleted, done.kept_newer) == (2, 1)
    assert engine.get(b"k1").value == b"newer"


# Without being asked


@pytest.fixture(scope="module")
def careful() -> Iterator[Client]:
    """A connection to a service whose deletions can be undone for a minute."""
    with Server("--undo-default", "60", workers=1, memory="64m") as server, Client(server) as one:
        yield one


def test_where_the_operator_wants_it_every_delete_can_be_undone(careful: Client) -> None:
    careful.put("a")
    gone = careful.delete("/v1/keys/a")
    assert (gone.status, gone.body) == (204, b"")
    assert undo(careful, gone["Keyrack-Undo"])["restored"] == 1
    gone = careful.delete("/v1/keys?prefix=a")
    assert undo(careful, gone.json["undo"])["restored"] == 1
    answer = careful.batch({"op": "delete", "key": "a"}).json
    assert undo(careful, answer["undo"])["restored"] == 1


def test_who_wants_to_delete_for_good_says_so(careful: Client) -> None:
    before = len(careful.get("/v1/undo").json["undos"])
    careful.put("b")
    gone = careful.delete("/v1/keys/b?undo=0")
    assert (gone.status, dict(gone.fields).get("keyrack-undo")) == (204, None)
    careful.put("b")
    assert "undo" not in careful.delete("/v1/keys?prefix=b&undo=0").json
    careful.put("b")
    operations = [{"op": "delete", "key": "b"}]
    assert "undo" not in careful.post("/v1/batch", {"operations": operations, "undo": 0}).json
    assert len(careful.get("/v1/undo").json["undos"]) == before


# Keys that need a lock


def test_who_undoes_what_needs_a_lock_holds_it(client: Client, key: str) -> None:
    prefix, lock = f"{{{key}}}/", f"{{{key}}}"
    for name in ("a", "b"):
        client.put(f"{prefix}{name}")
    gone = client.delete(f"/v1/keys?prefix={quoted(prefix)}&undo=60").json
    one = client.put(f"{prefix}c")
    single = client.delete(f"/v1/keys/{quoted(prefix)}c?undo=60").json
    fence = {"keys": f"{prefix}*", "lock": lock}
    assert client.ask("PUT", f"/v1/fences/{key}", json.dumps(fence).encode(), **JSON).status == 201
    try:
        for number in (gone["undo"], single["undo"]):
            refused = client.post(f"/v1/undo/{number}", b"")
            assert (refused.status, refused.json["lock"]) == (428, lock)
        token = client.post(f"/v1/locks/{quoted(lock)}", {"owner": "o", "ttl": 60}).json["token"]
        for number, count in ((gone["undo"], 2), (single["undo"], 1)):
            held = {"Keyrack_Lock": f'"{lock}"; token={token}'}
            lost = {"Keyrack_Lock": f'"{lock}"; token={int(token) - 1}'}
            assert client.post(f"/v1/undo/{number}", b"", **lost).status == 412
            answer = client.post(f"/v1/undo/{number}", b"", **held)
            assert (answer.status, answer.json["restored"]) == (200, count)
    finally:
        assert client.delete(f"/v1/fences/{key}").status == 204
    assert client.get(f"/v1/keys/{quoted(prefix)}c")["ETag"] != f'"{one}"'
