"""What a path names: the bytes after the prefix, percent-decoded exactly once, and nothing else."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyrack_server import Answer, Server, Wire, request

PREFIXES = ["/get/", "/v1/keys/"]
VISIBLE = frozenset(range(0x21, 0x7F)) - set(b"#%?")


def one_answer(server: Server, data: bytes) -> tuple[int, bytes]:
    """Return the status and what is behind it; assert that the server still serves afterwards."""
    raw = server.raw(data)
    status = int(raw.split(b" ", 2)[1]) if raw else 0
    return status, raw


@pytest.mark.parametrize("prefix", PREFIXES)
def test_each_byte_raw_in_a_target_is_a_key_or_refused(server: Server, prefix: str) -> None:
    for byte in range(256):
        key = b"raw-" + bytes((byte,)) + b"."
        put = b"PUT /v1/keys/%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n%c" % (
            key,
            byte,
        )
        get = b"GET %b%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (prefix.encode(), key)
        with server.connect() as wire:
            stored = wire.ask(put)
            if byte in VISIBLE:
                assert stored.status in (201, 204), byte
                found = wire.ask(get)
                assert found.status == 200, byte
                if prefix == "/get/":
                    assert found.json["key"] == key.decode(), byte
                else:
                    assert found.body == bytes((byte,))
                continue
        if byte == ord("?"):
            assert stored.status == 400
            assert stored.json["type"] == "/docs/problems/bad-parameter"
            continue
        assert stored.status in (400, 414), (byte, stored)
        with server.connect() as wire:
            refused = wire.ask(get)
            assert refused.status == 400, (byte, refused)
            if byte not in b"%":
                # Where the message ends is in doubt, so nothing more is read from it.
                assert refused.closes
                assert wire.rest() == b""


@pytest.mark.parametrize("digits", ["{:02x}", "{:02X}"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_each_byte_percent_encoded_is_itself_or_refused(
    wire: Wire, prefix: str, digits: str
) -> None:
    for byte in range(256):
        name = f"%{digits.format(byte)}"
        stored = wire.ask(request("PUT", f"/v1/keys/{name}", b"%d" % byte))
        found = wire.ask(request("GET", f"{prefix}{name}"))
        if byte < 0x80:
            assert stored.status in (201, 204)
            assert found.status == 200
            if prefix == "/get/":
                assert found.json == {"key": chr(byte), "value": str(byte)}
            else:
                assert found.body == b"%d" % byte
        else:
            assert (stored.status, found.status) == (400, 400)
            assert b"UTF-8" in found.body


keys = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60) | st.binary(
    min_size=1, max_size=511
).map(lambda raw: raw.decode("utf-8", "replace").encode()[:511].decode("utf-8", "ignore") or "x")


@settings(max_examples=120, deadline=None)
@given(keys, st.binary(max_size=40), st.booleans())
def test_any_key_goes_round(server: Server, key: str, value: bytes, everything: bool) -> None:
    name = quote(key, safe="" if everything else "/!$&'()*+,;=:@~|{}[]^`<>\\\"")
    target = f"/v1/keys/{name}"
    with server.connect() as wire:
        wire.ask(request("DELETE", target))
        assert wire.ask(request("PUT", target, value, Content_Type="a/b")).status == 201
        found = wire.ask(request("GET", target))
        assert (found.status, found.body) == (200, value)
        shown = wire.ask(request("GET", f"/get/{name}"))
        assert (shown.status, shown.json["key"]) == (200, key)
        assert wire.ask(request("DELETE", target)).status == 204
        assert wire.ask(request("GET", f"/get/{name}")).status == 404


@settings(max_examples=60, deadline=None)
@given(keys)
def test_any_key_of_json_is_found_by_its_path(server: Server, key: str) -> None:
    body = json.dumps({"key": key, "value": key}).encode()
    with server.connect() as wire:
        answer = wire.ask(request("POST", "/set", body, Content_Type="application/json"))
        assert answer.status == 200
        shown = wire.ask(request("GET", "/get/" + quote(key, safe="")))
        assert shown.json == {"key": key, "value": key}


@pytest.mark.parametrize(
    ("target", "key"),
    [
        (".", "."),
        ("..", ".."),
        ("../v1/info", "../v1/info"),
        ("a/../b", "a/../b"),
        ("a/./b", "a/./b"),
        ("./a", "./a"),
        ("a//b", "a//b"),
        ("/a", "/a"),
        ("/", "/"),
        ("//", "//"),
        ("a/", "a/"),
        ("a%2F", "a/"),
        ("%2e%2E", ".."),
        ("%252e", "%2e"),
        ("%25", "%"),
        ("%2525", "%25"),
        ("a%23b", "a#b"),
        ("a%3Fb", "a?b"),
        ("a%2520b", "a%20b"),
        ("A", "A"),
        ("e%CC%81", "e\u0301"),
        ("%C3%A9", "\u00e9"),
        ("%EF%BB%BFa", "\ufeffa"),
        ("%E2%80%AE", "\u202e"),
        ("%F4%8F%BF%BF", "\U0010ffff"),
        ("%0d%0aSet-Cookie:x", "\r\nSet-Cookie:x"),
        ("http://x/y", "http://x/y"),
        ('<script>"', '<script>"'),
        ("a&b=c", "a&b=c"),
        ("a;b,c", "a;b,c"),
        ("a\\b", "a\\b"),
        ("k" * 511, "k" * 511),
        ("%6b" * 511, "k" * 511),
        ("%C3%BC" * 255 + "u", "ü" * 255 + "u"),
    ],
    ids=lambda text: text[:20],
)
def test_a_key_is_never_normalised(wire: Wire, target: str, key: str) -> None:
    value = f"value of {target}".encode()
    for _ in range(2):
        stored = wire.ask(request("PUT", f"/v1/keys/{target}", value, Content_Type="text/plain"))
        assert stored.status in (201, 204)
        assert wire.ask(request("GET", f"/v1/keys/{target}")).body == value
        assert wire.ask(request("GET", f"/get/{target}")).json == {
            "key": key,
            "value": value.decode(),
        }


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("", "bad-key"),
        ("k" * 512, "bad-key"),
        ("%6b" * 512, "bad-key"),
        ("%C3%BC" * 256, "bad-key"),
        ("%zz", "bad-target"),
        ("%", "bad-target"),
        ("a%", "bad-target"),
        ("a%2", "bad-target"),
        ("%2g", "bad-target"),
        ("%+1", "bad-target"),
        ("% 1", None),
        ("%u0041", "bad-target"),
        ("%%41", "bad-target"),
        ("%C3", "bad-key"),
        ("%C0%AF", "bad-key"),
        ("%ED%A0%80", "bad-key"),
        ("%F4%90%80%80", "bad-key"),
        ("%80", "bad-key"),
        ("a%FFb", "bad-key"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_what_is_no_key_is_refused(
    server: Server, prefix: str, name: str, slug: str | None
) -> None:
    methods = ["GET"] if prefix == "/get/" else ["GET", "PUT", "DELETE"]
    for method in methods:
        answer = server.ask(method, prefix + name, b"" if method == "PUT" else None)
        assert answer.status == 400, (method, answer)
        if slug and prefix == "/v1/keys/":
            assert answer.json["type"] == f"/docs/problems/{slug}"


def test_a_key_that_is_too_long_names_limit_and_actual(server: Server) -> None:
    problem = server.ask("GET", "/v1/keys/" + "%C3%BC" * 300).json
    assert (problem["limit"], problem["actual"]) == (511, 600)


def test_a_fragment_is_no_part_of_a_request(server: Server) -> None:
    answer = server.ask("GET", "/v1/keys/a#b")
    assert (answer.status, answer.json["type"]) == (400, "/docs/problems/bad-target")


def test_paths_beside_the_prefix_are_no_keys(server: Server) -> None:
    for target in (
        "/V1/keys/a",
        "/v1//keys/a",
        "/v1%2Fkeys/a",
        "//v1/keys/a",
        "/Get/a",
    ):
        answer = server.ask("GET", target)
        assert answer.status == 404, target
        assert answer.json["type"] == "/docs/problems/not-found"


def test_a_key_cannot_forge_a_header_or_a_line_of_the_log(key: str) -> None:
    with Server("--access-log") as logging:
        before = len(logging.log_lines())
        evil = "%0d%0aSet-Cookie:%20x=1%0d%0a%0d%0a%1b%5b31m%00%e2%80%a8"
        answers: list[Answer] = [
            logging.ask("PUT", f"/v1/keys/{evil}", b"1"),
            logging.ask("GET", f"/v1/keys/{evil}"),
            logging.ask("GET", f"/get/{evil}"),
            logging.ask("GET", f"/{evil}"),
            logging.ask("GET", f"/v1/keys/{evil}?{evil}"),
        ]
        for answer in answers:
            assert answer.get("set-cookie") is None
            assert b"\r\nSet-Cookie" not in answer.body
        lines = logging.log_lines()[before:]
        accesses = [line for line in lines if line["logger"] == "keyrack.access"]
        assert len(accesses) == len(answers)
        assert b"\x1b" not in logging.log().encode()
