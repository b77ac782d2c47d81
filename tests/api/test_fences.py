"""Fences over HTTP: a write of some keys is 428 without its lock, and 412 with an old token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from api_support import Client, quoted, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack_server import Answer, Server

MERGE = {"Content_Type": "application/merge-patch+json"}
JSON = {"Content_Type": "application/json"}
LINES = {"Content_Type": "application/x-ndjson"}


class Fenced(NamedTuple):
    """A prefix that needs a lock, and what asks about it."""

    client: Client
    name: str
    prefix: str
    lock: str

    def take(self, ttl: float = 60.0) -> str:
        """Take the lock, and return its token."""
        answer = self.client.post(f"/v1/locks/{quoted(self.lock)}", {"owner": "o", "ttl": ttl})
        assert answer.status == 201, answer
        return str(answer.json["token"])

    def give_back(self, token: str) -> None:
        answer = self.client.delete(f"/v1/locks/{quoted(self.lock)}?token={token}")
        assert answer.status == 204, answer

    def held(self, token: str) -> dict[str, str]:
        """Return the field that names the lock and a token."""
        return {"Keyrack_Lock": f'"{self.lock}"; token={token}'}


@pytest.fixture
def fenced(client: Client, key: str) -> Iterator[Fenced]:
    # The part in braces keeps lock and keys in one shard, where there are several.
    name = key.replace("/", ".").strip(".")
    one = Fenced(client, name, f"{{{key}}}/", f"{{{key}}}")
    answer = client.ask(
        "PUT",
        f"/v1/fences/{name}",
        json.dumps({"keys": f"{one.prefix}*", "lock": one.lock}).encode(),
        **JSON,
    )
    assert answer.status == 201, answer
    yield one
    assert client.delete(f"/v1/fences/{name}").status == 204


def writes(prefix: str) -> dict[str, tuple[str, str, bytes | None, dict[str, str]]]:
    """Return every way to change keys: method, target, body, fields."""
    path, key = f"/v1/keys/{quoted(prefix)}k", f"{prefix}k"

    def body(value: Any) -> bytes:
        return json.dumps(value).encode()

    batch = {"operations": [{"op": "get", "key": key}, {"op": "set", "key": key, "value": 1}]}
    line = body({"key": key, "value": "v"})
    return {
        "put": ("PUT", path, b"v", {}),
        "put with a TTL": ("PUT", f"{path}?ttl=60", b"v", {}),
        "put if there": ("PUT", path, b"v", {"If_Match": "*"}),
        "set": ("POST", "/set", body({"key": key, "value": "v"}), JSON),
        "set a number": ("POST", "/set", body({"key": key, "value": 5}), JSON),
        "another end": ("PATCH", f"{path}?ttl=60", None, {}),
        "merge patch": ("PATCH", path, b'{"a":2}', MERGE),
        "count": ("POST", f"/v1/counters/{quoted(prefix)}n", b"{}", JSON),
        "batch": ("POST", "/v1/batch", body(batch), JSON),
        "import": ("POST", "/v1/import", line, LINES),
        "import, all or none": ("POST", "/v1/import?on_error=stop", line, LINES),
        "delete": ("DELETE", path, None, {}),
        "delete a prefix": ("DELETE", f"/v1/keys?prefix={quoted(prefix)}", None, {}),
        "delete a shorter prefix": ("DELETE", f"/v1/keys?prefix={quoted(prefix[:-1])}", None, {}),
    }


KINDS = tuple(writes("any/"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_needs_the_lock_and_its_present_token(fenced: Fenced, kind: str) -> None:
    client, path = fenced.client, f"/v1/keys/{quoted(fenced.prefix)}k"
    method, target, body, fields = writes(fenced.prefix)[kind]

    def stored() -> tuple[bytes, str]:
        answer = client.get(path)
        return answer.body, answer["etag"]

    def ask(**more: str) -> Answer:
        return client.ask(method, target, body, **fields, **more)

    first = fenced.take()
    held = fenced.held(first)
    json_type = {"Content_Type": "application/json"}
    assert client.ask("PUT", path, b'{"a":1}', **json_type, **held).status == 201
    before = stored()

    for more in ({}, {"Keyrack_Lock": f'"{fenced.lock}other"; token={first}'}):
        answer = ask(**more)
        assert answer.status == 428, answer
        if target != "/set":
            assert answer.json["type"] == "/docs/problems/lock-required"
            assert answer.json["lock"] == fenced.lock
    wrong = ask(**fenced.held(str(int(first) + 1)))
    fenced.give_back(first)
    old = ask(**held)
    second = fenced.take()
    older = ask(**held)
    for answer in (wrong, old, older):
        assert answer.status == 412, answer
        if target != "/set":
            assert answer.json["type"] == "/docs/problems/lock-lost"
            assert answer.json["lock"] == fenced.lock
    assert stored() == before

    done = ask(**fenced.held(second))
    assert done.status in (200, 201, 204), done
    assert client.get(path).status == (404 if kind.startswith("delete") else 200)
    fenced.give_back(second)


def test_a_lock_that_has_ended_is_412(fenced: Fenced) -> None:
    token = fenced.take(0.05)
    path, held = f"/v1/keys/{quoted(fenced.prefix)}k", fenced.held(token)
    assert until(lambda: fenced.client.get(f"/v1/locks/{quoted(fenced.lock)}").status == 404)
    assert fenced.client.ask("PUT", path, b"late", **held).status == 412
    assert fenced.client.get(path).status == 404


def test_a_refusal_says_what_to_do(fenced: Fenced) -> None:
    path = f"/v1/keys/{quoted(fenced.prefix)}k"
    answer = fenced.client.ask("PUT", path, b"v")
    assert answer["content-type"] == "application/problem+json"
    assert answer.json["type"] == "/docs/problems/lock-required"
    assert f'Keyrack-Lock: "{fenced.lock}"; token=' in answer.json["detail"]
    answer = fenced.client.post("/set", {"key": f"{fenced.prefix}k", "value": "v"})
    assert (answer.status, answer.json["status"]) == (428, "error")
    # The same again, as a header section that is recognised.
    answer = fenced.client.post("/set", {"key": f"{fenced.prefix}k", "value": "v"})
    assert (answer.status, answer.json["status"]) == (428, "error")


def test_a_batch_that_checks_the_lock_needs_no_field(fenced: Fenced) -> None:
    key, token = f"{fenced.prefix}k", fenced.take()
    check = {"op": "check", "lock": fenced.lock, "token": token}
    one = {"op": "set", "key": key, "value": "v"}
    assert fenced.client.batch(one).status == 428
    assert fenced.client.batch(check, one).status == 200
    fenced.give_back(token)
    answer = fenced.client.batch(check, one)
    assert (answer.status, answer.json["reason"]) == (409, "condition")


def test_keys_elsewhere_and_reads_need_none(fenced: Fenced) -> None:
    client = fenced.client
    client.put(f"{fenced.prefix[:-1]}other")
    client.put(f"x{fenced.prefix}")
    assert client.get(f"/v1/keys/{quoted(fenced.prefix)}k").status == 404
    assert client.delete(f"/v1/keys?prefix={quoted(f'x{fenced.prefix}')}").json["deleted"] == 1
    answer = client.delete(f"/v1/keys?prefix={quoted(fenced.prefix)}&dry_run=true")
    assert answer.status == 200


def test_a_lock_can_be_named_where_none_is_demanded(client: Client, key: str) -> None:
    name, path = f"{{{key}}}lock", f"/v1/keys/{quoted(f'{{{key}}}')}k"
    token = client.post(f"/v1/locks/{quoted(name)}", {"owner": "o", "ttl": 60}).json["token"]
    held = {"Keyrack_Lock": f'"{name}"; token={token}'}
    assert client.ask("PUT", path, b"1", **held).status == 201
    assert client.ask("POST", "/v1/counters" + path[8:], b"{}", **JSON, **held).json["value"] == "2"
    assert client.delete(f"/v1/locks/{quoted(name)}?token={token}").status == 204
    assert client.ask("PUT", path, b"5", **held).status == 412
    assert client.ask("DELETE", path, **held).status == 412
    assert client.get(path).body == b"2"


@pytest.mark.parametrize(
    "field",
    [
        "jobs; token=1",
        '"jobs"',
        '"jobs"; token=x',
        '"jobs"; token=1 "more"; token=2',
        '"jobs"; token=12345678901234567890',
        '"%zz"; token=1',
        '"a b"; token=1',
        ", ".join(f'"l{number}"; token=1' for number in range(17)),
    ],
)
def test_a_field_that_cannot_be_read_is_refused(client: Client, key: str, field: str) -> None:
    answer = client.ask("PUT", f"/v1/keys/{key}", b"v", Keyrack_Lock=field)
    assert answer.status == 400, answer
    assert client.get(f"/v1/keys/{key}").status == 404


def test_a_field_that_would_be_passed_over_is_refused(client: Client, key: str) -> None:
    lock = {"owner": "o", "ttl": 1}
    answer = client.post(f"/v1/locks/{key}", lock, Keyrack_Lock='"jobs"; token=1')
    assert (answer.status, answer.json["type"]) == (400, "/docs/problems/bad-parameter")


def test_fences_are_shown_changed_and_removed(client: Client, key: str) -> None:
    name = key.replace("/", ".").strip(".")
    path, tag = f"/v1/fences/{name}", f"{{{key}}}"

    def put(keys: str, lock: str) -> Answer:
        return client.ask("PUT", path, json.dumps({"keys": keys, "lock": lock}).encode(), **JSON)

    assert client.get(path).json["type"] == "/docs/problems/fence-not-found"
    assert client.delete(path).status == 404
    assert put(f"{tag}/*", tag).status == 201
    shown = {"name": name, "keys": f"{tag}/*", "lock": tag, "source": "store"}
    assert client.get(path).json == shown
    assert shown in client.get("/v1/fences").json["fences"]
    assert put(f"{tag}/only", tag).status == 204
    client.put(f"{tag}/free")
    assert client.ask("PUT", f"/v1/keys/{quoted(tag)}/only", b"v").status == 428
    assert client.delete(path).status == 204
    client.put(f"{tag}/only")
    assert shown not in client.get("/v1/fences").json["fences"]


@pytest.mark.parametrize(
    ("name", "body", "slug"),
    [
        ("one", {"keys": "a*b", "lock": "l"}, "bad-fence"),
        ("one", {"keys": "%zz", "lock": "l"}, "bad-fence"),
        ("one", {"keys": "", "lock": "l"}, "bad-json"),
        ("one", {"keys": "a*", "lock": ""}, "bad-json"),
        ("one", {"keys": "a*", "lock": "l" * 512}, "bad-fence"),
        ("one", {"keys": "a*"}, "bad-json"),
        ("one", {"keys": "a*", "lock": "l", "more": 1}, "bad-json"),
        ("a b", {"keys": "a*", "lock": "l"}, "bad-fence"),
        ("n" * 101, {"keys": "a*", "lock": "l"}, "bad-fence"),
    ],
)
def test_a_fence_that_cannot_be_is_refused(
    client: Client, name: str, body: dict[str, Any], slug: str
) -> None:
    data = json.dumps(body).encode()
    answer = client.ask("PUT", f"/v1/fences/{quoted(name)}", data, **JSON)
    assert (answer.status, answer.json["type"]) == (400, f"/docs/problems/{slug}")
    assert client.get("/v1/fences").json == {"fences": []}


@pytest.mark.parametrize("character", ["\x01", "%01", "ü", '"'])
def test_a_fence_as_long_as_can_be_is_kept(client: Client, key: str, character: str) -> None:
    """However many bytes its characters take: what it is kept in is never divided."""
    name = key.replace("/", ".").strip(".")
    lock = "{" + key + "}"
    taken = 1 if character == "%01" else len(character.encode())  # a pattern is read
    keys = lock + character * ((511 - len(lock)) // taken)
    lock += character * ((511 - len(lock)) // len(character.encode()))
    body = json.dumps({"keys": f"{keys}*", "lock": lock}).encode()
    assert client.ask("PUT", f"/v1/fences/{name}", body, **JSON).status == 201
    shown = client.get(f"/v1/fences/{name}").json
    assert (shown["keys"], shown["lock"]) == (f"{keys}*", lock)
    assert client.delete(f"/v1/fences/{name}").status == 204


def test_when_it_is_answered_every_worker_goes_by_it(two: list[Client], key: str) -> None:
    one, other = two
    name = key.replace("/", ".").strip(".")
    tag = f"{{{key}}}"
    body = json.dumps({"keys": f"{tag}/*", "lock": tag}).encode()
    path = f"/v1/keys/{quoted(tag)}/k"
    for _ in range(20):
        assert other.ask("PUT", path, b"v").status in (201, 204)
        assert one.ask("PUT", f"/v1/fences/{name}", body, **JSON).status == 201
        for client in (other, one):
            assert client.ask("PUT", path, b"v").status == 428
        assert other.get(f"/v1/fences/{name}").status == 200
        assert other.delete(f"/v1/fences/{name}").status == 204
        assert one.ask("PUT", path, b"v").status == 204


def test_a_retry_with_its_idempotency_key_is_answered_when_the_lock_is_gone(
    fenced: Fenced,
) -> None:
    path, token = f"/v1/counters/{quoted(fenced.prefix)}n", fenced.take()
    fields = {**JSON, **fenced.held(token), "Idempotency_Key": fenced.name}
    first = fenced.client.ask("POST", path, b"{}", **fields)
    fenced.give_back(token)
    assert fenced.client.ask("POST", path, b"{}", **fields).json == first.json
    fields["Idempotency_Key"] += "another"
    assert fenced.client.ask("POST", path, b"{}", **fields).status == 412


def test_an_import_ends_where_the_lock_is_lost(fenced: Fenced, server: Server) -> None:
    token = fenced.take()
    line = json.dumps({"key": f"{fenced.prefix}k", "value": "v"}).encode() + b"\n"
    fields = {**LINES, **fenced.held(token)}
    answer = fenced.client.ask("POST", "/v1/import", line * 1000, **fields)
    assert answer.json["imported"] == 1000
    fenced.give_back(token)
    answer = fenced.client.ask("POST", "/v1/import", line * 1000, **fields)
    assert (answer.status, answer.json["imported"]) == (412, 0)
    other = json.dumps({"key": f"x{fenced.prefix}k", "value": "v"}).encode() + b"\n"
    answer = fenced.client.ask("POST", "/v1/import", line + other, **LINES)
    assert (answer.status, answer.json["imported"], answer.json["failed"]) == (200, 1, 1)
    assert "needs the lock" in answer.json["errors"][0]["detail"]
