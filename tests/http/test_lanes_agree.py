"""A request means the same wherever it is served: in either lane, recognised or parsed."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from keyrack_server import Answer, Server, Wire, chunked, parse, request

from keyrack.engines.embedded import EmbeddedEngine
from keyrack.http.api.counting import REQUEST_WORDS
from keyrack.http.app import Application
from keyrack.http.client_memory import ClientMemory
from keyrack.http.key_locks import KeyLocks
from keyrack.http.protocol.guard import Guard
from keyrack.http.reply import Context, Limits
from keyrack.http.tick import Tick
from keyrack.http.watch.hub import WatchHub
from keyrack.http.worker_context import Timeouts, WorkerContext
from keyrack.shared.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JSON = "application/json"
KEY = "/v1/keys/lanes"
SET = b'{"key":"lanes","value":"set"}'

TABLE = [
    request("GET", "/get/lanes"),
    request("HEAD", "/get/lanes"),
    request("GET", "/get/l%61nes"),
    request("GET", "/get/missing"),
    request("HEAD", "/get/missing"),
    request("GET", "/get/binary"),
    request("GET", "/get/json"),
    request("GET", "/get/broken"),
    request("GET", "/get/utf8"),
    request("GET", "/get/%zz"),
    request("GET", "/get/%ff"),
    request("GET", "/get/"),
    request("GET", "/get"),
    request("GET", "/get/lanes?x=1"),
    request("POST", "/get/lanes", b""),
    request("OPTIONS", "/get/lanes"),
    request("GET", "/get/lanes", If_None_Match="*"),
    request("POST", "/set", SET, Content_Type=JSON),
    request("POST", "/set", SET, Content_Type=JSON + "; charset=utf-8"),
    request("POST", "/set", SET, Content_Type="text/plain"),
    request("POST", "/set", SET),
    request("POST", "/set", SET[:-1], Content_Type=JSON),
    request("POST", "/set", b'{"key":"lanes","value":[1, 2]}', Content_Type=JSON),
    request("POST", "/set", b'{"key":"lanes","value":"\\u00fc"}', Content_Type=JSON),
    request("POST", "/set", b'{"key":"lanes","value":"x","ttl":60}', Content_Type=JSON),
    request("POST", "/set", b'{"key":"lanes","value":1,"value":2}', Content_Type=JSON),
    request("POST", "/set", b'{"key":"\xff","value":"x"}', Content_Type=JSON),
    request("POST", "/set", b'{"key":"","value":"x"}', Content_Type=JSON),
    request("POST", "/set", b'{"key":"%b","value":"x"}' % (b"k" * 512), Content_Type=JSON),
    request("POST", "/set?x=1", SET, Content_Type=JSON),
    request("GET", "/set"),
    request("OPTIONS", "/set"),
    request("POST", "/set", SET, Content_Type=JSON, Origin="http://evil.example"),
    request("POST", "/set", SET, Content_Type=JSON, Sec_Fetch_Site="cross-site"),
    request("GET", KEY),
    request("HEAD", KEY),
    request("GET", "/v1/keys/ttl"),
    request("GET", "/v1/keys/missing"),
    request("GET", "/v1/keys/"),
    request("GET", "/v1/keys/" + "k" * 512),
    request("GET", KEY + "?x"),
    request("GET", KEY, If_None_Match="*"),
    request("GET", KEY, If_None_Match='"1"'),
    request("GET", KEY, If_Match='"1"'),
    request("GET", KEY, If_Match="*"),
    request("GET", KEY, If_Match="nonsense"),
    request("GET", KEY, host="evil.example", Origin="http://evil.example"),
    request("GET", KEY, host="evil.example"),
    request("GET", KEY, Origin="http://evil.example"),
    request("PUT", KEY, b"1"),
    request("PUT", KEY, b"\xff"),
    request("PUT", KEY, b""),
    request("PUT", KEY, b"1", Content_Type="image/png"),
    request("PUT", KEY, b"1", Content_Type="nonsense"),
    request("PUT", KEY, b"1", Content_Encoding="gzip"),
    request("PUT", KEY, b"1", Content_Range="bytes 0-0/1"),
    request("PUT", KEY + "?ttl=60", b"1"),
    request("PUT", KEY + "?ttl=99999999", b"1"),
    request("PUT", KEY + "?ttl=315360000", b"1"),
    request("PUT", KEY + "?ttl=315360001", b"1"),
    request("PUT", KEY + "?ttl=0", b"1"),
    request("PUT", KEY + "?ttl=007", b"1"),
    request("PUT", KEY + "?ttl=0.5", b"1"),
    request("PUT", KEY + "?ttl=60&stale=60", b"1"),
    request("PUT", KEY + "?ttl=nonsense", b"1"),
    request("PUT", KEY + "?ttl=1&ttl=1", b"1"),
    request("PUT", KEY, b"1", If_Match='"1"'),
    request("PUT", KEY, b"1", If_None_Match="*"),
    request("PUT", "/v1/keys/missing", b"1", If_Match="*"),
    request("PUT", "/v1/keys/missing", b"1", If_None_Match="*"),
    request("PUT", "/v1/keys/missing", b"1"),
    request("PUT", KEY, b"1", Sec_Fetch_Site="cross-site"),
    request("DELETE", KEY),
    request("DELETE", KEY, If_Match='"1"'),
    request("DELETE", "/v1/keys/missing"),
    request("DELETE", "/v1/keys/missing", If_Match="*"),
    request("DELETE", KEY, Sec_Fetch_Site="same-site"),
    request("POST", KEY, b""),
    request("PATCH", KEY, b""),
    request("OPTIONS", KEY),
    request("GET", "/healthz"),
    request("HEAD", "/healthz"),
    request("GET", "/healthz?x"),
    request("POST", "/healthz", b""),
    request("DELETE", "/healthz"),
    request("OPTIONS", "/healthz"),
    request("GET", "/v1/limits"),
    request("GET", "/readyz"),
    request("POST", "/readyz", b""),
    request("GET", "/nothing"),
    request("GET", "/nothing", host="evil.example", Origin="http://evil.example"),
    request("GET", "/docs/problems"),
    request("GET", "/docs/problems/bad-ttl"),
    request("GET", "/docs/problems/nothing"),
]  # fmt: skip
"""Requests whose messages are in order, so that both lanes have a say."""

SEEDS = [
    request("PUT", KEY, b"old value", Content_Type="text/plain"),
    request("PUT", "/v1/keys/binary", b"\0\xff", Content_Type="application/octet-stream"),
    request("PUT", "/v1/keys/json", b" [1.0, 2]", Content_Type=JSON),
    request("PUT", "/v1/keys/broken", b"[1.0, 2", Content_Type=JSON),
    request("PUT", "/v1/keys/utf8", "ü".encode(), Content_Type="text/css"),
    request("PUT", "/v1/keys/ttl?ttl=1000", b"1"),
    request("DELETE", "/v1/keys/missing"),
]

Ask: TypeAlias = Callable[[bytes], Answer]


def shown(data: bytes) -> str:
    line, _, rest = data.partition(b" HTTP/1.1\r\nHost: ")
    return (line[:40] + b" " + rest.replace(b"\r\n", b" ")[:60]).decode("latin-1")


def meaning(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """Return an answer without what differs from one time, and one store, to the next."""
    fields = dict(answer.fields)
    assert len(fields) == len(answer.fields)
    for name in ("date", "server", "cross-origin-resource-policy", "connection"):
        fields.pop(name, None)
    if "etag" in fields:
        assert re.fullmatch(r'"[0-9]+"', fields["etag"])
        fields["etag"] = "an etag"
    if "keyrack-ttl" in fields:
        assert 0 < float(fields["keyrack-ttl"]) <= 1000
        fields["keyrack-ttl"] = "a while"
    body = re.sub(rb'"(store|client_memory)_bytes":[0-9]+,', b"", answer.body)
    if body != answer.body:
        del fields["content-length"]
    return answer.status, fields, body


# The wide lane's application, without a server in front of it


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """The ASGI application with a store of its own, called as any ASGI server would call it."""
    directory: Path = tmp_path_factory.mktemp("store")
    with asyncio.Runner() as runner:
        engine = EmbeddedEngine(str(directory), 16 << 20, 1000)
        counters = Counters.create(1, REQUEST_WORDS.number)
        tick = Tick(runner.get_loop(), engine, counters.slot(0))
        hub = WatchHub(runner.get_loop(), engine, lambda interested: None)
        worker = WorkerContext(
            runner.get_loop(),
            tick,
            Guard(("127.0.0.1",), demands_host=True),
            Context(engine, Limits(1 << 20, 8 << 20), tick, hub, KeyLocks()),
            Timeouts(90.0, 10.0, 60.0, 60.0),
            ClientMemory(counters, 0, 16 << 20),
        )
        application = Application(worker, counters)
        yield lambda data: runner.run(through_asgi(application, data))
        engine.close()


async def through_asgi(application: Application, data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    method, target, _ = line.split(b" ")
    path, _, query = target.partition(b"?")
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method.decode(),
        "scheme": "http",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": [(k.lower(), v) for k, v in (one.split(b": ", 1) for one in lines)],
    }
    await application(scope, receive, send)
    start, *bodies = sent
    fields = tuple((name.decode(), value.decode("latin-1")) for name, value in start["headers"])
    body = b"".join(one.get("body", b"") for one in bodies)
    return Answer(start["status"], fields, b"" if method == b"HEAD" else body)


@pytest.fixture(scope="module")
def fast() -> Iterator[Server]:
    with Server(workers=1) as running:
        yield running


def sowed(ask: Ask) -> Ask:
    """Bring a store into the state that the table expects."""
    for data in SEEDS:
        assert ask(data).status in (201, 204, 404)
    return ask


@pytest.mark.parametrize("data", TABLE, ids=shown)
def test_both_lanes_answer_alike(fast: Server, wide: Ask, data: bytes) -> None:
    with fast.connect() as wire:
        by_fast = meaning(sowed(wire.ask)(data))
    after_fast = [meaning(fast.ask("GET", f"/get/{k}")) for k in ("lanes", "missing")]
    by_wide = meaning(sowed(wide)(data))
    after_wide = [meaning(wide(request("GET", f"/get/{k}"))) for k in ("lanes", "missing")]
    assert by_fast == by_wide
    assert after_fast == after_wide


# Recognised and parsed


@pytest.mark.parametrize("data", TABLE, ids=shown)
def test_a_request_is_answered_alike_when_its_head_is_known(fast: Server, data: bytes) -> None:
    answers = []
    with fast.connect() as wire:
        sowed(wire.ask)
        answers.append(meaning(wire.ask(data)))
    for _ in range(2):
        with fast.connect() as wire:
            sowed(wire.ask)
            answers.append(meaning(wire.ask(data)))
    with fast.connect() as wire:
        sowed(wire.ask)
        # In pieces it cannot be recognised.
        wire.send_pieces(data[:7], data[7:], pause=0.005)
        answers.append(meaning(wire.answer(data.split(b" ")[0].decode())))
    assert answers == answers[:1] * 4


@pytest.mark.parametrize("data", [d for d in TABLE if b"\r\nConnection:" not in d], ids=shown)
def test_the_last_request_of_a_connection_is_answered_as_any(fast: Server, data: bytes) -> None:
    """Clients without keep-alive send only such: the first and what is recognised after it."""
    with fast.connect() as wire:
        sowed(wire.ask)
        expected = meaning(wire.ask(data))
    method = data.split(b" ")[0].decode()
    last = data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    for _ in range(3):
        with fast.connect() as wire:
            sowed(wire.ask)
        with fast.connect() as wire:
            wire.send(last)
            raw = wire.rest()
        found = parse(raw, method)
        assert found is not None
        answer, rest = found
        assert rest == b""
        assert dict(answer.fields)["connection"] == "close"
        assert meaning(answer) == expected


def test_the_last_request_sees_the_write_before_it(fast: Server) -> None:
    last = request("GET", "/get/before", Connection="close")
    for number in range(5):
        write = request("PUT", "/v1/keys/before", b"%d" % number)
        with fast.connect() as wire:
            wire.send(write)
            wire.send(last)
            assert wire.answer().status in (201, 204)
            assert wire.rest().endswith(b'"value":"%d"}' % number)


def mutations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield messages that differ from one that is known in a detail."""
    head, _, body = data.partition(b"\r\n\r\n")
    length = len(body)
    for method in (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"PATCH", b"get", b"G ET", b"X"):
        yield f"method {method!r}", method + data[data.index(b" ") :]
    for target in (b"/healthz", b"/get/known", b"/get/other", b"/v1/limits", b"*", b"//",
                   b"http://localhost/get/known", b"/get/a b", b"/get/known#x", b"/get/%zz",
                   b"/set"):  # fmt: skip
        method, _, version = head.split(b"\r\n")[0].split(b" ")
        line = b" ".join((method, target, version))
        yield f"target {target!r}", data.replace(head.split(b"\r\n")[0], line, 1)
    for version in (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1,1"):
        yield f"version {version!r}", data.replace(b"HTTP/1.1", version, 1)
    for claimed in (0, length - 1, length + 1, 10**19):
        if claimed >= 0:
            yield (
                f"length {claimed}",
                re.sub(b"Content-Length: [0-9]+", b"Content-Length: %d" % claimed, data),
            )
    yield "a byte too many", data + b"x"
    yield "a line too many", data + b"\r\n"
    yield "a request behind", data + request("GET", "/get/known")
    yield "the same behind", data + data
    yield "half of the same behind", data + data[: len(data) // 2]
    yield "a body less", head + b"\r\n\r\n"
    yield "a byte less", data[:-1]
    yield "a line before", b"\r\n" + data
    yield "bare LF", data.replace(b"\r\n", b"\n")
    yield "bare CR", data.replace(b"\r\n", b"\r")
    for field in (b"If-Match: *", b"If-None-Match: *", b"Connection: close", b"Host: x", b"X: \0",
                  b"Expect: 100-continue", b"Origin: http://evil.example", b"Content-Length: 3",
                  b"Transfer-Encoding: chunked", b" folded", b"Prefer: wait=1"):  # fmt: skip
        yield f"with {field!r}", head + b"\r\n" + field + b"\r\n\r\n" + body
    source = random.Random(len(data))
    for _ in range(60):
        place = source.randrange(len(data))
        byte = source.choice(b'\0\t\r\n :aZ9%"\x7f\xff')
        yield f"byte {place} is {byte}", data[:place] + bytes((byte,)) + data[place + 1 :]


KNOWN = [
    request("GET", "/get/known"),
    request("HEAD", "/v1/keys/known", Accept="*/*", User_Agent="test"),
    request("PUT", "/v1/keys/known", b"value", Content_Type="text/plain"),
    request("POST", "/set", b'{"key":"known","value":"value"}', Content_Type=JSON),
    request("DELETE", "/v1/keys/nothing"),
]


def without_times(raw: bytes) -> bytes:
    """Return what a connection sent without what differs between two servers."""
    assert raw == b"" or raw.startswith(b"HTTP/1.1 ")
    return re.sub(rb"(Date|ETag): [^\r]*", rb"\1: x", raw, flags=re.IGNORECASE)


@pytest.mark.parametrize("known", KNOWN, ids=shown)
def test_what_differs_from_a_known_message_is_answered_as_on_a_fresh_server(known: bytes) -> None:
    """The server that knows heads has to answer like one that never saw any."""
    with Server() as knowing, Server("--access-log") as parsing:
        # A server that logs every access recognises nothing: all goes through the parser.
        for one in KNOWN:
            for server in (knowing, parsing):
                server.raw(one + one)
        for what, data in mutations(known):
            by_both = []
            for server in (knowing, parsing):
                with server.connect() as wire:
                    # On a connection that is in use already.
                    assert wire.ask(request("GET", "/get/known")).status in (200, 404)
                    wire.send(data).half_close()
                    by_both.append(without_times(wire.rest()))
            assert by_both[0] == by_both[1], what
            states = [server.raw(request("GET", "/get/known")).rpartition(b"\r\n")[2]
                      for server in (knowing, parsing)]  # fmt: skip
            assert states[0] == states[1], what


@pytest.mark.parametrize("known", KNOWN, ids=shown)
def test_a_known_message_is_answered_alike_however_it_is_cut(fast: Server, known: bytes) -> None:
    method = known.split(b" ")[0].decode()
    with fast.connect() as wire:
        wire.ask(request("PUT", "/v1/keys/known", b"value", Content_Type="text/plain"))
        expected = meaning(wire.ask(known)), meaning(wire.ask(known))
        assert expected[0] == expected[1]
        for cut in range(1, len(known)):
            wire.send_pieces(known[:cut], known[cut:])
            assert meaning(wire.answer(method)) == expected[0], cut


def test_a_known_message_may_follow_and_precede_any_other(fast: Server) -> None:
    """Recognition looks at whole packets: what is before and behind must not matter."""
    source = random.Random(1)
    pieces = [
        *KNOWN[:1],
        *KNOWN[2:4],
        request("GET", "/readyz"),
        request("GET", "/get/other"),
        request("PUT", "/v1/keys/known", Transfer_Encoding="chunked") + chunked(b"val", b"ue"),
    ]
    with fast.connect() as wire:
        alone = {one: meaning(wire.ask(one)) for one in pieces for _ in range(2)}
        for _ in range(300):
            some = source.choices(pieces, k=source.randint(1, 6))
            data = b"".join(some)
            cut = source.randrange(len(data))
            wire.send_pieces(data[:cut], data[cut:])
            for one in some:
                assert meaning(wire.answer()) == alone[one]
    assert isinstance(wire, Wire)
