"""Every operation, asked by everybody: who is let in, and how the others are told."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, Watch, quoted
from keyrack_server import Answer, request
from keyrack_server.wire import parse

from keyrack.access import tokens
from keyrack.http.api.rights import NEEDS
from keyrack.http.api.routes import ROUTES

if TYPE_CHECKING:
    from access.conftest import Cast
    from access_support import Who

NDJSON = {"Content_Type": "application/x-ndjson"}
JSON = {"Content_Type": "application/json"}

# What each operation is asked for: method, target, body, further fields.
REQUESTS: dict[str, tuple[str, str, bytes | None, dict[str, str]]] = {
    "set": ("POST", "/set", b'{"key":"app/k","value":"v"}', JSON),
    "get": ("GET", "/get/app/k", None, {}),
    "key_get": ("GET", "/v1/keys/app/k", None, {}),
    "key_put": ("PUT", "/v1/keys/app/k", b"v", {}),
    "key_delete": ("DELETE", "/v1/keys/app/gone", None, {}),
    "key_patch": (
        "PATCH", "/v1/keys/app/json", b"{}", {"Content_Type": "application/merge-patch+json"},
    ),
    "keys_list": ("GET", "/v1/keys?prefix=app/", None, {}),
    "keys_delete": ("DELETE", "/v1/keys?prefix=app/nothing/", None, {}),
    "undos": ("GET", "/v1/undo", None, {}),
    "undo": ("POST", "/v1/undo/1", None, {}),
    "batch": ("POST", "/v1/batch", b'{"operations":[{"op":"get","key":"app/k"}]}', JSON),
    "counter": ("POST", "/v1/counters/app/n", b"{}", JSON),
    "lock_acquire": ("POST", "/v1/locks/app/l", b'{"owner":"o","ttl":0.001}', JSON),
    "lock_release": ("DELETE", "/v1/locks/app/free?token=1", None, {}),
    "lease_release": ("DELETE", "/v1/leases/app/free?token=1", None, {}),
    "locks_list": ("GET", "/v1/locks?prefix=app/", None, {}),
    "lock_show": ("GET", "/v1/locks/app/free", None, {}),
    "watch": ("GET", "/v1/watch?prefix=app/open/", None, {}),
    "key_events": ("GET", "/v1/events/app/k", None, {}),
    "export": ("GET", "/v1/export?prefix=app/open/", None, {}),
    "import": ("POST", "/v1/import", b'{"key":"app/k","value":"v"}\n', NDJSON),
    "snapshot": ("GET", "/v1/snapshot", None, {}),
    "metrics": ("GET", "/metrics", None, {}),
    "info": ("GET", "/v1/info", None, {}),
    "limits": ("GET", "/v1/limits", None, {}),
    "healthz": ("GET", "/healthz", None, {}),
    "readyz": ("GET", "/readyz", None, {}),
    "openapi": ("GET", "/openapi.json", None, {}),
    "docs": ("GET", "/docs", None, {}),
    "home": ("GET", "/", None, {}),
}  # fmt: skip
for _name, _method, _path, _body in (
    ("auth_tokens_list", "GET", "/v1/auth/tokens", None),
    ("auth_token_create", "POST", "/v1/auth/tokens", b'{"name":"made"}'),
    ("auth_token_show", "GET", "/v1/auth/tokens/AAAAAAAA", None),
    ("auth_token_change", "PATCH", "/v1/auth/tokens/AAAAAAAA", b"{}"),
    ("auth_token_revoke", "DELETE", "/v1/auth/tokens/AAAAAAAA", None),
    ("auth_token_rotate", "POST", "/v1/auth/tokens/AAAAAAAA/rotate", b"{}"),
    ("slow", "GET", "/v1/slow", None),
    ("slow_clear", "DELETE", "/v1/slow", None),
    ("hot", "GET", "/v1/hot?seconds=1", None),
    ("big", "GET", "/v1/big", None),
    ("clients_list", "GET", "/v1/clients", None),
    ("client_end", "DELETE", "/v1/clients/nobody", None),
    ("auth_policies_list", "GET", "/v1/auth/policies", None),
    ("auth_policy_put", "PUT", "/v1/auth/policies/made", b'{"rules":[]}'),
    ("auth_policy_delete", "DELETE", "/v1/auth/policies/nothing", None),
    ("auth_self", "GET", "/v1/auth/self", None),
    ("auth_check", "POST", "/v1/auth/check", b'{"checks":[{"verb":"read","key":"a"}]}'),
    ("terraform_write", "POST", "/v1/terraform/app?durability=none", b"{}"),
    ("terraform_read", "GET", "/v1/terraform/app", None),
    ("terraform_remove", "DELETE", "/v1/terraform/app?durability=none", None),
    ("terraform_lock", "POST", "/v1/terraform/app/lock?durability=none", b'{"ID":"1"}'),
    ("terraform_lock_show", "GET", "/v1/terraform/app/lock", None),
    ("terraform_unlock", "DELETE", "/v1/terraform/app/lock", b'{"ID":"1"}'),
    ("terraform_versions", "GET", "/v1/terraform/app/versions", None),
    ("terraform_restore", "POST", "/v1/terraform/app/versions?version=1&durability=none", None),
    ("auth_ticket_create", "POST", "/v1/auth/tickets", b'{"rules":["deny read keys:a"]}'),
    ("auth_tickets_rotate", "POST", "/v1/auth/tickets/rotate", None),
    ("fences_list", "GET", "/v1/fences", None),
    ("fence_show", "GET", "/v1/fences/none", None),
    ("fence_put", "PUT", "/v1/fences/made", b'{"keys":"fenced/*","lock":"l"}'),
    ("fence_drop", "DELETE", "/v1/fences/none", None),
    ("quotas_list", "GET", "/v1/quotas", None),
    ("quota_show", "GET", "/v1/quotas/none", None),
    ("quota_put", "PUT", "/v1/quotas/made", b'{"prefix":"limited/","max_keys":9}'),
    ("quota_drop", "DELETE", "/v1/quotas/none", None),
):
    REQUESTS[_name] = (_method, _path, _body, JSON if _body else {})
_OPEN = {"healthz", "readyz", "openapi", "docs", "home"}
_ANY = {
    "info", "limits", "batch", "locks_list", "auth_self", "auth_check", "auth_ticket_create",
    "undos", "undo",
}  # fmt: skip
_READS = {
    "get", "key_get", "keys_list", "lock_show", "watch", "key_events", "export",
    "terraform_read", "terraform_lock_show", "terraform_versions",
}  # fmt: skip
_WRITES = {
    "set", "key_put", "key_delete", "key_patch", "keys_delete", "import", "lease_release",
    "terraform_write", "terraform_remove", "terraform_lock", "terraform_unlock",
    "terraform_restore",
}  # fmt: skip
# Who may do what. Whoever is not named may do nothing but what is open.
MAY = {
    "admin": set(ROUTES),
    "reader": _OPEN | _ANY | _READS,
    "writer": _OPEN | _ANY - {"batch"} | _WRITES,
    "app": (_OPEN | _ANY | _READS | _WRITES | {"counter", "lock_acquire", "lock_release"}),
    "metrics": _OPEN | _ANY - {"batch"} | {"metrics"},
    "helpless": _OPEN | _ANY - {"batch"},
}


def ask(client: Client, name: str, **fields: str) -> Answer:
    method, target, body, more = REQUESTS[name]
    if name in ("watch", "export", "big"):
        return begun(client, target, **fields)
    return client.ask(method, target, body, **more, **fields)


def begun(client: Client, target: str, **fields: str) -> Answer:
    """Return the answer to a request whose answer may be a stream, without what is in that."""
    with client.another() as wire:
        wire.send(request("GET", target, **fields))
        data = b""
        while b"\r\n\r\n" not in data:
            data += wire.socket.recv(65536)
        if data.startswith(b"HTTP/1.1 200 "):
            return Answer(200, (), b"")
        while (found := parse(data)) is None:
            data += wire.socket.recv(65536)
        return found[0]


def check_refused(answer: Answer, name: str, status: int, slug: str) -> None:
    assert answer.status == status, answer
    challenges = [value for field, value in answer.fields if field == "www-authenticate"]
    assert challenges[0].startswith('Bearer realm="keyrack"')
    if name in ("get", "set"):
        assert answer.json.keys() == {"status", "message"}
        assert answer.json["status"] == "error"
    else:
        assert answer.json["type"] == f"/docs/problems/{slug}"
        assert answer["Content-Type"] == "application/problem+json"


def test_every_operation_has_its_row() -> None:
    assert NEEDS.keys() == ROUTES.keys()
    assert REQUESTS.keys() == ROUTES.keys()
    assert set().union(*MAY.values()) == set(ROUTES)
    assert {name for name, need in NEEDS.items() if need.check is None} == _OPEN


@pytest.mark.parametrize("name", ROUTES)
def test_who_shows_nothing_is_let_in_to_what_is_open_alone(client: Client, name: str) -> None:
    answer = ask(client, name)
    if name in _OPEN:
        assert answer.status == 200
    else:
        check_refused(answer, name, 401, "unauthenticated")


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("who", MAY)
def test_whoever_is_known_may_do_what_the_rules_say(
    client: Client, cast: Cast, who: str, name: str
) -> None:
    if name == "key_patch":
        client.put("app/json", b"{}", Content_Type="application/json", **cast.admin.field)
    caller: Who = getattr(cast, who)
    answer = ask(client, name, **caller.field)
    if name in MAY[who]:
        assert answer.status not in (401, 403), answer
    else:
        check_refused(answer, name, 403, "forbidden")


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("credentials", ["expired", "disabled", "unknown", "mistyped", "other"])
def test_credentials_that_do_not_count_open_nothing(
    client: Client, cast: Cast, credentials: str, name: str
) -> None:
    field = {
        "expired": cast.expired.field["Authorization"],
        "disabled": cast.disabled.field["Authorization"],
        "unknown": f"Bearer {tokens.new().text}",
        "mistyped": f"Bearer {cast.admin.text[:-1]}_",
        "other": "Digest abc",
    }[credentials]
    with Client(cast.service.server) as other:
        for _ in range(2):
            answer = ask(other, name, Authorization=field)
            if name in _OPEN:
                assert answer.status == 200
            elif answer.status != 429:  # this address has guessed often, in this test
                check_refused(answer, name, 401, "invalid-token")
                if name not in ("get", "set"):
                    assert ("time is over" in answer.json["detail"]) == (credentials == "expired")


def judged(client: Client, token: str) -> Answer:
    """Return the answer to a token: not at once where this address has guessed often, in tests."""
    deadline = time.monotonic() + 60
    while True:
        answer = client.get("/v1/info", Authorization=f"Bearer {token}")
        if answer.status != 429:
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(float(answer["Retry-After"]))


def test_unknown_and_disabled_tokens_are_told_the_same(client: Client, cast: Cast) -> None:
    told = []
    for text in (cast.disabled.text, tokens.new().text):
        answer = judged(client, text)
        # The public part of what was shown is all that differs.
        told.append((answer.status, {**answer.json, "token": None}))
    assert told[0] == told[1]


# Spellings


SPELLINGS = [
    "app/secret/x",
    "app%2Fsecret%2Fx",
    "%61pp/secret/x",
    "app/secre%74/x",
    "%61%70%70%2f%73%65%63%72%65%74%2f%78",
]


@pytest.mark.parametrize("spelt", SPELLINGS)
@pytest.mark.parametrize("pipelined", [False, True])
def test_a_key_is_judged_by_its_bytes_however_it_is_spelt(
    client: Client, cast: Cast, app: Who, spelt: str, pipelined: bool
) -> None:
    client.put("app/secret/x", b"secret", **cast.admin.field)
    for path in ("/get/", "/v1/keys/", "/v1/events/"):
        for _ in range(3):  # the header section is recognised from the second time on
            if pipelined:
                client.get("/v1/keys/app/k", **app.field)
            answer = client.get(path + spelt, **app.field)
            assert answer.status == 403, (path, answer)
            assert b"secret" not in answer.body.replace(b"app/secret", b"")
    for method, body in (("PUT", b"v"), ("DELETE", None)):
        for _ in range(3):
            assert client.ask(method, "/v1/keys/" + spelt, body, **app.field).status == 403
    assert client.get("/v1/keys/app/secret/x", **cast.admin.field).body == b"secret"


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("app/", True),
        ("app/x", True),
        ("app", False),
        ("app0", False),
        ("ap", False),
        ("App/x", False),
        ("app/secret", True),
        ("app/secret/", False),
        ("app/secret0", True),
        ("app/secret/open", True),
        ("app/secret/open2", False),
        ("app//x", True),
        ("/app/x", False),
        ("app/../other", True),  # keys are not paths
        ("app/caf\u00e9", True),
        ("a\u0301pp/x", False),
    ],
)
def test_the_edges_of_a_prefix(client: Client, app: Who, key: str, allowed: bool) -> None:
    for _ in range(2):
        assert (client.get(f"/v1/keys/{quoted(key)}", **app.field).status != 403) == allowed
        assert (client.get(f"/get/{quoted(key)}", **app.field).status != 403) == allowed
    if key == "app/secret/open":
        return
    body = json.dumps({"key": key, "value": "v"}).encode()
    for _ in range(2):
        answer = client.ask("PUT", f"/v1/keys/{quoted(key)}", b"v", **app.field)
        assert (answer.status != 403) == allowed
        assert (client.post("/set", body, **app.field).status == 200) == allowed
        batch = client.batch({"op": "set", "key": key, "value": "v"}, **app.field)
        assert (batch.status == 200) == allowed
        lines = client.ask("POST", "/v1/import", body + b"\n", **NDJSON, **app.field).json
        assert (lines["imported"] == 1) == allowed


def test_composed_and_decomposed_characters_are_different_keys(cast: Cast, client: Client) -> None:
    service = cast.service
    assert service.server
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    client.put(nfc, b"one", **cast.admin.field)
    client.put(nfd, b"two", **cast.admin.field)
    assert client.get(f"/v1/keys/{quoted(nfc)}", **cast.reader.field).body == b"one"
    assert client.get(f"/v1/keys/{quoted(nfd)}", **cast.reader.field).body == b"two"


# Answers


def test_a_refusal_names_the_rule_that_decided(client: Client, app: Who) -> None:
    told = client.get("/v1/keys/app/secret/x", **app.field).json
    assert (told["token"], told["verb"]) == (app.id, "read")
    assert told["rule"] == "deny all keys:app/secret/*"
    told = client.get("/v1/keys/other", **app.field).json
    assert told["rule"] is None
    assert "no rule allows it" in told["detail"]


def test_it_is_not_told_whether_a_key_exists(client: Client, cast: Cast, app: Who) -> None:
    client.put("other/there", b"v", **cast.admin.field)
    answers = [client.get(f"/v1/keys/other/{key}", **app.field) for key in ("there", "nope!")]
    assert {(one.status, len(one.body)) for one in answers} == {(403, len(answers[0].body))}
    wrong = {"If_Match": '"1"'}
    assert client.ask("PUT", "/v1/keys/other/there", b"v", **wrong, **app.field).status == 403


def test_a_refused_request_is_answered_before_its_body_has_come(cast: Cast, app: Who) -> None:
    for target in ("/v1/keys/other", "/v1/counters/other", "/v1/locks/other", "/v1/import"):
        method = "PUT" if "keys" in target else "POST"
        caller = cast.reader if target == "/v1/import" else app
        with cast.service.server.connect() as wire:
            wire.send(
                f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
                f"Authorization: Bearer {caller.text}\r\n\r\n".encode()
            )
            answer = wire.answer()
            assert answer.status == 403, target  # and not 413
            assert answer.closes


def test_whoever_waits_for_a_word_before_the_body_gets_the_refusal(cast: Cast, app: Who) -> None:
    with cast.service.server.connect() as wire:
        wire.send(
            b"PUT /v1/keys/other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Expect: 100-continue\r\nAuthorization: Bearer %b\r\n\r\n" % app.text.encode()
        )
        assert wire.answer().status == 403


def test_a_browser_is_not_told_of_basic(client: Client) -> None:
    answer = client.get("/v1/info", Sec_Fetch_Site="same-origin")
    challenges = [value for field, value in answer.fields if field == "www-authenticate"]
    assert challenges == ['Bearer realm="keyrack"']


def test_two_credentials_are_refused(cast: Cast, app: Who) -> None:
    with cast.service.server.connect() as wire:
        wire.send(
            b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % (app.text.encode(), cast.admin.text.encode())
        )
        assert wire.answer().status == 400


def test_basic_is_as_good_as_bearer(cast: Cast, client: Client, app: Who) -> None:
    import base64

    pair = base64.b64encode(f"anybody:{app.text}".encode()).decode()
    for _ in range(2):
        assert client.put("app/basic", Authorization=f"Basic {pair}")
        assert client.get("/v1/keys/other", Authorization=f"Basic {pair}").status == 403


def test_no_answer_is_stored_and_none_shows_a_token(cast: Cast, client: Client) -> None:
    for name in ROUTES:
        answer = ask(client, name, **cast.helpless.field)
        assert cast.helpless.text.encode() not in answer.body
    assert cast.helpless.text[12:45] not in cast.service.server.log()


# Several keys at once


def test_a_batch_is_refused_as_a_whole_with_the_operation_that_may_not(
    client: Client, cast: Cast, app: Who
) -> None:
    operations: list[dict[str, Any]] = [
        {"op": "set", "key": "app/batch", "value": "v"},
        {"op": "get", "key": "app/secret/x"},
    ]
    told = client.batch(*operations, **app.field)
    assert told.status == 403
    assert told.json["operation"] == 1
    assert told.json["rule"] == "deny all keys:app/secret/*"
    assert client.get("/v1/keys/app/batch", **cast.admin.field).status == 404


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "get", "key": "other"},
        {"op": "set", "key": "other", "value": "v"},
        {"op": "delete", "key": "other"},
        {"op": "add", "key": "other", "delta": "1"},
        {"op": "touch", "key": "other", "ttl": 1},
        {"op": "check", "key": "other", "if_none_match": "*"},
        {"op": "check", "lock": "other", "token": "1"},
    ],
    ids=lambda operation: operation["op"],
)
def test_each_operation_of_a_batch_needs_its_own_right(
    client: Client, app: Who, operation: dict[str, Any]
) -> None:
    assert client.batch(operation, **app.field).status == 403


def test_a_token_that_only_writes_adds_to_nothing_whose_sum_it_would_be_told(
    client: Client, cast: Cast
) -> None:
    add = {"op": "add", "key": "app/n", "delta": "1"}
    assert client.batch(add, **cast.writer.field).status == 403
    assert client.post("/v1/counters/app/n", {}, **cast.writer.field).status == 403


def test_lines_of_an_import_that_may_not_be_are_reported(client: Client, app: Who) -> None:
    lines = b"".join(
        json.dumps({"key": key, "value": "v"}).encode() + b"\n"
        for key in ("app/one", "other", "app/two", "app/secret/x")
    )
    report = client.ask("POST", "/v1/import", lines, **NDJSON, **app.field).json
    assert (report["imported"], report["failed"]) == (2, 2)
    assert [one["line"] for one in report["errors"]] == [2, 4]
    assert "may not set 'other'" in report["errors"][0]["detail"]


def test_a_list_shows_what_may_be_listed_and_says_so(client: Client, cast: Cast, app: Who) -> None:
    for key in ("list/a", "list/b", "app/secret/listed", "app/listed/a"):
        client.put(key, **cast.admin.field)
    whole = client.get("/v1/keys?prefix=list/", **cast.reader.field)
    assert len(whole.json["keys"]) == 2
    assert "filtered" not in whole.json
    assert whole.get("Keyrack-Filtered") is None
    part = client.get("/v1/keys?limit=1000", **app.field)
    keys = [one["key"] for one in part.json["keys"]]
    assert "app/listed/a" in keys
    assert all(key.startswith("app/") and not key.startswith("app/secret/") for key in keys)
    assert part.json["filtered"] is True
    assert part["Keyrack-Filtered"] == "true"
    assert client.get("/v1/keys?prefix=list/", **app.field).status == 403
    inside = client.get("/v1/keys?prefix=app/listed/", **app.field)
    assert "filtered" not in inside.json


def test_a_folder_is_shown_where_anything_in_it_may_be_listed(
    client: Client, cast: Cast, app: Who
) -> None:
    for key in ("folder/x", "app/in/x", "app/secret/y"):
        client.put(key, **cast.admin.field)
    top = client.get("/v1/keys?delimiter=/", **app.field).json
    assert top["folders"] == ["app/"]
    inside = client.get("/v1/keys?delimiter=/&prefix=app/", **app.field).json
    assert "app/in/" in inside["folders"]
    assert "app/secret/" not in inside["folders"]


def test_values_are_shown_of_keys_that_may_be_read_alone(client: Client, cast: Cast) -> None:
    caller = cast.service.add("list keys:values/*", "read keys:values/open/*")
    client.put("values/open/a", b"shown", **cast.admin.field)
    client.put("values/shut/a", b"hidden", **cast.admin.field)
    wait_until_known(client, caller)
    names = client.get("/v1/keys?prefix=values/", **caller.field).json
    assert len(names["keys"]) == 2
    shown = client.get("/v1/keys?prefix=values/&values=true", **caller.field)
    assert [one["key"] for one in shown.json["keys"]] == ["values/open/a"]
    assert shown.json["filtered"] is True
    assert client.get("/v1/keys?prefix=values/shut/&values=true", **caller.field).status == 403


def wait_until_known(client: Client, caller: Who) -> None:
    import time

    deadline = time.monotonic() + 30
    while client.get("/v1/limits", **caller.field).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/keys?prefix=app/&count_only=true"),
        ("GET", "/v1/keys?count_only=true"),
        ("DELETE", "/v1/keys?prefix=app/"),
        ("DELETE", "/v1/keys?prefix=app/&dry_run=true"),
        ("DELETE", "/v1/keys?prefix=app/secret/"),
        ("DELETE", "/v1/keys?all=true"),
        ("GET", "/v1/export?prefix=app/"),
        ("GET", "/v1/export"),
        ("GET", "/v1/watch?prefix=app/"),
        ("GET", "/v1/watch?prefix=app/in/&prefix=other/"),
    ],
)
def test_nothing_is_silently_done_in_part(
    client: Client, app: Who, method: str, target: str
) -> None:
    told = client.ask(method, target, **app.field)
    assert told.status == 403
    assert "all keys" in told.json["detail"]


def test_what_is_allowed_as_a_whole_is_counted_exported_watched_and_deleted(
    client: Client, app: Who
) -> None:
    for n in range(3):
        client.put(f"app/whole/{n}", **app.field)
    count = client.get("/v1/keys?prefix=app/whole/&count_only=true", **app.field)
    assert count.json["count"] == 3
    dry = client.delete("/v1/keys?prefix=app/whole/&dry_run=true", **app.field)
    assert dry.json["deleted"] == 3
    assert client.delete("/v1/keys?prefix=app/whole/", **app.field).json["deleted"] == 3


def test_a_watch_without_a_prefix_tells_what_may_be_watched_and_which_that_is(
    client: Client, cast: Cast
) -> None:
    caller = cast.service.add("watch keys:w/a/*", "watch keys:w/b/*", "watch keys:w/b/c/*")
    wait_until_known(client, caller)
    with Watch(cast.service.server, **caller.field) as watch:
        synced = watch.next()
        assert synced.event == "synced"
        assert synced.data["prefixes"] == ["w/a/", "w/b/"]
        for key in ("w/other", "w/a/x", "w/c/x", "w/b/x"):
            client.put(key, **cast.admin.field)
        assert [watch.next().data["key"] for _ in range(2)] == ["w/a/x", "w/b/x"]


def test_counts_of_the_whole_store_are_for_those_who_may_list_all_of_it(
    client: Client, cast: Cast, app: Who
) -> None:
    hidden = {"keys", "keys_with_ttl", "events", "evicted"}
    assert hidden <= client.get("/v1/info", **cast.reader.field).json.keys()
    assert hidden.isdisjoint(client.get("/v1/info", **app.field).json.keys())
    assert client.get("/v1/info", **app.field).json["auth"] == "tokens"


# Answers that are kept


def test_an_idempotency_key_is_one_token_s(client: Client, cast: Cast, app: Who) -> None:
    other = cast.service.add(policies=("app",))
    wait_until_known(client, other)
    again = {"Idempotency_Key": "the-same"}
    target, body = "/v1/counters/app/idempotent", {"delta": "1"}
    first = client.post(target, body, **again, **app.field)
    assert client.post(target, body, **again, **app.field).body == first.body
    second = client.post(target, body, **again, **other.field)
    assert second.status == 200
    assert second.json["value"] != first.json["value"]


# What a worker remembers


def test_wrong_credentials_do_not_push_others_out_of_memory(cast: Cast, app: Who) -> None:
    """A header section with wrong credentials is never recognised, so guessing is no use."""
    with Client(cast.service.server) as client:
        for n in range(50):
            wrong = {"Authorization": f"Bearer {tokens.new().text}", "X_N": str(n)}
            assert client.get("/v1/keys/app/k", **wrong).status in (401, 429)
        assert client.get("/v1/keys/app/k", **app.field).status in (200, 404)


def test_a_lease_is_for_those_who_may_store_the_key(client: Client, cast: Cast) -> None:
    offers = {"Prefer": "recompute=15"}
    denied = client.get("/v1/keys/app/leased", **offers, **cast.reader.field)
    assert (denied.status, denied.get("Keyrack-Recompute")) == (404, None)
    given = client.get("/v1/keys/app/leased", **offers, **cast.app.field)
    assert (given.status, given.get("Keyrack-Recompute") is not None) == (404, True)
    assert client.get("/v1/keys/app/leased", **offers, **cast.reader.field)["Retry-After"] == "1"
    token = given["Keyrack-Recompute"].split('"')[1]
    target = f"/v1/leases/app/leased?token={token}"
    assert client.delete(target, **cast.reader.field).status == 403
    assert client.delete(target, **cast.app.field).status == 204
