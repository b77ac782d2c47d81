"""The console where access control is on: it shows what the token may see, and says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server
from playwright.sync_api import expect

from keyrack.access import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from playwright.sync_api import Page

    Open: TypeAlias = Callable[..., Page]

ADMIN = tokens.new().text


@pytest.fixture(scope="module")
def closed() -> Iterator[Server]:
    """A service that one token may administer."""
    with Server(workers=1, memory="64m", environ={"KEYRACK_TOKEN": ADMIN}) as running:
        yield running


def ask(server: Server, method: str, target: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    fields = {"Authorization": f"Bearer {ADMIN}"}
    if data is not None:
        fields["Content_Type"] = "application/json"
    answer = server.ask(method, target, data, **fields)
    assert answer.status < 300, answer
    return answer.json if answer.body else None


def log_in(page: Page, token: str) -> None:
    page.get_by_role("dialog").get_by_label("Token").fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Log in").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_token_is_asked_for_kept_for_the_tab_and_forgotten(
    open_tab: Open, closed: Server
) -> None:
    ask(closed, "PUT", "/v1/keys/app", "x")
    page = open_tab("#/keys", port=closed.port)
    page.get_by_role("dialog").get_by_label("Token").fill("krk_wrong")
    page.get_by_role("dialog").get_by_role("button", name="Log in").click()
    expect(
        page.get_by_role("dialog").get_by_text("does not accept this token").first
    ).to_be_visible()
    log_in(page, ADMIN)
    expect(page.get_by_role("treeitem", name="app").first).to_be_visible()
    assert page.context.cookies() == []
    page.reload()
    expect(page.get_by_role("treeitem", name="app").first).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("dialog").get_by_label("Token")).to_be_visible()
    assert page.evaluate("Object.values(sessionStorage).join()").count("krk_") == 0


def test_a_narrow_token_sees_its_part_and_is_told_the_rule(open_tab: Open, closed: Server) -> None:
    for key in ("team/a", "team/secret/b", "other/c"):
        ask(closed, "PUT", f"/v1/keys/{key}", "x")
    rules = ["read,list,watch keys:team/*", "deny all keys:team/secret/*"]
    made = ask(closed, "POST", "/v1/auth/tokens", {"name": "narrow", "rules": rules})
    page = open_tab("#/keys", port=closed.port)
    log_in(page, made["token"])  # type: ignore[index]  # a dict, as JSON says
    expect(page.get_by_role("treeitem")).to_have_count(1)
    expect(page.get_by_text("may see only a part")).to_be_visible()
    expect(page.get_by_label("Edit", exact=True)).to_have_count(0)
    page.evaluate("location.hash = '#/keys?key=team%2Fsecret%2Fb'")
    expect(
        page.get_by_role("alert").get_by_text("deny all keys:team/secret/*", exact=True)
    ).to_be_visible()


def test_a_token_is_made_shown_once_asked_about_and_revoked(open_tab: Open, closed: Server) -> None:
    page = open_tab("#/tokens", port=closed.port)
    log_in(page, ADMIN)
    page.get_by_label("Name").fill("from the console")
    page.get_by_label("Rules, one a line").fill("read keys:made/*")
    page.get_by_role("button", name="Make it").click()
    text = page.get_by_role("dialog").locator(".secret").text_content()
    assert text.startswith("krk_")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    assert text not in page.content()
    asking = page.locator(".card", has_text="May it?")
    asking.get_by_label("Token").select_option(label=f"{text[4:12]} from the console")
    asking.get_by_role("textbox").fill("made/x")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_text("Yes: by")).to_be_visible()
    asks = {"Authorization": f"Bearer {text}"}
    assert closed.ask("GET", "/v1/keys/made/x", None, **asks).status == 404
    page.get_by_role("row", name="from the console").get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name="from the console")).to_have_count(0)
    assert closed.ask("GET", "/v1/keys/made/x", None, **asks).status == 401


def test_locks_are_listed_and_broken(open_tab: Open, closed: Server) -> None:
    ask(closed, "POST", "/v1/locks/report", {"owner": "job-7", "ttl": 600})
    page = open_tab("#/locks", port=closed.port)
    log_in(page, ADMIN)
    page.get_by_role("row", name="job-7").get_by_role("button", name="Break").click()
    page.get_by_role("dialog").get_by_role("button", name="Break").click()
    expect(page.get_by_text("No lock is held")).to_be_visible()
