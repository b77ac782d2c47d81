"""Messages that could be read in two ways, or are too large, are refused and end the connection."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyrack_server import Server, Wire, parse, request

if TYPE_CHECKING:
    from pathlib import Path

HOST = b"Host: localhost\r\n"
SMUGGLED = request("PUT", "/v1/keys/smuggled", b"executed")


def get(fields: bytes = HOST, line: bytes = b"GET /healthz HTTP/1.1\r\n") -> bytes:
    return line + fields + b"\r\n"


def put(fields: bytes, body: bytes = b"value") -> bytes:
    return b"PUT /v1/keys/refused HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


MALFORMED = {
    # Host
    "no Host": get(b""),
    "two Hosts": get(HOST + HOST),
    "two different Hosts": get(HOST + b"Host: evil.example\r\n"),
    "an empty Host": get(b"Host:\r\n"),
    "a Host with a path": get(b"Host: localhost/x\r\n"),
    "a Host with user information": get(b"Host: a@localhost\r\n"),
    "a Host with a space": get(b"Host: local host\r\n"),
    "two Hosts in one": get(b"Host: a, b c\r\n"),
    "a Host with a bad port": get(b"Host: localhost:x\r\n"),
    "a Host with a long port": get(b"Host: localhost:123456\r\n"),
    "a Host with two ports": get(b"Host: localhost:1:2\r\n"),
    "a Host of bare IPv6": get(b"Host: ::1\r\n"),
    "a Host that is no ASCII": get(b"Host: l\xc3\xb6calhost\r\n"),
    "a Host with a script": get(b"Host: <script>\r\n"),
    "no Host but an absolute target": get(b"", b"GET http://localhost/healthz HTTP/1.1\r\n"),
    # Length
    "length and chunked": put(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    "chunked and length": put(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    "differing lengths": put(b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    "equal lengths": put(b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    "a list of equal lengths": put(b"Content-Length: 5, 5\r\n"),
    "a length with a plus": put(b"Content-Length: +5\r\n"),
    "a length with a minus": put(b"Content-Length: -5\r\n"),
    "a length in hex": put(b"Content-Length: 0x5\r\n"),
    "a length with an underscore": put(b"Content-Length: 0_5\r\n"),
    "a length with a point": put(b"Content-Length: 5.0\r\n"),
    "a length with an exponent": put(b"Content-Length: 5e0\r\n"),
    "an empty length": put(b"Content-Length:\r\n"),
    "a length of 20 digits": put(b"Content-Length: 00000000000000000005\r\n"),
    "a length beyond 64 bits": put(b"Content-Length: 18446744073709551621\r\n"),
    "a length of 400 digits": put(b"Content-Length: " + b"9" * 400 + b"\r\n"),
    "a length in Arabic digits": put("Content-Length: \u0665\r\n".encode()),
    "a length in superscript": put(b"Content-Length: \xb2\r\n"),
    "a length with a space": put(b"Content-Length: 5 5\r\n"),
    "a length with a NUL": put(b"Content-Length: 5\0\r\n"),
    # Transfer codings
    "gzip": put(b"Transfer-Encoding: gzip\r\n"),
    "gzip, chunked": put(b"Transfer-Encoding: gzip, chunked\r\n"),
    "chunked, gzip": put(b"Transfer-Encoding: chunked, gzip\r\n"),
    "chunked twice": put(b"Transfer-Encoding: chunked, chunked\r\n"),
    "chunked in two fields": put(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    "gzip in another field": put(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
    "xchunked": put(b"Transfer-Encoding: xchunked\r\n"),
    "chunkedx": put(b"Transfer-Encoding: chunkedx\r\n"),
    "chunked in quotes": put(b'Transfer-Encoding: "chunked"\r\n'),
    "chunked with a parameter": put(b"Transfer-Encoding: chunked;x=y\r\n"),
    "chunked with a vertical tab": put(b"Transfer-Encoding: \x0bchunked\r\n"),
    "an empty transfer coding": put(b"Transfer-Encoding:\r\n"),
    "identity": put(b"Transfer-Encoding: identity\r\n"),
    "identity with a length": put(b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n"),
    "chunked in HTTP/1.0": put(b"Transfer-Encoding: chunked\r\n").replace(b"TP/1.1", b"TP/1.0"),
    # The request line
    "HTTP/0.9 without a version": get(line=b"GET /healthz\r\n"),
    "HTTP/1": get(line=b"GET /healthz HTTP/1\r\n"),
    "HTTP/1.10": get(line=b"GET /healthz HTTP/1.10\r\n"),
    "HTTP/01.1": get(line=b"GET /healthz HTTP/01.1\r\n"),
    "HTTP/1.+1": get(line=b"GET /healthz HTTP/1.+1\r\n"),
    "http/1.1": get(line=b"GET /healthz http/1.1\r\n"),
    "HTTP/1. and an Arabic digit": get(line="GET /healthz HTTP/1.\u0661\r\n".encode()),
    "HTTP/ and a full-width digit": get(line="GET /healthz HTTP/\uff11.1\r\n".encode()),
    "HTTP/1.1 and a superscript": get(line=b"GET /healthz HTTP/1.\xb9\r\n"),
    "ICAP": get(line=b"GET /healthz ICAP/1.0\r\n"),
    "a space behind the version": get(line=b"GET /healthz HTTP/1.1 \r\n"),
    "a tab before the target": get(line=b"GET\t/healthz HTTP/1.1\r\n"),
    "a space in the target": get(line=b"GET /he althz HTTP/1.1\r\n"),
    "no method": get(line=b" /healthz HTTP/1.1\r\n"),
    "a handshake of TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 64,
    "GET *": get(line=b"GET * HTTP/1.1\r\n"),
    "CONNECT": get(line=b"CONNECT localhost:80 HTTP/1.1\r\n"),
    "CONNECT to a path": get(line=b"CONNECT /healthz HTTP/1.1\r\n"),
    "a target without a slash": get(line=b"GET healthz HTTP/1.1\r\n"),
    "a target with a fragment": get(line=b"GET /healthz#x HTTP/1.1\r\n"),
    "a target that is no ASCII": get(line=b"GET /health\xc3\xa9 HTTP/1.1\r\n"),
    "a target with a NUL": get(line=b"GET /health\0z HTTP/1.1\r\n"),
    "a target with a DEL": get(line=b"GET /health\x7fz HTTP/1.1\r\n"),
    # Lines and fields
    "bare LF": get().replace(b"\r\n", b"\n"),
    "bare LF behind a field": get(b"Host: localhost\nX: y\r\n"),
    "bare CR in a field": get(HOST + b"X: a\rb\r\n"),
    "bare CR before a field": get(HOST + b"\rX: a\r\n"),
    "bare CR that hides a field": get(HOST + b"X: a\rContent-Length: 5\r\n"),
    "bare CR behind the head": b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\r\n",
    "a folded field": get(HOST + b"X: a\r\n b\r\n"),
    "a folded Host": get(b"Host:\r\n localhost\r\n"),
    "a fold before all fields": get(b" X: y\r\n" + HOST),
    "a space before the colon": get(HOST + b"X : y\r\n"),
    "a space before the colon of a length": put(b"Content-Length : 5\r\n"),
    "a tab before the colon": get(HOST + b"X\t: y\r\n"),
    "a NUL in a name": get(HOST + b"X\0Y: y\r\n"),
    "a NUL in a value": get(HOST + b"X: a\0b\r\n"),
    "a name that is no token": get(HOST + b"X(Y): y\r\n"),
    "a name that is no ASCII": get(HOST + b"X\xe9: y\r\n"),
    "no name": get(HOST + b": y\r\n"),
    "no colon": get(HOST + b"nonsense\r\n"),
    "two Content-Types": put(b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 5\r\n"),
    "two Origins": get(HOST + b"Origin: http://localhost\r\nOrigin: null\r\n"),
    "two Expects": put(b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"),
    "two Content-Encodings": put(b"Content-Encoding: identity\r\n" * 2 + b"Content-Length: 5\r\n"),
    "a byte order mark": b"\xef\xbb\xbf" + get(),
}  # fmt: skip


@pytest.mark.parametrize("known", [False, True], ids=["first", "behind another"])
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_is_refused_and_nothing_behind_it_is_read(
    server: Server, data: bytes, known: bool
) -> None:
    with server.connect() as wire:
        if known:
            assert wire.ask(request()).status == 200
        with contextlib.suppress(ConnectionError):
            wire.send(data + SMUGGLED)
        answer = wire.answer()
        assert (answer.status, answer.closes) == (400, True), answer
        assert answer["server"] == "keyrack"
        assert answer.get("date") is not None
        assert wire.rest() == b""
    for key in ("refused", "smuggled"):
        assert not server.has(key)


UNKNOWN = {
    "HTTP/2.0": (get(line=b"GET /healthz HTTP/2.0\r\n"), 505),
    "HTTP/3.1": (get(line=b"GET /healthz HTTP/3.1\r\n"), 505),
    "HTTP/0.9": (get(line=b"GET /healthz HTTP/0.9\r\n"), 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a method of nobody": (get(line=b"BREW /healthz HTTP/1.1\r\n"), 501),
    "a method with a body": (put(b"Content-Length: 5\r\n").replace(b"PUT", b"STORE"), 501),
    "a method in lower case": (get(line=b"get /healthz HTTP/1.1\r\n"), 501),
}


@pytest.mark.parametrize("known", [False, True], ids=["first", "behind another"])
@pytest.mark.parametrize(("data", "status"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_method_or_version_that_is_not_known_is_told_as_that(
    server: Server, data: bytes, status: int, known: bool
) -> None:
    with server.connect() as wire:
        if known:
            assert wire.ask(request()).status == 200
        with contextlib.suppress(ConnectionError):
            wire.send(data + SMUGGLED)
        answer = wire.answer()
        assert (answer.status, answer.closes) == (status, True), answer
        assert wire.rest() == b""
    assert not server.has("smuggled")


def test_a_later_version_of_http_1_is_served_as_1_1(server: Server) -> None:
    with server.connect() as wire:
        for minor in (2, 9):
            wire.send(get(line=b"GET /healthz HTTP/1.%d\r\n" % minor))
            answer = wire.answer()
            assert (answer.status, answer.closes) == (200, False)
        wire.send(get(b"", line=b"GET /healthz HTTP/1.2\r\n"))
        assert wire.answer().status == 400


def test_a_few_empty_lines_before_a_request_are_passed_over(server: Server) -> None:
    with server.connect() as wire:
        for empty in (b"\r\n", b"\r\n\r\n", b"\n\r\n"):
            assert wire.ask(empty + request()).status == 200
            wire.send(empty)
            assert wire.ask(request()).status == 200


@pytest.mark.parametrize("pieces", [1, 1000])
def test_endless_empty_lines_are_refused(server: Server, pieces: int) -> None:
    with server.connect() as wire:
        assert wire.ask(request()).status == 200
        with contextlib.suppress(ConnectionError):
            wire.send_pieces(*[b"\r\n" * (20_000 // pieces)] * pieces)
        assert wire.answer().status == 400
        assert wire.rest() == b""


def test_more_spaces_in_a_request_line_than_one_are_one(server: Server) -> None:
    """RFC 9112 section 3 allows it, and there is no second way to read it."""
    for line in (b"GET  /healthz HTTP/1.1\r\n", b"GET /healthz   HTTP/1.1\r\n"):
        assert server.raw(get(line=line)).startswith(b"HTTP/1.1 200 ")


# Sizes


def fields(count: int) -> bytes:
    return HOST + b"".join(b"X-%d: y\r\n" % number for number in range(count - 1))


def test_a_hundred_fields_are_taken_and_one_more_is_not(server: Server) -> None:
    for _ in range(2):
        assert server.raw(get(fields(100))).startswith(b"HTTP/1.1 200 ")
        found = parse(server.raw(get(fields(101))))
        assert found is not None
        assert (found[0].status, found[0].closes, found[0].json["limit"]) == (431, True, 100)


def test_a_large_header_section_is_refused(server: Server) -> None:
    limit = 32 * 1024
    for size, status in ((limit - 100, 200), (limit, 431), (100_000, 431), (400_000, 431)):
        for data in (
            get(HOST + b"X: " + b"y" * size + b"\r\n"),
            get(HOST + (b"X: " + b"y" * (size // 50) + b"\r\n") * 49),
        ):
            raw = server.raw(data)
            if data.count(b"X:") == 1 or status != 431:
                assert raw[9:12] == b"%d" % status, (size, raw)
            if status == 431 and raw[9:12] == b"431":
                assert b'"limit":' in raw


def test_an_endless_header_is_refused_while_it_arrives(wire: Wire, server: Server) -> None:
    before = server.worker_memory()
    wire.send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: ")
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            wire.send(b"y" * 10_000)
    assert b" 431 " in wire.rest()[:20]
    assert server.worker_memory() - before < 4 << 20


def test_a_long_target_is_refused(server: Server) -> None:
    for size, status in ((8192, b"404"), (8193, b"414"), (100_000, b"414"), (1_000_000, b"414")):
        for _ in range(2):
            target = b"/" + b"x" * (size - 1)
            raw = server.raw(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, HOST))
            assert raw[9:12] == status, (size, raw[:200])


def test_a_long_method_is_refused(server: Server) -> None:
    assert server.raw(b"G" * 100_000)[9:12] == b"400"


# Anything at all


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_never_answered_with_a_server_error(server: Server, noise: bytes) -> None:
    check_noise(server, noise)


PIECES = [
    b"GET ", b"PUT ", b"POST ", b"/set", b"/get/a", b"/v1/keys/noise", b"/", b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n", HOST, b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n",
    b"Upgrade: x\r\n", b"Content-Type: application/json\r\n", b"\r\n", b"\r", b"\n", b": ", b"\0",
    b"5\r\nvalue\r\n", b"0\r\n\r\n", b"value", b'{"key":"noise","value":"x"}', b"%", b"?", b"#",
    b"If-Match: *\r\n", b"\xff", b"HTTP/1.1 200 OK\r\n",
    b"/metrics", b"Accept: application/openmetrics-text;version=x\r\n",
]  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
def test_noise_made_of_http_is_never_answered_with_a_server_error(
    server: Server, noise: bytes
) -> None:
    check_noise(server, noise)


def check_noise(server: Server, noise: bytes) -> None:
    raw = server.raw(noise)
    for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) [A-Z]", raw):
        assert status[:1] in b"124" or status in (b"304", b"501", b"505"), (noise, raw)
    assert raw == b"" or raw.startswith(b"HTTP/1.1 ")
    with server.connect() as wire:
        assert wire.ask(request()).status == 200


def test_after_all_that_the_server_has_nothing_to_complain_of(server: Server) -> None:
    assert server.complaints() == []


# The corpus of gunicorn 27.0.1

ACCEPTED = {
    "011": "an ordinary request; gunicorn was set to take two fields",
    "012": "an ordinary request; gunicorn was set to take fields of 98 bytes",
    "limit_header_default_01": "a field of 8 KiB; our limit is 32 KiB",
    "rfc9110_trailer_forbidden_host_01": "a Host among the trailers, which we read and never use",
    "rfc9112_leading_crlf_02": "two empty lines before it; RFC 9112 2.2 asks for one at least",
}
"""Which of them are answered, and why that is right."""
TRUNCATED = {"099"}
"""Valid, but their Content-Length says that more would come."""
UNKNOWN = {"031"}
"""Valid, with a method that is not known here: 501."""


def corpus_request(path: Path) -> bytes:
    """Read a request as gunicorn's own tests do: newlines mean nothing, escapes are bytes."""
    data = path.read_bytes().replace(b"\n", b"").replace(b"\\r\\n", b"\r\n")
    data = data.replace(b"\\0", b"\0").replace(b"\\n", b"\n").replace(b"\\t", b"\t")
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), data)


def corpus_files(corpus: Path, kind: str) -> list[Path]:
    files = sorted((corpus / "gunicorn-27.0.1" / "tests" / "requests" / kind).glob("*.http"))
    assert len(files) > 50
    return files


def test_what_gunicorn_calls_invalid_is_refused(server: Server, corpus: Path) -> None:
    accepted = {}
    for path in corpus_files(corpus, "invalid"):
        raw = server.raw(corpus_request(path))
        statuses = re.findall(rb"(?:^|\r\n|[\n}])HTTP/1\.1 ([0-9]{3}) ", raw)
        assert not {b"500", b"503", b"507"}.intersection(statuses), path.name
        if raw == b"":
            continue
        found = parse(raw)
        assert found is not None, path.name
        if not (400 <= found[0].status <= 505 and found[0].closes):
            accepted[path.stem] = (found[0].status, corpus_request(path)[:200])
    assert accepted.keys() == ACCEPTED.keys(), accepted


def test_what_gunicorn_calls_valid_is_answered(server: Server, corpus: Path) -> None:
    for path in corpus_files(corpus, "valid"):
        raw = server.raw(corpus_request(path))
        if raw == b"" and path.stem in TRUNCATED:
            continue
        assert raw.startswith(b"HTTP/1.1 "), path.name
        assert raw[9:10] in b"24" or (raw[9:12] == b"501" and path.stem in UNKNOWN), path.name
