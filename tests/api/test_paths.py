"""Which operation a path names is decided on the raw path, and so is who may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from api_support import Client

CROSS_SITE = {"Origin": "http://evil.example", "Sec_Fetch_Site": "cross-site"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1%2Finfo"),
        ("GET", "/v1/inf%6F"),
        ("GET", "/v1/info%0A"),
        ("GET", "/v1/info/"),
        ("GET", "//v1/info"),
        ("GET", "/v1/./info"),
        ("GET", "/V1/info"),
        ("GET", "/v1%2Fkeys"),
        ("GET", "/v1/watch%0A"),
        ("DELETE", "/v1%2Fkeys?all=true"),
        ("DELETE", "/v1/%6beys?all=true"),
        ("POST", "/v1%2Fimport"),
        ("POST", "/v1%2Fbatch"),
        ("GET", "/v1/export%0A"),
        ("GET", "/docs%0A"),
        ("GET", "/v1"),
        ("GET", "/v2/keys"),
    ],
)
def test_a_path_is_not_decoded_to_find_its_operation(
    client: Client, key: str, method: str, path: str
) -> None:
    client.put(key)
    answer = client.ask(method, path, b"" if method == "POST" else None)
    assert answer.status == 404, answer
    assert client.shown(key) == "value"


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("DELETE", "/v1/keys?all=true", None),
        ("DELETE", "/v1%2Fkeys?all=true", None),
        ("DELETE", "/v1/%6beys?all=true", None),
        ("POST", "/v1/import", "application/x-ndjson"),
        ("POST", "/v1%2Fimport", "application/x-ndjson"),
        ("POST", "/v1/batch", "application/json"),
        ("POST", "/v1/counters/foreign", "application/json"),
        ("POST", "/v1/counters/foreign", None),
        ("POST", "/v1/locks/foreign", "application/json"),
        ("DELETE", "/v1/locks/foreign?token=5", None),
        ("PATCH", "/v1/keys/foreign", "application/merge-patch+json"),
    ],
)
def test_a_page_of_another_site_writes_nothing(
    client: Client, key: str, method: str, path: str, kind: str | None
) -> None:
    client.put(key)
    body = b'{"key":"foreign","value":1}' if kind else None
    fields = CROSS_SITE | ({"Content_Type": kind} if kind else {})
    answer = client.ask(method, path, body, **fields)
    assert answer.status in (403, 404)
    assert client.shown(key) == "value"
    assert client.shown("foreign") is None


@pytest.mark.parametrize(
    "path",
    ["/v1/keys", "/v1/watch", "/v1/export", "/v1/events/a", "/v1/locks/a", "/v1/info", "/docs"],
)
def test_a_browser_under_an_unknown_name_reads_nothing(client: Client, path: str) -> None:
    answer = client.get(path, host="evil.example", User_Agent="Mozilla/5.0")
    assert answer.status == 403


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/keys", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/batch", "OPTIONS, POST"),
        ("/v1/counters/a", "OPTIONS, POST"),
        ("/v1/locks/a", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("/v1/watch", "GET, HEAD, OPTIONS"),
        ("/v1/events/a", "GET, HEAD, OPTIONS"),
        ("/v1/export", "GET, HEAD, OPTIONS"),
        ("/v1/import", "OPTIONS, POST"),
        ("/v1/keys/a", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
    ],
)
def test_another_method_is_405_and_options_says_which(
    client: Client, path: str, allowed: str
) -> None:
    answer = client.ask("TRACE", path)
    assert (answer.status, answer["Allow"]) == (405, allowed)
    answer = client.ask("OPTIONS", path)
    assert (answer.status, answer["Allow"]) == (204, allowed)
