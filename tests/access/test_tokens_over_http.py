"""Tokens that are made over HTTP: made, shown, changed, rotated, revoked, and never shown twice."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from access_support import Guarded, Who
from api_support import Client, Watch, spread
from engine_support.world import memory_directory
from keyrack_server import Server, request

from keyrack.access import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyrack_server import Answer


@pytest.fixture(scope="module")
def service() -> Iterator[Guarded]:
    head = '[policies]\nfiled = ["read keys:filed/*"]\n'
    with Guarded(head, workers=2) as running:
        yield running


@pytest.fixture
def client(service: Guarded) -> Iterator[Client]:
    with Client(service.server) as one:
        yield one


@pytest.fixture
def memory() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


def made(client: Client, admin: Who, **about: Any) -> Who:
    answer = client.post("/v1/auth/tokens", {"name": "test", **about}, **admin.field)
    assert answer.status == 201, answer
    return Who(answer.json["id"], answer.json["token"])


def patch(client: Client, admin: Who, token_id: str, **changes: Any) -> Answer:
    kind = {"Content_Type": "application/merge-patch+json"}
    body = json.dumps(changes).encode()
    return client.ask("PATCH", f"/v1/auth/tokens/{token_id}", body, **kind, **admin.field)


def test_a_token_is_made_and_counts_at_once(service: Guarded, client: Client) -> None:
    about = {"name": "ci", "policies": ["filed"], "rules": ["all keys:ci/*"], "ttl": 3600,
             "from": ["127.0.0.0/8"]}  # fmt: skip
    answer = client.post("/v1/auth/tokens", about, **service.admin.field)
    assert answer.status == 201
    shown = answer.json
    assert answer["Location"] == f"/v1/auth/tokens/{shown['id']}"
    assert tokens.id_of(shown["token"]) == shown["id"]
    assert (shown["name"], shown["source"], shown["from"]) == ("ci", "store", ["127.0.0.0/8"])
    assert shown["created_by"] == f"file:{service.admin.id}"
    who = Who(shown["id"], shown["token"])
    for _ in range(4):
        with Client(service.server) as other:  # of either worker
            assert other.put("ci/x", **who.field)
            assert other.get("/v1/keys/other", **who.field).status == 403


def test_a_token_is_shown_without_its_secret(service: Guarded, client: Client) -> None:
    who = made(client, service.admin, rules=["read keys:a*", "deny read keys:ab*"])
    one = client.get(f"/v1/auth/tokens/{who.id}", **service.admin.field)
    assert one.json["decides"] == ["deny read keys:ab*", "read keys:a*"]
    everything = client.get("/v1/auth/tokens?limit=1000", **service.admin.field)
    sources = {token["id"]: token["source"] for token in everything.json["tokens"]}
    assert sources[who.id] == "store"
    assert sources[service.admin.id] == "file"
    for answer in (one, everything):
        assert who.text[12:45].encode() not in answer.body
        assert b"sha256" not in answer.body
    page = client.get("/v1/auth/tokens?limit=1", **service.admin.field).json
    rest = client.get(f"/v1/auth/tokens?after={page['next']}", **service.admin.field).json
    assert [t["id"] for t in page["tokens"] + rest["tokens"]] == sorted(sources)


def test_a_revoked_token_is_known_to_no_worker_when_that_is_answered(
    service: Guarded, client: Client
) -> None:
    clients = [Client(service.server) for _ in range(8)]
    for _ in range(20):
        who = made(client, service.admin, rules=["read keys:*"])
        for one in clients:
            for _ in range(2):
                assert one.get("/get/a", **who.field).status == 404
        gone = client.delete(f"/v1/auth/tokens/{who.id}", **service.admin.field)
        assert gone.status == 204
        statuses = {one.get("/get/a", **who.field).status for one in clients}
        assert statuses <= {401, 429}  # 429: that address has failed often by now
    for one in clients:
        one.close()
    time.sleep(1.1)  # until this address is let in to fail again


def test_a_token_is_changed_and_its_new_rights_count_at_once(
    service: Guarded, client: Client
) -> None:
    who = made(client, service.admin, rules=["read keys:a*"])
    assert client.get("/get/b", **who.field).status == 403
    changed = patch(client, service.admin, who.id, rules=["read keys:b*"], name="other")
    assert changed.status == 200
    assert (changed.json["name"], changed.json["rules"]) == ("other", ["read keys:b*"])
    assert client.get("/get/b", **who.field).status == 404
    assert client.get("/get/a", **who.field).status == 403
    assert patch(client, service.admin, who.id, disabled=True).status == 200
    assert client.get("/get/b", **who.field).status == 401
    assert patch(client, service.admin, who.id, disabled=None, rules=None).status == 200
    assert client.get("/get/b", **who.field).status == 403
    ended = patch(client, service.admin, who.id, expires="2020-01-01T00:00:00Z")
    assert ended.json["expires"] == "2020-01-01T00:00:00Z"
    assert "time is over" in client.get("/v1/info", **who.field).json["detail"]


def test_a_token_is_rotated_and_both_texts_count_for_a_while(
    service: Guarded, client: Client
) -> None:
    who = made(client, service.admin, rules=["read keys:*"])
    path = f"/v1/auth/tokens/{who.id}/rotate"
    after = client.post(path, {"overlap": 60}, **service.admin.field).json
    assert after["id"] == who.id
    assert after["rotating_until"] is not None
    second = Who(who.id, after["token"])
    assert {client.get("/get/a", **one.field).status for one in (who, second)} == {404}
    last = Who(who.id, client.post(path, {"overlap": 0}, **service.admin.field).json["token"])
    assert [client.get("/get/a", **one.field).status for one in (who, second, last)] == [
        401, 401, 404,
    ]  # fmt: skip


def test_only_who_administers_sees_and_makes_tokens(service: Guarded, client: Client) -> None:
    who = made(client, service.admin, policies=["read-write", "metrics"])
    for method, target, body in (
        ("GET", "/v1/auth/tokens", None),
        ("POST", "/v1/auth/tokens", b'{"name":"x","policies":["admin"]}'),
        ("GET", f"/v1/auth/tokens/{who.id}", None),
        ("PATCH", f"/v1/auth/tokens/{who.id}", b'{"policies":["admin"]}'),
        ("DELETE", f"/v1/auth/tokens/{who.id}", None),
        ("POST", f"/v1/auth/tokens/{who.id}/rotate", b"{}"),
        ("PUT", "/v1/auth/policies/x", b'{"rules":["admin"]}'),
    ):
        answer = client.ask(method, target, body, Content_Type="application/json", **who.field)
        assert answer.status == 403, target


def test_what_the_file_says_is_changed_in_the_file(service: Guarded, client: Client) -> None:
    for method, target in (
        ("DELETE", f"/v1/auth/tokens/{service.admin.id}"),
        ("POST", f"/v1/auth/tokens/{service.admin.id}/rotate"),
        ("DELETE", "/v1/auth/policies/filed"),
    ):
        answer = client.ask(method, target, None, **service.admin.field)
        assert answer.json["type"] == "/docs/problems/token-in-file"
    assert patch(client, service.admin, service.admin.id, disabled=True).status == 409


@pytest.mark.parametrize(
    "about",
    [
        {"name": ""},
        {"rules": ["raed keys:a"]},
        {"policies": ["nothing"]},
        {"rate": "fast"},
        {"from": ["here"]},
        {"ttl": 0},
        {"surprise": 1},
        {"rules": [f"read keys:{n:0200}" for n in range(100)]},
        {"rules": [f"read keys:{n}" for n in range(201)]},
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused(
    service: Guarded, client: Client, about: dict[str, Any]
) -> None:
    answer = client.post("/v1/auth/tokens", {"name": "x", **about}, **service.admin.field)
    assert answer.status == 400, answer


def test_no_answer_with_a_token_is_kept(service: Guarded, client: Client) -> None:
    again = {"Idempotency_Key": "once", **service.admin.field}
    assert client.post("/v1/auth/tokens", {"name": "x"}, **again).status == 400


def test_a_token_that_is_not_there_is_told(service: Guarded, client: Client) -> None:
    for method, target in (
        ("GET", "/v1/auth/tokens/AAAAAAAA"),
        ("DELETE", "/v1/auth/tokens/AAAAAAAA"),
        ("POST", "/v1/auth/tokens/AAAAAAAA/rotate"),
        ("DELETE", "/v1/auth/policies/nothing"),
    ):
        answer = client.ask(method, target, None, **service.admin.field)
        assert (answer.status, answer.json["type"]) == (404, "/docs/problems/token-not-found")


def test_a_policy_counts_for_all_who_have_it(service: Guarded, client: Client) -> None:
    path = "/v1/auth/policies/team"
    admin = {"Content_Type": "application/json", **service.admin.field}
    assert client.ask("PUT", path, b'{"rules":["read keys:a*"]}', **admin).status == 201
    who = made(client, service.admin, policies=["team"])
    assert client.get("/get/a", **who.field).status == 404
    assert client.ask("PUT", path, b'{"rules":["read keys:b*"]}', **admin).status == 204
    assert client.get("/get/a", **who.field).status == 403
    assert client.get("/get/b", **who.field).status == 404
    names = {one["name"]: one for one in client.get("/v1/auth/policies", **admin).json["policies"]}
    assert names["team"]["source"] == "store"
    assert names["filed"]["source"] == "file"
    assert names["read-only"]["source"] == "built-in"
    in_use = client.delete(path, **service.admin.field)
    assert (in_use.status, in_use.json["type"]) == (409, "/docs/problems/policy-in-use")
    assert who.id in in_use.json["detail"]
    client.delete(f"/v1/auth/tokens/{who.id}", **service.admin.field)
    assert client.delete(path, **service.admin.field).status == 204
    for wrong in (b'{"rules":["x"]}', b"{}", b'{"rules":[],"rate":"x"}'):
        assert client.ask("PUT", path, wrong, **admin).status == 400
    assert client.ask("PUT", "/v1/auth/policies/admin", b'{"rules":[]}', **admin).status == 400


def test_who_one_is_and_what_one_may_do(service: Guarded, client: Client) -> None:
    who = made(client, service.admin, rules=["read keys:a*", "deny read keys:ab"])
    me = client.get("/v1/auth/self", **who.field).json
    assert (me["id"], me["source"], me["anonymous"]) == (who.id, "store", False)
    assert me["rules"] == ["deny read keys:ab", "read keys:a*"]
    checks = [
        {"verb": "read", "key": "abc"},
        {"verb": "read", "key": "ab"},
        {"verb": "set", "key": "a"},
        {"verb": "lock", "lock": "a"},
    ]
    results = client.post("/v1/auth/check", {"checks": checks}, **who.field).json["results"]
    assert [(one["allowed"], one["rule"]) for one in results] == [
        (True, "read keys:a*"),
        (False, "deny read keys:ab"),
        (False, None),
        (False, None),
    ]
    other = {"checks": checks[:1], "token": service.admin.id}
    assert client.post("/v1/auth/check", other, **who.field).status == 403
    by_admin = {"checks": checks[:2], "token": who.id}
    told = client.post("/v1/auth/check", by_admin, **service.admin.field).json["results"]
    assert [one["allowed"] for one in told] == [True, False]
    for wrong in ([], [{"verb": "read"}], [{"verb": "lock", "key": "a"}],
                  [{"verb": "read", "key": "a", "lock": "a"}]):  # fmt: skip
        assert client.post("/v1/auth/check", {"checks": wrong}, **who.field).status == 400


# Tickets


def test_a_ticket_does_what_it_says_for_as_long_as_it_says(
    service: Guarded, client: Client
) -> None:
    who = made(client, service.admin, rules=["read keys:a*"])
    asked = {"rules": ["read keys:ab"], "ttl": 2}
    answer = client.post("/v1/auth/tickets", asked, **who.field)
    assert answer.status == 201
    ticket = {"Authorization": f"Bearer {answer.json['ticket']}"}
    for _ in range(3):
        assert client.get("/get/ab", **ticket).status == 404
        assert client.get("/get/ac", **ticket).status == 403
    assert client.get("/v1/auth/self", **ticket).json["source"] == "ticket"
    assert client.post("/v1/auth/tickets", asked, **ticket).status == 400
    time.sleep(3.5)
    assert client.get("/get/ab", **ticket).status == 401


def test_a_ticket_dies_with_its_maker(service: Guarded, client: Client) -> None:
    who = made(client, service.admin, rules=["read keys:a*"])
    asked = {"rules": ["read keys:ab"], "ttl": 60}
    text = client.post("/v1/auth/tickets", asked, **who.field).json["ticket"]
    ticket = {"Authorization": f"Bearer {text}"}
    assert client.get("/get/ab", **ticket).status == 404
    client.delete(f"/v1/auth/tokens/{who.id}", **service.admin.field)
    assert client.get("/get/ab", **ticket).status == 401


def test_nobody_makes_a_ticket_for_more_than_he_may(service: Guarded, client: Client) -> None:
    who = made(client, service.admin, rules=["read keys:a*", "deny read keys:ab"])
    for rule in ("read keys:a*", "set keys:a", "admin", "read keys:ab"):
        answer = client.post("/v1/auth/tickets", {"rules": [rule]}, **who.field)
        assert (answer.status, answer.json["rule"]) == (403, rule)
    for wrong in ({"rules": []}, {"rules": ["x"]}, {"rules": ["read keys:aa"], "ttl": 86401}):
        assert client.post("/v1/auth/tickets", wrong, **who.field).status == 400


def ticket_for(client: Client, who: Who, *rules: str, ttl: float = 60) -> str:
    answer = client.post("/v1/auth/tickets", {"rules": rules, "ttl": ttl}, **who.field)
    assert answer.status == 201, answer
    text = answer.json["ticket"]
    assert isinstance(text, str)
    return text


def test_a_ticket_may_stand_in_the_address_of_a_key_and_of_a_watch(
    service: Guarded, client: Client
) -> None:
    who = made(client, service.admin, rules=["all keys:link/*"])
    text = ticket_for(client, who, "read,set keys:link/report", "watch keys:link/*")
    link = f"/v1/keys/link/report?ticket={text}"
    for _ in range(3):
        assert client.ask("PUT", link + "&ttl=60", b"uploaded").status in (201, 204)
        read = client.get(link)
        assert (read.status, read.body) == (200, b"uploaded")
        assert read["Referrer-Policy"] == "no-referrer"
        assert client.ask("HEAD", link).status == 200
    assert client.get(f"/v1/keys/link/other?ticket={text}").status == 403
    assert client.ask("DELETE", link).status == 401
    assert client.get(f"/get/link/report?ticket={text}").status == 401
    assert client.get(f"/v1/keys?ticket={text}").status == 401
    assert client.get(link + "x").status == 401
    assert client.get(f"{link}&ticket={text}").status == 400
    assert client.get(link, **who.field).status == 400
    with Watch(service.server, f"?prefix=link/&ticket={text}") as watch:
        assert watch.next().event == "synced"
        # Whatever else changes in the meantime.
        other = made(client, service.admin, rules=["read keys:a"])
        client.put("link/x", **who.field)
        assert watch.next().data["key"] == "link/x"
        client.delete(f"/v1/auth/tokens/{other.id}", **service.admin.field)
        client.delete(f"/v1/auth/tokens/{who.id}", **service.admin.field)
        assert watch.next().data["reason"] == "revoked"
    assert client.get(link).status == 401
    assert text not in service.server.log()


def test_a_body_is_not_read_for_a_ticket_that_may_not(service: Guarded, client: Client) -> None:
    who = made(client, service.admin, rules=["all keys:link/*"])
    text = ticket_for(client, who, "read keys:link/report")
    with service.server.connect() as wire:
        wire.send(
            b"PUT /v1/keys/link/report?ticket=%b HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 1000\r\n\r\n" % text.encode()
        )
        assert wire.answer().status == 403


def test_all_tickets_end_when_their_key_is_replaced(service: Guarded, client: Client) -> None:
    asked = {"rules": ["read keys:a"], "ttl": 60}
    text = client.post("/v1/auth/tickets", asked, **service.admin.field).json["ticket"]
    ticket = {"Authorization": f"Bearer {text}"}
    assert client.get("/get/a", **ticket).status == 404
    assert client.ask("POST", "/v1/auth/tickets/rotate", None, **service.admin.field).status == 204
    assert client.get("/get/a", **ticket).status == 401


# What becomes of them


def test_the_last_who_administers_stays() -> None:
    made_at_start = tokens.new()
    with (
        Server(environ={"KEYRACK_TOKEN": made_at_start.text}) as server,
        Client(server) as client,
    ):
        first = Who(made_at_start.id, made_at_start.text)
        other = made(client, first, policies=["admin"])
        assert client.delete(f"/v1/auth/tokens/{other.id}", **other.field).status == 204


def test_tokens_outlive_a_restart_and_are_in_no_export(tmp_path: Path, memory: Path) -> None:
    store = str(memory / "store")
    data = str(tmp_path / "data")
    flags = ("--store", store, "--durability", "commit", "--data-dir", data)
    one = Guarded("", *flags)
    with one, Client(one.server) as client:
        who = made(client, one.admin, rules=["read keys:*"])
        client.put("a", b"v", **one.admin.field)
        with one.server.connect() as wire:
            wire.send(
                b"GET /v1/export HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Authorization: Bearer %b\r\n\r\n" % one.admin.text.encode()
            )
            told = b""
            while piece := wire.socket.recv(65536):
                told += piece
        assert b'"key":"a"' in told
        assert who.id.encode() not in told
        assert client.get("/v1/info", **one.admin.field).json["keys"] == 1
        assert client.delete("/v1/keys?all=true", **one.admin.field).json["deleted"] == 1
        assert client.get("/get/a", **who.field).status == 404
    shutil.rmtree(store)  # what is on the disk is all that is left
    with one, Client(one.server) as client:
        assert client.get("/get/a", **who.field).status == 404
        assert client.delete(f"/v1/auth/tokens/{who.id}", **one.admin.field).status == 204
    with one, Client(one.server) as client:
        assert client.get("/get/a", **who.field).status == 401


def test_without_access_control_there_are_no_tokens() -> None:
    with Server() as server, Client(server) as client:
        answer = client.get("/v1/auth/tokens")
        assert (answer.status, answer.json["type"]) == (409, "/docs/problems/no-access-control")
        me = client.get("/v1/auth/self").json
        assert (me["source"], me["id"]) == ("open", None)


# Two who change one token


def test_a_change_that_names_an_earlier_state_is_refused(client: Client, service: Guarded) -> None:
    field = service.admin.field
    made = client.post("/v1/auth/tokens", {"name": "ci", "rules": ["read keys:a"]}, **field)
    path = f"/v1/auth/tokens/{made.json['id']}"
    tag = client.get(path, **field)["etag"]
    assert tag == made["etag"]
    first = merge(client, path, {"name": "one"}, If_Match=tag, **field)
    assert (first.status, first["etag"] != tag) == (200, True)
    second = merge(client, path, {"name": "two"}, If_Match=tag, **field)
    assert (second.status, second["etag"]) == (412, first["etag"])
    for method, target in (("DELETE", path), ("POST", path + "/rotate")):
        refused = client.ask(method, target, If_Match=tag, **field)
        assert (refused.status, refused["etag"]) == (412, first["etag"])
    assert client.get(path, **field).json["name"] == "one"
    assert merge(client, path, {"name": "x"}, If_Match='W/"1"', **field).status == 412
    assert merge(client, path, {"name": "x"}, If_Match="1", **field).status == 400
    assert merge(client, path, {"name": "x"}, If_Match="*", **field).status == 200
    now = client.get(path, **field)["etag"]
    assert client.ask("POST", path + "/rotate", If_Match=now, **field).status == 200
    now = client.get(path, **field)["etag"]
    assert client.delete(path, If_Match=now, **field).status == 204


def merge(client: Client, path: str, document: object, **fields: str) -> Answer:
    kind = {"Content_Type": "application/merge-patch+json", **fields}
    return client.ask("PATCH", path, json.dumps(document).encode(), **kind)


def test_a_token_of_the_file_has_no_etag(client: Client, service: Guarded) -> None:
    answer = client.get(f"/v1/auth/tokens/{service.admin.id}", **service.admin.field)
    assert (answer.status, answer.get("etag")) == (200, None)


def test_of_two_administrators_at_once_neither_loses_a_change() -> None:
    """In four workers at the same moment: with an ETag one is refused, without both are done."""
    with Guarded(workers=4) as service, spread(service.server) as clients:
        field = service.admin.field
        for turn in range(10):
            made = clients[0].post("/v1/auth/tokens", {"name": "ci"}, **field)
            path = f"/v1/auth/tokens/{made.json['id']}"
            each = [{"name": f"n{turn}"}, {"rules": [f"read keys:{turn}"]},
                    {"watches": turn + 1}, {"disabled": True}]  # fmt: skip
            kind = {"Content_Type": "application/merge-patch+json", **field}
            for fields in ({"If_Match": made["etag"], **kind}, kind):
                for client, document in zip(clients, each, strict=True):
                    client.wire.send(
                        request("PATCH", path, json.dumps(document).encode(), **fields)
                    )
                found = sorted(client.wire.answer("PATCH").status for client in clients)
                assert found == ([200, 412, 412, 412] if "If_Match" in fields else [200] * 4)
            shown = clients[1].get(path, **field).json
            assert (shown["name"], shown["watches"], shown["disabled"]) == (
                f"n{turn}",
                turn + 1,
                True,
            )
            assert shown["rules"] == [f"read keys:{turn}"]
            # Whoever revokes goes before whoever changes.
            clients[0].wire.send(request("DELETE", path, **field))
            clients[1].wire.send(request("PATCH", path, b'{"name":"late"}', **kind))
            assert clients[0].wire.answer("PATCH").status == 204
            assert clients[1].wire.answer("PATCH").status in (200, 404)
            assert clients[2].get(path, **field).status == 404
