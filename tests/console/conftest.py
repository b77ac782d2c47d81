"""A real Chromium on a real service. `make test-console` runs this; it needs Debian's chromium."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from keyrack_server import Server
from playwright.sync_api import Browser, Page, expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHROMIUM = os.environ.get("KEYRACK_TEST_CHROMIUM") or shutil.which("chromium") or ""
AXE = Path(os.environ.get("KEYRACK_TEST_AXE", "no axe"))
PATIENCE = 20_000
"""Milliseconds that something may take to be seen, on a machine that does other things as well."""
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    if not CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # The tests run as root, where Chromium's own sandbox cannot be had.
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A service that the tests share; each uses keys of its own."""
    with Server("--max-value", "8m", "--max-body", "32m", workers=1, memory="512m") as running:
        yield running


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Return what opens the console in a tab of its own. No tab may have complained at the end."""
    contexts, complaints = [], []

    def opened(
        address: str = "",
        *,
        port: int | None = None,
        path: str = "/",
        allowed: tuple[str, ...] = (),
        **options: object,
    ) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})  # type: ignore[arg-type]  # playwright's many options
        contexts.append(context)
        page = context.new_page()

        def complain(text: str) -> None:
            # The browser says so of each answer of 4xx, also where that is what was wanted.
            expected = (
                "Failed to load resource: the server responded with a status of 4",
                *allowed,
            )
            if not any(known in text for known in expected):
                complaints.append(text)

        page.on("pageerror", lambda error: complain(f"error: {error}"))
        page.on("console", lambda said: said.type in ("error", "warning") and complain(said.text))
        page.on("dialog", lambda dialog: complain(f"dialog: {dialog.message}"))
        page.set_default_timeout(PATIENCE)
        page.goto(f"http://127.0.0.1:{port or server.port}{path}{address}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def put(server: Server) -> Callable[..., str]:
    """Return what stores a value under any key."""

    def stored(
        key: str, value: bytes, media_type: str = "text/plain; charset=utf-8", query: str = ""
    ) -> str:
        return server.put(quote(key, safe="") + query, value, Content_Type=media_type)

    return stored
