"""Header fields that change what a request does: each is honoured, or the request is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyrack.http.api.routes import ROUTES, Route

if TYPE_CHECKING:
    from api_support import Client

BODIES = {
    "set": b'{"key":"counts","value":"new"}',
    "key_put": b"new",
    "key_patch": b"{}",
    "batch": b'{"operations":[{"op":"set","key":"counts","value":"new"}]}',
    "counter": b"{}",
    "lock_acquire": b'{"owner":"me","ttl":60}',
    "import": b'{"key":"counts","value":"new"}\n',
}
TYPES = {"key_patch": "application/merge-patch+json", "import": "application/x-ndjson"}
QUERIES = {"keys_delete": "?prefix=counts", "lock_release": "?token=1"}
WRITES = [route for route in ROUTES.values() if route.writes]


def sent(client: Client, name: str, **fields: str) -> tuple[int, str]:
    """Send one of the writes with a field, and return status and kind of the answer."""
    route = ROUTES[name]
    target = route.path.replace("{key}", "counts") + QUERIES.get(name, "")
    body = BODIES.get(name)
    if body is not None:
        fields["Content_Type"] = TYPES.get(name, "application/json")
    answer = client.ask(route.method, target, body, **fields)
    text = answer.body.decode() if answer.status >= 400 else ""
    return answer.status, text


def takes_conditions(route: Route) -> bool:
    return any(one.name == "If-Match" for one in route.parameters)


# Tokens with conditions need a service with access control: tests/access has them.
@pytest.mark.parametrize("field", ["If_Match", "If_None_Match"])
@pytest.mark.parametrize(
    "name",
    [r.name for r in WRITES if not (r.name.startswith("auth_") and takes_conditions(r))],
)
def test_a_condition_is_honoured_or_refused(client: Client, name: str, field: str) -> None:
    """None is passed over: the write would be done although its sender has made it depend."""
    client.delete("/v1/keys/counts")
    client.put("counts", b"1", Content_Type="application/json")
    value = '"1"' if field == "If_Match" else "*"
    status, text = sent(client, name, **{field: value})
    declared = any(one.name == field.replace("_", "-") for one in ROUTES[name].parameters)
    assert status == (412 if declared else 400), text
    assert client.get("/v1/keys/counts").body == b"1"


@pytest.mark.parametrize("name", [route.name for route in WRITES])
def test_an_idempotency_key_is_honoured_or_refused(client: Client, name: str, key: str) -> None:
    """Otherwise a retry would overwrite what others have written meanwhile."""
    client.delete("/v1/keys/counts")
    client.put("counts", b"1", Content_Type="application/json")
    declared = any(one.name == "Idempotency-Key" for one in ROUTES[name].parameters)
    first = sent(client, name, Idempotency_Key=key)
    if not declared:
        assert first[0] == 400, first
        assert client.get("/v1/keys/counts").body == b"1"
        return
    client.put("counts", b"2", Content_Type="application/json")
    assert sent(client, name, Idempotency_Key=key) == first
    assert client.get("/v1/keys/counts").body == b"2", "the retry has changed nothing"


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_body_in_a_content_coding_is_refused(client: Client, name: str, coding: str) -> None:
    client.delete("/v1/keys/counts")
    status, text = sent(client, name, Content_Encoding=coding)
    assert status == 415, text
    assert client.get("/v1/keys/counts").status == 404


@pytest.mark.parametrize("name", sorted(BODIES))
def test_identity_is_no_coding(client: Client, name: str) -> None:
    client.put("counts", b"1", Content_Type="application/json")
    assert sent(client, name, Content_Encoding="Identity")[0] in (200, 201, 204, 409)


def test_a_coded_body_is_refused_before_it_is_sent(client: Client) -> None:
    wire = client.wire
    wire.send(
        b"POST /set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Encoding: gzip\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n"
    )
    assert wire.answer().status == 415


# Entity tags


def test_an_etag_is_compared_as_it_is_written(client: Client, key: str) -> None:
    """`"0179"` is another tag than `"179"`, although both are the same number."""
    revision = client.put(key, b"old")
    target = f"/v1/keys/{key}"
    assert client.ask("PUT", target, b"new", If_Match=f'"0{revision}"').status == 412
    assert client.get(target).body == b"old"
    assert client.ask("PUT", target, b"new", If_None_Match=f'"0{revision}"').status == 204


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "GET"])
def test_a_weak_tag_in_if_match_is_told_to_be_weak(client: Client, key: str, method: str) -> None:
    revision = client.put(key, b"{}", Content_Type="application/json")
    body = None if method in ("DELETE", "GET") else b"{}"
    fields = {"Content_Type": "application/merge-patch+json"} if method == "PATCH" else {}
    answer = client.ask(method, f"/v1/keys/{key}", body, If_Match=f'W/"{revision}"', **fields)
    assert answer.status == 412
    assert "weak" in answer.json["detail"]


def test_a_key_that_must_not_exist_and_does_is_told_so(client: Client, key: str) -> None:
    revision = client.put(key)
    answer = client.ask("PUT", f"/v1/keys/{key}", b"new", If_None_Match="*")
    assert answer.status == 412
    assert "exists" in answer.json["detail"]
    assert answer["ETag"] == f'"{revision}"'


# Media types and preferences


@pytest.mark.parametrize("kind", ["Application/JSON", "application/json; charset=utf-8"])
def test_a_media_type_is_compared_without_case_and_parameters(
    client: Client, key: str, kind: str
) -> None:
    client.put(key, b'{"a":1}', Content_Type=kind)
    assert client.patch(key, {"b": 2}).status == 204
    assert client.get(f"/v1/keys/{key}").json == {"a": 1, "b": 2}
    assert client.get(f"/get/{key}").json["value"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("wait", ["wait=1.5", "wait=abc", "wait=-1", "wait", "wait=", "wait=1e3"])
def test_a_preference_that_is_not_understood_is_ignored(
    client: Client, key: str, wait: str
) -> None:
    """RFC 7240, section 2: as if it had not been there."""
    revision = client.put(key)
    answer = client.get(f"/v1/keys/{key}", If_None_Match=f'"{revision}"', Prefer=wait)
    assert answer.status == 304
    lock = client.post(f"/v1/locks/{key}", {"owner": "me", "ttl": 60}, Prefer=wait)
    assert lock.status == 201
