"""`POST /v1/batch`: several operations, all or none."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, quoted
from hypothesis import given, settings
from hypothesis import strategies as st
from keyrack_server import Server

if TYPE_CHECKING:
    from keyrack_server import Answer


def results(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.json["results"]
    return found


# Each operation


def test_get_shows_a_value_or_that_there_is_none(client: Client, key: str) -> None:
    revision = client.put(key, b"text")
    found = results(client.batch({"op": "get", "key": key}, {"op": "get", "key": key + "x"}))
    assert found == [
        {
            "op": "get",
            "key": key,
            "revision": revision,
            "existed": True,
            "value": "text",
            "type": "text/plain; charset=utf-8",
        },
        {"op": "get", "key": key + "x", "existed": False},
    ]


def test_set_says_the_revision_and_whether_the_key_existed(client: Client, key: str) -> None:
    first, second = results(
        client.batch(*({"op": "set", "key": key, "value": value} for value in ("a", "b")))
    )
    assert (first["existed"], second["existed"]) == (False, True)
    assert int(second["revision"]) == int(first["revision"]) + 1
    assert client.get(f"/v1/keys/{key}")["ETag"] == f'"{second["revision"]}"'


def test_delete_says_whether_there_was_something(client: Client, key: str) -> None:
    client.put(key)
    first, second = results(client.batch(*[{"op": "delete", "key": key}] * 2))
    assert first["existed"] is True
    assert second == {"op": "delete", "key": key, "existed": False}
    assert client.shown(key) is None


def test_add_answers_the_number_as_a_string(client: Client, key: str) -> None:
    first, second, third = results(
        client.batch(
            {"op": "add", "key": key},
            {"op": "add", "key": key, "delta": "-3"},
            {"op": "add", "key": key, "delta": 9223372036854775807},
        )
    )
    assert [one["value"] for one in (first, second, third)] == ["1", "-2", "9223372036854775805"]
    assert client.shown(key) == "9223372036854775805"


def test_touch_changes_when_a_key_ends_and_nothing_else(client: Client, key: str) -> None:
    revision = client.put(key, b"text", "?ttl=5")
    (found,) = results(client.batch({"op": "touch", "key": key, "ttl": 500}))
    assert found["existed"] is True
    answer = client.get(f"/v1/keys/{key}")
    assert float(answer["Keyrack-TTL"]) > 400
    assert answer["ETag"] == f'"{revision}"'
    results(client.batch({"op": "touch", "key": key, "ttl": None}))
    assert client.get(f"/v1/keys/{key}").get("Keyrack-TTL") is None


def test_check_does_nothing(client: Client, key: str) -> None:
    revision = client.put(key)
    before = client.get("/v1/info").json["revision"]
    (found,) = results(client.batch({"op": "check", "key": key, "if_match": revision}))
    assert found == {"op": "check", "key": key}
    assert client.get("/v1/info").json["revision"] == before


def test_reads_see_what_the_batch_itself_has_done(client: Client, key: str) -> None:
    found = results(
        client.batch(
            {"op": "get", "key": key},
            {"op": "set", "key": key, "value": "1"},
            {"op": "get", "key": key},
            {"op": "add", "key": key},
            {"op": "get", "key": key},
            {"op": "delete", "key": key},
            {"op": "get", "key": key},
        )
    )
    assert [one.get("value") for one in found] == [None, None, "1", "2", "2", None, None]


# Values


def test_a_json_value_is_kept_as_it_was_written(client: Client, key: str) -> None:
    text = b'{"n":1.50, "big":1e400,"int":123456789012345678901234567890,\n"t":"\\u00e9"}'
    answer = client.post(
        "/v1/batch", b'{"operations":[{"op":"set","key":"%b","value":%b}]}' % (key.encode(), text)
    )
    assert answer.status == 200
    found = client.get(f"/v1/keys/{key}")
    assert found.body == text
    assert found["Content-Type"] == "application/json"
    assert text in client.batch({"op": "get", "key": key}).body


@pytest.mark.parametrize("value", [b"", b"\xff\x00", b"text", bytes(range(256))])
def test_bytes_go_and_come_as_base64(client: Client, key: str, value: bytes) -> None:
    text = base64.b64encode(value).decode()
    first, second = results(
        client.batch(
            {"op": "set", "key": key, "value": text, "encoding": "base64"},
            {"op": "get", "key": key},
        )
    )
    assert first["existed"] is False
    assert client.get(f"/v1/keys/{key}").body == value
    assert (second["value"], second["encoding"]) == (text, "base64")
    assert second["type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("given_type", "value", "stored"),
    [
        ("text/html; charset=utf-8", "<p>", b"<p>"),
        ("application/json", [1], b"[1]"),
        ("image/svg+xml", "<svg/>", b"<svg/>"),
    ],
)
def test_a_type_can_be_named(
    client: Client, key: str, given_type: str, value: Any, stored: bytes
) -> None:
    results(client.batch({"op": "set", "key": key, "value": value, "type": given_type}))
    answer = client.get(f"/v1/keys/{key}")
    assert (answer.body, answer["Content-Type"]) == (stored, given_type)


@pytest.mark.parametrize("ttl", [0.001, 1, 315360000, 0.5])
def test_a_ttl_is_set(client: Client, key: str, ttl: float) -> None:
    results(client.batch({"op": "set", "key": key, "value": "v", "ttl": ttl}))
    answer = client.get(f"/v1/keys/{key}")
    if ttl == 0.001:
        time.sleep(0.003)
        assert client.shown(key) is None
    else:
        assert ttl - 0.4 < float(answer["Keyrack-TTL"]) <= ttl


def test_a_set_without_ttl_clears_it_and_an_add_keeps_it(client: Client, key: str) -> None:
    client.put(key, b"1", "?ttl=50")
    results(client.batch({"op": "add", "key": key}))
    assert float(client.get(f"/v1/keys/{key}")["Keyrack-TTL"]) > 40
    results(client.batch({"op": "set", "key": key, "value": "1"}))
    assert client.get(f"/v1/keys/{key}").get("Keyrack-TTL") is None


@pytest.mark.parametrize("name", ["a/b", "..", " ", "\0", "a\nb", "\U0001f511", '"', "x" * 511])
def test_any_key_can_be_named(client: Client, name: str) -> None:
    (found,) = results(client.batch({"op": "set", "key": name, "value": "v"}))
    assert found["key"] == name
    assert client.get(f"/v1/keys/{quoted(name)}").body == b"v"


# All or none


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ({"op": "check", "key": "{key}/missing", "if_match": "*"}, "condition"),
        ({"op": "check", "key": "{key}/there", "if_none_match": "*"}, "condition"),
        ({"op": "check", "key": "{key}/there", "if_match": "5"}, "condition"),
        ({"op": "set", "key": "{key}/there", "value": 1, "if_none_match": "*"}, "condition"),
        ({"op": "delete", "key": "{key}/there", "if_match": "5"}, "condition"),
        ({"op": "get", "key": "{key}/there", "if_match": "5"}, "condition"),
        ({"op": "add", "key": "{key}/missing", "if_match": "*"}, "condition"),
        ({"op": "touch", "key": "{key}/there", "ttl": 5, "if_match": "5"}, "condition"),
        ({"op": "touch", "key": "{key}/missing", "ttl": 5}, "missing"),
        ({"op": "add", "key": "{key}/there"}, "number"),
        ({"op": "add", "key": "{key}/most", "delta": "1"}, "overflow"),
        ({"op": "check", "lock": "{key}", "token": "5"}, "condition"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_refused_operation_undoes_everything(
    client: Client, key: str, operation: dict[str, Any], reason: str
) -> None:
    there = client.put(f"{key}/there", b"text")
    most = client.put(f"{key}/most", b"9223372036854775807", "?ttl=90")
    refused = {
        name: value.format(key=key) if isinstance(value, str) else value
        for name, value in operation.items()
    }
    answer = client.batch(
        {"op": "set", "key": f"{key}/new", "value": "v"},
        {"op": "delete", "key": f"{key}/else"},
        {"op": "add", "key": f"{key}/number"},
        refused,
        {"op": "set", "key": f"{key}/there", "value": "other"},
    )
    assert answer.status == 409, answer
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json["type"] == "/docs/problems/batch-refused"
    assert answer.json["operation"] == 3
    assert answer.json["op"] == operation["op"]
    assert answer.json["reason"] == reason
    assert "Operation 3" in answer.json["detail"]
    named = refused.get("key", "")
    current = {f"{key}/there": there, f"{key}/most": most}.get(str(named))
    assert answer.json["revision"] == current
    assert client.shown(f"{key}/there") == "text"
    assert client.shown(f"{key}/new") is None
    assert client.shown(f"{key}/number") is None
    assert client.get(f"/v1/events/{key}/new").json["events"] == []
    assert float(client.get(f"/v1/keys/{key}/most")["Keyrack-TTL"]) > 80


def test_compare_and_set_over_several_keys(client: Client, key: str) -> None:
    first, second = client.put(f"{key}a", b"10"), client.put(f"{key}b", b"20")
    operations = (
        {"op": "set", "key": f"{key}a", "value": "15", "if_match": first},
        {"op": "set", "key": f"{key}b", "value": "15", "if_match": second},
    )
    results(client.batch(*operations))
    assert client.batch(*operations).status == 409
    assert client.shown(f"{key}a") == client.shown(f"{key}b") == "15"


def test_a_stale_lock_holder_changes_nothing(client: Client, key: str) -> None:
    lock = client.post(f"/v1/locks/{key}", {"owner": "a", "ttl": 0.05}).json
    write = {"op": "set", "key": key, "value": "by a"}
    held = {"op": "check", "lock": key, "token": lock["token"]}
    results(client.batch(held, write))
    time.sleep(0.06)
    assert client.batch(held, {**write, "value": "late"}).json["reason"] == "condition"
    client.post(f"/v1/locks/{key}", {"owner": "b", "ttl": 60})
    assert client.batch(held, {**write, "value": "later"}).status == 409
    assert client.shown(key) == "by a"


# Limits and faults


def test_a_thousand_operations_are_done(client: Client, key: str) -> None:
    found = results(
        client.batch(*({"op": "set", "key": f"{key}{n}", "value": "v"} for n in range(1000)))
    )
    assert len(found) == 1000
    numbers = [int(one["revision"]) for one in found]
    assert numbers == list(range(numbers[0], numbers[0] + 1000))


def test_a_thousand_and_one_are_refused(client: Client, key: str) -> None:
    answer = client.batch(*({"op": "set", "key": f"{key}{n}", "value": "v"} for n in range(1001)))
    assert answer.status == 400
    assert client.shown(f"{key}0") is None


def test_no_operation_is_refused(client: Client) -> None:
    assert client.batch().status == 400


FAULTS: dict[str, Any] = {
    "no operations": {},
    "another member": {"operations": [{"op": "get", "key": "a"}], "atomic": True},
    "no list": {"operations": {"op": "get", "key": "a"}},
    "a list at the top": [{"op": "get", "key": "a"}],
    "an unknown op": {"operations": [{"op": "fetch", "key": "a"}]},
    "op in capitals": {"operations": [{"op": "GET", "key": "a"}]},
    "no op": {"operations": [{"key": "a"}]},
    "no key": {"operations": [{"op": "get"}]},
    "an empty key": {"operations": [{"op": "get", "key": ""}]},
    "a long key": {"operations": [{"op": "get", "key": "a" * 512}]},
    "a key that is a number": {"operations": [{"op": "get", "key": 5}]},
    "an unknown member": {"operations": [{"op": "get", "key": "a", "ttl": 5}]},
    "a misspelt member": {"operations": [{"op": "set", "key": "a", "value": 1, "tll": 5}]},
    "set without a value": {"operations": [{"op": "set", "key": "a"}]},
    "touch without a ttl": {"operations": [{"op": "touch", "key": "a"}]},
    "another encoding": {
        "operations": [{"op": "set", "key": "a", "value": "00", "encoding": "hex"}]
    },
    "base64 of no string": {
        "operations": [{"op": "set", "key": "a", "value": 5, "encoding": "base64"}]
    },
    "broken base64": {
        "operations": [{"op": "set", "key": "a", "value": "a", "encoding": "base64"}]
    },
    "base64 with a line break": {
        "operations": [{"op": "set", "key": "a", "value": "YQ==\n", "encoding": "base64"}]
    },
    "a check of nothing": {"operations": [{"op": "check"}]},
    "a check without a condition": {"operations": [{"op": "check", "key": "a"}]},
    "a check of key and lock": {
        "operations": [
            {"op": "check", "key": "a", "if_match": "*", "lock": "b", "token": "5"},
        ]
    },
    "a lock without a token": {"operations": [{"op": "check", "lock": "a"}]},
    "a token without a lock": {"operations": [{"op": "check", "token": "5"}]},
    "an etag in quotes": {"operations": [{"op": "get", "key": "a", "if_match": '"5"'}]},
    "an etag that is a number": {"operations": [{"op": "get", "key": "a", "if_match": 5}]},
    "null": None,
    "a string": "operations",
}


@pytest.mark.parametrize("body", FAULTS.values(), ids=FAULTS)
def test_a_batch_that_is_not_understood_is_refused(client: Client, body: Any) -> None:
    answer = client.post("/v1/batch", body)
    assert answer.status == 400, answer
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("given_type", ["nonsense", "text", "text/plain\r\nX: y", "a/" + "b" * 300])
def test_a_type_that_is_none_is_refused(client: Client, key: str, given_type: str) -> None:
    answer = client.batch({"op": "set", "key": key, "value": "v", "type": given_type})
    assert answer.status in (400, 415)
    assert client.shown(key) is None


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_batch_says_that_it_is_json(client: Client, kind: str | None) -> None:
    fields = {} if kind is None else {"Content_Type": kind}
    answer = client.ask("POST", "/v1/batch", b'{"operations":[{"op":"get","key":"a"}]}', **fields)
    assert answer.status == 415


def test_a_value_over_the_limit_is_413(client: Client, key: str) -> None:
    answer = client.batch({"op": "set", "key": key, "value": "v" * ((1 << 20) + 1)})
    assert answer.status == 413
    assert answer.json["limit"] == 1 << 20


# Against a model

KEYS = ("a", "b", "c")
numbers = st.sampled_from(("1", "-1", "9223372036854775807", "-9223372036854775808", "7"))
operation = st.one_of(
    st.builds(lambda k: {"op": "get", "key": k}, st.sampled_from(KEYS)),
    st.builds(
        lambda k, v: {"op": "set", "key": k, "value": v},
        st.sampled_from(KEYS),
        st.sampled_from(("1", "text", "9223372036854775807", 5)),
    ),
    st.builds(lambda k: {"op": "delete", "key": k}, st.sampled_from(KEYS)),
    st.builds(
        lambda k, d, i: {"op": "add", "key": k, "delta": d, "initial": i},
        st.sampled_from(KEYS),
        numbers,
        numbers,
    ),
    st.builds(lambda k: {"op": "touch", "key": k, "ttl": 600}, st.sampled_from(KEYS)),
    st.builds(lambda k: {"op": "check", "key": k, "if_match": "*"}, st.sampled_from(KEYS)),
    st.builds(
        lambda k: {"op": "set", "key": k, "value": "1", "if_none_match": "*"},
        st.sampled_from(KEYS),
    ),
)


class Model:
    """What a batch does to a dictionary of texts; numbers that are no texts are JSON."""

    def __init__(self, state: dict[str, str]) -> None:
        self.state = state

    def do(self, one: dict[str, Any]) -> str | None:
        """Do an operation; return why it is refused."""
        key, present = one["key"], one["key"] in self.state
        if (one.get("if_match") and not present) or (one.get("if_none_match") and present):
            return "condition"
        if one["op"] == "set":
            self.state[key] = str(one["value"])
        elif one["op"] == "delete":
            self.state.pop(key, None)
        elif one["op"] == "touch" and not present:
            return "missing"
        elif one["op"] == "add":
            return self._add(key, one)
        return None

    def _add(self, key: str, one: dict[str, Any]) -> str | None:
        before = self.state.get(key, one["initial"])
        if before == "text":
            return "number"
        number = int(before) + int(one["delta"])
        if not -(1 << 63) <= number < 1 << 63:
            return "overflow"
        self.state[key] = str(number)
        return None


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(operation, min_size=1, max_size=8), min_size=1, max_size=4))
def test_a_batch_does_what_a_model_says_or_nothing(
    server: Server, batches: list[list[dict[str, Any]]]
) -> None:
    prefix = "model/"
    with Client(server) as client:
        client.delete(f"/v1/keys?prefix={prefix}")
        state: dict[str, str] = {}
        for batch in batches:
            model = Model(dict(state))
            refusals = [model.do(one) for one in batch]
            index = next((n for n, why in enumerate(refusals) if why), None)
            answer = client.batch(*({**one, "key": prefix + one["key"]} for one in batch))
            if index is None:
                assert answer.status == 200
                state = model.state
            else:
                assert answer.status == 409
                assert answer.json["operation"] == index
                assert answer.json["reason"] == refusals[index]
            found = client.get(f"/v1/keys?prefix={prefix}&values=true").json["keys"]
            values = {one["key"].removeprefix(prefix): str(one["value"]) for one in found}
            assert values == state


def test_duplicate_members_are_refused(client: Client, key: str) -> None:
    for body in (
        '{"operations":[{"op":"set","key":"KEY","value":1,"value":2}]}',
        '{"operations":[{"op":"set","op":"delete","key":"KEY","value":1}]}',
        '{"operations":[],"operations":[{"op":"set","key":"KEY","value":1}]}',
        '{"operations":[{"op":"set","key":"KEY","value":{"a":1,"a":2}}]}',
    ):
        assert client.post("/v1/batch", body.replace("KEY", key).encode()).status == 400
    assert client.shown(key) is None
    assert json.loads(client.get("/v1/limits").body)["batch_operations"] == 1000


def test_reads_and_checks_need_no_room(key: str) -> None:
    """A store that is small, or full, still answers a batch that writes nothing."""
    with Server(memory="8m") as own, Client(own) as client:
        reads = [{"op": "get", "key": f"{key}{n}"} for n in range(500)]
        checks = [{"op": "check", "key": f"{key}{n}", "if_none_match": "*"} for n in range(500)]
        assert len(results(client.batch(*reads, *checks))) == 1000
