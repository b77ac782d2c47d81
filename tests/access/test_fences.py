"""Fences in the operator's file, who may make one, and services that share a store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from access_support import Guarded
from api_support import until

from keyrack.access.file import parse
from keyrack.access.model import FenceRule
from keyrack.access.sections import AccessFileError

if TYPE_CHECKING:
    from keyrack_server import Answer, Server

HEAD = """
anonymous = ["read-write"]

[fences]
jobs = { keys = "jobs/*", lock = "jobs" }

[fences."two.words"]
keys = "state/%7Bone%7D"
lock = "sta te"
"""
JSON = {"Content_Type": "application/json"}


def test_a_file_says_which_keys_need_which_lock() -> None:
    assert parse("version = 1\n" + HEAD).fences == {
        "jobs": FenceRule("jobs/*", "jobs"),
        "two.words": FenceRule("state/%7Bone%7D", "sta te"),
    }
    assert parse("version = 1\n").fences == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fences = 1", "`fences` is a table"),
        ("[fences]\njobs = 1", "line 3: the fence 'jobs' is like"),
        ('[fences]\njobs = { keys = "a*b", lock = "l" }', "line 3: .* may only end a pattern"),
        ('[fences]\njobs = { keys = "a*" }', "line 3: `lock` of the fence 'jobs' is a lock's name"),
        ('[fences]\n"a b" = { keys = "a*", lock = "l" }', "line 3: 'a b' is no name for a fence"),
        ('[fences.jobs]\nkeys = "a*"\nlock = "l"\nmore = 1', "'more' means nothing in the fence"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(AccessFileError, match=sentence):
        parse(f"version = 1\n{text}\n")


def put(server: Server, name: str, **fields: str) -> Answer:
    body = json.dumps({"keys": "made/*", "lock": "made"}).encode()
    return server.ask("PUT", f"/v1/fences/{name}", body, **JSON, **fields)


def test_fences_of_the_file_count_and_follow_its_changes() -> None:
    with Guarded(HEAD, workers=2) as service:
        server, admin = service.server, service.admin.field
        assert server.ask("PUT", "/v1/keys/jobs/1", b"v").status == 428
        assert server.ask("PUT", "/v1/keys/state/%7Bone%7D", b"v").json["lock"] == "sta te"
        assert server.ask("PUT", "/v1/keys/state/two", b"v").status == 201
        lock = server.ask("POST", "/v1/locks/sta%20te", b'{"owner":"o","ttl":60}', **JSON).json
        held = {"Keyrack_Lock": f'"sta%20te"; token={lock["token"]}'}
        assert server.ask("PUT", "/v1/keys/state/%7Bone%7D", b"v", **held).status == 201
        shown = server.ask("GET", "/v1/fences", **admin).json["fences"]
        assert [(one["name"], one["source"]) for one in shown] == [
            ("jobs", "file"), ("two.words", "file"),
        ]  # fmt: skip
        for method in ("PUT", "DELETE"):
            answer = server.ask(
                method, "/v1/fences/jobs", b'{"keys":"a","lock":"b"}' if method == "PUT" else None,
                **(JSON if method == "PUT" else {}), **admin,
            )  # fmt: skip
            assert (answer.status, answer.json["type"]) == (409, "/docs/problems/fence-in-file")
        text = service.path.read_text()
        service.path.write_text(text.replace('keys = "jobs/*"', 'keys = "work/*"'))
        assert until(lambda: server.ask("PUT", "/v1/keys/jobs/1", b"v").status in (201, 204))
        # Each worker learns of the file by itself.
        assert until(
            lambda: all(server.ask("PUT", "/v1/keys/work/1", b"v").status == 428 for _ in range(20))
        )


def test_only_an_administrator_makes_one() -> None:
    with Guarded(HEAD) as service:
        server, admin = service.server, service.admin.field
        writer = service.add(policies=("read-write",))
        assert until(lambda: server.ask("GET", "/v1/keys/a", **writer.field).status == 404)
        for fields in ({}, writer.field):
            for answer in (
                put(server, "made", **fields),
                server.ask("GET", "/v1/fences", **fields),
                server.ask("GET", "/v1/fences/jobs", **fields),
                server.ask("DELETE", "/v1/fences/jobs", **fields),
            ):
                assert answer.status == (403 if fields else 401), answer
        assert put(server, "made", **admin).status == 201
        assert server.ask("PUT", "/v1/keys/made/1", b"v", **writer.field).status == 428


def test_a_lock_is_named_by_who_may_know_of_it() -> None:
    with Guarded(HEAD) as service:
        server, admin = service.server, service.admin.field
        blind = service.add("set keys:*").field
        sees = service.add("set keys:*", "read locks:jobs").field
        body = b'{"owner":"o","ttl":60}'
        token = server.ask("POST", "/v1/locks/jobs", body, **JSON, **admin).json["token"]
        held = {"Keyrack_Lock": f'"jobs"; token={token}'}
        assert until(lambda: server.ask("PUT", "/v1/keys/a", b"v", **sees).status in (201, 204))
        assert server.ask("PUT", "/v1/keys/jobs/1", b"v", **blind, **held).status == 403
        assert server.ask("PUT", "/v1/keys/jobs/1", b"v", **sees, **held).status == 201
