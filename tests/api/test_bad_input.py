"""Numbers, nesting and characters that parsers often take by mistake: exact, or 400, never 500."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from api_support import Client, Watch, eventually

if TYPE_CHECKING:
    from keyrack_server import Answer, Server

NO_NUMBERS = (
    "",
    " ",
    "+1",
    "-1",
    "1_0",
    " 1",
    "1 ",
    "1\n",
    "\u0661",
    "\uff11",
    "\u00b2",
    "0x10",
    "0b1",
    "0o7",
    "1,5",
    "1e1",
    "1E1",
    "NaN",
    "nan",
    "inf",
    "Infinity",
    "-Infinity",
    "1e999",
    "--1",
    "1.",
    ".5",
    "1.5.5",
    "true",
    "null",
    "[]",
    '"1"',
    "9" * 20,
    "9" * 400,
    "9" * 5000,
    "1;2",
    "1\0",
)
WHOLE = (*NO_NUMBERS, "1.5", "1.0")


def ids(text: str) -> str:
    return ascii(text[:24])


def refused(answer: Answer) -> bool:
    assert answer.status in (400, 404, 414), answer
    assert "detail" in answer.json
    return answer.status in (400, 414)


@pytest.mark.parametrize("number", NO_NUMBERS, ids=ids)
def test_a_ttl_in_a_query(client: Client, key: str, number: str) -> None:
    answer = client.ask("PUT", f"/v1/keys/{key}?ttl={quote(number, safe='')}", b"v")
    assert refused(answer)
    assert client.shown(key) is None


@pytest.mark.parametrize("number", WHOLE, ids=ids)
@pytest.mark.parametrize("path", ["/v1/keys", "/v1/events/a"])
def test_a_limit(client: Client, path: str, number: str) -> None:
    assert refused(client.get(f"{path}?limit={quote(number, safe='')}"))


@pytest.mark.parametrize("number", WHOLE, ids=ids)
def test_since_and_token(client: Client, number: str) -> None:
    assert refused(client.get(f"/v1/watch?since={quote(number, safe='')}"))
    assert refused(client.delete(f"/v1/locks/a?token={quote(number, safe='')}"))


@pytest.mark.parametrize(
    "number",
    [n for n in WHOLE if n.encode().decode("latin-1").isprintable() and n == n.strip()],
    ids=ids,
)
def test_fields_with_numbers(client: Client, key: str, number: str) -> None:
    text = number.encode().decode("latin-1")
    if text:  # an empty position is none, and a preference that is not understood is passed over
        assert client.get("/v1/watch", Last_Event_ID=text).status == 400
    client.put(key)
    answer = client.get(f"/v1/keys/{key}", If_None_Match='"5"', Prefer=f"wait={text}")
    assert answer.status == 200


JSON_NUMBERS = (
    '""',
    '" 1"',
    '"1 "',
    '"1\\n"',
    '"+1"',
    '"1_0"',
    '"\\u0661"',
    '"\u0661"',
    '"0x1"',
    '"1.0"',
    '"1e1"',
    '"NaN"',
    '"9223372036854775808"',
    '"-9223372036854775809"',
    '"99999999999999999999"',
    f'"{"9" * 400}"',
    "9223372036854775808",
    "-9223372036854775809",
    "9" * 30,
    "9" * 5000,
    "1.0",
    "1.5",
    "1e1",
    "1E1",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "+1",
    "01",
    "1_0",
    "true",
    "null",
    "[1]",
    "{}",
)


@pytest.mark.parametrize("number", JSON_NUMBERS, ids=ids)
@pytest.mark.parametrize("member", ["delta", "initial"])
def test_delta_and_initial(client: Client, key: str, member: str, number: str) -> None:
    body = f'{{"{member}":{number}}}'.encode()
    assert client.post(f"/v1/counters/{key}", body).status == 400
    body = f'{{"operations":[{{"op":"add","key":"{key}","{member}":{number}}}]}}'.encode()
    assert client.post("/v1/batch", body).status == 400
    assert client.shown(key) is None


@pytest.mark.parametrize("member", ["if_match", "if_none_match"])
@pytest.mark.parametrize(
    # A revision may have 19 digits.
    "number",
    [n for n in JSON_NUMBERS if n[0] == '"' and "1" not in n[:2] and len(n) != 21],
)
def test_a_revision_in_a_batch(client: Client, key: str, member: str, number: str) -> None:
    operation = f'{{"op":"set","key":"{key}","value":1,"{member}":{number}}}'
    answer = client.post("/v1/batch", f'{{"operations":[{operation}]}}'.encode())
    assert answer.status == 400
    assert client.shown(key) is None


JSON_TTLS = (
    '"5"',
    "0",
    "-1",
    "-0.001",
    "0.0001",
    "0.0",
    "315360000.001",
    "315360001",
    "1e1",
    "5E0",
    "1e999",
    "1e-3",
    "NaN",
    "Infinity",
    "9" * 20,
    "9" * 5000,
    "9223372036854775808",
    "9223372036854775807",
    "+5",
    "05",
    "5.",
    ".5",
    "5_0",
    "true",
    "[]",
    "{}",
    '""',
    "0." + "0" * 30 + "1",
)


@pytest.mark.parametrize("ttl", JSON_TTLS, ids=ids)
def test_a_ttl_in_a_body(client: Client, key: str, ttl: str) -> None:
    members = f'"key":"{key}","value":1,"ttl":{ttl}'
    for path, body in (
        ("/set", f"{{{members}}}"),
        ("/v1/batch", f'{{"operations":[{{"op":"set",{members}}}]}}'),
        ("/v1/batch", f'{{"operations":[{{"op":"touch","key":"{key}","ttl":{ttl}}}]}}'),
        ("/v1/counters/" + key, f'{{"ttl":{ttl}}}'),
        ("/v1/locks/" + key, f'{{"owner":"a","ttl":{ttl}}}'),
    ):
        answer = client.post(path, body.encode())
        assert answer.status == 400, (path, answer)
    assert client.shown(key) is None
    assert client.get(f"/v1/locks/{key}").status == 404


# Nesting

DEEP = b"[" * 1_000_000
DEEP_OBJECTS = b'{"a":' * 1_000_000


@pytest.mark.parametrize(
    "deep", [DEEP, DEEP_OBJECTS, DEEP + b"]" * 1_000_000], ids=["arrays", "objects", "closed"]
)
@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("/set", b'{"key":"deep","value":', b"}"),
        ("/set", b"", b""),
        ("/v1/batch", b'{"operations":[{"op":"set","key":"deep","value":', b"}]}"),
        ("/v1/batch", b"", b""),
        ("/v1/batch", b'{"operations":', b"}"),
        ("/v1/counters/deep", b'{"delta":', b"}"),
        ("/v1/locks/deep", b'{"owner":"a","ttl":', b"}"),
    ],
)
def test_deep_nesting_is_refused_quickly(
    client: Client, path: str, before: bytes, after: bytes, deep: bytes
) -> None:
    def seconds() -> float:
        began = time.monotonic()
        answer = client.post(path, before + deep + after)
        # A value that is longer than values may be is refused for that.
        assert answer.status in (400, 413), answer
        return time.monotonic() - began

    eventually(seconds, 0.05 if deep == DEEP else 0.5)
    assert client.shown("deep") is None


# Characters

SURROGATES = (r"\ud800", r"\udfff", r"a\ud83d", r"\ude00\ud83d", r"\ud800\ud800", r"\ud83dx\ude00")


@pytest.mark.parametrize("text", SURROGATES)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/set", '{"key":"TEXT","value":1}'),
        ("/set", '{"key":"surrogate","value":"TEXT"}'),
        ("/v1/batch", '{"operations":[{"op":"set","key":"TEXT","value":1}]}'),
        ("/v1/batch", '{"operations":[{"op":"set","key":"surrogate","value":"TEXT"}]}'),
        ("/v1/batch", '{"operations":[{"op":"get","key":"TEXT"}]}'),
        ("/v1/batch", '{"operations":[{"op":"check","lock":"TEXT","token":"5"}]}'),
        ("/v1/locks/surrogate", '{"owner":"TEXT","ttl":5}'),
        ("/v1/counters/surrogate", '{"delta":"TEXT"}'),
    ],
)
def test_half_a_surrogate_pair_is_refused(client: Client, path: str, body: str, text: str) -> None:
    answer = client.post(path, body.replace("TEXT", text).encode())
    assert answer.status == 400, answer
    assert client.shown("surrogate") is None


def test_a_whole_surrogate_pair_is_a_character(client: Client) -> None:
    client.post("/set", b'{"key":"\\ud83d\\ude00","value":"\\ud83d\\ude00"}')
    assert client.shown("\U0001f600") == "\U0001f600"


@pytest.mark.parametrize("broken", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/set", b'{"key":"BYTES","value":1}'),
        ("/set", b'{"key":"broken","value":"BYTES"}'),
        ("/set", b'{"key":"broken","value":["BYTES"]}'),
        ("/v1/batch", b'{"operations":[{"op":"set","key":"BYTES","value":1}]}'),
        ("/v1/batch", b'{"operations":[{"op":"set","key":"broken","value":"BYTES"}]}'),
        ("/v1/batch", b'{"operations":[{"op":"set","key":"broken","value":{"a":"BYTES"}}]}'),
        ("/v1/batch", b'{"operations":[{"op":"BYTES","key":"broken"}]}'),
        ("/v1/counters/broken", b'{"delta":"BYTES"}'),
        ("/v1/locks/broken", b'{"owner":"BYTES","ttl":5}'),
    ],
)
def test_what_is_no_utf_8_is_refused(client: Client, path: str, body: bytes, broken: bytes) -> None:
    answer = client.post(path, body.replace(b"BYTES", broken))
    assert answer.status == 400, answer
    assert client.shown("broken") is None


@pytest.mark.parametrize("raw", ["%ff", "%c3", "%ed%a0%80", "%", "%4", "%zz", "a%", ""])
@pytest.mark.parametrize("path", ["/v1/keys/", "/v1/counters/", "/v1/locks/", "/v1/events/"])
def test_a_key_in_a_path_that_is_none(client: Client, path: str, raw: str) -> None:
    method = "POST" if path == "/v1/counters/" else "GET"
    answer = client.ask(method, path + raw)
    assert answer.status == 400, answer
    assert answer.json["type"] in ("/docs/problems/bad-key", "/docs/problems/bad-target")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/set", '{"key":"K","key":"L","value":1}'),
        ("/set", '{"key":"K","value":1,"value":2}'),
        ("/set", '{"key":"K","value":1,"ttl":1,"ttl":2}'),
        ("/v1/counters/K", '{"delta":"1","delta":"2"}'),
        ("/v1/locks/K", '{"owner":"a","owner":"b","ttl":5}'),
        ("/v1/batch", '{"operations":[{"op":"set","key":"K","key":"L","value":1}]}'),
    ],
)
def test_members_that_are_named_twice_are_refused(
    client: Client, key: str, path: str, body: str
) -> None:
    answer = client.post(path.replace("K", key), body.replace('"K"', f'"{key}"').encode())
    assert answer.status == 400
    assert client.shown(key) is None


@pytest.mark.parametrize(
    "number", ["9223372036854775808", "1e999", "-1e999", "1" * 400, "0.1" + "0" * 400, "-0", "1E5"]
)
def test_a_number_as_a_value_is_exact(client: Client, key: str, number: str) -> None:
    client.post("/set", f'{{"key":"{key}","value":{number}}}'.encode())
    expected = f'{{"key":"{key}","value":{number}}}'.encode()
    assert client.get(f"/get/{key}").body == expected
    listed = client.get(f"/v1/keys?prefix={key}&values=true").body
    assert f'"value":{number}'.encode() in listed


def test_the_highest_positions_are_no_trouble(client: Client, server: Server) -> None:
    for position in ("9223372036854775807", "9223372036854775808", "9999999999999999999"):
        assert client.get(f"/v1/watch?since={position}").status == 410
        with Watch(server, Last_Event_ID=position) as watch:
            assert watch.next().event == "reset"
        assert client.delete(f"/v1/locks/high?token={position}").status == 404
        answer = client.batch({"op": "check", "key": "high", "if_match": position})
        assert answer.status == 409
    newest = client.get("/v1/keys").json["revision"]
    with Watch(server, f"?since={'0' * (19 - len(newest))}{newest}") as watch:
        assert watch.synced() == []


# Large and long


def test_a_batch_of_reads_of_large_values_is_bounded(client: Client, key: str) -> None:
    """A small request must not make an answer that fills the memory."""
    client.put(key, b"v" * (1 << 20))
    operations: list[dict[str, object]] = [{"op": "get", "key": key}]
    assert client.batch(*operations * 7).status == 200
    answer = client.batch({"op": "add", "key": f"{key}n"}, *operations * 100)
    assert (answer.status, answer.json["limit"]) == (413, 8 << 20)
    assert client.shown(f"{key}n") is None
    large: dict[str, object] = {"op": "set", "key": f"{key}x", "value": "v" * 1_000_000}
    answer = client.batch(large, *[{"op": "get", "key": f"{key}x"}] * 100)
    assert answer.status == 413


def test_json_with_many_objects_holds_up_nobody_for_long(client: Client, key: str) -> None:
    body = json.dumps({"key": key, "value": [{"a": 1}] * 100_000}, separators=(",", ":"))

    def seconds() -> float:
        began = time.monotonic()
        assert client.post("/set", body.encode()).status == 200
        return time.monotonic() - began

    eventually(seconds, 0.5)
