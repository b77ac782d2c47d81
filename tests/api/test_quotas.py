"""Quotas over HTTP: what would bring a prefix above its limit is 507, however it is written."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from api_support import Client, quoted
from keyrack_server import ON_VALKEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack_server import Answer

JSON = {"Content_Type": "application/json"}
MERGE = {"Content_Type": "application/merge-patch+json"}
LINES = {"Content_Type": "application/x-ndjson"}
embedded = pytest.mark.skipif(ON_VALKEY, reason="a store in Valkey has no quotas")


class Limited(NamedTuple):
    """A prefix with a quota, and what asks about it."""

    client: Client
    name: str
    prefix: str

    def limit(self, **limits: Any) -> int:
        """Make the quota or change it; return the status."""
        body = json.dumps({"prefix": self.prefix, **limits}).encode()
        return self.client.ask("PUT", f"/v1/quotas/{self.name}", body, **JSON).status

    def put(self, rest: str, value: bytes = b"v") -> Answer:
        return self.client.ask("PUT", f"/v1/keys/{quoted(self.prefix + rest)}", value)

    def shown(self) -> dict[str, Any]:
        answer = self.client.get(f"/v1/quotas/{self.name}")
        assert answer.status == 200, answer
        shown: dict[str, Any] = answer.json
        return shown


@pytest.fixture
def limited(client: Client, key: str) -> Iterator[Limited]:
    name = key.replace("/", ".").strip(".")
    yield Limited(client, name, f"{key}/")
    assert client.delete(f"/v1/quotas/{name}").status in (204, 404)


@embedded
def test_a_quota_is_made_shown_changed_and_removed(limited: Limited) -> None:
    assert limited.put("1", b"12345").status == 201
    assert limited.limit(max_keys=2) == 201
    size = len(limited.prefix) + 1 + 5
    expected = {
        "name": limited.name,
        "prefix": limited.prefix,
        "max_bytes": None,
        "max_keys": 2,
        "bytes": size,
        "keys": 1,
        "counted": True,
    }
    assert limited.shown() == expected
    assert limited.limit(max_bytes=1000) == 204
    changed = {**expected, "max_bytes": 1000, "max_keys": None}
    assert limited.shown() == changed
    assert changed in limited.client.get("/v1/quotas").json["quotas"]
    assert limited.client.delete(f"/v1/quotas/{limited.name}").status == 204
    for method in ("GET", "DELETE"):
        answer = limited.client.ask(method, f"/v1/quotas/{limited.name}")
        assert answer.status == 404
        assert answer.json["type"].endswith("/quota-not-found")


def writes(prefix: str) -> dict[str, tuple[str, str, bytes | None, dict[str, str]]]:
    """Return every way to store something: method, target, body, fields."""
    path, key = f"/v1/keys/{quoted(prefix)}", prefix

    def body(value: Any) -> bytes:
        return json.dumps(value).encode()

    long = "x" * 200
    sets = [{"op": "set", "key": f"{key}{n}", "value": 1} for n in range(2)]
    return {
        "put a new key": ("PUT", f"{path}new", b"v", {}),
        "put more": ("PUT", f"{path}a", long.encode(), {}),
        "put a long value": ("PUT", f"{path}a", b"x" * 100_000, {}),
        "POST /set": ("POST", "/set", body({"key": f"{key}new", "value": "v"}), JSON),
        "patch": ("PATCH", f"{path}json", body({"more": long}), MERGE),
        "increment": (
            "POST",
            f"/v1/counters/{quoted(prefix)}new",
            b'{"delta":1}',
            JSON,
        ),
        "batch": ("POST", "/v1/batch", body({"operations": sets}), JSON),
        "put once": ("PUT", f"{path}new", b"v", {"Idempotency_Key": '"once"'}),
    }


@embedded
@pytest.mark.parametrize("way", list(writes("")))
def test_what_is_above_the_quota_is_507_and_changes_nothing(limited: Limited, way: str) -> None:
    limited.put("a", b"short")
    path = f"/v1/keys/{quoted(limited.prefix)}json"
    assert limited.client.ask("PUT", path, b"{}", **JSON).status == 201
    assert limited.limit(max_keys=2, max_bytes=len(limited.prefix) * 2 + 60) == 201
    before = limited.shown()
    method, target, body, fields = writes(limited.prefix)[way]
    answer = limited.client.ask(method, target, body, **fields)
    assert answer.status == 507, answer
    assert limited.shown() == before
    if target != "/set":
        told = answer.json
        assert told["type"].endswith("/quota-full")
        assert told["prefix"] == limited.prefix
        assert told["limit"] == before[f"max_{told['of']}"]
        assert told["actual"] > told["limit"]
    else:
        assert "quota" in answer.json["message"]


@embedded
def test_a_line_of_an_import_is_refused_with_its_number(limited: Limited) -> None:
    limited.limit(max_keys=2)
    lines = b"".join(
        json.dumps({"key": f"{limited.prefix}{number}", "value": "v"}).encode() + b"\n"
        for number in range(5)
    )
    report = limited.client.ask("POST", "/v1/import", lines, **LINES).json
    assert (report["imported"], report["failed"]) == (2, 3)
    assert limited.name in report["errors"][0]["detail"]
    assert limited.shown()["keys"] == 2


@embedded
def test_what_makes_it_no_more_is_done_above_the_limit_too(limited: Limited) -> None:
    for number in range(3):
        limited.put(str(number), b"12345")
    assert limited.limit(max_keys=1, max_bytes=1) == 201
    assert limited.put("0", b"54321").status == 204
    assert limited.put("0", b"1").status == 204
    assert limited.put("0", b"12").status == 507
    assert limited.client.delete(f"/v1/keys/{quoted(limited.prefix)}1").status == 204
    assert limited.client.delete(f"/v1/keys?prefix={quoted(limited.prefix)}").status == 200
    assert limited.shown()["keys"] == 0


@embedded
def test_prometheus_sees_what_a_quota_counts(limited: Limited) -> None:
    limited.put("1", b"12345")
    limited.limit(max_keys=7)
    text = limited.client.get("/metrics").body.decode()
    size = len(limited.prefix) + 1 + 5
    for name, figure in (("bytes", size), ("keys", 1), ("max_keys", 7)):
        assert f'keyrack_quota_{name}{{quota="{limited.name}"}} {float(figure)}' in text
    assert f'keyrack_quota_max_bytes{{quota="{limited.name}"}}' not in text


@embedded
@pytest.mark.parametrize(
    "body",
    [
        {"prefix": "a/"},
        {"max_keys": 1},
        {"prefix": "a/", "max_keys": 0},
        {"prefix": "a/", "max_keys": -1},
        {"prefix": "a/", "max_bytes": 1.5},
        {"prefix": "a/", "max_keys": 1 << 60},
        {"prefix": "a" * 512, "max_keys": 1},
        {"prefix": "a/", "max_keys": 1, "more": 1},
    ],
    ids=str,
)
def test_a_quota_that_says_nothing_or_nonsense_is_refused(
    limited: Limited, body: dict[str, Any]
) -> None:
    text = json.dumps(body).encode()
    answer = limited.client.ask("PUT", f"/v1/quotas/{limited.name}", text, **JSON)
    assert answer.status == 400, answer
    answer = limited.client.ask("PUT", "/v1/quotas/a%20b", b'{"prefix":"a","max_keys":1}', **JSON)
    assert answer.json["type"].endswith("/bad-quota")


@pytest.mark.skipif(not ON_VALKEY, reason="the embedded engine has quotas")
def test_a_store_in_valkey_says_that_it_has_none(limited: Limited) -> None:
    assert limited.limit(max_keys=1) == 501
    assert limited.client.get("/v1/quotas").json == {"quotas": []}


@embedded
def test_workers_that_write_at_once_do_not_exceed_it(two: list[Client], key: str) -> None:
    name, prefix = key.strip("_"), f"{key}/"
    limit = json.dumps({"prefix": prefix, "max_keys": 50}).encode()
    assert two[0].ask("PUT", f"/v1/quotas/{name}", limit, **JSON).status == 201
    stored = hammer(two, prefix)
    assert stored == 50
    for client in two:
        assert client.get(f"/v1/quotas/{name}").json["keys"] == 50
        assert len(client.get(f"/v1/keys?prefix={quoted(prefix)}").json["keys"]) == 50
    assert two[1].delete(f"/v1/quotas/{name}").status == 204
    assert two[0].ask("PUT", f"/v1/keys/{quoted(prefix)}more", b"v").status == 201


def hammer(clients: list[Client], prefix: str) -> int:
    """Have each client set keys of its own at the same time; return how many were stored."""

    def run(number: int) -> int:
        paths = (f"/v1/keys/{quoted(prefix)}{number}-{turn}" for turn in range(100))
        statuses = [clients[number].ask("PUT", path, b"v").status for path in paths]
        assert set(statuses) <= {201, 507}
        return statuses.count(201)

    with ThreadPoolExecutor() as pool:
        return sum(pool.map(run, range(len(clients))))
