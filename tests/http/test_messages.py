"""HTTP/1.1 on the wire: order, framing, 100-continue, connections that end or stay."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyrack_server import Answer, Server, Wire, chunked, parse, request

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = "application/json"
SMUGGLED = request("PUT", "/v1/keys/smuggled", b"executed")


def answers(raw: bytes) -> list[Answer]:
    """Return all answers in what a connection sent."""
    found = []
    while raw:
        one = parse(raw)
        assert one is not None, raw[:200]
        found.append(one[0])
        raw = one[1]
    return found


def set_pair(key: str, value: str) -> bytes:
    return request(
        "POST", "/set", f'{{"key":"{key}","value":"{value}"}}'.encode(), Content_Type=JSON
    )


def mixed_requests(source: random.Random, count: int, key: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield requests of every kind with the body that is due, given all those before."""
    value = ""
    for number in range(count):
        match source.randrange(6):
            case 0:
                value = f"set {number}"
                yield set_pair(key, value), b"is set successfully"
            case 1:
                value = f"put {number}"
                yield request("PUT", f"/v1/keys/{key}", value.encode()), b""
            case 2:
                yield request("GET", f"/get/{key}"), f'"value":"{value}"'.encode()
            case 3:
                yield request("GET", f"/v1/keys/{key}"), value.encode()
            case 4:
                yield request("GET", f"/nothing/{number}"), b"/docs/problems/not-found"
            case _:
                value = f"chunked {number}"
                head = request("PUT", f"/v1/keys/{key}", Transfer_Encoding="chunked")
                yield head + chunked(value[:3].encode(), value[3:].encode()), b""


# Pipelining


def test_a_thousand_pipelined_requests_are_answered_in_order(wire: Wire, key: str) -> None:
    source = random.Random(1000)
    wire.ask(request("PUT", f"/v1/keys/{key}", b""))
    expected = list(mixed_requests(source, 1000, key))
    wire.send(b"".join(data for data, _ in expected))
    for number, (data, body) in enumerate(expected):
        answer = wire.answer()
        assert body in answer.body, (number, data, answer)
        assert (answer.body == b"") == (body == b"")
    assert wire.nothing_comes(0.05)


@pytest.mark.parametrize("seed", range(6))
def test_pipelined_requests_may_be_cut_anywhere(server: Server, key: str, seed: int) -> None:
    source = random.Random(seed)
    expected = list(mixed_requests(source, 80, key))
    data = b"".join(data for data, _ in expected)
    cuts = sorted(source.sample(range(1, len(data)), 60))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    with server.connect() as wire:
        wire.ask(request("PUT", f"/v1/keys/{key}", b""))
        wire.send_pieces(*pieces, pause=0.0005 if seed % 2 else 0.0)
        for one, body in expected:
            assert body in wire.answer().body, one


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=12))
def test_three_requests_in_any_pieces_are_three_requests(server: Server, sizes: list[int]) -> None:
    data = (
        set_pair("pieces", "one")
        + request("PUT", "/v1/keys/pieces", Transfer_Encoding="chunked")
        + chunked(b"tw", b"o")
        + request("GET", "/get/pieces")
    )
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    with server.connect() as wire:
        wire.send_pieces(*pieces, data, pause=0.0002)
        assert [wire.answer().status for _ in range(2)] in ([200, 201], [200, 204])
        assert wire.answer().json["value"] == "two"


def test_a_write_is_seen_by_the_read_behind_it_in_the_same_packet(wire: Wire, key: str) -> None:
    for number in range(50):
        wire.send(set_pair(key, str(number)) + request("GET", f"/get/{key}"))
        wire.answer()
        assert wire.answer().json["value"] == str(number)
        wire.send(request("DELETE", f"/v1/keys/{key}") + request("GET", f"/v1/keys/{key}"))
        assert (wire.answer().status, wire.answer().status) == (204, 404)


def test_a_write_is_seen_by_the_read_of_another_connection(server: Server, key: str) -> None:
    with server.connect() as writer, server.connect() as reader:
        for number in range(200):
            assert writer.ask(set_pair(key, str(number))).status == 200
            assert reader.ask(request("GET", f"/get/{key}")).json["value"] == str(number)


# 100-continue


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_body_is_asked_for_and_then_taken(wire: Wire, key: str, framing: str) -> None:
    fields = {"Expect": "100-continue"}
    if framing == "chunked":
        fields["Transfer_Encoding"] = "chunked"
    else:
        fields["Content_Length"] = "5"
    for _ in range(2):
        wire.send(request("PUT", f"/v1/keys/{key}", **fields))
        assert wire.answer() == Answer(100, (), b"")
        assert wire.nothing_comes(0.05)
        wire.send(chunked(b"value") if framing == "chunked" else b"value")
        assert wire.answer().status in (201, 204)
    assert wire.ask(request("GET", f"/v1/keys/{key}")).body == b"value"


def test_the_expectation_is_read_without_regard_to_case(wire: Wire, key: str) -> None:
    wire.send(request("PUT", f"/v1/keys/{key}", Content_Length="1", Expect="100-CONTINUE"))
    assert wire.answer().status == 100


@pytest.mark.parametrize(
    ("method", "target", "fields", "status"),
    [
        ("PUT", "/v1/keys/a", {"Content_Length": "1048577"}, 413),
        ("POST", "/set", {"Content_Length": "8388609"}, 413),
        ("PUT", "/v1/keys/a", {"Content_Length": "x"}, 400),
        ("PUT", "/v1/keys/a", {"Content_Length": "5", "If_Match": "nonsense"}, 400),
        ("PUT", "/v1/keys/a#b", {"Content_Length": "5"}, 400),
    ],
)
def test_a_body_that_cannot_be_taken_is_not_asked_for(
    wire: Wire, method: str, target: str, fields: dict[str, str], status: int
) -> None:
    answer = wire.ask(request(method, target, Expect="100-continue", **fields))
    assert (answer.status, answer.closes) == (status, True)
    assert wire.rest() == b""


@pytest.mark.parametrize("expect", ["200-ok", "100-continue, x", "", "100", "x=100-continue"])
def test_an_unknown_expectation_is_refused(wire: Wire, expect: str) -> None:
    answer = wire.ask(request("PUT", "/v1/keys/a", b"x", Expect=expect))
    assert (answer.status, answer.closes) == (417, True)


def test_http_1_0_cannot_expect_anything(server: Server, key: str) -> None:
    data = request("PUT", f"/v1/keys/{key}", b"x", Expect="100-continue")
    raw = server.raw(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert raw.startswith(b"HTTP/1.1 201 ")


def test_a_body_is_asked_for_also_behind_a_write_of_the_same_packet(wire: Wire, key: str) -> None:
    for first in (request("PUT", f"/v1/keys/{key}", b"1"), set_pair(key, "1"), request("GET", "/")):
        expecting = request("PUT", f"/v1/keys/{key}", Content_Length="5", Expect="100-continue")
        wire.send(first + expecting)
        assert wire.answer().status in (200, 201, 204)
        assert wire.answer().status == 100
        wire.send(b"value")
        assert wire.answer().status == 204


def test_an_expecting_request_without_a_body_is_answered_once(wire: Wire) -> None:
    data = request("GET", "/healthz", Expect="100-continue")
    wire.send(data + request("PUT", "/v1/keys/a", b"", Expect="100-continue") + data)
    statuses = [wire.answer().status for _ in range(3)]
    assert statuses[0] == statuses[2] == 200
    assert wire.nothing_comes(0.05)


# Chunked bodies


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nvalue\r\n0\r\n\r\n",
        b"2\r\nva\r\n3\r\nlue\r\n0\r\n\r\n",
        b"00005\r\nvalue\r\n000\r\n\r\n",
        b"5;a=b;c=\"d;e\"\r\nvalue\r\n0;x\r\n\r\n",
        b"5\r\nvalue\r\n0\r\nTrailer: x\r\n\r\n",
        b"5\r\nvalue\r\n0\r\nHost: evil.example\r\nContent-Length: 3\r\n\r\n",
        b"5\r\nvalue\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nvalue\r\n0\r\nIf-Match: \"1\"\r\nContent-Type: a/b\r\n\r\n",
        chunked(*[b"%c" % byte for byte in b"value"]),
    ],
)  # fmt: skip
def test_a_chunked_body_is_taken_and_its_trailers_mean_nothing(
    wire: Wire, key: str, body: bytes
) -> None:
    head = request("PUT", f"/v1/keys/{key}", Transfer_Encoding="Chunked", Content_Type="x/y")
    for _ in range(2):
        wire.send(head + body)
        answer = wire.answer()
        if answer.status == 400:
            # Refusing is the other way not to be led astray by a trailer; then it is the end.
            assert b"Content-Length" in body or b"Transfer-Encoding" in body
            assert wire.rest() == b""
            return
        assert answer.status in (201, 204)
        found = wire.ask(request("GET", f"/v1/keys/{key}"))
        assert (found.body, found["content-type"]) == (b"value", "x/y")


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\nvalue\r\n0\r\n\r\n",
        b"-1\r\nvalue\r\n0\r\n\r\n",
        b"+5\r\nvalue\r\n0\r\n\r\n",
        b"0x5\r\nvalue\r\n0\r\n\r\n",
        b" 5\r\nvalue\r\n0\r\n\r\n",
        b"5_0\r\nvalue\r\n0\r\n\r\n",
        b"\r\nvalue\r\n0\r\n\r\n",
        b"5\r\nvalueX\r\n0\r\n\r\n",
        b"5\r\nvalue0\r\n\r\n",
        b"5\nvalue\n0\n\n",
        b"5\r\nvalue\n0\r\n\r\n",
        b"5;\n\r\nvalue\r\n0\r\n\r\n",
        b"5;a\nb\r\nvalue\r\n0\r\n\r\n",
        b"5;a\rb\r\nvalue\r\n0\r\n\r\n",
        b"5;\0\r\nvalue\r\n0\r\n\r\n",
        b"5\rXvalue\r\n0\r\n\r\n",
        b"5\r\nvalue\rX0\r\n\r\n",
        b"ffffffffffffffff5\r\nvalue\r\n0\r\n\r\n",
        b"10000000000000000\r\nvalue\r\n0\r\n\r\n",
        b"5\r\nvalue\r\n0\r\nbad trailer\r\n\r\n",
        b"5\r\nvalue\r\n0\r\n folded\r\n\r\n",
    ],
)
def test_a_malformed_chunk_ends_the_connection(server: Server, body: bytes) -> None:
    head = request("PUT", "/v1/keys/malformed", Transfer_Encoding="chunked")
    raw = server.raw(head + body + SMUGGLED)
    found = answers(raw)
    assert [answer.status for answer in found] in ([400], [413]), raw
    assert found[0].closes
    assert not server.has("malformed")
    assert not server.has("smuggled")


@pytest.mark.timing
def test_a_body_of_one_byte_chunks_may_reach_the_limit(server: Server, key: str) -> None:
    head = request("PUT", f"/v1/keys/{key}", Transfer_Encoding="chunked")
    began = time.monotonic()
    raw = server.raw(head + b"1\r\nx\r\n" * (1 << 18) + b"0\r\n\r\n", timeout=30)
    assert raw.startswith(b"HTTP/1.1 201 ")
    # 1.5 MB in linear time.
    assert time.monotonic() - began < 20.0


@pytest.mark.parametrize(
    "flood",
    [b"1;" + b"e" * 400_000 + b"\r\nx\r\n", b"1;ext\r\nx\r\n" * 100_000,
     b"1\r\nx\r\n0\r\nTrailer: " + b"t" * 1_000_000, b"0\r\n" + b"T: t\r\n" * 200_000],
    ids=["one extension", "many extensions", "one trailer", "many trailers"],
)  # fmt: skip
def test_framing_that_outweighs_the_body_is_refused(server: Server, flood: bytes) -> None:
    before = server.worker_memory()
    head = request("PUT", "/v1/keys/flood", Transfer_Encoding="chunked")
    raw = server.raw(head + flood)
    assert raw[9:12] in (b"400", b"431"), raw
    assert server.worker_memory() - before < 4 << 20
    assert not server.has("flood")


# Connections that end


def test_a_connection_stays_open_from_request_to_request(wire: Wire) -> None:
    for _ in range(3):
        answer = wire.ask(request("GET", "/healthz"))
        assert answer.get("connection") is None
        answer = wire.ask(request("GET", "/readyz"))
        assert not answer.closes


@pytest.mark.parametrize("target", ["/healthz", "/get/a", "/readyz", "/v1/keys/a"])
@pytest.mark.parametrize("connection", ["close", "Close", "x, CLOSE", "keep-alive, close"])
def test_nothing_is_answered_after_the_last_answer(
    server: Server, target: str, connection: str
) -> None:
    for separate in (False, True):
        with server.connect() as wire:
            pieces = [request("GET", target, Connection=connection), SMUGGLED]
            wire.send_pieces(*(pieces if separate else [b"".join(pieces)]))
            assert wire.answer().closes
            assert wire.rest() == b""
    assert not server.has("smuggled")


def test_http_1_0_is_kept_where_it_asks_for_that(server: Server, key: str) -> None:
    with server.connect() as wire:
        wire.ask(request("PUT", f"/v1/keys/{key}", b"value"))
        for target in ("/healthz", f"/get/{key}", "/get/none", f"/v1/keys/{key}", "/readyz", "/"):
            for method in ("GET", "HEAD"):
                data = request(method, target, Connection="Keep-Alive")
                answer = wire.ask(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
                assert answer.status in (200, 404)
                assert answer["connection"] == "keep-alive"
        pair = set_pair(key, "new").replace(b"/1.1\r\n", b"/1.0\r\nConnection: keep-alive\r\n")
        assert wire.ask(pair * 2)["connection"] == "keep-alive"
        assert wire.answer()["connection"] == "keep-alive"
        last = request("GET", f"/get/{key}").replace(b"/1.1", b"/1.0")
        answer = wire.ask(last)
        assert (answer.json["value"], answer.closes) == ("new", True)
        assert wire.rest() == b""


@pytest.mark.parametrize(
    "target", ["/v1/export", "/v1/keys", "/", "/metrics", "/openapi.json", "/docs/problems"]
)
def test_http_1_0_is_never_answered_in_chunks(server: Server, key: str, target: str) -> None:
    server.put(key, b"value")
    for connection in ("close", "keep-alive"):
        data = request("GET", target, Connection=connection).replace(b"HTTP/1.1", b"HTTP/1.0")
        with server.connect() as wire:
            wire.send(data)
            if connection == "keep-alive":
                wire.half_close()
            head, _, body = wire.rest().partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert head.startswith(b"HTTP/1.1 200 ")
        if target == "/v1/export":
            assert b"connection: close" in head.lower()
            assert {json.loads(line)["key"] for line in body.splitlines()} >= {key}


def test_http_1_0_is_answered_and_closed(server: Server) -> None:
    for target in (b"/healthz", b"/get/a", b"/readyz", b"/"):
        for fields in (b"", b"Host: localhost\r\n", b"Connection: keep-alive, close\r\n"):
            with server.connect() as wire:
                wire.send(b"GET %b HTTP/1.0\r\n%b\r\n" % (target, fields))
                assert wire.answer().closes
                assert wire.rest() == b""


@pytest.mark.parametrize("target", ["/healthz", "/get/a", "/readyz", "/"])
def test_a_client_that_has_said_all_is_answered(server: Server, target: str) -> None:
    with server.connect() as wire:
        wire.send(request("GET", target)).half_close()
        assert wire.answer().status in (200, 404)
        assert wire.rest() == b""


def test_writes_of_a_client_that_has_said_all_are_done_and_answered(
    server: Server, key: str
) -> None:
    data = set_pair(key, "1") + request("PUT", f"/v1/keys/{key}", b"2") + set_pair(key, "3")
    assert [answer.status for answer in answers(server.raw(data))] == [200, 204, 200]
    assert server.ask("GET", f"/v1/keys/{key}").body == b"3"


def test_half_a_request_is_not_answered_when_the_rest_will_never_come(
    server: Server, key: str
) -> None:
    data = request("PUT", f"/v1/keys/{key}", b"value")
    for size in (1, 10, len(data) - 6, len(data) - 1):
        assert server.raw(data[:size]) == b""
    assert server.ask("GET", f"/v1/keys/{key}").status == 404


def test_the_absolute_form_of_a_target_is_understood(wire: Wire, key: str) -> None:
    wire.ask(request("PUT", f"/v1/keys/{key}", b"1"))
    for target, host in (
        (f"http://localhost/v1/keys/{key}", "localhost"),
        (f"HTTP://LOCALHOST:80/v1/keys/{key}?", "localhost:80"),
        (f"https://[::1]/v1/keys/{key}", "[::1]"),
    ):
        assert wire.ask(request("GET", target, host=host)).body == b"1"
    assert wire.ask(request("GET", "http://localhost")).status == 200


def test_the_absolute_form_of_a_target_counts_instead_of_the_host(server: Server) -> None:
    for target, host, status in (
        ("http://localhost:1/healthz", "localhost", 200),
        ("http://localhost/healthz", "other.example", 200),
        ("http://other.example/v1/info", "localhost", 403),
    ):
        assert server.ask("GET", target, host=host).status == status, (target, host)
    assert b" 200 " in server.raw(b"GET http://localhost/healthz HTTP/1.0\r\n\r\n")


def test_what_was_said_in_absolute_form_is_not_remembered_of_the_fields(wire: Wire) -> None:
    for _ in range(3):
        absolute = request("GET", "http://localhost/get/none", host="other.example")
        assert wire.ask(absolute).status == 404
        assert wire.ask(request("GET", "/get/none", host="other.example")).status == 403


def test_options_of_the_server_as_a_whole_names_all_methods(server: Server) -> None:
    for target in ("*", "http://localhost"):
        answer = server.ask("OPTIONS", target)
        assert (answer.status, answer.body) == (204, b"")
        assert answer["allow"] == "DELETE, GET, HEAD, LOCK, OPTIONS, PATCH, POST, PUT, UNLOCK"
    assert server.raw(b"OPTIONS / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize(
    "target",
    ["http://u@localhost/get/a", "http://localhost:x/get/a", "http://a b/get/a",
     "ftp://localhost/get/a", "http:/get/a", "http:///get/a", "localhost/get/a", "get/a", "?", "*"],
)  # fmt: skip
def test_a_target_that_is_of_no_form_is_refused(server: Server, target: str) -> None:
    found = answers(server.raw(request("GET", target) + SMUGGLED))
    assert [(answer.status, answer.closes) for answer in found] == [(400, True)]


def test_one_empty_line_before_a_request_is_passed_over(server: Server) -> None:
    assert server.raw(b"\r\n" + request("GET", "/healthz")).startswith(b"HTTP/1.1 200 ")


def test_an_upgrade_that_is_not_supported_is_passed_over(server: Server, key: str) -> None:
    """Java's HttpClient asks for h2c with its first request, body and all."""
    asks = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    body = f'{{"key":"{key}","value":"1"}}'.encode()
    found = answers(server.raw(request("POST", "/set", body, Content_Type=JSON, **asks)))
    assert [answer.status for answer in found] == [200]
    assert server.ask("GET", f"/get/{key}").json["value"] == "1"
    for target in ("/healthz", "/readyz", f"/get/{key}"):
        found = answers(server.raw(request("GET", target, **asks) * 2))
        assert [answer.status for answer in found] == [200, 200]


def test_the_body_of_a_request_that_asks_for_an_upgrade_is_stored(server: Server, key: str) -> None:
    asks = {"Connection": "Upgrade", "Upgrade": "h2c", "Content_Type": "a/b"}
    framed = request("PUT", f"/v1/keys/{key}", b"value", **asks)
    in_chunks = request("PUT", f"/v1/keys/{key}", Transfer_Encoding="chunked", **asks)
    get = request("GET", f"/v1/keys/{key}", **asks)
    server.put(key, b"old")
    for put in (framed, in_chunks + chunked(b"val", b"ue")):
        for cut in (1, len(put) - 4, len(put), len(put) + 10, len(put + get) - 1):
            with server.connect() as wire:
                data = put + get + get
                wire.send_pieces(data[:cut], data[cut:], pause=0.002)
                assert wire.answer().status == 204
                found = [wire.answer(), wire.answer()]
                assert [(one.body, one["content-type"]) for one in found] == [(b"value", "a/b")] * 2
            server.put(key, b"old")


def test_an_expected_upgrade_is_asked_for_its_body_once(wire: Wire, key: str) -> None:
    asks = {"Connection": "Upgrade", "Upgrade": "h2c", "Expect": "100-continue"}
    wire.send(request("PUT", f"/v1/keys/{key}", Content_Length="5", **asks))
    assert wire.answer().status == 100
    assert wire.ask(b"value").status == 201


def test_a_body_of_a_get_is_read_and_means_nothing(wire: Wire, key: str) -> None:
    wire.ask(request("PUT", f"/v1/keys/{key}", b"1"))
    for target in (f"/v1/keys/{key}", f"/get/{key}", "/readyz"):
        for _ in range(2):
            wire.send(request("GET", target, SMUGGLED) + request("GET", f"/v1/keys/{key}"))
            assert wire.answer().status == 200
            assert wire.answer().body == b"1"
    assert wire.ask(request("GET", "/v1/keys/smuggled")).status == 404


# Early errors


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Content_Length": "1048577"}, 413),
        ({"Content_Length": "99999999999999999"}, 413),
        ({"Expect": "x", "Content_Length": str(len(SMUGGLED))}, 417),
        ({"Content_Length": "nonsense"}, 400),
        ({"Host": "second", "Content_Length": str(len(SMUGGLED))}, 400),
        ({"If_Match": "nonsense", "Content_Length": str(len(SMUGGLED))}, 400),
        ({"X_Long": "x" * 33_000, "Content_Length": str(len(SMUGGLED))}, 431),
        ({"Content_Length": "5", "Transfer_Encoding": "chunked"}, 400),
        ({"Transfer_Encoding": "gzip"}, 400),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_follows_an_early_error_is_never_a_request(
    server: Server, fields: dict[str, str], status: int
) -> None:
    head = request("PUT", "/v1/keys/early", **fields)
    for pause in (None, 0.0, 0.02):
        with server.connect() as wire:
            if pause is None:
                wire.send(head + SMUGGLED * 5)
            else:
                wire.send_pieces(head, SMUGGLED, SMUGGLED, pause=pause)
            answer = wire.answer()
            assert (answer.status, answer.closes) == (status, True)
            assert wire.rest() == b""
    assert not server.has("smuggled")
    assert not server.has("early")


@pytest.mark.parametrize("status", [400, 403, 404, 405, 412, 415])
def test_the_body_of_a_request_that_fails_later_is_never_a_request(
    server: Server, status: int
) -> None:
    failing = {
        400: request("PUT", "/v1/keys/%zz", SMUGGLED),
        403: request("PUT", "/v1/keys/a", SMUGGLED, Sec_Fetch_Site="cross-site"),
        404: request("PUT", "/nothing", SMUGGLED),
        405: request("POST", "/v1/keys/a", SMUGGLED),
        412: request("PUT", "/v1/keys/never", SMUGGLED, If_Match="*"),
        415: request("POST", "/set", SMUGGLED, Content_Type="text/plain"),
    }[status]
    found = answers(server.raw(failing * 2 + request("GET", "/healthz")))
    assert [answer.status for answer in found] == [status, status, 200]
    assert not server.has("smuggled")


def test_an_early_error_reaches_a_client_that_is_still_sending(server: Server) -> None:
    with server.connect() as wire:
        wire.send(request("PUT", "/v1/keys/large", Content_Length=str(4 << 20)))
        time.sleep(0.05)
        wire.send(b"x" * (512 << 10))
        answer = wire.answer()
        assert (answer.status, answer.json["actual"]) == (413, 4 << 20)
        assert wire.rest() == b""


def test_the_answer_to_a_bad_head_request_has_no_body(server: Server) -> None:
    for fields in ({"Expect": "x"}, {"Content_Length": "9999999999"}, {"If_Match": "x"}):
        raw = server.raw(request("HEAD", "/v1/keys/a", **fields))
        assert raw.endswith(b"\r\n\r\n"), raw
        assert raw.count(b"\r\n\r\n") == 1


@pytest.mark.timing
def test_many_that_ask_for_an_upgrade_are_answered_in_linear_time(server: Server) -> None:
    data = request("GET", "/get/none", Connection="Upgrade", Upgrade="h2c") * 4000
    began = time.monotonic()
    assert server.raw(data).count(b"HTTP/1.1 404 Not Found\r\n") == 4000
    assert time.monotonic() - began < 20.0


def test_the_last_request_is_answered_behind_a_write_of_the_same_packet(
    server: Server, key: str
) -> None:
    """The write's answer is due first, and must not end the connection for the other."""
    put = request("PUT", f"/v1/keys/{key}", b"new")
    last = request("GET", f"/v1/keys/{key}", Connection="close")
    answers = server.raw(put + last)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.endswith(b"new")
