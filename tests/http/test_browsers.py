"""What a web page of another site may not do, and that nobody else is bothered."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from keyrack_server import ON_VALKEY, Server, request

from keyrack.http.protocol.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JSON = "application/json"
MOZILLA = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0"
READS = [("GET", "/get/a"), ("GET", "/v1/keys/a"), ("HEAD", "/v1/keys/a")]
WRITES = [("POST", "/set"), ("PUT", "/v1/keys/browser"), ("DELETE", "/v1/keys/browser")]
WIDE = [
    ("GET", "/"),
    ("GET", "/v1/info"),
    ("GET", "/metrics"),
    ("GET", "/readyz"),
    ("GET", "/none"),
]


def status(server: Server, method: str, target: str, host: str, **fields: str) -> int:
    """Ask twice, so that a head that is known is judged as well; return the status."""
    body = None
    if method == "POST":
        body, fields = b'{"key":"browser","value":"x"}', {"Content_Type": JSON, **fields}
    if method == "PUT":
        body = b"x"
    with server.connect() as wire:
        data = request(method, target, body, host, **fields)
        first = wire.ask(data)
        second = wire.ask(data)
    assert (first.status == 403) == (second.status == 403)
    return first.status


# A page of another origin may be linked to what is read, and do nothing else

FOREIGN = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "Cross-Site"},
    {"Sec_Fetch_Site": "something new"},
    {"Origin": "http://evil.example"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "file://"},
    {"Origin": "chrome-extension://abc"},
    {"Origin": "http://evil.example", "Sec_Fetch_Site": "none"},
    {"Origin": "http://localhost", "Sec_Fetch_Site": "cross-site"},
    {"Origin": "http://evil.example", "Referer": "http://localhost/", "User_Agent": MOZILLA},
]
OWN = [
    {"Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "none"},
    {"Origin": "http://localhost"},
    {"Origin": "https://localhost"},
    {"Origin": "http://LOCALHOST", "Sec_Fetch_Site": "same-origin"},
    {"Origin": "https://keys.example", "Sec_Fetch_Site": "same-origin"},  # a proxy set Host
    {"Referer": "http://localhost/", "User_Agent": MOZILLA},
    {"User_Agent": CHROME, "Accept_Language": "de"},
]


@pytest.mark.parametrize("fields", FOREIGN, ids=repr)
def test_a_page_of_another_origin_may_not_write(server: Server, fields: dict[str, str]) -> None:
    for method, target in WRITES:
        assert status(server, method, target, "localhost", **fields) == 403
    assert not server.has("browser")


@pytest.mark.parametrize("fields", FOREIGN, ids=repr)
def test_a_page_of_another_origin_may_not_fetch_or_embed(
    server: Server, fields: dict[str, str]
) -> None:
    for destination in ({}, *({"Sec_Fetch_Dest": to} for to in ("empty", "image", "iframe"))):
        for method, target in (*READS, *WIDE):
            found = status(server, method, target, "localhost", **fields, **destination)
            assert found == 403, (method, target, destination)


def test_a_visitor_may_follow_a_link_from_another_page(server: Server) -> None:
    for site in ("cross-site", "same-site", "none"):
        fields = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": "navigate"}
        for method, target in (*READS, *WIDE):
            found = status(server, method, target, "localhost", Sec_Fetch_Dest="document", **fields)
            assert found in (200, 404), (method, target)
    for method, target in WRITES:
        fields = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "document"}
        assert status(server, method, target, "localhost", **fields) == 403


@pytest.mark.skipif(ON_VALKEY, reason="a store in Valkey takes no snapshots")
def test_a_link_from_another_page_takes_no_snapshot(tmp_path: Path) -> None:
    with Server("--durability", "snapshot", "--data-dir", str(tmp_path / "data")) as durable:
        assert durable.ask("PUT", "/v1/keys/a", b"x").status == 201
        before = sorted(tmp_path.rglob("*"))
        for fields in FOREIGN:
            answer = durable.ask("GET", "/v1/snapshot", Sec_Fetch_Dest="document", **fields)
            assert (answer.status, answer.json["type"]) == (403, "/docs/problems/cross-site")
        assert sorted(tmp_path.rglob("*")) == before
        assert durable.ask("GET", "/v1/snapshot").status == 200


def test_no_answer_may_be_embedded_by_another_origin(server: Server) -> None:
    server.ask("PUT", "/v1/keys/embedded", b"x")
    for method, target, body in (
        ("GET", "/get/embedded", None),
        ("GET", "/get/none", None),
        ("GET", "/v1/keys/embedded", None),
        ("PUT", "/v1/keys/embedded", b"x"),
        ("GET", "/", None),
        ("GET", "/metrics", None),
        ("GET", "/none", None),
        ("BREW", "/healthz", None),
    ):
        answer = server.ask(method, target, body)
        assert answer["cross-origin-resource-policy"] == "same-origin", (method, target)


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("name:443", "https://name", True),
        ("name", "https://name:443", True),
        ("name:80", "http://name", True),
        ("name", "http://name:80", True),
        ("name:8088", "http://name:8088", True),
        ("[::1]:443", "https://[::1]", True),
        ("name:443", "http://name", False),
        ("name:80", "https://name", False),
        ("name:8088", "http://name", False),
        ("name", "http://name:8088", False),
        ("name", "ftp://name", False),
    ],
)
def test_the_default_port_of_a_scheme_makes_no_difference(
    host: str, origin: str, own: bool
) -> None:
    values = {b"origin": [origin.encode()]}
    assert (Guard(("name",)).judge(values, host.encode()).write is None) == own


@pytest.mark.parametrize("fields", OWN, ids=repr)
def test_a_page_of_this_origin_may_write(server: Server, fields: dict[str, str]) -> None:
    for method, target in WRITES:
        assert status(server, method, target, "localhost", **fields) in (200, 201, 204)


def test_the_refusal_says_why(server: Server) -> None:
    fields = {"Sec_Fetch_Site": "cross-site"}
    problem = server.ask("PUT", "/v1/keys/a", b"x", **fields)
    assert problem.json["type"] == "/docs/problems/cross-site"
    seed = server.ask("POST", "/set", b"{}", **fields)
    assert (seed.status, list(seed.json)) == (403, ["status", "message"])
    named = server.ask("GET", "/v1/keys/a", host="evil.example", Origin="http://evil.example")
    assert named.json["type"] == "/docs/problems/host-not-allowed"
    assert "evil.example" in named.json["detail"]
    assert "--allowed-hosts" in named.json["detail"]


def test_no_page_is_invited(server: Server) -> None:
    for method in ("GET", "OPTIONS", "PUT", "HEAD"):
        answer = server.ask(
            method, "/v1/keys/a", b"" if method == "PUT" else None,
            Origin="http://evil.example", Access_Control_Request_Method="PUT",
        )  # fmt: skip
        assert not [name for name, _ in answer.fields if name.startswith("access-control-")]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_what_a_form_can_send_is_no_pair(server: Server, content_type: str | None) -> None:
    fields = {} if content_type is None else {"Content_Type": content_type}
    body = b'{"key":"browser","value":"x"}'
    assert server.ask("POST", "/set", body, **fields).status == 415
    assert not server.has("browser")


# A browser has to name this server by a name that can only mean this server

MARKS = [
    {"User_Agent": MOZILLA},
    {"User_Agent": CHROME},
    {"Referer": "http://evil.example/"},
    {"Origin": "http://evil.example"},
    {"Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "none"},
]
NONE_OF_OURS = ["evil.example", "evil.example:8088", "localhost.evil.example", "local",
                "127.0.0.1.evil.example", "127.0.0.1.nip.io:8088", "127.0.0.256", "1.2.3",
                "0x7f.1", "2130706433", "xlocalhost", "keyrack", "EVIL.example."]  # fmt: skip
OURS = ["localhost", "localhost:8088", "LocalHost", "localhost.", "a.localhost", "a.b.localhost:1",
        "127.0.0.1", "127.0.0.1:8088", "10.1.2.3:80", "[::1]", "[::1]:8088", "[fe80::1]:1",
        "0.0.0.0", "[::ffff:127.0.0.1]:8088", socket.gethostname(),
        socket.gethostname().upper() + ":8088"]  # fmt: skip


@pytest.mark.parametrize("host", NONE_OF_OURS)
def test_a_browser_that_calls_us_by_another_name_gets_nothing(reachable: Server, host: str) -> None:
    for marks in MARKS if host == "evil.example" else MARKS[:2]:
        for method, target in (*READS, *WRITES, *WIDE, ("GET", "/healthz")):
            found = status(reachable, method, target, host, **marks)
            assert found == 403, (method, target, marks)


@pytest.mark.parametrize("host", OURS)
def test_a_browser_may_call_us_by_names_that_mean_us(server: Server, host: str) -> None:
    for method, target in (*READS, *WRITES, *WIDE):
        marks = {"User_Agent": MOZILLA, "Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
        assert status(server, method, target, host, **marks) in (200, 201, 204, 404)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"User_Agent": "curl/8.5.0", "Accept": "*/*"},
        {
            "User_Agent": "python-requests/2.32",
            "Accept_Encoding": "gzip",
            "Connection": "keep-alive",
        },
        {"User_Agent": "node", "Accept_Language": "*", "Sec_Fetch_Mode": "cors", "Accept": "*/*"},
        {"User_Agent": "Deno/2.0", "Accept_Language": "*", "Accept": "*/*"},
        {"User_Agent": "Go-http-client/1.1"},
        {"User_Agent": "Java-http-client/21"},
        {"User_Agent": "not Mozilla/5.0"},
        {"User_Agent": "Mozilla/5.0 (Windows NT; Windows NT 10.0; de-DE) WindowsPowerShell/5.1"},
        {"User_Agent": "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows; en-US) PowerShell/7.4.6"},
        {"User_Agent": "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)"},
        {"User_Agent": "Mozilla/5.0 (compatible; monitor)", "Accept_Language": "en"},
        {"User_Agent": "okhttp/4.12.0", "Accept_Language": "de-DE,de;q=0.9"},
        {"Accept_Language": "en-US,en;q=0.5"},
        {"User_Agent": "kube-probe/1.31"},
        {"User_Agent": "Prometheus/3.0", "Accept": "application/openmetrics-text;version=1.0.0"},
    ],
    ids=repr,
)
def test_programs_may_call_us_by_any_name(reachable: Server, fields: dict[str, str]) -> None:
    for host in ("keyrack:8088", "keyrack.namespace.svc.cluster.local", "evil.example"):
        for method, target in (*READS, *WRITES, *WIDE):
            assert status(reachable, method, target, host, **fields) in (200, 201, 204, 404)


# Where all names are known, programs have to use one of them as well

WITHOUT_MARKS = {"User_Agent": "curl/8.0", "Accept_Language": "*"}
"""What the script of a page can make of its browser's request."""


def test_a_service_on_loopback_is_called_by_its_names_only(server: Server) -> None:
    for host in NONE_OF_OURS:
        for method, target in (*READS, *WRITES, *WIDE):
            expected = 200 if target == "/readyz" else 403
            found = status(server, method, target, host, **WITHOUT_MARKS)
            assert found == expected, (method, target)
    for host in OURS:
        assert status(server, "GET", "/v1/info", host, **WITHOUT_MARKS) == 200


def test_a_probe_of_health_may_use_any_name(server: Server) -> None:
    for target in ("/healthz", "/readyz"):
        assert status(server, "GET", target, "keyrack:8088", User_Agent="kube-probe/1.31") == 200
        assert status(server, "GET", target, "keyrack:8088", User_Agent=MOZILLA) == 403


def test_a_service_with_allowed_hosts_is_called_by_its_names_only() -> None:
    flags = ("--host", "0.0.0.0", "--auth", "none", "--allowed-hosts", "keyrack.example.org")
    with Server(*flags) as reachable:
        for host, expected in (
            ("evil.example", 403),
            ("keyrack:8088", 403),
            ("keyrack.example.org", 200),
            ("10.0.0.7:8088", 200),
            ("localhost", 200),
        ):
            assert status(reachable, "GET", "/v1/info", host, **WITHOUT_MARKS) == expected, host


def test_a_client_of_http_1_0_need_not_name_a_host(server: Server) -> None:
    assert server.raw(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_what_the_refusal_proposes_is_taken(server: Server) -> None:
    answer = server.ask("GET", "/v1/info", host="keyrack.example.org.:8088")
    sentence = answer.json["detail"]
    proposed = re.search(r"--allowed-hosts \S+$", sentence)
    assert proposed is not None, sentence
    with Server(*proposed[0].split()) as named:
        assert named.ask("GET", "/v1/info", host="keyrack.example.org.:8088").status == 200


@pytest.fixture(scope="module")
def named() -> Iterator[Server]:
    with Server("--allowed-hosts", "keyrack.example.org,.internal.example") as running:
        yield running


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("keyrack.example.org", True),
        ("KeyRack.Example.org:443", True),
        ("keyrack.example.org.", True),
        ("a.internal.example", True),
        ("a.b.internal.example:1", True),
        ("internal.example", False),
        ("xinternal.example", False),
        ("x.keyrack.example.org", False),
        ("example.org", False),
        ("evil.example", False),
        ("keyrack.example.org.evil.example", False),
        ("localhost", True),
        ("127.0.0.1", True),
    ],
)
def test_further_names_are_a_setting(named: Server, host: str, allowed: bool) -> None:
    for method, target in (*READS, *WRITES, *WIDE):
        found = status(named, method, target, host, User_Agent=MOZILLA)
        assert (found != 403) == allowed, (method, target)


def test_a_star_allows_every_name_and_no_foreign_writes() -> None:
    with Server("--allowed-hosts", "*") as anything:
        for method, target in (*READS, *WRITES, *WIDE):
            assert status(anything, method, target, "evil.example", User_Agent=MOZILLA) != 403
        for method, target in WRITES:
            fields = {"Origin": "http://other.example"}
            assert status(anything, method, target, "evil.example", **fields) == 403


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_fetch_of_node_is_no_browser(server: Server) -> None:
    script = f"""
        const base = 'http://localhost:{server.port}';
        const json = {{'Content-Type': 'application/json'}};
        const body = JSON.stringify({{key: 'from node', value: [1, 'two']}});
        const set = await fetch(base + '/set', {{method: 'POST', headers: json, body}});
        console.log(set.status, await set.text());
        console.log(await (await fetch(base + '/get/from%20node')).text());
        const put = await fetch(base + '/v1/keys/from%20node', {{method: 'PUT', body: 'text'}});
        console.log(put.status);
        const got = await fetch(base + '/v1/keys/from%20node');
        console.log(got.headers.get('content-type'), await got.text());
        const gone = await fetch(base + '/v1/keys/from%20node', {{method: 'DELETE'}});
        console.log(gone.status);
    """
    command = ["node", "--input-type=module", "--eval", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        '200 {"status":"success","message":"key-value pair is set successfully"}',
        '{"key":"from node","value":[1,"two"]}',
        "204",
        "text/plain;charset=UTF-8 text",
        "204",
    ]
