"""Pages of other origins that are meant to use the store: what they are told, and nobody else."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from access_support import Guarded, Who
from keyrack_server import Answer, Server, Wire, request
from keyrack_server.server import clean_environment

from keyrack.http.api.routes import ROUTES
from keyrack.http.protocol import cors
from keyrack.http.protocol.cors import EXPOSED, Cors
from keyrack.settings import SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = "https://app.example.org"
DEVELOPER = "http://localhost:3000"
JSON = "application/json"
SAFE = {"cache-control", "content-length", "content-type", "expires", "last-modified"}
"""Fields that every page may read (https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name)."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """A service that pages of two origins may use."""
    with Server("--cors-origins", f"{APP},{DEVELOPER}", "--max-value", "1k") as running:
        running.put("a", b"value")
        yield running


class Closed(NamedTuple):
    """A service with access control, and somebody who may read a part of it."""

    server: Server
    reader: Who
    guarded: Guarded


@pytest.fixture(scope="module")
def closed() -> Iterator[Closed]:
    """A service with access control that pages of one origin may use."""
    service = Guarded("", "--cors-origins", APP)
    reader = service.add("read keys:app/*")
    with service:
        yield Closed(service.server, reader, service)


def ask(
    server: Server, method: str, target: str, body: bytes | None = None, **fields: str
) -> Answer:
    """Ask twice on one connection, so that what is recognised is judged as well."""
    with server.connect() as wire:
        data = request(method, target, body, **fields)
        first = wire.ask(data)
        if first.closes:
            return first
        second = wire.ask(data)
    assert first.get("access-control-allow-origin") == second.get("access-control-allow-origin")
    return second


def names(answer: Answer) -> set[str]:
    return {name for name, _ in answer.fields if name.startswith("access-control-")}


REQUESTS: list[tuple[str, str, bytes | None, dict[str, str], int]] = [
    ("GET", "/get/a", None, {}, 200),
    ("GET", "/get/none", None, {}, 404),
    ("POST", "/set", b'{"key":"b","value":"x"}', {"Content_Type": JSON}, 200),
    ("POST", "/set", b"{", {"Content_Type": JSON}, 400),
    ("GET", "/v1/keys/a", None, {}, 200),
    ("HEAD", "/v1/keys/a", None, {}, 200),
    ("GET", "/v1/keys/a", None, {"Range": "bytes=0-1"}, 206),
    ("GET", "/v1/keys/none", None, {}, 404),
    ("PUT", "/v1/keys/a", b"value", {}, 204),
    ("PUT", "/v1/keys/a", b"x", {"If_Match": '"1"'}, 412),
    ("PUT", "/v1/keys/a", b"x" * 2000, {}, 413),
    ("PUT", "/v1/keys/a", b"x", {"Content_Encoding": "gzip"}, 415),
    ("PATCH", "/v1/keys/a", b"{}", {"Content_Type": "application/merge-patch+json"}, 409),
    ("DELETE", "/v1/keys/none", None, {}, 404),
    ("GET", "/v1/keys", None, {}, 200),
    ("GET", "/v1/keys?count_only=true", None, {}, 200),
    ("GET", "/v1/export", None, {}, 200),
    ("POST", "/v1/import", b"", {"Content_Type": "application/x-ndjson"}, 200),
    ("POST", "/v1/import", b"x", {"Content_Type": "text/html"}, 415),
    ("GET", "/v1/info", None, {}, 200),
    ("GET", "/v1/none", None, {}, 404),
    ("BREW", "/v1/info", None, {}, 501),
    ("POST", "/v1/info", b"", {}, 405),
    ("GET", "/v1/keys/a", None, {"Host": "two"}, 400),
    ("GET", "/v1/keys/a", None, {"Expect": "tea"}, 417),
    ("GET", "/healthz", None, {}, 200),
    ("GET", "/metrics", None, {}, 200),
    ("GET", "/", None, {}, 200),
]


@pytest.mark.parametrize(("method", "target", "body", "fields", "status"), REQUESTS, ids=repr)
def test_a_listed_page_may_read_every_answer(
    shared: Server,
    method: str,
    target: str,
    body: bytes | None,
    fields: dict[str, str],
    status: int,
) -> None:
    with shared.connect() as wire:
        data = request(method, target, body, Origin=APP, Sec_Fetch_Site="cross-site", **fields)
        answer = read(wire, data, method)
    assert answer.status == status
    assert answer["access-control-allow-origin"] == APP
    assert "etag" in answer["access-control-expose-headers"].lower().split(", ")
    assert "Origin" in [value for name, value in answer.fields if name == "vary"]
    assert answer.get("access-control-allow-credentials") is None


def read(wire: Wire, data: bytes, method: str) -> Answer:
    """Return an answer, however its body is framed."""
    wire.send(data)
    head = b""
    while b"\r\n\r\n" not in head:
        received = wire.socket.recv(65536)
        assert received, head
        head += received
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    fields = tuple((n.lower(), v) for n, _, v in (line.partition(": ") for line in lines[1:]))
    return Answer(int(lines[0].split()[1]), fields, b"")


@pytest.mark.parametrize(("method", "target", "body", "fields", "status"), REQUESTS, ids=repr)
def test_without_the_setting_no_answer_speaks_of_origins(
    server: Server,
    method: str,
    target: str,
    body: bytes | None,
    fields: dict[str, str],
    status: int,
) -> None:
    for origin in ({}, {"Origin": APP}, {"Origin": "http://localhost"}):
        with server.connect() as wire:
            answer = read(wire, request(method, target, body, **origin, **fields), method)
        assert names(answer) == set()
        assert "Origin" not in [value for name, value in answer.fields if name == "vary"]


OTHERS = [
    "https://evil.example",
    "http://app.example.org",
    "https://app.example.org:8443",
    "https://app.example.org.evil.example",
    "https://APP.example.org",
    "https://evil.example, https://app.example.org",
    "http://localhost",
    "null",
    "*",
    "",
]


@pytest.mark.parametrize("origin", OTHERS)
def test_a_page_of_another_origin_is_told_nothing(shared: Server, origin: str) -> None:
    for method, target, body in (
        ("GET", "/get/a", None),
        ("GET", "/v1/keys/a", None),
        ("PUT", "/v1/keys/a", b"evil"),
        ("GET", "/v1/keys", None),
        ("GET", "/none", None),
        ("OPTIONS", "/v1/keys/a", None),
    ):
        fields = {"Access_Control_Request_Method": "PUT"} if method == "OPTIONS" else {}
        answer = ask(
            shared, method, target, body, Origin=origin, Sec_Fetch_Site="cross-site", **fields
        )
        assert answer.status == (204 if method == "OPTIONS" else 403)
        assert names(answer) == set()
        assert answer["vary"] == "Origin"
    assert ask(shared, "GET", "/v1/keys/a").body == b"value"


def test_a_program_is_told_nothing_but_that_answers_differ_by_origin(shared: Server) -> None:
    for target in ("/get/a", "/v1/keys/a", "/v1/keys", "/none"):
        answer = ask(shared, "GET", target)
        assert names(answer) == set()
        assert answer["vary"] == "Origin"


def test_an_origin_that_is_sent_twice_is_none(shared: Server) -> None:
    with shared.connect() as wire:
        data = b"GET /get/a HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\nOrigin: %b\r\n\r\n"
        answer = wire.ask(data % (APP.encode(), APP.encode()))
    assert answer.status == 400
    assert names(answer) == set()


# Preflights

PREFLIGHT = {
    "Origin": APP,
    "Access_Control_Request_Method": "PUT",
    "Access_Control_Request_Headers": "authorization,content-type,if-match",
}


@pytest.mark.parametrize(
    "target", ["/v1/keys/a", "/get/a", "/set", "/v1/watch", "/v1/none", "/x", "*"]
)
def test_a_preflight_allows_what_a_listed_page_asks_for(shared: Server, target: str) -> None:
    answer = ask(shared, "OPTIONS", target, **PREFLIGHT)
    assert (answer.status, answer.body) == (204, b"")
    assert answer["access-control-allow-origin"] == APP
    assert answer["access-control-allow-headers"] == "authorization,content-type,if-match"
    allowed = set(answer["access-control-allow-methods"].split(", "))
    assert allowed == {route.method for route in ROUTES.values()} | {"HEAD"}
    assert int(answer["access-control-max-age"]) > 0
    assert answer.get("access-control-allow-credentials") is None


def test_a_preflight_needs_no_token(closed: Closed) -> None:
    for fields in ({}, {"Authorization": "Bearer krk_wrong"}):
        for target in ("/v1/keys/a", "/v1/auth/tokens", "/metrics", "/x"):
            answer = ask(closed.server, "OPTIONS", target, **PREFLIGHT, **fields)
            assert answer.status == 204
            assert answer["access-control-allow-origin"] == APP


def test_a_preflight_says_no_more_than_was_asked(shared: Server) -> None:
    fields = {"Origin": APP, "Access_Control_Request_Method": "PUT"}
    assert "access-control-allow-headers" not in names(
        ask(shared, "OPTIONS", "/v1/keys/a", **fields)
    )
    odd = ask(shared, "OPTIONS", "/v1/keys/a", Access_Control_Request_Headers='a"b', **fields)
    assert "access-control-allow-headers" not in names(odd)
    private = ask(
        shared, "OPTIONS", "/v1/keys/a", Access_Control_Request_Private_Network="true", **fields
    )
    assert private["access-control-allow-private-network"] == "true"
    assert "access-control-allow-methods" not in names(
        ask(shared, "OPTIONS", "/v1/keys/a", Origin=APP)
    )


# Access control


def test_refusals_of_access_control_can_be_read_by_the_page(closed: Closed) -> None:
    who = closed.reader
    for fields, method, target, status in (
        ({}, "GET", "/get/app/a", 401),
        ({"Authorization": "Bearer krk_wrong"}, "GET", "/get/app/a", 401),
        (who.field, "GET", "/get/app/a", 404),
        (who.field, "GET", "/get/other", 403),
        (who.field, "PUT", "/v1/keys/app/a", 403),
        (who.field, "GET", "/v1/watch?prefix=other", 403),
        (who.field, "GET", "/v1/snapshot", 403),
        ({}, "GET", "/metrics", 401),
    ):
        body = b"x" if method == "PUT" else None
        answer = ask(closed.server, method, target, body, Origin=APP, **fields)
        assert answer.status == status
        assert answer["access-control-allow-origin"] == APP
        if status == 401:
            assert "Basic" not in answer["www-authenticate"]


def test_a_stream_of_events_can_be_read_by_the_page(shared: Server) -> None:
    with shared.connect() as wire:
        answer = read(wire, request("GET", "/v1/watch", Origin=DEVELOPER), "GET")
    assert answer.status == 200
    assert answer["content-type"].startswith("text/event-stream")
    assert answer["access-control-allow-origin"] == DEVELOPER


def test_a_page_learns_that_there_are_too_many_connections() -> None:
    with Server("--cors-origins", APP, "--max-connections", "8", workers=1) as crowded:
        wires = [crowded.connect() for _ in range(12)]
        found = set()
        for wire in wires:
            answer = wire.ask(request("GET", "/get/a", Origin=APP))
            assert answer["access-control-allow-origin"] == APP
            found.add(answer.status)
            if answer.closes:
                wire.close()
        for wire in wires:
            wire.close()
    assert found == {404, 503}


# The setting


def test_origins_are_compared_as_browsers_write_them() -> None:
    given = (
        "https://APP.example.org:443, http://localhost:80,http://[::1]:3000,chrome-extension://abc"
    )
    loaded, _ = load({"cors_origins": given}, {})
    assert loaded.cors_origins == (
        "https://app.example.org", "http://localhost", "http://[::1]:3000", "chrome-extension://abc",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["app.example.org", "https://a/", "https://a/x", "null", "https://*.a", "https://a b", "https://",
     "https://a:port", "a,,b", "https://u@a"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a list of origins"):
        load({"cors_origins": text}, {})


@pytest.mark.parametrize("how", ["--auth", "--token-file", "KEYRACK_TOKEN"])
def test_every_origin_and_access_control_do_not_go_together(how: str, closed: Closed) -> None:
    flags, environ = [how, str(closed.guarded.path)], {}
    if how == "KEYRACK_TOKEN":
        flags, environ = [], {how: closed.guarded.admin.text}
    done = subprocess.run(
        [sys.executable, "-m", "keyrack", "serve", "--port", "0", "--cors-origins", "*", *flags],
        capture_output=True, text=True, timeout=30, check=False, env=clean_environment() | environ,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--cors-origins '*' lets in the pages of every site" in done.stderr


def test_every_origin_is_let_in_where_everybody_is() -> None:
    with Server("--cors-origins", "*") as running:
        for origin in (APP, "null", "https://evil.example"):
            answer = ask(
                running, "PUT", "/v1/keys/a", b"x", Origin=origin, Sec_Fetch_Site="cross-site"
            )
            assert answer.status in (201, 204)
            assert answer["access-control-allow-origin"] == "*"
        foreign = ask(running, "GET", "/get/a", Host="evil.example", Origin="https://evil.example")
        assert foreign.status in (400, 403)


def test_every_field_of_an_answer_that_means_something_is_exposed() -> None:
    told = {
        field.lower()
        for route in ROUTES.values()
        for reaction in route.answers
        for field in reaction.headers
    }
    assert told - {name.lower() for name in EXPOSED} - SAFE == set()
    for field in ("Retry-After", "Location", "WWW-Authenticate", "Allow", "RateLimit", "Link"):
        assert field in EXPOSED


def test_without_origins_nothing_is_looked_at() -> None:
    nobody = Cors()
    fields = {b"origin": [APP.encode()]}
    assert (nobody.common, nobody.shared(fields), nobody.allows(fields)) == (b"", b"", False)
    assert nobody.shared_unread(b"GET / HTTP/1.1\r\nOrigin: https://a\r\n\r\n") == b""
    assert not cors.is_preflight(b"GET", ((b"access-control-request-method", b"PUT"),))
