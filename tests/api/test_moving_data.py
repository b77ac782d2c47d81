"""`GET /v1/export` and `POST /v1/import`: lossless, streamed, and honest about what failed."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, dechunked, quoted, steps_of, until
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keyrack_server import ON_VALKEY, Server, chunked, request

from keyrack.engines.contract import Set
from keyrack.http.api import bulk
from keyrack.http.api.codec import checked_media_type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from api_support.inside import Inside
    from keyrack_server import Answer

_MIB = 1 << 20
NDJSON = {"Content_Type": "application/x-ndjson"}


def exported(server: Server, query: str = "") -> bytes:
    data = server.raw(request("GET", f"/v1/export{query}"), timeout=60)
    head, body = dechunked(data)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    assert b"content-type: application/x-ndjson" in head.lower()
    return body


def lines(body: bytes) -> list[dict[str, Any]]:
    assert body == b"" or body.endswith(b"\n")
    return [json.loads(line) for line in body.split(b"\n")[:-1]]


def load(client: Client, body: bytes, query: str = "") -> Any:
    answer = client.ask("POST", f"/v1/import{query}", body, **NDJSON)
    assert answer.status == 200, answer
    return answer.json


def state(client: Client, prefix: str) -> dict[str, tuple[bytes, str, float | None]]:
    """Return everything under a prefix: bytes, media type, seconds left."""
    found: dict[str, tuple[bytes, str, float | None]] = {}
    following: str | None = f"/v1/keys?prefix={quoted(prefix)}&limit=1000"
    while following:
        answer = client.get(following)
        for entry in answer.json["keys"]:
            value = client.get(f"/v1/keys/{quoted(entry['key'])}")
            left = value.get("Keyrack-TTL")
            kind = value["Content-Type"]
            found[entry["key"]] = (value.body, kind, None if left is None else float(left))
        link = answer.get("Link")
        following = link and link[1 : link.index(">")]
    return found


# Export


def test_an_export_has_one_line_for_each_key_in_order(
    client: Client, server: Server, key: str
) -> None:
    for name in ("c", "a", "b"):
        client.put(f"{key}/{name}", name.encode())
    assert exported(server, f"?prefix={key}/") == b"".join(
        b'{"key":"%b/%b","value":"%b"}\n' % (key.encode(), name, name)
        for name in (b"a", b"b", b"c")
    )


def test_an_export_of_nothing_is_empty(server: Server, key: str) -> None:
    assert exported(server, f"?prefix={key}") == b""


@pytest.mark.parametrize(
    ("value", "kind", "members"),
    [
        (b"text", "text/plain; charset=utf-8", {"value": "text"}),
        (b"text", "text/html", {"value": "text", "type": "text/html"}),
        (b'{"a":1.50}', "application/json", {"value": {"a": 1.5}}),
        (b"[1,\n2]", "application/json", None),
        (b"\xff", "text/plain; charset=utf-8", None),
        (b"\x00\xff", "application/octet-stream", None),
        (b'"text"', "application/json", None),
    ],
)
def test_a_value_is_exported_as_plainly_as_it_can_be(
    client: Client, server: Server, key: str, value: bytes, kind: str, members: Any
) -> None:
    client.put(key, value, Content_Type=kind)
    (line,) = lines(exported(server, f"?prefix={key}"))
    if members is None:
        text = base64.b64encode(value).decode()
        members = {"value": text, "type": kind, "encoding": "base64"}
    assert line == {"key": key, **members}


def test_time_left_is_exported_and_ended_keys_are_not(
    client: Client, server: Server, key: str
) -> None:
    client.put(f"{key}a", b"", "?ttl=50")
    client.put(f"{key}b", b"", "?ttl=0.001")
    time.sleep(0.003)
    (line,) = lines(exported(server, f"?prefix={key}"))
    assert 45 < line["ttl"] <= 50


@pytest.mark.timing
def test_an_export_of_many_keys_holds_up_nobody(client: Client, server: Server, key: str) -> None:
    for start in range(0, 10_000, 1000):
        client.batch(
            *({"op": "set", "key": f"{key}/{start + n:05}", "value": "v"} for n in range(1000))
        )
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(exported(server, f"?prefix={key}/")))
    thread.start()
    times = []
    while thread.is_alive():
        began = time.monotonic()
        client.get(f"/get/{key}")
        times.append(time.monotonic() - began)
        time.sleep(0.001)
    thread.join()
    assert [line["key"] for line in lines(found[0])] == [f"{key}/{n:05}" for n in range(10_000)]
    assert sorted(times)[len(times) // 2] < 0.05
    client.delete(f"/v1/keys?prefix={key}/")


@pytest.mark.timing
@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        (b"x" * _MIB, "text/plain; charset=utf-8"),
        (b"\1" * _MIB, "text/plain; charset=utf-8"),
        ("ä".encode() * (_MIB // 2), "text/plain; charset=utf-8"),
        (bytes(range(256)) * (_MIB // 256), "application/octet-stream"),
        (b"[" + b'"a\\n",' * (_MIB // 8) + b"1]", "application/json"),
        (b"[" + b'"a",\n' * (_MIB // 8) + b"1]", "application/json"),
    ],
    ids=["text", "escapes", "umlauts", "binary", "json", "json of many lines"],
)
def test_a_step_of_an_export_is_short_however_long_the_values_are(
    inside: Inside, value: bytes, media_type: str
) -> None:
    """The loop is free again after 5 ms of work. One in 50 may take longer: memory is made."""
    for number in range(16):
        inside.engine.write([(Set(b"k%d" % number, value, media_type),)])
    found: list[bytes] = []

    async def take_all() -> None:
        found.extend([step async for step in bulk.export(b"", inside.context)])

    steps = inside.run(steps_of(take_all()))
    assert steps[len(steps) // 50 + 1] < 0.005
    assert [line["key"] for line in lines(b"".join(found))] == sorted(f"k{n}" for n in range(16))


@pytest.mark.parametrize("query", ["prefix=%zz", "limit=5", "prefix=a&prefix=b"])
def test_a_parameter_of_export_that_is_not_understood_is_refused(
    client: Client, query: str
) -> None:
    assert client.get(f"/v1/export?{query}").status == 400


def test_a_client_that_leaves_its_export_is_forgotten(key: str) -> None:
    with Server(workers=1) as own, Client(own) as client:
        for number in range(40):
            client.put(f"{number}", bytes(1 << 20), Content_Type="image/png")
        for _ in range(5):
            wire = own.connect()
            wire.send(request("GET", "/v1/export"))
            wire.socket.recv(1000)
            wire.reset()
        assert client.get("/healthz").status == 200
        assert until(lambda: b"keyrack_connections 1.0" in client.get("/metrics").body)
        assert own.worker_memory() < 200_000_000


# Import


def test_lines_are_imported(client: Client, key: str) -> None:
    report = load(
        client,
        f'{{"key":"{key}a","value":"text"}}\n'
        f'{{"key":"{key}b","value":{{"n": 1.50}}}}\n'
        f'{{"key":"{key}c","value":"/wA=","encoding":"base64"}}\n'
        f'{{"key":"{key}d","value":"AA==","encoding":"base64","type":"image/png","ttl":50}}\n'
        f'{{"key":"{key}e","value":"<p>","type":"text/html","ttl":0.5}}'.encode(),
    )
    assert report == {"imported": 5, "failed": 0, "errors": [], "stopped": False}
    found = {name.removeprefix(key): entry for name, entry in state(client, key).items()}
    assert found["a"] == (b"text", "text/plain; charset=utf-8", None)
    assert found["b"] == (b'{"n": 1.50}', "application/json", None)
    assert found["c"] == (b"\xff\x00", "application/octet-stream", None)
    assert found["d"][:2] == (b"\x00", "image/png")
    assert found["d"][2] is not None
    assert 45 < found["d"][2] <= 50
    assert found["e"][:2] == (b"<p>", "text/html")


@pytest.mark.parametrize("body", [b"", b"\n", b"\n\n \r\n\t\n"])
def test_nothing_is_imported_from_nothing(client: Client, body: bytes) -> None:
    assert load(client, body) == {"imported": 0, "failed": 0, "errors": [], "stopped": False}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_may_end_as_on_windows(client: Client, key: str, end: str) -> None:
    body = end.join(f'{{"key":"{key}{n}","value":"v"}}' for n in range(3))
    assert load(client, body.encode())["imported"] == 3


BAD_LINES = {
    "no JSON": b"{",
    "an array": b"[]",
    "no key": b'{"value":1}',
    "no value": b'{"key":"a"}',
    "an empty key": b'{"key":"","value":1}',
    "a long key": b'{"key":"%b","value":1}' % (b"a" * 512),
    "half a surrogate pair": b'{"key":"\\ud800","value":1}',
    "half a surrogate pair in a value": b'{"key":"a","value":"\\ud800"}',
    "no UTF-8": b'{"key":"\xff","value":1}',
    "no UTF-8 in a value": b'{"key":"a","value":"\xff"}',
    "no UTF-8 in JSON": b'{"key":"a","value":["\xff"]}',
    "an unknown member": b'{"key":"a","value":1,"tll":5}',
    "broken base64": b'{"key":"a","value":"a","encoding":"base64"}',
    "base64 of no string": b'{"key":"a","value":5,"encoding":"base64"}',
    "another encoding": b'{"key":"a","value":"a","encoding":"hex"}',
    "no media type": b'{"key":"a","value":"a","type":"text"}',
    "a forged header": b'{"key":"a","value":"a","type":"text/plain\\r\\nX: y"}',
    "a ttl of zero": b'{"key":"a","value":1,"ttl":0}',
    "a ttl below zero": b'{"key":"a","value":1,"ttl":-5}',
    "a ttl that is text": b'{"key":"a","value":1,"ttl":"5"}',
    "a ttl beyond ten years": b'{"key":"a","value":1,"ttl":315360000.001}',
    "a ttl beyond numbers": b'{"key":"a","value":1,"ttl":1e999}',
    "a ttl that is no number": b'{"key":"a","value":1,"ttl":NaN}',
    "two values": b'{"key":"a","value":1}{"key":"b","value":1}',
    "too large a value": b'{"key":"a","value":"%b"}' % (b"v" * ((1 << 20) + 1)),
    "deep nesting": b'{"key":"a","value":%b}' % (b"[" * 100_000),
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_reported_with_its_number(client: Client, key: str, line: bytes) -> None:
    good = b'{"key":"%b%d","value":1}\n'
    body = good % (key.encode(), 1) + b"\n" + line + b"\n" + good % (key.encode(), 2)
    client.delete("/v1/keys/a")
    report = load(client, body)
    assert (report["imported"], report["failed"], report["stopped"]) == (2, 1, False)
    (error,) = report["errors"]
    assert error["line"] == 3
    assert error["detail"]
    assert client.shown("a") is None


def test_the_first_hundred_errors_are_shown_and_all_are_counted(client: Client, key: str) -> None:
    body = b"x\n" * 300 + b'{"key":"%b","value":1}\n' % key.encode()
    report = load(client, body)
    assert (report["imported"], report["failed"]) == (1, 300)
    assert [error["line"] for error in report["errors"]] == list(range(1, 101))


def test_an_import_stops_at_the_first_error_when_asked_to(client: Client, key: str) -> None:
    good = b"".join(b'{"key":"%b%d","value":1}\n' % (key.encode(), n) for n in range(3))
    rest = b'{"key":"%b9","value":1}\n' % key.encode()
    report = load(client, good + b"x\n" + rest, "?on_error=stop")
    assert (report["imported"], report["failed"], report["stopped"]) == (3, 1, True)
    assert [error["line"] for error in report["errors"]] == [4]
    assert client.shown(f"{key}2") == 1
    assert client.shown(f"{key}9") is None


@pytest.mark.parametrize("query", ["on_error=ignore", "on_error=", "prefix=a", "on_error"])
def test_a_parameter_of_import_that_is_not_understood_is_refused(
    client: Client, key: str, query: str
) -> None:
    body = b'{"key":"%b","value":1}' % key.encode()
    answer = client.ask("POST", f"/v1/import?{query}", body, **NDJSON)
    assert answer.status == 400
    assert client.shown(key) is None


@pytest.mark.parametrize(
    "kind", [None, "application/json", "text/plain", "application/x-www-form-urlencoded"]
)
def test_an_import_says_what_it_is(client: Client, key: str, kind: str | None) -> None:
    body = b'{"key":"%b","value":1}' % key.encode()
    fields = {} if kind is None else {"Content_Type": kind}
    answer = client.ask("POST", "/v1/import", body, **fields)
    assert (answer.status, answer.json["type"]) == (415, "/docs/problems/unsupported-media-type")
    assert client.shown(key) is None


# Lossless

kinds = st.one_of(
    st.none(),
    st.sampled_from(
        (
            "text/plain",
            "text/plain; charset=latin-1",
            "application/json",
            "application/json; charset=utf-8",
            "application/octet-stream",
            "image/png",
            "application/x-www-form-urlencoded",
            "a/b",
        )
    ),
    st.from_regex(r"[a-z]{1,8}/[a-z+.-]{1,8}", fullmatch=True),
)
json_texts = st.builds(
    lambda value, indent, before, after: (
        before + json.dumps(value, indent=indent, ensure_ascii=False) + after
    ).encode(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5).filter(str.isascii),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text("abc\u00e9", max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    st.sampled_from((None, 0, 2)),
    st.sampled_from(("", " ", "\n")),
    st.sampled_from(("", " ", "\r\n")),
)
odd_json = st.sampled_from(
    (
        b'{"a":1,"a":2}',
        b"1.50",
        b"1e400",
        b"-0",
        b"123456789012345678901234567890",
        b'"text"',
        b'"\\u00e9"',
        b'["\\ud83d\\ude00"]',
        b"null",
        b"{}",
        b"NaN",
        b"[" * 5000 + b"]" * 5000,
        b'{"\\n":"\\r\\n"}',
        b"\xef\xbb\xbf1",
        b'["\xff"]',
        b"",
    )
)
values = st.one_of(
    st.binary(max_size=30), st.text(max_size=10).map(str.encode), json_texts, odd_json
)
entries = st.tuples(
    st.text(min_size=1, max_size=8).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)),
    values,
    kinds,
    st.one_of(st.none(), st.integers(60_000, 10**9)),
)


@settings(max_examples=60, deadline=None)
@given(stored=st.lists(entries, min_size=1, max_size=6))
@example(stored=[("k", b'{"a":1,\n\n"a":2}', "application/json", None)])
@example(stored=[("\n", b"\r\n", None, 60_000), ("\0", b"\0", "text/plain", None)])
def test_what_is_exported_comes_back_byte_for_byte(
    server: Server, stored: list[tuple[str, bytes, str | None, int | None]]
) -> None:
    prefix = "lossless/"
    with Client(server) as client:
        client.delete(f"/v1/keys?prefix={prefix}")
        for key, value, kind, ttl in stored:
            query = "" if ttl is None else f"?ttl={ttl / 1000}"
            fields = {} if kind is None else {"Content_Type": checked_media_type(kind)}
            client.put(prefix + key, value, query, **fields)
        before = state(client, prefix)
        body = exported(server, f"?prefix={prefix}")
        client.delete(f"/v1/keys?prefix={prefix}")
        assert state(client, prefix) == {}
        assert load(client, body)["imported"] == len(before)
        after = state(client, prefix)
        assert {key: entry[:2] for key, entry in after.items()} == {
            key: entry[:2] for key, entry in before.items()
        }
        for key, (_, _, left) in before.items():
            now = after[key][2]
            assert (left is None) == (now is None)
            if left is not None and now is not None:
                assert left - 5 < now <= left
        assert exported(server, f"?prefix={prefix}&") == exported(
            server, f"?prefix={prefix}"
        ) or any(ttl for *_, ttl in stored)


@pytest.mark.parametrize("ttl", ["0.001", "0.5", "1", "59.999", "315360000"])
def test_time_left_is_kept_to_the_millisecond(
    client: Client, server: Server, key: str, ttl: str
) -> None:
    if ttl == "0.001":
        body = b'{"key":"%b","value":1,"ttl":0.001}' % key.encode()
        assert load(client, body)["imported"] == 1
        time.sleep(0.003)
        assert client.shown(key) is None
        return
    body = b'{"key":"%b","value":1,"ttl":%b}' % (key.encode(), ttl.encode())
    assert load(client, body)["imported"] == 1
    left = float(client.get(f"/v1/keys/{key}")["Keyrack-TTL"])
    assert float(ttl) - 0.4 < left <= float(ttl)
    (line,) = lines(exported(server, f"?prefix={key}"))
    assert float(ttl) - 0.4 < line["ttl"] <= float(ttl)


# Streamed


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A service that takes bodies of at most 1 MiB."""
    with Server("--max-body", "1m", "--max-value", "512k", memory="256m") as running:
        yield running


def test_a_body_may_be_larger_than_other_bodies(small: Server) -> None:
    body = b"".join(b'{"key":"large/%05d","value":"%b"}\n' % (n, b"v" * 200) for n in range(12_000))
    assert len(body) > 2 << 20
    with Client(small) as client:
        assert load(client, body)["imported"] == 12_000
        pieces = chunked(*(body[n : n + 70_000] for n in range(0, len(body), 70_000)))
        answer = client.ask("POST", "/v1/import", pieces, Transfer_Encoding="chunked", **NDJSON)
        assert answer.json["imported"] == 12_000
        client.clear()


def test_lines_may_come_in_pieces_of_any_size(small: Server) -> None:
    body = "".join(f'{{"key":"p{n}","value":"\u00e9"}}\n' for n in range(5)).encode()
    with small.connect() as wire:
        wire.send(request("POST", "/v1/import", b"", Transfer_Encoding="chunked", **NDJSON))
        for at in range(len(body)):
            wire.send(b"1\r\n%b\r\n" % body[at : at + 1])
        wire.send(b"0\r\n\r\n")
        assert wire.answer().json["imported"] == 5


def test_a_line_that_is_longer_than_a_body_is_refused(small: Server) -> None:
    with small.connect(30) as wire:
        wire.send(request("POST", "/v1/import", b"", Transfer_Encoding="chunked", **NDJSON))
        sent = 0
        try:
            for _ in range(400):
                wire.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
                sent += 10_000
        except OSError:
            pass
        answer = wire.answer()
    assert answer.status in (400, 413)
    assert answer.json["limit"] == 1 << 20


def test_a_large_import_takes_little_memory(small: Server) -> None:
    """100 MB through a worker, the same few keys again and again: under 30 MB more memory."""
    block = b"".join(b'{"key":"m%03d","value":"%b"}\n' % (n, b"v" * 1000) for n in range(100))
    rounds = 100_000_000 // len(block)
    with small.connect(120) as wire, Client(small) as other:
        other.put("warm")
        before = small.worker_memory()
        wire.send(
            request("POST", "/v1/import", None, Content_Length=str(rounds * len(block)), **NDJSON)
        )
        most = before
        for number in range(rounds):
            wire.send(block)
            if number % 50 == 0:
                most = max(most, small.worker_memory())
                assert other.get("/healthz").status == 200
        assert wire.answer().json["imported"] == rounds * 100
    assert most - before < 30_000_000


def test_a_client_that_leaves_its_import_is_forgotten(small: Server) -> None:
    with Client(small) as client:
        for leave in ("close", "reset", "half_close"):
            wire = small.connect()
            wire.send(
                request("POST", "/v1/import", None, Content_Length="1000000", **NDJSON)
                + b'{"key":"left","value":1}\n'
            )
            assert until(lambda: client.shown("left") == 1)
            client.delete("/v1/keys/left")
            getattr(wire, leave)()
            assert until(lambda: b"keyrack_connections 1.0" in client.get("/metrics").body), leave
            wire.close()
    text = small.log()
    assert "Traceback" not in text
    assert small.complaints() == []


# On the connection


def test_what_is_pipelined_behind_an_import_is_answered_after_it(
    client: Client, server: Server, key: str
) -> None:
    body = b'{"key":"%b","value":"imported"}\n' % key.encode()
    with server.connect() as wire:
        wire.send(
            request("POST", "/v1/import", body, **NDJSON)
            + request("GET", f"/get/{key}")
            + request("PUT", f"/v1/keys/{key}", b"put")
            + request("POST", "/v1/import", body, **NDJSON)
            + request("GET", f"/get/{key}")
        )
        assert wire.answer().json["imported"] == 1
        assert wire.answer().json["value"] == "imported"
        assert wire.answer().status == 204
        assert wire.answer().json["imported"] == 1
        assert wire.answer().json["value"] == "imported"


SMUGGLED = request("PUT", "/v1/keys/smuggled", b"executed")

REFUSED: dict[str, tuple[str, dict[str, str], int]] = {
    "parameter": ("/v1/import?x=1", dict(NDJSON), 400),
    "media type": ("/v1/import", {"Content_Type": "text/plain"}, 415),
    "cross-site": ("/v1/import", {**NDJSON, "Sec_Fetch_Site": "cross-site"}, 403),
    "stopped": ("/v1/import?on_error=stop", dict(NDJSON), 422),
}


@pytest.mark.parametrize(("path", "fields", "status"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_the_body_of_a_refused_import_is_never_read_as_requests(
    client: Client, server: Server, path: str, fields: dict[str, str], status: int, coding: str
) -> None:
    client.delete("/v1/keys/smuggled")
    with server.connect() as wire:
        if coding == "chunked":
            head = request("POST", path, None, Transfer_Encoding="chunked", **fields)
            first = b"2\r\nx\n\r\n"
        else:
            head = request("POST", path, None, Content_Length=str(len(SMUGGLED) + 2), **fields)
            first = b"x\n"
        wire.send(head + first)
        answer: Answer = wire.answer()
        assert answer.status == status
        wire.send(SMUGGLED)
        wire.half_close()
        rest = wire.rest()
        assert rest.count(b"HTTP/1.1") <= 1, rest
        assert b" 201 " not in rest
    assert client.shown("smuggled") is None


@pytest.mark.parametrize("broken", [b"zz\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n", b"\r\n"])
def test_a_broken_chunk_ends_the_import(
    client: Client, server: Server, key: str, broken: bytes
) -> None:
    line = b'{"key":"%b","value":1}\n' % key.encode()
    with server.connect(3) as wire:
        wire.send(
            request("POST", "/v1/import", None, Transfer_Encoding="chunked", **NDJSON)
            + b"%x\r\n%b\r\n" % (len(line), line)
        )
        assert until(lambda: client.shown(key) == 1)
        wire.send(broken + SMUGGLED)
        data = wire.rest()
    assert data == b"" or data.startswith(b"HTTP/1.1 400 ")
    assert client.shown("smuggled") is None


@pytest.mark.time_limits
def test_an_import_that_stalls_is_ended() -> None:
    with Server("--body-timeout", "1", workers=1) as own, own.connect(15) as wire:
        wire.send(
            request("POST", "/v1/import", None, Content_Length="1000", **NDJSON)
            + b'{"key":"stalled","value":1}\n'
        )
        began = time.monotonic()
        data = wire.rest()
        assert time.monotonic() - began < 8
        assert data == b"" or data.startswith(b"HTTP/1.1 408 ")
        with Client(own) as client:
            assert until(lambda: b"keyrack_connections 1.0" in client.get("/metrics").body)


def test_expect_100_continue_is_answered_before_an_import(server: Server, key: str) -> None:
    body = b'{"key":"%b","value":1}\n' % key.encode()
    with server.connect() as wire:
        fields = {"Expect": "100-continue", "Content_Length": str(len(body)), **NDJSON}
        wire.send(request("POST", "/v1/import", None, **fields))
        assert wire.answer().status == 100
        wire.send(body)
        assert wire.answer().json["imported"] == 1


@pytest.mark.skipif(ON_VALKEY, reason="the memory is Valkey's: tests/valkey tries it")
def test_a_full_store_is_reported_line_by_line(tmp_path: Path) -> None:
    with Server(memory="8m") as own, Client(own) as client:
        body = b"".join(b'{"key":"%04d","value":"%b"}\n' % (n, b"v" * 100_000) for n in range(120))
        report = load(client, body)
        assert report["imported"] > 10
        assert report["imported"] + report["failed"] == 120
        assert "room" in report["errors"][0]["detail"]
        assert client.delete("/v1/keys?all=true").json["deleted"] == report["imported"]
