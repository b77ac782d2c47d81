"""A page of another origin in a real Chromium: what its script may do, and what it may not."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING, Any

import pytest
from access_support import Guarded
from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

ASK = """async ([url, method, body, fields]) => {
  try {
    const answer = await fetch(url, {method, body, headers: fields});
    const seen = {};
    for (const name of ["etag", "retry-after", "location", "content-range", "www-authenticate"])
      if (answer.headers.has(name)) seen[name] = answer.headers.get(name);
    return {status: answer.status, text: await answer.text(), seen};
  } catch (error) { return {failed: String(error)}; }
}"""
SEND = """(url) => fetch(url, {method: "POST", mode: "no-cors", body: '{"key":"a","value":"x"}'})
  .then((answer) => answer.type, () => "failed")"""
WATCH = """([url, key]) => new Promise((done) => {
  const source = new EventSource(url);
  source.addEventListener("synced", () => done("synced"), {once: true});
  source.onerror = () => { source.close(); done("failed"); };
})"""


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A site that shows an empty page."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve a page; give its origin."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """That page, in a tab."""
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(site)
    yield tab
    context.close()


def ask(
    page: Page, server: Server, method: str, target: str, body: str | None = None, **fields: str
) -> Any:
    """Let the page's script ask the service."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return page.evaluate(ASK, [f"http://127.0.0.1:{server.port}{target}", method, body, named])


def test_a_listed_page_uses_the_store_with_its_token(page: Page, site: str) -> None:
    service = Guarded("", "--cors-origins", site)
    who = service.add("all keys:app/*")
    with service:
        server, token = service.server, {"Authorization": f"Bearer {who.text}"}
        put = ask(page, server, "PUT", "/v1/keys/app/a", "hello", If_None_Match="*", **token)
        assert put["status"] == 201
        assert put["seen"]["etag"].startswith('"')
        found = ask(page, server, "GET", "/v1/keys/app/a", **token)
        assert (found["status"], found["text"]) == (200, "hello")
        assert found["seen"]["etag"] == put["seen"]["etag"]
        part = ask(page, server, "GET", "/v1/keys/app/a", Range="bytes=0-1", **token)
        assert (part["status"], part["text"]) == (206, "he")
        assert part["seen"]["content-range"] == "bytes 0-1/5"
        patch = {"Content_Type": "application/merge-patch+json"}
        assert ask(page, server, "PATCH", "/v1/keys/app/b", "{}", **patch, **token)["status"] == 404
        assert ask(page, server, "DELETE", "/v1/keys/app/a", **token)["status"] == 204
        assert ask(page, server, "GET", "/v1/keys/app/a", **token)["status"] == 404
        assert ask(page, server, "GET", "/v1/none", **token)["status"] == 404
        refused = ask(page, server, "GET", "/v1/keys/other", **token)
        assert refused["status"] == 403
        assert "no rule allows it" in refused["text"]
        nobody = ask(page, server, "GET", "/v1/keys/app/a")
        assert nobody["status"] == 401
        assert nobody["seen"]["www-authenticate"] == 'Bearer realm="keyrack"'


def test_a_listed_page_watches(page: Page, site: str) -> None:
    with Server("--cors-origins", site) as server:
        assert page.evaluate(WATCH, [f"http://127.0.0.1:{server.port}/v1/watch", "a"]) == "synced"


def test_a_page_that_is_not_listed_can_do_nothing(page: Page) -> None:
    with Server("--cors-origins", "https://app.example.org") as server:
        assert ask(page, server, "GET", "/v1/keys/a")["failed"]
        assert ask(page, server, "PUT", "/v1/keys/a", "x")["failed"]
        # What needs no preflight is sent, and refused.
        simple = page.evaluate(SEND, f"http://127.0.0.1:{server.port}/set")
        assert simple == "failed"
        assert server.ask("GET", "/get/a").status == 404
        assert page.evaluate(WATCH, [f"http://127.0.0.1:{server.port}/v1/watch", "a"]) == "failed"


def test_without_the_setting_no_page_of_another_origin_can_do_anything(page: Page) -> None:
    with Server() as server:
        assert ask(page, server, "GET", "/v1/keys/a")["failed"]
        assert ask(page, server, "PUT", "/v1/keys/a", "x")["failed"]
        assert server.ask("GET", "/get/a").status == 404
