"""Pages, health, limits and metrics; and what every answer of every kind carries."""

from __future__ import annotations

import gzip
import re
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from keyrack_server import ON_VALKEY, Answer, Server, parse, request
from prometheus_client.parser import text_string_to_metric_families

from keyrack import __version__
from keyrack.http.problems import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

JSON = "application/json"


# Health


def test_a_worker_says_that_it_lives(server: Server) -> None:
    answer = server.ask("GET", "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer["content-type"] == "text/plain; charset=utf-8"
    assert answer["cache-control"] == "no-store"


def test_a_service_says_that_it_is_ready(server: Server) -> None:
    answer = server.ask("GET", "/readyz")
    assert (answer.status, answer.body) == (200, b"ready\n")
    assert answer["content-type"] == "text/plain; charset=utf-8"
    assert server.ask("HEAD", "/readyz").status == 200


# Facts


def test_info_names_version_engine_and_counts(server: Server, key: str) -> None:
    before = server.ask("GET", "/v1/info").json
    etag = server.ask("PUT", f"/v1/keys/{key}?ttl=60", b"x")["etag"]
    after = server.ask("GET", "/v1/info").json
    assert (after["name"], after["version"]) == ("keyrack", __version__)
    assert after["engine"]["engine"] == ("valkey" if ON_VALKEY else "embedded")
    assert after["keys"] == before["keys"] + 1
    assert after["keys_with_ttl"] == before["keys_with_ttl"] + 1
    # A number of 64 bits is a string in JSON.
    assert after["revision"] == etag.strip('"')
    assert after["memory"]["limit"] >= after["memory"]["used"] > 0
    assert after["workers"] == 1
    assert after["uptime_seconds"] >= before["uptime_seconds"] > 0


def test_limits_are_those_that_are_enforced(server: Server) -> None:
    limits = server.ask("GET", "/v1/limits").json
    assert limits | {"store_bytes": 0, "client_memory_bytes": 0} == {
        "client_memory_bytes": 0,
        "key_bytes": 511,
        "value_bytes": 1 << 20,
        "body_bytes": 8 << 20,
        "media_type_bytes": 255,
        "prefix_bytes": 511,
        "batch_operations": 1000,
        "page_keys": 1000,
        "wait_seconds": 300.0,
        "idempotency_seconds": 600.0,
        "target_bytes": 8192,
        "head_bytes": 32768,
        "head_fields": 100,
        "ttl_seconds_least": 0.001,
        "ttl_seconds_most": 315360000,
        "store_bytes": 0,
        "head_timeout_seconds": 10.0,
        "body_timeout_seconds": 60.0,
        "send_timeout_seconds": 60.0,
        "keep_alive_seconds": 90.0,
    }


def test_limits_follow_the_settings() -> None:
    flags = ("--max-value", "2k", "--max-body", "1m", "--keep-alive", "5", "--head-timeout", "3")
    with Server(*flags, memory="16m") as other:
        limits = other.ask("GET", "/v1/limits").json
    assert (limits["value_bytes"], limits["body_bytes"]) == (2048, 1 << 20)
    assert (limits["keep_alive_seconds"], limits["head_timeout_seconds"]) == (5.0, 3.0)
    if not ON_VALKEY:
        assert limits["store_bytes"] <= 16 << 20


# Pages


class Page(HTMLParser):
    """What a page refers to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.others: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "action", "srcset", "data", "poster"):
                self.others.append(value or "")
            assert not name.startswith("on"), "no script in an attribute"

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_console_loads_its_own_files_and_nothing_else(server: Server) -> None:
    answer = server.ask("GET", "/", host="localhost:8088")
    assert (answer.status, answer["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    for word in ("frame-ancestors 'none'", "require-trusted-types-for 'script'", "base-uri 'none'"):
        assert word in policy
    assert "unsafe" not in policy
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["referrer-policy"] == "no-referrer"
    assert answer["cross-origin-opener-policy"] == "same-origin"
    assert answer["cache-control"] == "no-store"
    page = Page(answer.body.decode())
    assert page.tags.isdisjoint({"img", "iframe", "form", "object", "base", "style"})
    assert len(page.others) == 3
    for link in (*page.links, *page.others):
        assert server.ask("GET", f"/{link}").status == 200, link


def test_the_console_is_compressed_for_who_takes_it_and_kept_for_ever(server: Server) -> None:
    page = Page(server.ask("GET", "/").body.decode())
    for link in page.others:
        plain = server.ask("GET", f"/{link}")
        packed = server.ask("GET", f"/{link}", Accept_Encoding="gzip, br")
        assert packed["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        assert plain.get("content-encoding") is None
        assert plain["vary"] == packed["vary"] == "Accept-Encoding"
        assert plain["cache-control"] == "public, max-age=31536000, immutable"


def test_files_of_another_version_of_the_console_are_not_there(server: Server) -> None:
    link = Page(server.ask("GET", "/").body.decode()).others[0]
    other = re.sub(r"[0-9a-f]{16}", "0123456789abcdef", link)
    assert server.ask("GET", f"/{other}").status == 404
    for path in ("x/../main.js", "index.html", "vendor/VENDOR.toml", "%2e%2e/assets.py"):
        beginning = link.rpartition("/")[0]
        assert server.ask("GET", f"/{beginning}/{path}").status == 404, path


@pytest.mark.parametrize("host", ["a&b", "x'y", "$(reboot)", "[:::]", "[.]", "a:0", "%3Cb%3E"])
def test_the_console_says_nothing_of_the_host_it_is_asked_by(reachable: Server, host: str) -> None:
    answer = reachable.ask("GET", "/", host=host)
    assert answer.status == 200
    assert host not in answer.body.decode()


def test_every_kind_of_problem_has_its_page(server: Server) -> None:
    everything = server.ask("GET", "/docs/problems").body.decode()
    for slug, kind in KINDS.items():
        answer = server.ask("GET", f"/docs/problems/{slug}")
        assert (answer.status, answer["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in answer["content-security-policy"]
        text = Page(answer.body.decode()).words
        assert kind.title in text
        assert str(kind.status) in text
        assert f'id="{slug}"' in everything
    assert server.ask("GET", "/docs/problems/none").status == 404


# What is not there


@pytest.mark.parametrize(
    "target",
    ["/none", "/v1", "/v1/", "/v1/none", "/readyz/", "/v1/info/", "//", "/%00", "/%ff", "/.git/x",
     "/..", "/v1/../healthz", "/index.html", "/Docs", "/Healthz", "/healthz/"],
)  # fmt: skip
def test_what_is_not_there_is_a_problem(server: Server, target: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = server.ask(method, target, b"x" if method == "POST" else None)
        assert answer.status == 404, (method, answer)
        assert answer["content-type"] == "application/problem+json"
        assert answer.json["type"] == "/docs/problems/not-found"
        assert answer.get("location") is None


@pytest.mark.parametrize(
    "target", ["/", "/readyz", "/metrics", "/v1/info", "/v1/limits", "/openapi.json", "/docs"]
)
def test_what_can_only_be_read_says_so(server: Server, target: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = server.ask(method, target, b"")
        assert answer.status == 405
        assert answer["content-type"] == "application/problem+json"
        assert answer["allow"] == "GET, HEAD, OPTIONS"
        assert answer.json["type"] == "/docs/problems/method-not-allowed"


# Every answer


def every_kind_of_answer() -> Iterator[bytes]:
    pair = b'{"key":"kinds","value":"x"}'
    yield request("POST", "/set", pair, Content_Type=JSON)
    yield request("PUT", "/v1/keys/kinds", b"x")
    yield request("PUT", "/v1/keys/kinds", b"x", If_None_Match="*")
    yield request("GET", "/v1/keys/kinds")
    yield request("GET", "/v1/keys/kinds", If_None_Match="*")
    yield request("HEAD", "/v1/keys/kinds")
    for target in ("/get/kinds", "/get/none", "/get/%zz", "/healthz", "/readyz", "/", "/none",
                   "/metrics", "/v1/info", "/v1/limits", "/docs/problems", "/get", "/v1/keys/none",
                   "/" + "x" * 9000):  # fmt: skip
        yield request("GET", target)
    yield request("DELETE", "/v1/keys/kinds")
    yield request("OPTIONS", "/v1/keys/kinds")
    yield request("POST", "/v1/keys/kinds", b"")
    yield request("POST", "/set", b"", Content_Type="text/plain")
    yield request("PUT", "/v1/keys/kinds", b"x", Sec_Fetch_Site="cross-site")
    yield request("PUT", "/v1/keys/kinds", Content_Length="9999999")
    yield request("GET", "/", Expect="x")
    yield request("GET", "/", X="x" * 40_000)
    yield request("GET", "/").replace(b"Host: localhost\r\n", b"")
    yield b"nonsense\r\n\r\n"
    yield b"GET / HTTP/1.0\r\n\r\n"
    yield b"GET /get/none HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize("data", list(every_kind_of_answer()), ids=lambda data: repr(data[:40]))
def test_every_answer_has_a_date_and_our_name(server: Server, data: bytes) -> None:
    for _ in range(2):
        found = parse(server.raw(data), data.split(b" ")[0].decode())
        assert found is not None
        answer = found[0]
        assert answer["server"] == "keyrack"
        assert answer["date"].endswith(" GMT")
        assert parsedate_to_datetime(answer["date"]).tzinfo is not None
        names = [name for name, _ in answer.fields]
        assert len(names) == len(set(names))
        if answer.status not in (201, 204):
            assert answer["cache-control"] == "no-store"


# Metrics


def metrics(server: Server) -> dict[str, Metric]:
    answer = server.ask("GET", "/metrics")
    assert answer["content-type"].startswith("text/plain; version=")
    return {one.name: one for one in text_string_to_metric_families(answer.body.decode())}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """Return the sum of all samples of that name with these labels."""
    family = re.sub(r"_(total|count|sum|bucket|info)$", "", name)
    return sum(
        sample.value
        for sample in families[family].samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_metrics_have_names_types_units_and_help(server: Server) -> None:
    families = metrics(server)
    assert len(families) > 12
    for name, family in families.items():
        assert name.startswith(("keyrack_", "process_"))
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram", "info")
        for sample in family.samples:
            assert sample.value >= 0
            if family.type == "counter":
                assert sample.name == f"{name}_total"
        # Base units, and in the name.
        assert not re.search(
            r"_(ms|milliseconds|kb|mb|kilobytes|megabytes|minutes|percent)\b", name
        )
    assert "keyrack_http_request_duration_seconds" in families
    assert "keyrack_store_used_bytes" in families


def test_a_histogram_adds_up(server: Server) -> None:
    family = metrics(server)["keyrack_http_request_duration_seconds"]
    for lane in ("read", "write", "wide"):
        samples = [sample for sample in family.samples if sample.labels["lane"] == lane]
        buckets = [one for one in samples if one.name.endswith("_bucket")]
        bounds = [float(one.labels["le"]) for one in buckets]
        counts = [one.value for one in buckets]
        assert bounds == sorted(bounds)
        assert counts == sorted(counts)
        assert bounds[-1] == float("inf")
        (count,) = [one.value for one in samples if one.name.endswith("_count")]
        assert counts[-1] == count


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
     "application/openmetrics-text;version=x", "text/plain;version=x", "text/plain; version=1.0.0",
     "application/openmetrics-text; version=; escaping=x", ";=;,,", "a" * 1000, "\xff"],
)  # fmt: skip
def test_metrics_can_be_asked_for_in_any_way(server: Server, accept: str) -> None:
    answer = server.ask("GET", "/metrics", Accept=accept)
    assert answer.status == 200
    assert b"keyrack_http_requests_total{" in answer.body


def test_any_worker_counts_for_all() -> None:
    with Server(workers=2) as both:
        before = metrics(both)
        for number in range(60):
            # A connection each, so that both workers get some.
            assert both.ask("PUT", f"/v1/keys/{number}", b"x").status == 201
            assert both.ask("GET", f"/get/{number}").status == 200
            assert both.ask("GET", "/get/none").status == 404
            assert both.ask("GET", f"/v1/keys/{number}", If_None_Match="*").status == 304
            assert both.ask("GET", f"/v1/keys/{number}", If_Match="x").status == 400
        for _ in range(6):
            after = metrics(both)
            counted = {
                (operation, code): value(after, "keyrack_http_requests_total", **labels)
                - value(before, "keyrack_http_requests_total", **labels)
                for operation, code in (("key_put", "201"), ("get", "200"), ("get", "404"),
                                        ("key_get", "304"), ("other", "400"))
                for labels in [{"operation": operation, "code": code}]
            }  # fmt: skip
            assert set(counted.values()) == {60}, counted
            assert value(after, "keyrack_key_hits_total") == 120
            assert value(after, "keyrack_key_misses_total") == 60
            assert value(after, "keyrack_key_writes_total") == 60
            assert value(after, "keyrack_keys") == 60
            assert value(after, "keyrack_workers") == 2
            assert value(after, "keyrack_worker_starts_total") == 2
            # That of the request before may not have been seen to end yet.
            assert 1 <= value(after, "keyrack_connections") <= 2
            count = value(after, "keyrack_http_request_duration_seconds_count", lane="write")
            assert count == 60


def test_expired_keys_are_counted_once_by_all_workers() -> None:
    with Server(workers=2) as both, both.connect() as wire:
        for number in range(300):
            wire.send(request("PUT", f"/v1/keys/{number}?ttl=0.05", b"x"))
        assert {wire.answer().status for _ in range(300)} == {201}
        for _ in range(200):
            if value(metrics(both), "keyrack_keys") == 0:
                break
        families = metrics(both)
        assert value(families, "keyrack_keys_expired_total") == 300
        assert value(families, "keyrack_keys_with_ttl") == 0


def test_answers_of_the_wide_lane_are_counted_by_what_they_are(server: Server) -> None:
    names = {"/readyz": "readyz", "/v1/info": "info", "/v1/limits": "limits", "/": "home",
             "/docs/problems": "docs", "/metrics": "metrics"}  # fmt: skip
    before = metrics(server)
    for target in names:
        assert isinstance(server.ask("GET", target), Answer)
    after = metrics(server)
    for name in names.values():
        labels = {"operation": name, "code": "200"}
        grown = value(after, "keyrack_http_requests_total", **labels) - value(
            before, "keyrack_http_requests_total", **labels
        )
        assert grown >= 1, name


@pytest.mark.parametrize("target", ["/v1/info?x=1", "/?x=1", "/metrics?name=a", "/docs?x=1"])
def test_an_unknown_parameter_is_refused_here_too(server: Server, target: str) -> None:
    answer = server.ask("GET", target)
    assert (answer.status, answer.json["type"]) == (400, "/docs/problems/bad-parameter")
