"""People who follow a link in a browser get pages; programs get what they always get."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
FAILURES = (
    ("/get/missing", 404),
    ("/v1/keys/missing", 404),
    ("/v1/keys/a/b%2Fc/missing", 404),
    ("/nothing", 404),
    ("/v1/nothing/at/all", 404),
    ("/v1/keys?limit=x", 400),
    ("/v1/events/k?limit=0", 400),
    ("/docs/problems/nothing", 404),
    ("/set", 405),
    ("/console/0/x.js", 404),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(workers=1) as running:
        yield running


@pytest.mark.parametrize(("path", "status"), FAILURES)
def test_a_failure_is_a_page_for_who_follows_a_link(server: Server, path: str, status: int) -> None:
    shown = server.ask("GET", path, Accept=BROWSER)
    assert (shown.status, shown["content-type"]) == (status, "text/html; charset=utf-8")
    assert shown["vary"] == "Accept"
    assert "trusted-types" in shown["content-security-policy"]
    text = shown.body.decode()
    assert f"<h1>{status} " in text
    told = server.ask("GET", path, Accept="*/*")
    assert told.status == status
    assert told["content-type"] in ("application/problem+json", "application/json")


@pytest.mark.parametrize(("path", "status"), FAILURES)
@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html"])
def test_programs_get_json(server: Server, path: str, status: int, accept: str | None) -> None:
    told = server.ask("GET", path, **({} if accept is None else {"Accept": accept}))
    assert told.status == status
    assert isinstance(told.json, dict)


@pytest.mark.parametrize("path", [path for path, _ in FAILURES])
def test_its_links_work_behind_a_proxy_at_any_path(server: Server, path: str) -> None:
    """Each is relative, and as many steps up as the page is deep."""
    text = server.ask("GET", path, Accept=BROWSER).body.decode()
    up = "../" * (path.partition("?")[0].count("/") - 1) or "./"
    links = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert len(links) > 5
    for link in links:
        assert link.startswith((up, "#main"))
        if ".css" in link or ".js" in link:
            assert server.ask("GET", "/" + link.removeprefix(up)).status == 200


def test_nothing_that_was_asked_for_becomes_html(server: Server) -> None:
    for name in ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'&amp;"):
        for beginning in ("/get/", "/v1/keys/"):
            shown = server.ask("GET", beginning + name.replace(" ", "%20"), Accept=BROWSER)
            assert shown.status in (400, 404)
            assert "<script>alert" not in shown.body.decode()
            assert "<img" not in shown.body.decode()


def test_a_key_leads_to_its_place_in_the_console(server: Server) -> None:
    text = server.ask("GET", "/v1/keys/a&b%2Fc/d=1", Accept=BROWSER).body.decode()
    assert 'href="../../../#/keys?key=a%26b%2Fc%2Fd%3D1"' in text


def test_a_value_is_never_a_page(server: Server) -> None:
    server.put("present", b"<b>bold</b>", Content_Type="text/plain")
    shown = server.ask("GET", "/v1/keys/present", Accept=BROWSER)
    assert (shown.status, shown.body) == (200, b"<b>bold</b>")
    assert server.ask("GET", "/get/present", Accept=BROWSER).json["value"] == "<b>bold</b>"


def test_a_foreign_name_is_told_as_a_page(server: Server) -> None:
    origin = "http://evil.example"
    for path in ("/get/x", "/v1/keys?limit=1", "/docs"):
        shown = server.ask("GET", path, host="evil.example", Accept=BROWSER, Origin=origin)
        assert (shown.status, shown["content-type"]) == (403, "text/html; charset=utf-8")
        assert "--allowed-hosts" in shown.body.decode()


def test_the_pages_for_people_look_alike(server: Server) -> None:
    style = re.compile(
        r'<link rel="stylesheet" href="(?:\./|\.\./)*(console/[0-9a-f]+/style.css)">'
    )
    pages = [
        server.ask("GET", path, Accept=BROWSER).body.decode()
        for path in ("/", "/docs", "/docs/problems", "/docs/problems/bad-ttl", "/nothing")
    ]
    sheets = {found[1] for page in pages if (found := style.search(page))}
    index = re.search(r'href="(console/[0-9a-f]+/style.css)"', pages[0])
    assert index
    assert sheets == {index[1]}
