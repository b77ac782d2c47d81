"""`/v1/keys/{key}`: values as they were sent, conditions, TTLs, media types, limits."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyrack_server import ON_VALKEY, Answer, Server, Wire, chunked, request

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A server with limits that a test reaches quickly."""
    with Server("--max-value", "1000", "--max-body", "2000") as running:
        yield running


def assert_problem(answer: Answer, status: int, slug: str) -> None:
    """Assert that an answer is an RFC 9457 problem, with these members first."""
    assert answer.status == status, answer
    assert answer["content-type"] == "application/problem+json"
    assert answer["cache-control"] == "no-store"
    assert list(answer.json)[:4] == ["type", "title", "status", "detail"]
    assert answer.json["type"] == f"/docs/problems/{slug}"
    assert answer.json["status"] == status
    assert len(answer.json["detail"]) > 10


# Writing, reading, deleting


def test_a_new_key_is_created_and_a_known_one_replaced(server: Server, key: str) -> None:
    created = server.ask("PUT", f"/v1/keys/{key}", b"1")
    replaced = server.ask("PUT", f"/v1/keys/{key}", b"2")
    assert (created.status, created.body, created["content-length"]) == (201, b"", "0")
    assert (replaced.status, replaced.body) == (204, b"")
    assert replaced.get("content-length") is None
    assert int(created["etag"].strip('"')) < int(replaced["etag"].strip('"'))


def test_a_value_is_answered_with_exactly_these_fields(server: Server, key: str) -> None:
    etag = server.put(key, b"\0\xff value", Content_Type="image/x-test")
    answer = server.ask("GET", f"/v1/keys/{key}")
    assert (answer.status, answer.body) == (200, b"\0\xff value")
    assert dict(answer.fields) == {
        "server": "keyrack",
        "cross-origin-resource-policy": "same-origin",
        "date": answer["date"],
        "content-type": "image/x-test",
        "etag": etag,
        "cache-control": "no-store",
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
        "content-length": "8",
    }


def test_an_etag_is_a_quoted_revision(server: Server, key: str) -> None:
    etag = server.put(key, b"")
    assert etag[0] == etag[-1] == '"'
    assert 1 << 50 < int(etag[1:-1]) < 1 << 63


def test_head_answers_as_get_does_without_the_body(server: Server, wire: Wire, key: str) -> None:
    server.put(key, b"value", Content_Type="text/css")
    for target in (
        f"/v1/keys/{key}",
        f"/get/{key}",
        "/get/missing",
        "/v1/keys/missing",
        "/healthz",
    ):
        for _ in range(2):
            got = wire.ask(request("GET", target))
            head = wire.ask(request("HEAD", target))
            assert head.status == got.status
            assert dict(head.fields) | {"date": ""} == dict(got.fields) | {"date": ""}
            assert head.body == b""


def test_deleting_removes_and_says_whether_there_was_something(server: Server, key: str) -> None:
    server.put(key, b"1")
    gone = server.ask("DELETE", f"/v1/keys/{key}")
    assert (gone.status, gone.body, gone.get("etag")) == (204, b"", None)
    assert_problem(server.ask("DELETE", f"/v1/keys/{key}"), 404, "key-not-found")
    assert_problem(server.ask("GET", f"/v1/keys/{key}"), 404, "key-not-found")


def test_an_empty_value_is_a_value(server: Server, key: str) -> None:
    server.put(key, b"")
    answer = server.ask("GET", f"/v1/keys/{key}")
    assert (answer.status, answer.body, answer["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("method", ["POST", "TRACE", "PROPFIND", "QUERY"])
def test_another_method_is_refused_with_those_that_are_allowed(server: Server, method: str) -> None:
    answer = server.ask(method, "/v1/keys/a")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/v1/keys/a", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/get/a", "GET, HEAD, OPTIONS"),
        ("/set", "OPTIONS, POST"),
        ("/healthz", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_names_the_methods(server: Server, target: str, allowed: str) -> None:
    answer = server.ask("OPTIONS", target)
    assert (answer.status, answer["allow"], answer.body) == (204, allowed, b"")
    assert answer.get("access-control-allow-origin") is None


# Preconditions: RFC 9110, sections 13.1 and 13.2

PRESENT = [
    # method, field, value ({} is the present ETag), status
    ("GET", "If-Match", "{}", 200),
    ("GET", "If-Match", "*", 200),
    ("GET", "If-Match", '"1"', 412),
    ("GET", "If-Match", "W/{}", 412),
    ("GET", "If-Match", '"1", {}', 200),
    ("GET", "If-Match", '"not-a-revision"', 412),
    ("GET", "If-None-Match", "{}", 304),
    ("GET", "If-None-Match", "W/{}", 304),
    ("GET", "If-None-Match", "*", 304),
    ("GET", "If-None-Match", '"1"', 200),
    ("GET", "If-None-Match", '"1", W/"2" ,{}', 304),
    ("GET", "If-None-Match", '"1", "not,one", "x"', 200),
    ("GET", "If-None-Match", ", {} ,,", 304),
    ("GET", "If-None-Match", '""', 200),
    ("GET", "If-None-Match", '"18446744073709551616"', 200),
    ("GET", "If-None-Match", '"+1"', 200),
    ("HEAD", "If-None-Match", "{}", 304),
    ("HEAD", "If-Match", '"1"', 412),
    ("PUT", "If-Match", "{}", 204),
    ("PUT", "If-Match", "*", 204),
    ("PUT", "If-Match", '"1"', 412),
    ("PUT", "If-Match", "W/{}", 412),
    ("PUT", "If-Match", '"1",{}', 204),
    ("PUT", "If-None-Match", "*", 412),
    ("PUT", "If-None-Match", "{}", 412),
    ("PUT", "If-None-Match", "W/{}", 412),
    ("PUT", "If-None-Match", '"1"', 204),
    ("DELETE", "If-Match", "{}", 204),
    ("DELETE", "If-Match", "*", 204),
    ("DELETE", "If-Match", '"1"', 412),
    ("DELETE", "If-Match", "W/{}", 412),
    ("DELETE", "If-None-Match", "*", 412),
    ("DELETE", "If-None-Match", "{}", 412),
    ("DELETE", "If-None-Match", '"1"', 204),
]
MISSING = [
    ("GET", "If-Match", "*", 404),
    ("GET", "If-Match", '"1"', 404),
    ("GET", "If-None-Match", "*", 404),
    ("PUT", "If-Match", "*", 412),
    ("PUT", "If-Match", '"1"', 412),
    ("PUT", "If-None-Match", "*", 201),
    ("PUT", "If-None-Match", '"1"', 201),
    ("DELETE", "If-Match", "*", 404),
    ("DELETE", "If-Match", '"1"', 404),
    ("DELETE", "If-None-Match", "*", 404),
]


def body_of(method: str) -> bytes | None:
    return b"new" if method == "PUT" else None


@pytest.mark.parametrize(("method", "field", "value", "status"), PRESENT)
def test_a_condition_on_a_key_that_is_there(
    server: Server, key: str, method: str, field: str, value: str, status: int
) -> None:
    etag = server.put(key, b"old")
    fields = {field: value.format(etag)}
    answer = server.ask(method, f"/v1/keys/{key}", body_of(method), **fields)
    assert answer.status == status, answer
    now = server.ask("GET", f"/v1/keys/{key}")
    if status in (304, 412):
        assert answer["etag"] == now["etag"] == etag
    if status == 412 and method != "HEAD":
        assert_problem(answer, 412, "precondition-failed")
    if status == 304:
        assert (answer.body, answer["cache-control"]) == (b"", "no-store")
    if status == 204:
        assert now.status == (404 if method == "DELETE" else 200)
        assert now.get("etag") == answer.get("etag")


@pytest.mark.parametrize(("method", "field", "value", "status"), MISSING)
def test_a_condition_on_a_key_that_is_missing(
    server: Server, key: str, method: str, field: str, value: str, status: int
) -> None:
    answer = server.ask(method, f"/v1/keys/{key}", body_of(method), **{field: value})
    assert answer.status == status, answer
    if status == 412:
        assert_problem(answer, 412, "precondition-failed")
        assert answer.get("etag") is None
    if status == 404:
        assert_problem(answer, 404, "key-not-found")
    assert server.ask("GET", f"/v1/keys/{key}").status == (200 if status == 201 else 404)


def test_both_conditions_have_to_hold(server: Server, key: str) -> None:
    etag = server.put(key, b"1")
    target = f"/v1/keys/{key}"
    both = {"If_Match": etag, "If_None_Match": etag}
    assert server.ask("GET", target, **both).status == 304
    assert server.ask("GET", target, If_Match='"1"', If_None_Match=etag).status == 412
    assert server.ask("PUT", target, b"2", **both).status == 412
    assert server.ask("PUT", target, b"2", If_Match=etag, If_None_Match='"1"').status == 204


def test_a_condition_may_be_spread_over_several_fields(server: Server, key: str) -> None:
    etag = server.put(key, b"1")
    raw = request("GET", f"/v1/keys/{key}", If_None_Match='"1"')
    raw = raw.replace(b"\r\n\r\n", f"\r\nif-none-match: {etag}\r\n\r\n".encode())
    assert server.raw(raw).startswith(b"HTTP/1.1 304 ")


@pytest.mark.parametrize("field", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize(
    "value",
    [
        "", " ", "1", "1795474670195050", '"', '"1', '1"', '"1" "2"', '"1";"2"', 'w/"1"',
        'W/ "1"', "W/1", "W/", "*, *", '*, "1"', '"1", *', "'1'", '"a b"', "**", '"1"x', ",",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_malformed_condition_is_refused(
    server: Server, field: str, value: str, method: str
) -> None:
    answer = server.ask(method, "/v1/keys/conditions", body_of(method), **{field: value})
    assert_problem(answer, 400, "bad-condition")


@pytest.mark.timing
def test_a_hostile_condition_is_read_in_one_pass(server: Server) -> None:
    for value in ('"' * 30_000, '"a",' * 7_000 + "x", "," * 30_000, '"\x80",' * 6_000 + '"'):
        began = time.monotonic()
        assert server.ask("GET", "/v1/keys/a", If_Match=value).status == 400
        assert time.monotonic() - began < 5.0


def test_of_several_that_create_a_key_at_once_one_succeeds(server: Server, key: str) -> None:
    wires = [server.connect() for _ in range(8)]
    for number, wire in enumerate(wires):
        wire.send(request("PUT", f"/v1/keys/{key}", b"%d" % number, If_None_Match="*"))
    statuses = [wire.answer().status for wire in wires]
    for wire in wires:
        wire.close()
    assert sorted(statuses) == [201] + [412] * 7
    winner = statuses.index(201)
    assert server.ask("GET", f"/v1/keys/{key}").body == b"%d" % winner


@pytest.mark.parametrize("condition", ["{}", "*"])
def test_of_several_that_delete_a_key_at_once_the_others_find_it_missing(
    server: Server, key: str, condition: str
) -> None:
    etag = server.put(key, b"v")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.connect()) for _ in range(8)]
        for wire in wires:
            wire.send(request("DELETE", f"/v1/keys/{key}", If_Match=condition.format(etag)))
        assert sorted(wire.answer().status for wire in wires) == [204] + [404] * 7


# TTL

GOOD_TTLS = [
    "0.001",
    "1",
    "60",
    "0.5",
    "00060",
    "1.5000",
    "1.000000001",
    "315360000",
    "315360000.0009",
]
BAD_TTLS = [
    "", "0", "0.0", "0.0009", "0.000999999", "00", "-1", "+1", "-0", "%2B1", "1_0", "1e3", "1E3",
    "0x10", "NaN", "nan", "inf", "Infinity", "1.", ".5", "1.5.1", "1,5", "%201", "1%20", "1%00",
    "315360000.001", "315360001", "315360000000", "2147483648000", "9007199254740993",
    "9223372036854775807", "18446744073709551616", "9" * 20, "9" * 400, "%D9%A1", "%EF%BC%91",
    "%C2%B9", "1%0A", "1%0D%0A", "true", "null", '%221%22', "1s", "1.0000000001",
]  # fmt: skip


@pytest.mark.parametrize("ttl", GOOD_TTLS)
def test_a_ttl_is_a_decimal_number_of_seconds(server: Server, key: str, ttl: str) -> None:
    assert server.ask("PUT", f"/v1/keys/{key}?ttl={ttl}", b"1").status == 201
    answer = server.ask("GET", f"/v1/keys/{key}")
    if float(ttl) >= 1:
        left = answer["keyrack-ttl"]
        assert len(left.partition(".")[2]) == 3
        assert float(ttl) - 1 < float(left) <= float(ttl)


@pytest.mark.parametrize("ttl", BAD_TTLS)
def test_another_ttl_is_refused_and_nothing_is_written(server: Server, key: str, ttl: str) -> None:
    answer = server.ask("PUT", f"/v1/keys/{key}?ttl={ttl}", b"1")
    assert_problem(answer, 400, "bad-ttl")
    assert server.ask("GET", f"/v1/keys/{key}").status == 404


@settings(max_examples=150, deadline=None)
@given(st.text("0123456789.+-_eExX\u0660\uff11\u00b2", max_size=12))
def test_any_ttl_is_taken_exactly_or_refused(server: Server, ttl: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in ttl.encode())
    answer = server.ask("PUT", f"/v1/keys/ttl-{next(_numbers)}?ttl={quoted}", b"1")
    whole, dot, fraction = ttl.partition(".")
    decimal = (
        whole.isascii() and whole.isdigit() and len(whole) < 10
        and (not dot or (fraction.isascii() and fraction.isdigit() and len(fraction) < 10))
    )  # fmt: skip
    milliseconds = int(whole) * 1000 + int(fraction[:3].ljust(3, "0")) if decimal else 0
    assert answer.status == (201 if 1 <= milliseconds <= 315_360_000_000 else 400), ttl


@pytest.mark.timing
def test_a_key_is_served_for_its_time_and_not_a_millisecond_longer(server: Server) -> None:
    """Its time began between sending the write and having its answer; so bound both ends."""
    with server.connect() as wire:
        for number in range(20):
            target = f"/v1/keys/short-{number}"
            began = time.monotonic()
            wire.ask(request("PUT", f"{target}?ttl=0.030", b"1"))
            written = asked = time.monotonic()
            while (answer := wire.ask(request("GET", target))).status == 200:
                assert asked - written <= 0.031
                assert 0 <= float(answer["keyrack-ttl"]) <= 0.030
                asked = time.monotonic()
            assert time.monotonic() - began >= 0.029
            assert wire.ask(request("HEAD", target)).status == 404
            assert wire.ask(request("GET", f"/get/short-{number}")).status == 404
            assert wire.ask(request("DELETE", target)).status == 404


def test_a_write_without_a_ttl_clears_it(server: Server, key: str) -> None:
    server.ask("PUT", f"/v1/keys/{key}?ttl=60", b"1")
    server.put(key, b"2")
    assert server.ask("GET", f"/v1/keys/{key}").get("keyrack-ttl") is None


def test_a_condition_does_not_see_a_key_whose_time_is_over(server: Server, key: str) -> None:
    target = f"/v1/keys/{key}"
    etag = server.ask("PUT", f"{target}?ttl=0.001", b"1")["etag"]
    time.sleep(0.002)
    assert server.ask("PUT", target, b"2", If_Match=etag).status == 412
    assert server.ask("PUT", target, b"2", If_None_Match="*").status == 201


# Parameters


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("PUT", "TTL=1"), ("PUT", "ttl=1&ttl=1"), ("PUT", "ttl=1&x"), ("PUT", "x=1"),
        ("PUT", "ttl%3D1"), ("PUT", "%74tl=1"), ("PUT", "ttl=%zz"), ("PUT", "ttl=1;x=1"),
        ("PUT", "=1"), ("PUT", "%ff=1"), ("GET", "ttl=1"), ("GET", "x"), ("HEAD", "x"),
        ("DELETE", "ttl=1"), ("DELETE", "all=true"), ("GET", "?"), ("GET", "a?b"),
    ],
)  # fmt: skip
def test_unknown_and_repeated_parameters_are_refused(
    server: Server, key: str, method: str, query: str
) -> None:
    server.put(key, b"old")
    answer = server.ask(method, f"/v1/keys/{key}?{query}", body_of(method))
    assert answer.status == 400
    if method != "HEAD":
        assert answer.json["type"] in ("/docs/problems/bad-parameter", "/docs/problems/bad-ttl")
    assert server.ask("GET", f"/v1/keys/{key}").body == b"old"


@pytest.mark.parametrize("query", ["", "&", "&&"])
def test_an_empty_query_is_none(server: Server, key: str, query: str) -> None:
    assert server.ask("PUT", f"/v1/keys/{key}?{query}", b"1").status == 201


# Media types


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "TEXT/Plain; Charset=UTF-8",
        "application/json",
        'multipart/form-data; boundary="a b;c"',
        "application/vnd.api+json;version=1 ; q=2",
        "x/y;",
        "application/gzip",
        "!#$&-^_.+/x",
        "a/" + "b" * 253,
    ],
)
def test_a_media_type_is_kept_byte_for_byte(server: Server, key: str, media_type: str) -> None:
    server.put(key, b"\xff{", Content_Type=media_type)
    answer = server.ask("GET", f"/v1/keys/{key}")
    assert (answer["content-type"], answer.body) == (media_type, b"\xff{")


@pytest.mark.parametrize("media_type", ["", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize(
    ("value", "stored_as"),
    [("ä=1&b".encode(), TEXT), (b"", TEXT), (b"\xff", BINARY), (b"\xed\xa0\x80", BINARY)],
)
def test_a_body_without_a_type_is_text_where_it_can_be(
    server: Server, key: str, media_type: str | None, value: bytes, stored_as: str
) -> None:
    server.put(key, value, **({} if media_type is None else {"Content_Type": media_type}))
    answer = server.ask("GET", f"/v1/keys/{key}")
    assert (answer["content-type"], answer.body) == (stored_as, value)


@pytest.mark.parametrize(
    "media_type",
    ["text", "text/", "/plain", "text/plain, text/css", "te xt/plain", "text/pl\xe4in",
     "a/" + "b" * 254, "text/plain; x=\x80", "*", "text/plain/x", "<b>/x"],
)  # fmt: skip
def test_what_is_no_media_type_is_refused(server: Server, key: str, media_type: str) -> None:
    answer = server.ask("PUT", f"/v1/keys/{key}", b"1", Content_Type=media_type)
    assert_problem(answer, 415, "unsupported-media-type")
    assert server.ask("GET", f"/v1/keys/{key}").status == 404


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", "GZIP", ""])
def test_an_encoded_body_is_refused(server: Server, key: str, encoding: str) -> None:
    answer = server.ask("PUT", f"/v1/keys/{key}", b"1", Content_Encoding=encoding)
    assert_problem(answer, 415, "unsupported-media-type")
    assert "Content-Type" in answer.json["detail"]


def test_an_encoding_that_changes_nothing_is_taken(server: Server, key: str) -> None:
    server.put(key, b"1", Content_Encoding="Identity")
    answer = server.ask("GET", f"/v1/keys/{key}")
    assert (answer.body, answer.get("content-encoding")) == (b"1", None)


def test_a_part_of_a_value_is_refused(server: Server, key: str) -> None:
    answer = server.ask("PUT", f"/v1/keys/{key}", b"1", Content_Range="bytes 0-0/9")
    assert_problem(answer, 400, "malformed-message")
    assert server.ask("GET", f"/v1/keys/{key}").status == 404


# Limits


def test_the_longest_value_is_taken_and_a_longer_one_refused(server: Server, key: str) -> None:
    longest = bytes(range(256)) * 4096
    server.put(key, longest, Content_Type=BINARY)
    assert server.ask("GET", f"/v1/keys/{key}").body == longest
    answer = server.ask("PUT", f"/v1/keys/{key}", longest + b"x")
    assert_problem(answer, 413, "too-large")
    assert (answer.json["limit"], answer.json["actual"]) == (1 << 20, (1 << 20) + 1)
    assert "--max-value" in answer.json["detail"]
    assert server.ask("GET", f"/v1/keys/{key}").body == longest


def test_the_limit_of_a_value_counts_what_is_received(small: Server, key: str) -> None:
    target = f"/v1/keys/{key}"
    chunked_put = request("PUT", target, Transfer_Encoding="chunked")
    answers = [small.raw(chunked_put + chunked(*[b"x"] * size)) for size in (1000, 1001, 5000)] + [
        small.raw(chunked_put + chunked(b"x" * size)) for size in (1001, 100_000)
    ]
    assert [answer.split(b" ")[1] for answer in answers] == [b"201"] + [b"413"] * 4
    assert small.ask("GET", target).body == b"x" * 1000


def test_a_value_over_the_limit_is_refused_the_second_time_as_the_first(
    small: Server, key: str
) -> None:
    for size, statuses in ((1000, [201, 204]), (1001, [413, 413])):
        with small.connect() as wire:
            wire.ask(request())
            answers = []
            for _ in range(2):
                with small.connect() as one:
                    answers.append(one.ask(request("PUT", f"/v1/keys/{key}-{size}", b"x" * size)))
        assert [answer.status for answer in answers] == statuses
        assert [answer.closes for answer in answers] == [status == 413 for status in statuses]


def test_a_body_over_the_limit_is_refused_also_where_the_value_is_not(small: Server) -> None:
    body = b'{"key":"padded","value":"x"}'
    for padding, status in ((0, 200), (1900, 200), (3000, 413)):
        padded = body + b" " * padding
        for _ in range(2):
            answer = small.ask("POST", "/set", padded, Content_Type="application/json")
            assert answer.status == status, padding
    answer = small.ask("GET", "/v1/keys/a", b"x" * 3000)
    assert_problem(answer, 413, "too-large")
    assert (answer.json["limit"], answer.json["actual"]) == (2000, 3000)
    assert "--max-body" in answer.json["detail"]


def test_a_value_over_the_limit_of_the_seed_api_names_both(small: Server) -> None:
    body = b'{"key":"a","value":"' + b"x" * 1001 + b'"}'
    answer = small.ask("POST", "/set", body, Content_Type="application/json")
    assert answer.status == 413
    assert "1001 bytes" in answer.json["message"]
    assert "1000 bytes" in answer.json["message"]


@pytest.mark.skipif(ON_VALKEY, reason="the memory is Valkey's: tests/valkey tries it")
def test_a_full_store_refuses_writes_and_serves_the_rest() -> None:
    with Server(memory="8m") as tight, tight.connect() as wire:
        statuses = []
        for number in range(100):
            statuses.append(wire.ask(request("PUT", f"/v1/keys/{number}", b"x" * 500_000)).status)
            if statuses[-1] == 507:
                break
        full = len(statuses) - 1
        assert statuses == [201] * full + [507]
        answer = wire.ask(request("PUT", "/v1/keys/more", b"x" * 500_000))
        assert_problem(answer, 507, "store-full")
        body = b'{"key":"more","value":"' + b"x" * 500_000 + b'"}'
        answer = wire.ask(request("POST", "/set", body, Content_Type="application/json"))
        assert (answer.status, answer.json["status"]) == (507, "error")
        assert wire.ask(request("GET", "/v1/keys/0")).status == 200
        for number in range(full):
            assert wire.ask(request("DELETE", f"/v1/keys/{number}")).status == 204
        assert wire.ask(request("PUT", "/v1/keys/more", b"x" * 500_000)).status == 201


@pytest.mark.skipif(ON_VALKEY, reason="the memory is Valkey's")
def test_a_batch_and_a_lock_for_which_there_is_no_room_say_how_much_they_need() -> None:
    with Server(memory="8m") as tight, tight.connect() as wire:
        for number in range(10):
            assert wire.ask(request("PUT", f"/v1/keys/{number}", b"x" * 500_000)).status == 201
        value = "x" * 20_000
        batch = [{"op": "set", "key": f"{number}", "value": value} for number in range(200)]
        body = json.dumps({"operations": batch}).encode()
        answer = wire.ask(request("POST", "/v1/batch", body, Content_Type="application/json"))
        assert_problem(answer, 507, "store-full")
        assert answer.json["actual"] > 4_000_000 > answer.json["limit"] > 1_000_000
        assert str(answer.json["actual"]) in answer.json["detail"]
        body = json.dumps({"owner": "o" * 500, "ttl": 3600}).encode()
        for number in range(3000):
            path = f"/v1/locks/{number}"
            answer = wire.ask(request("POST", path, body, Content_Type="application/json"))
            if answer.status != 201:
                break
        assert_problem(answer, 507, "store-full")
        assert answer.json["actual"] > answer.json["limit"] == 1 << 20
        assert "lock" in answer.json["detail"]
        assert wire.ask(request("PUT", "/v1/keys/a", b"v")).status == 201
