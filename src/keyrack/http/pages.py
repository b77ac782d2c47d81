"""Pages for people beside the console: the reference, the problems, and failures in a browser.

All of them have the console's style and its strict policy, and links that are relative, so that a
proxy may mount the service at any path.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_to_bytes

import msgspec

from keyrack.console import assets as console
from keyrack.http.answer import Answer
from keyrack.http.problems import TYPE_PREFIX

if TYPE_CHECKING:
    from keyrack.http.protocol.request import Request

SECURITY: Final = {
    "Content-Security-Policy": console.POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Fields of every page."""

_NAVIGATION: Final = (("", "Console"), ("docs", "Reference"), ("docs/problems", "Problems"))


def page(title: str, body: str, path: str) -> str:
    """Return a page that is served at `path`. `title` is text, `body` is HTML."""
    home = home_of(path)
    files = f"{home}console/{console.version()}"
    links = "".join(f'<li><a href="{home}{to}">{name}</a></li>' for to, name in _NAVIGATION)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)} · Keyrack</title>\n"
        f'<link rel="icon" href="{files}/icon.svg" type="image/svg+xml">\n'
        f'<link rel="stylesheet" href="{files}/style.css">\n'
        f'<script type="module" src="{files}/docs.js"></script>\n</head>\n<body>\n'
        '<a class="skip" href="#main">Skip to the content</a>\n<header class="top">'
        f'<strong>Keyrack</strong><nav aria-label="Pages"><ul>{links}</ul></nav></header>\n'
        f'<main id="main" class="doc" tabindex="-1">\n{body}\n</main>\n</body>\n</html>\n'
    )


def home_of(path: str) -> str:
    """Return the relative way from a page at `path` to where `/` is; "./" where that is here."""
    return "../" * (path.count("/") - 1) or "./"


def for_people(answer: Answer, request: Request) -> Answer:
    """Return a failure as a page, if a person follows a link; any other answer as it is."""
    if answer.status < 400 or not request.head.wants_page:
        return answer
    path = request.path.decode("latin-1")
    told = msgspec.json.decode(answer.body)
    text = page(f"{answer.status} {_title(told)}", _failure(answer.status, told, path), path)
    kept = tuple(field for field in answer.headers if field[0].lower() not in _REPLACED)
    fields = tuple((name.encode(), value.encode()) for name, value in SECURITY.items())
    media_type = (b"Content-Type", b"text/html; charset=utf-8")
    return Answer(answer.status, (media_type, (b"Vary", b"Accept"), *fields, *kept), text.encode())


_REPLACED: Final = (b"content-type", b"x-content-type-options")


def _title(told: dict[str, Any]) -> str:
    return str(told.get("title") or told.get("message") or told["error"])


def _failure(status: int, told: dict[str, Any], path: str) -> str:
    home = home_of(path)
    links = [f'<a href="{home}">Open the console</a>']
    slug = str(told.get("type", "")).removeprefix(TYPE_PREFIX)
    if slug:
        known = f'<a href="{home}docs/problems/{html.escape(slug)}">What this problem is</a>'
        links.append(known)
    if status == 401:
        links[0] = f'<a href="{home}">Log in with a token</a>'
    elif key := _key_in(path):
        links[0] = f'<a href="{home}#/keys?key={key}">Look at it in the console</a>'
    body = html.escape(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    detail = f"<p>{html.escape(str(told['detail']))}</p>" if "detail" in told else ""
    return (
        f"<h1>{status} {html.escape(_title(told))}</h1>{detail}<p>{' · '.join(links)}</p>"
        f"<p class=dim>Programs are answered with this:</p><pre class=text>{body}</pre>"
    )


def _key_in(path: str) -> str:
    """Return the key that a path names, wholly percent-encoded; "" where it names none."""
    for beginning in ("/get/", "/v1/keys/"):
        if path.startswith(beginning):
            return quote(unquote_to_bytes(path.removeprefix(beginning)), safe="")
    return ""
