"""Cache-Control of a key: what caches are told that stand between the store and its readers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from access_support import Guarded
from api_support import dechunked, until
from keyrack_server import request

if TYPE_CHECKING:
    from keyrack_server import Answer, Server

PRIVATE = "Authorization, Origin, Prefer"
PUBLIC = "Origin, Prefer"


def put(server: Server, key: str, query: str, body: bytes = b"value") -> None:
    answer = server.ask("PUT", f"/v1/keys/{key}{query}", body)
    assert answer.status in (201, 204), answer.body


def read(server: Server, key: str, method: str = "GET", **fields: str) -> Answer:
    # Whoever half-closes is sent a 100 first by an engine that answers later.
    with server.connect() as wire:
        return wire.ask(request(method, f"/v1/keys/{key}", **fields))


def told(answer: Answer) -> tuple[str, str | None]:
    """Return what an answer tells caches, and which fields of the request it depends on."""
    return answer["cache-control"], answer.get("vary")


def max_age_of(answer: Answer) -> int:
    return int(answer["cache-control"].removeprefix("private, max-age="))


def exported(server: Server, prefix: str) -> bytes:
    return dechunked(server.raw(request("GET", f"/v1/export?prefix={prefix}")))[1]


@pytest.mark.parametrize(
    ("query", "value", "vary"),
    [
        ("?max_age=30", "private, max-age=30", PRIVATE),
        ("?max_age=0", "private, max-age=0", PRIVATE),
        ("?max_age=30&swr=60", "private, max-age=30, stale-while-revalidate=60", PRIVATE),
        ("?max_age=30&public=true", "public, max-age=30", PUBLIC),
        (
            "?public=true&swr=60&max_age=315360000",
            "public, max-age=315360000, stale-while-revalidate=60",
            PUBLIC,
        ),
        ("", "no-store", None),
        ("?ttl=60", "no-store", None),
    ],
)
def test_every_answer_with_the_value_says_what_caches_may_do(
    server: Server, key: str, query: str, value: str, vary: str | None
) -> None:
    put(server, key, query)
    answer = read(server, key)
    assert (answer.status, answer.body) == (200, b"value")
    tag = answer["etag"]
    assert told(answer) == (value, vary)
    assert told(read(server, key, "HEAD")) == (value, vary)
    unchanged = read(server, key, If_None_Match=tag)
    assert (unchanged.status, unchanged["etag"]) == (304, tag)
    assert told(unchanged) == (value, vary)
    part = read(server, key, Range="bytes=0-1")
    assert (part.status, part.body) == (206, b"va")
    assert told(part) == (value, vary)
    for one in (answer, unchanged, part):
        assert one.get("age") is None
    assert told(read(server, key, "DELETE")) == ("no-store", None)
    missing = read(server, key)
    assert (missing.status, told(missing)) == (404, ("no-store", None))


def test_max_age_is_no_more_than_the_ttl_left(server: Server, key: str) -> None:
    put(server, key, "?max_age=300&ttl=100")
    assert 50 <= max_age_of(read(server, key)) <= 100
    put(server, key, "?max_age=30&ttl=1000")
    assert read(server, key)["cache-control"] == "private, max-age=30"

    def ends_within_a_second() -> bool:
        put(server, key, "?max_age=30&ttl=0.9")
        answer = read(server, key)  # it may have ended, on a machine that is busy
        assert answer.status == 404 or max_age_of(answer) == 0
        return answer.status == 200

    assert until(ends_within_a_second)
    assert until(lambda: read(server, key).status == 404)
    assert read(server, key)["cache-control"] == "no-store"


def test_other_answers_are_for_nobody_else(server: Server, key: str) -> None:
    put(server, key, "?max_age=30&public=true&ttl=100&stale=100")
    for fields in ({"Cache_Control": "max-stale"}, {"Prefer": "recompute=5"}, {"Prefer": "wait=1"}):
        answer = read(server, key, **fields)
        assert (answer.status, answer["cache-control"]) == (200, "no-store"), fields
    assert read(server, key, If_Match='"1"')["cache-control"] == "no-store"
    assert server.ask("GET", f"/get/{key}")["cache-control"] == "no-store"
    assert server.ask("GET", f"/v1/keys?prefix={key}")["cache-control"] == "no-store"
    assert read(server, key, Range="bytes=99-")["cache-control"] == "no-store"


def test_what_it_becomes_with_other_writes(server: Server, key: str) -> None:
    def now() -> str:
        return read(server, key)["cache-control"]

    path, merge = f"/v1/keys/{key}", "application/merge-patch+json"
    put(server, key, "?max_age=30", b'{"a":1}')
    server.ask("PUT", f"{path}?max_age=30", b'{"a":1}', Content_Type="application/json")
    assert server.ask("PATCH", path, b'{"a":2}', Content_Type=merge).status == 204
    assert (read(server, key).body, now()) == (b'{"a":2}', "private, max-age=30")
    assert server.ask("PATCH", f"{path}?ttl=20").status == 204
    assert max_age_of(read(server, key)) <= 20
    assert server.ask("PATCH", f"{path}?ttl=none").status == 204
    assert now() == "private, max-age=30"
    put(server, key, "", b"7")
    assert now() == "no-store"
    put(server, key, "?max_age=30", b"7")
    assert server.ask("POST", f"/v1/counters/{key}").json["value"] == "8"
    assert now() == "private, max-age=30"
    put(server, key, "?ttl=60", b"7")
    assert now() == "no-store"


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("?max_age=-1", "max_age is a whole number from 0 to 315360000."),
        ("?max_age=1.5", "max_age is a whole number from 0 to 315360000."),
        ("?max_age=315360001", "max_age is a whole number from 0 to 315360000."),
        ("?max_age=", "max_age is a whole number from 0 to 315360000."),
        ("?max_age=1&swr=x", "swr is a whole number from 0 to 315360000."),
        ("?max_age=1&public=yes", "public is true or false."),
        ("?swr=5", "swr and public say more of max_age: give that as well."),
        ("?public=true", "swr and public say more of max_age: give that as well."),
    ],
)
def test_what_makes_no_sense_is_refused(server: Server, key: str, query: str, detail: str) -> None:
    answer = server.ask("PUT", f"/v1/keys/{key}{query}", b"v")
    assert (answer.status, answer.json["detail"]) == (400, detail)
    assert read(server, key).status == 404


def test_json_bodies_say_it_too(server: Server, key: str) -> None:
    def post(path: str, body: dict[str, Any]) -> Answer:
        data = json.dumps(body).encode()
        return server.ask("POST", path, data, Content_Type="application/json")

    members = {"max_age": 5, "swr": 6, "public": True}
    shown = "public, max-age=5, stale-while-revalidate=6"
    assert post("/set", {"key": key, "value": "v", **members}).status == 200
    assert read(server, key)["cache-control"] == shown
    one = {"op": "set", "key": key, "value": "v"}
    assert post("/v1/batch", {"operations": [one]}).status == 200
    assert read(server, key)["cache-control"] == "no-store"
    assert post("/v1/batch", {"operations": [one | members]}).status == 200
    assert read(server, key)["cache-control"] == shown
    wrong = ({"max_age": -1}, {"max_age": "5"}, {"swr": 5}, {"public": True}, {"max_age": 1.5})
    for members in wrong:
        assert post("/set", {"key": key, "value": "v", **members}).status == 400, members
        assert post("/v1/batch", {"operations": [one | members]}).status == 400, members


def test_lists_and_exports_tell_it_and_imports_take_it(server: Server, key: str) -> None:
    put(server, f"{key}/all", "?max_age=5&swr=6&public=true")
    put(server, f"{key}/none", "")
    put(server, f"{key}/one", "?max_age=0")
    page = server.ask("GET", f"/v1/keys?prefix={key}/").json["keys"]
    found = [{name: one.get(name) for name in ("max_age", "swr", "public")} for one in page]
    assert found == [
        {"max_age": 5, "swr": 6, "public": True},
        {"max_age": None, "swr": None, "public": None},
        {"max_age": 0, "swr": None, "public": None},
    ]
    lines = exported(server, f"{key}/")
    answer = server.ask("DELETE", f"/v1/keys?prefix={key}/")
    assert answer.json["deleted"] == 3
    kind = "application/x-ndjson"
    assert server.ask("POST", "/v1/import", lines, Content_Type=kind).json["imported"] == 3
    assert exported(server, f"{key}/") == lines
    assert read(server, f"{key}/one")["cache-control"] == "private, max-age=0"
    assert read(server, f"{key}/none")["cache-control"] == "no-store"


def test_only_what_everybody_may_read_is_public() -> None:
    head = 'anonymous = ["visitor"]\n[policies]\nvisitor = ["read keys:open/*"]\n'
    with Guarded(head) as service:
        server, admin = service.server, service.admin.field
        for key in ("open/a", "closed/a"):
            target = f"/v1/keys/{key}?max_age=30&public=true"
            assert server.ask("PUT", target, b"v", **admin).status == 201
        for fields in (admin, {}):
            assert told(read(server, "open/a", **fields)) == ("public, max-age=30", PUBLIC)
        assert told(read(server, "closed/a", **admin)) == ("private, max-age=30", PRIVATE)
        refused = read(server, "closed/a")
        assert (refused.status, refused["cache-control"]) == (401, "no-store")
