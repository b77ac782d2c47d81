"""The audit trail: what is told of whom, at each level."""

from __future__ import annotations

from typing import Any

import pytest
from access_support import Guarded
from api_support import Client


def lines(service: Guarded) -> list[dict[str, Any]]:
    found = [one for one in service.server.log_lines() if one.get("event") == "audit"]
    return [one for one in found if one["operation"] != "healthz"]  # how the service is waited for


def told(level: str) -> tuple[Guarded, list[dict[str, Any]]]:
    """Return what is logged of a read, a write, a refusal, a stranger and an administrator."""
    service = Guarded("", "--audit", level)
    who = service.add("all keys:app/*")
    with service, Client(service.server) as client:
        for _ in range(3):
            assert client.get("/get/app/a", **who.field).status == 404
        assert client.put("app/a", b"a secret value", **who.field)
        body = b'{"key":"app/b","value":"another secret"}'
        for _ in range(2):
            assert client.post("/set", body, **who.field).status == 200
        assert client.get("/get/other?", X_Request_Id="r-1", **who.field).status == 403
        assert client.ask("PUT", "/v1/keys/other", b"v", **who.field).status == 403
        assert client.get("/get/app/a").status == 401
        made = client.post("/v1/auth/tokens", {"name": "x"}, **service.admin.field).json
        client.delete(f"/v1/auth/tokens/{made['id']}", **service.admin.field)
        found = lines(service)
        log = service.server.log()
    for secret in (who.text[12:45], made["token"][12:45], "secret value", "another secret"):
        assert secret not in log
    return service, found


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("none", []),
        ("admin", ["auth_token_create", "auth_token_revoke"]),
        ("denied", ["get", "key_put", "get", "auth_token_create", "auth_token_revoke"]),
        (
            "writes",
            ["key_put", "set", "set", "get", "key_put", "get", "auth_token_create",
             "auth_token_revoke"],
        ),
        (
            "all",
            ["get", "get", "get", "key_put", "set", "set", "get", "key_put", "get",
             "auth_token_create", "auth_token_revoke"],
        ),
    ],
)  # fmt: skip
def test_each_level_tells_what_it_says(level: str, expected: list[str]) -> None:
    _, found = told(level)
    assert [line["operation"] for line in found] == expected


def test_a_refusal_says_who_and_by_which_rule() -> None:
    service = Guarded()
    who = service.add("all keys:app/*", "deny read keys:app/secret/*", name="shop")
    with service, Client(service.server) as client:
        client.get("/get/app/secret/x", X_Request_Id="r-1", **who.field)
        (line,) = lines(service)
    assert line["logger"] == "keyrack.audit"
    assert (line["token"], line["identity"]) == (who.id, "file shop")
    assert (line["outcome"], line["path"]) == (403, "/get/app/secret/x")
    assert (line["rule"], line["request"]) == ("deny read keys:app/secret/*", "r-1")
    assert line["peer"].startswith("127.0.0.1:")


def test_refusals_of_one_sender_are_bounded_and_what_is_left_out_is_counted() -> None:
    service = Guarded()
    who = service.add("all keys:app/*")
    with service, Client(service.server) as client:
        import time

        time.sleep(1.05 - time.monotonic() % 1)  # at the beginning of a second
        for _ in range(100):
            client.get("/get/other", **who.field)
        time.sleep(1.1)
        client.get("/get/other", **who.field)
        found = lines(service)
    assert len(found) <= 32
    assert len(found) - 1 + sum(line.get("suppressed", 0) for line in found) == 100
