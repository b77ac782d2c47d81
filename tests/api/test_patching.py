"""`PATCH /v1/keys/{key}`: JSON Merge Patch, and another end."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, quoted
from hypothesis import given
from hypothesis import strategies as st
from keyrack_server import request

from keyrack.http.api.patch import merge

if TYPE_CHECKING:
    from keyrack_server import Answer, Server

# RFC 7396, appendix A: original, patch, result.
APPENDIX_A = (
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
)


def json_put(client: Client, key: str, text: str | bytes, query: str = "") -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return client.put(key, data, query, Content_Type="application/json")


@pytest.mark.parametrize(("original", "patch", "result"), APPENDIX_A)
def test_the_examples_of_the_rfc(
    client: Client, key: str, original: str, patch: str, result: str
) -> None:
    json_put(client, key, original)
    answer = client.patch(key, patch.encode())
    assert (answer.status, answer.body) == (204, b"")
    found = client.get(f"/v1/keys/{key}")
    assert found.body.decode() == result
    assert found["Content-Type"] == "application/json"
    assert found["ETag"] == answer["ETag"]


@pytest.mark.parametrize(
    "number",
    [
        "1.50",
        "1e400",
        "-0",
        "-0.0",
        "1E+2",
        "123456789012345678901234567890",
        "9007199254740993",
        "0.1000000000000000055511151231257827",
        "1" * 5000,
    ],
    ids=lambda number: number[:12],
)
def test_numbers_stay_as_they_are_written(client: Client, key: str, number: str) -> None:
    json_put(client, key, f'{{"kept":{number},"in":[{number}]}}')
    assert client.patch(key, f'{{"new":{number}}}'.encode()).status == 204
    expected = f'{{"kept":{number},"in":[{number}],"new":{number}}}'
    assert client.get(f"/v1/keys/{key}").body.decode() == expected


def test_members_keep_their_order_and_strings_their_characters(client: Client, key: str) -> None:
    json_put(client, key, '{"z":"\\u00e9\\n\\u0000","\\"":1, "a" : "\U0001f511"}')
    assert client.patch(key, {"m": 1, "z2": None}).status == 204
    found = client.get(f"/v1/keys/{key}").json
    assert list(found.items()) == [("z", "\u00e9\n\0"), ('"', 1), ("a", "\U0001f511"), ("m", 1)]


def test_the_ttl_stays(client: Client, key: str) -> None:
    json_put(client, key, "{}", "?ttl=50")
    for number in range(20):
        assert client.patch(key, {str(number): number}).status == 204
    assert 45 < float(client.get(f"/v1/keys/{key}")["Keyrack-TTL"]) <= 50
    json_put(client, f"{key}x", "{}")
    client.patch(f"{key}x", {"a": 1})
    assert client.get(f"/v1/keys/{key}x").get("Keyrack-TTL") is None


def test_a_key_that_is_patched_all_the_time_ends_when_it_would_have_ended(
    client: Client, key: str
) -> None:
    names = [f"{{{key}}}{number}" for number in range(2)]
    sets = [{"op": "set", "key": name, "value": {}, "ttl": 1.5} for name in names]
    assert client.batch(*sets).status == 200  # in one commit, so that they end together
    patches = 0
    while client.get(f"/v1/keys/{quoted(names[1])}").status == 200:
        patches += client.patch(names[0], {"n": patches}).status == 204
    assert patches > 20
    assert client.get(f"/v1/keys/{quoted(names[0])}").status == 404


def test_a_missing_or_ended_key_is_404(client: Client, key: str) -> None:
    answer = client.patch(key, {"a": 1})
    assert (answer.status, answer.json["type"]) == (404, "/docs/problems/key-not-found")
    json_put(client, key, "{}", "?ttl=0.001")
    time.sleep(0.003)
    assert client.patch(key, {"a": 1}).status == 404


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"text", "text/plain"),
        (b"{}", "text/plain"),
        (b"{}", "application/octet-stream"),
        (b"{", "application/json"),
        (b"", "application/json"),
        (b'{"a":1,"a":2}', "application/json"),
        (b'["\xff"]', "application/json"),
        (b"NaN", "application/json"),
        (b"[" * 100_000 + b"]" * 100_000, "application/json"),
    ],
)
def test_what_is_not_json_is_409(client: Client, key: str, value: bytes, kind: str) -> None:
    client.put(key, value, Content_Type=kind)
    answer = client.patch(key, {"a": 1})
    assert (answer.status, answer.json["type"]) == (409, "/docs/problems/not-json")
    assert client.get(f"/v1/keys/{key}").body == value


@pytest.mark.parametrize(
    "patch",
    [
        b"",
        b"{",
        b"{}{}",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":01}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\n"}',
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
    ids=lambda patch: repr(patch[:12]),
)
def test_a_patch_that_is_no_json_is_refused(client: Client, key: str, patch: bytes) -> None:
    json_put(client, key, '{"old":1}')
    answer = client.patch(key, patch)
    assert answer.status == 400 or (answer.status == 204 and len(patch) == 5401)
    if answer.status == 400:
        assert answer.json["type"] == "/docs/problems/bad-json"
        assert client.get(f"/v1/keys/{key}").body == b'{"old":1}'


@pytest.mark.parametrize("depth", [50, 150, 330, 480, 700, 990])
def test_deep_values_are_patched_or_refused(client: Client, key: str, depth: int) -> None:
    value = b"[" * depth + b"]" * depth
    json_put(client, key, b'{"deep":%b}' % value)
    answer = client.patch(key, {"a": 1})
    assert answer.status in (204, 400, 409), answer
    if answer.status == 204:
        assert client.get(f"/v1/keys/{key}").body == b'{"deep":%b,"a":1}' % value
    assert depth > 100 or answer.status == 204


@pytest.mark.parametrize("kind", [None, "application/json", "application/json-patch+json", "x/y"])
def test_a_patch_says_what_it_is(client: Client, key: str, kind: str | None) -> None:
    json_put(client, key, "{}")
    fields = {} if kind is None else {"Content_Type": kind}
    answer = client.ask("PATCH", f"/v1/keys/{key}", b'{"a":1}', **fields)
    assert answer.status == 415
    assert client.get(f"/v1/keys/{key}").body == b"{}"


def test_conditions_hold(client: Client, key: str) -> None:
    revision = json_put(client, key, "{}")
    stale = client.patch(key, {"a": 1}, If_Match='"5"')
    assert (stale.status, stale["ETag"]) == (412, f'"{revision}"')
    first = client.patch(key, {"a": 1}, If_Match=f'"{revision}"')
    assert first.status == 204
    assert client.patch(key, {"a": 2}, If_Match=f'"{revision}"').status == 412
    assert client.patch(key, {"a": 2}, If_None_Match=first["ETag"]).status == 412
    assert client.patch(key, {"a": 2}, If_Match="*").status == 204
    assert client.get(f"/v1/keys/{key}").json == {"a": 2}


def test_a_value_that_becomes_too_large_is_413(client: Client, key: str) -> None:
    json_put(client, key, json.dumps({"a": "x" * 1_000_000}))
    answer = client.patch(key, {"b": "y" * 100_000})
    assert (answer.status, answer.json["limit"]) == (413, 1 << 20)
    assert list(client.get(f"/v1/keys/{key}").json) == ["a"]


@pytest.mark.parametrize("key_name", ["a/b", "a\nb", "\u00e9", "%"])
def test_any_key_is_patched(client: Client, key_name: str) -> None:
    json_put(client, key_name, "{}")
    assert client.patch(key_name, {"a": 1}).status == 204
    assert client.get(f"/v1/keys/{quoted(key_name)}").body == b'{"a":1}'


@pytest.mark.parametrize("count", [50, 250])
def test_patches_at_the_same_time_are_all_there(pair: Server, key: str, count: int) -> None:
    clients = [Client(pair) for _ in range(count)]
    json_put(clients[0], key, "{}")
    statuses: list[int] = []
    ready = threading.Barrier(count)

    def work(number: int) -> None:
        ready.wait()
        statuses.append(clients[number].patch(key, {str(number): number}).status)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = clients[0].get(f"/v1/keys/{key}").json
    for client in clients:
        client.close()
    assert statuses == [204] * count
    assert found == {str(number): number for number in range(count)}


def test_one_patch_that_lost_a_race_is_done_without_another_request(
    client: Client, server: Server, key: str
) -> None:
    """Two patches in one turn: the second is tried again, and needs nobody to wake it."""
    json_put(client, key, "{}")
    kind = {"Content_Type": "application/merge-patch+json"}
    with server.connect(5) as first, server.connect(5) as second:
        for _ in range(30):
            first.send(request("PATCH", f"/v1/keys/{key}", b'{"a":1}', **kind))
            second.send(request("PATCH", f"/v1/keys/{key}", b'{"b":1}', **kind))
            assert first.answer().status == second.answer().status == 204


# Another end


def touch(client: Client, key: str, query: str, **fields: str) -> Answer:
    return client.ask("PATCH", f"/v1/keys/{quoted(key)}?{query}", **fields)


@pytest.mark.parametrize("key_name", ["a/b", "a\nb", "\u00e9/", "%"])
def test_any_key_gets_another_end(client: Client, key_name: str) -> None:
    revision = client.put(key_name, b"v")
    answer = touch(client, key_name, "ttl=100")
    assert (answer.status, answer.body, answer["ETag"]) == (204, b"", f'"{revision}"')
    found = client.get(f"/v1/keys/{quoted(key_name)}")
    assert (found.body, found["ETag"]) == (b"v", f'"{revision}"')
    assert 99 < float(found["Keyrack-TTL"]) <= 100
    assert touch(client, key_name, "ttl=none").status == 204
    assert client.get(f"/v1/keys/{quoted(key_name)}").get("Keyrack-TTL") is None


def test_another_end_depends_on_conditions(client: Client, key: str) -> None:
    assert touch(client, key, "ttl=100").status == 404
    revision = client.put(key)
    assert touch(client, key, "ttl=100", If_Match='"1"').status == 412
    assert touch(client, key, "ttl=100", If_None_Match="*").status == 412
    assert client.get(f"/v1/keys/{key}").get("Keyrack-TTL") is None
    assert touch(client, key, "ttl=100", If_Match=f'"{revision}"').status == 204


@pytest.mark.parametrize("query", ["ttl=0", "ttl=-1", "ttl=", "ttl=null", "tll=1", "ttl=1&ttl=2"])
def test_an_end_that_is_none_is_refused(client: Client, key: str, query: str) -> None:
    client.put(key)
    assert touch(client, key, query).status == 400
    assert client.get(f"/v1/keys/{key}").get("Keyrack-TTL") is None


def test_a_patch_changes_one_of_both(client: Client, key: str) -> None:
    json_put(client, key, "{}")
    answer = client.ask(
        "PATCH",
        f"/v1/keys/{key}?ttl=5",
        b'{"a":1}',
        Content_Type="application/merge-patch+json",
    )
    assert answer.status == 400
    assert client.get(f"/v1/keys/{key}").body == b"{}"


# Once, however often it is sent


def test_a_repeated_patch_is_done_once(client: Client, key: str) -> None:
    revision = json_put(client, key, '{"n":1}')
    fields = {"Idempotency_Key": f"patch-{key}", "If_Match": f'"{revision}"'}
    first = client.patch(key, {"n": 2}, **fields)
    assert first.status == 204
    # It is told of the first time, whatever the key has become, and changes nothing.
    json_put(client, key, '{"n":3}')
    second = client.patch(key, {"n": 2}, **fields)
    assert (second.status, second["ETag"]) == (204, first["ETag"])
    client.delete(f"/v1/keys/{key}")
    assert client.patch(key, {"n": 2}, **fields)["ETag"] == first["ETag"]
    assert client.get(f"/v1/keys/{key}").status == 404
    assert client.patch(key, {"n": 4}, **fields).status == 422


def test_a_patch_that_was_refused_is_tried_again(client: Client, key: str) -> None:
    fields = {"Idempotency_Key": f"again-{key}"}
    assert client.patch(key, {"n": 2}, **fields).status == 404
    json_put(client, key, "{}")
    assert client.patch(key, {"n": 2}, **fields).status == 204


def test_a_repeated_touch_is_done_once(client: Client, key: str) -> None:
    client.put(key)
    fields = {"Idempotency_Key": f"touch-{key}"}
    assert touch(client, key, "ttl=100", **fields).status == 204
    touch(client, key, "ttl=none")
    assert touch(client, key, "ttl=100", **fields).status == 204
    assert client.get(f"/v1/keys/{key}").get("Keyrack-TTL") is None


def test_patches_that_race_under_a_name_of_their_own_are_all_done(
    pair: Server, two: list[Client], key: str
) -> None:
    json_put(two[0], key, "{}")

    def work(client: Client, who: str) -> None:
        for number in range(20):
            name = f"{key}{who}{number}"
            assert client.patch(key, {name: number}, Idempotency_Key=name).status == 204

    threads = [threading.Thread(target=work, args=item) for item in zip(two, "ab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(two[0].get(f"/v1/keys/{key}").json) == 40


objects = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


def by_the_book(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2, word for word."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        target = dict(target)
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = by_the_book(target.get(name), value)
        return target
    return patch


@given(target=objects, patch=objects)
def test_merging_is_what_the_rfc_says(target: Any, patch: Any) -> None:
    before = json.dumps([target, patch])
    assert merge(target, patch) == by_the_book(target, patch)
    assert json.dumps([target, patch]) == before
