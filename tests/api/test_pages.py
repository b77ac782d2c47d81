"""`GET /v1/keys`: ordered pages, folders, counts, and what goes together."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from api_support import Client, Watch, quoted
from hypothesis import example, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack_server import Answer, Server

STRANGE = (
    " ",
    "%",
    "%2F",
    "&=?#+;,",
    "..",
    "/",
    "//",
    "a\nb",
    "\0",
    '"quotes"',
    "<script>",
    "\\",
    "\u2028",
    "\U0001f511",
    "\ufffd",
    "e\u0301",
    "z" * 511,
)


@pytest.fixture
def empty(client: Client) -> Client:
    """A client of a service without keys."""
    client.clear()
    return client


def fill(client: Client, *names: str) -> None:
    for start in range(0, len(names), 1000):
        piece = names[start : start + 1000]
        answer = client.batch(*({"op": "set", "key": name, "value": name} for name in piece))
        assert answer.status == 200, answer


def page(client: Client, **parameters: Any) -> Any:
    answer = listing(client, **parameters)
    assert answer.status == 200, answer
    return answer.json


def listing(client: Client, **parameters: Any) -> Answer:
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in parameters.items())
    return client.get(f"/v1/keys?{query}")


def names(found: Any) -> list[str]:
    return [entry["key"] for entry in found["keys"]]


def linked(answer: Answer) -> str | None:
    link = answer.get("Link")
    if link is None:
        assert answer.json["next"] is None
        return None
    match = re.fullmatch(r'<(/v1/keys\?[!-;=?-~]*)>; rel="next"', link)
    assert match is not None, link
    return match[1]


def by_link(client: Client, target: str) -> Iterator[Any]:
    following: str | None = target
    while following is not None:
        answer = client.get(following)
        assert answer.status == 200, answer
        yield answer.json
        following = linked(answer)


def by_next(client: Client, **parameters: Any) -> Iterator[Any]:
    while True:
        found = page(client, **parameters)
        yield found
        if found["next"] is None:
            return
        parameters["after"] = found["next"]


# One page


def test_keys_come_in_the_order_of_their_bytes(empty: Client) -> None:
    given_names = ["b", "a", "a/b", "a0", "B", "\u00e9", "\U0001f511", "\uffff", "a\0"]
    fill(empty, *given_names)
    assert names(page(empty)) == sorted(given_names, key=str.encode)


def test_a_page_of_an_empty_store_is_empty(empty: Client) -> None:
    found = page(empty)
    assert found["keys"] == []
    assert found["next"] is None
    assert "folders" not in found


def test_an_entry_says_revision_type_size_and_time_left(empty: Client) -> None:
    plain = empty.put("a", b"\x00\x01", Content_Type="image/png")
    ends = empty.put("b", b"text", "?ttl=50")
    first, second = page(empty)["keys"]
    assert first == {"key": "a", "revision": plain, "type": "image/png", "size": 2, "ttl": None}
    assert second["revision"] == ends
    assert 40 < second["ttl"] <= 50


def test_the_default_limit_is_100_and_the_most_is_1000(empty: Client) -> None:
    fill(empty, *(f"{number:04}" for number in range(1001)))
    assert len(page(empty)["keys"]) == 100
    assert len(page(empty, limit=1000)["keys"]) == 1000
    assert page(empty, limit=1000)["next"] == "0999"
    assert len(page(empty, limit=1)["keys"]) == 1


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "b", "zz", "a/b/c/d"])
@pytest.mark.parametrize("reverse", ["false", "true"])
def test_a_prefix_bounds_the_page(empty: Client, prefix: str, reverse: str) -> None:
    stored = ["a", "a/", "a/b", "a/b/c", "a0", "b", "c"]
    fill(empty, *stored)
    expected = [name for name in stored if name.startswith(prefix)]
    if reverse == "true":
        expected.reverse()
    assert names(page(empty, prefix=prefix, reverse=reverse)) == expected


@pytest.mark.parametrize(
    ("after", "reverse", "expected"),
    [
        ("", "false", ["a", "b", "c"]),
        ("a", "false", ["b", "c"]),
        ("aa", "false", ["b", "c"]),
        ("c", "false", []),
        ("zzz", "false", []),
        ("c", "true", ["b", "a"]),
        ("bb", "true", ["b", "a"]),
        ("a", "true", []),
        ("zzz", "true", ["c", "b", "a"]),
        ("", "true", []),
    ],
)
def test_after_need_not_be_a_key(
    empty: Client, after: str, reverse: str, expected: list[str]
) -> None:
    fill(empty, "a", "b", "c")
    assert names(page(empty, after=after, reverse=reverse)) == expected


def test_a_key_of_511_bytes_can_be_gone_on_after(empty: Client) -> None:
    longest = "\u00e9" * 255 + "x"
    fill(empty, "a", longest)
    assert names(page(empty, after="a")) == [longest]
    assert names(page(empty, after=longest)) == []
    assert names(page(empty, after=longest, reverse="true")) == ["a"]


@pytest.mark.parametrize("name", STRANGE, ids=lambda name: ascii(name[:12]))
def test_any_key_is_listed_and_gone_on_after(empty: Client, name: str) -> None:
    fill(empty, name, name[:-1] if len(name) > 500 else name + "~")
    found = [entry for one in by_link(empty, "/v1/keys?limit=1") for entry in names(one)]
    assert len(found) == 2
    assert name in found
    assert names(page(empty, prefix=name, limit=1)) == [name]


def test_a_prefix_may_end_within_a_character(empty: Client) -> None:
    fill(empty, "\u00e9", "\u00e8", "e")
    answer = empty.get("/v1/keys?prefix=%C3&limit=1")
    assert names(answer.json) == ["\u00e8"]
    assert names(empty.get(linked(answer) or "").json) == ["\u00e9"]


def test_an_ended_key_is_never_shown(empty: Client) -> None:
    fill(empty, "b", "d")
    for name in ("a", "c", "e"):
        empty.put(name, b"", "?ttl=0.001")
    time.sleep(0.003)
    for reverse in ("false", "true"):
        assert sorted(names(page(empty, reverse=reverse))) == ["b", "d"]
    assert page(empty, count_only="true")["count"] == 2


def test_a_folder_of_ended_keys_is_not_shown(empty: Client) -> None:
    empty.put("a/1", b"", "?ttl=0.001")
    fill(empty, "b/1")
    time.sleep(0.003)
    assert page(empty, delimiter="/")["folders"] == ["b/"]


# Values


def test_values_are_shown_only_when_asked_for(empty: Client) -> None:
    empty.put("a", b"text")
    (entry,) = page(empty)["keys"]
    assert "value" not in entry
    (entry,) = page(empty, values="true")["keys"]
    assert entry["value"] == "text"


@pytest.mark.parametrize(
    ("body", "kind", "shown"),
    [
        (b"text", "text/plain", '"value":"text"'),
        (b'a\nb\x00"\\', "text/plain", '"value":"a\\nb\\u0000\\"\\\\"'),
        (b'{"n":1.50,"n":1e999}', "application/json", '"value":{"n":1.50,"n":1e999}'),
        (b"\xff", "text/plain", '"value":"/w=="'),
        (b"{", "application/json", '"value":"ew=="'),
        (b"\x00\x01", "image/png", '"value":"AAE="'),
    ],
    ids=["text", "escapes", "json as written", "broken text", "broken json", "bytes"],
)
def test_a_value_is_text_or_json_or_base64(
    empty: Client, body: bytes, kind: str, shown: str
) -> None:
    empty.put("a", body, Content_Type=kind)
    answer = listing(empty, values="true")
    assert shown.encode() in answer.body
    is_base64 = b'"encoding":"base64"' in answer.body
    assert is_base64 == (body in (b"\xff", b"{", b"\x00\x01"))


def test_a_page_of_large_values_ends_early_and_goes_on(empty: Client) -> None:
    for number in range(12):
        empty.put(f"{number:02}", bytes(1 << 20), Content_Type="image/png")
    pages = list(by_link(empty, "/v1/keys?values=true"))
    assert len(pages) > 1
    assert [name for one in pages for name in names(one)] == [f"{n:02}" for n in range(12)]
    empty.clear()


# Folders


def test_keys_below_a_delimiter_are_shown_as_folders(empty: Client) -> None:
    fill(empty, "a", "b/1", "b/2/x", "c", "d/", "e//f")
    found = page(empty, delimiter="/")
    assert names(found) == ["a", "c"]
    assert found["folders"] == ["b/", "d/", "e//"[:2]]
    inside = page(empty, delimiter="/", prefix="b/")
    assert names(inside) == ["b/1"]
    assert inside["folders"] == ["b/2/"]


def test_folders_come_backwards_too(empty: Client) -> None:
    fill(empty, "a", "b/1", "b/2", "c", "d/1")
    found = page(empty, delimiter="/", reverse="true")
    assert names(found) == ["c", "a"]
    assert found["folders"] == ["d/", "b/"]


def test_a_delimiter_may_be_long_and_of_any_characters(empty: Client) -> None:
    fill(empty, "a::b", "a::c", "a:d", "\u00e9\u00e9x")
    assert page(empty, delimiter="::")["folders"] == ["a::"]
    assert page(empty, delimiter="\u00e9")["folders"] == ["\u00e9"]


@pytest.mark.parametrize("reverse", ["false", "true"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_paging_through_folders_shows_each_once(empty: Client, limit: int, reverse: str) -> None:
    fill(empty, "a", "a/", "a/1", "a/2", "a0", "b/1", "b/2", "c", "c//", "c//1")
    pages = list(by_next(empty, delimiter="/", limit=limit, reverse=reverse))
    assert sorted(name for one in pages for name in names(one)) == ["a", "a0", "c"]
    assert sorted(name for one in pages for name in one["folders"]) == ["a/", "b/", "c/"]
    assert all(len(one["keys"]) + len(one["folders"]) <= limit for one in pages)


def test_a_key_that_is_its_folders_prefix_does_not_hide_the_folder(empty: Client) -> None:
    fill(empty, "a/", "a/1", "a/2", "b")
    pages = list(by_next(empty, delimiter="/", prefix="a/", limit=1))
    assert [name for one in pages for name in names(one)] == ["a/", "a/1", "a/2"]


# Counting


def test_counting_answers_a_number_and_a_revision(empty: Client) -> None:
    fill(empty, "a/1", "a/2", "b")
    revision = empty.put("c")
    assert page(empty, count_only="true") == {"count": 4, "revision": revision}
    assert page(empty, count_only="true", prefix="a/")["count"] == 2
    assert page(empty, count_only="true", prefix="zz")["count"] == 0
    assert "keys" in page(empty, count_only="false")


def test_counting_counts_beyond_a_step(empty: Client) -> None:
    fill(empty, *(f"{number:05}" for number in range(7001)))
    assert page(empty, count_only="true")["count"] == 7001
    empty.clear()


# Parameters


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=",
        "limit",
        "limit=5&limit=5",
        "reverse=yes",
        "reverse=1",
        "reverse=TRUE",
        "reverse",
        "values=",
        "count_only=yes",
        "prefixx=a",
        "PREFIX=a",
        "prefix=a&prefix=b",
        "prefix=%",
        "prefix=%4",
        "prefix=%zz",
        "prefix=" + "a" * 512,
        "after=" + "a" * 512,
        "delimiter=" + "a" * 512,
        "delimiter=%C3",
        "count_only=true&limit=5",
        "count_only=true&after=a",
        "count_only=true&reverse=true",
        "count_only=true&delimiter=/",
        "count_only=true&values=true",
        "count_only=true&count_only=true",
        "=",
        "since=5",
    ],
)
def test_a_parameter_that_is_unknown_or_contradicts_is_refused(client: Client, query: str) -> None:
    answer = client.get(f"/v1/keys?{query}")
    assert answer.status == 400, answer
    assert answer.json["type"] == "/docs/problems/bad-parameter"


def test_the_link_keeps_every_parameter(empty: Client) -> None:
    fill(empty, *(f"p/{n}&={m}" for n in range(3) for m in range(2)))
    answer = empty.get("/v1/keys?prefix=p/&delimiter=%26&limit=1&values=true&reverse=true")
    target = linked(answer)
    assert target is not None
    for piece in ("prefix=p%2F", "delimiter=%26", "limit=1", "values=true", "reverse=true"):
        assert piece in target
    assert empty.get(target).json["folders"] == ["p/1&"]


def test_head_answers_without_a_body(empty: Client) -> None:
    fill(empty, "a", "b")
    get, head = empty.get("/v1/keys?limit=1"), empty.ask("HEAD", "/v1/keys?limit=1")
    assert (head.status, head.body) == (200, b"")
    assert head["Content-Length"] == get["Content-Length"]
    assert head["Link"] == get["Link"]
    assert empty.ask("HEAD", "/v1/keys?count_only=true").status == 200


# List, then watch


def test_a_page_names_the_revision_to_watch_from(server: Server, empty: Client) -> None:
    before = empty.put("w/a")
    assert page(empty, prefix="w/")["revision"] == before
    after = empty.put("w/b")
    with Watch(server, f"?prefix=w/&since={before}") as watch:
        assert [message.id for message in watch.synced()] == [int(after)]


def test_a_page_and_the_watch_from_it_lose_nothing(pair: Server, two: list[Client]) -> None:
    """While one worker is written to, whoever lists from the other and watches misses no key."""
    writer, reader = two
    for number in range(40):
        writer.put(f"lw/{number:03}")
        found = page(reader, prefix="lw/", limit=1000)
        with Watch(pair, f"?prefix=lw/&since={found['revision']}") as watch:
            writer.put(f"lw/{number:03}x")
            seen = set(names(found))
            seen |= {message.data["key"] for message in watch.changes(1)}
        assert f"lw/{number:03}" in seen
        assert f"lw/{number:03}x" in seen


# Against a model

letters = st.text(alphabet="ab/\u00e9", min_size=1, max_size=5)


def modelled(
    keys: set[str], prefix: str, delimiter: str, reverse: bool
) -> tuple[list[str], list[str]]:
    found, folders = [], []
    for key in sorted(keys, key=str.encode, reverse=reverse):
        if not key.startswith(prefix):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        if at < 0:
            found.append(key)
        elif (folder := key[: at + len(delimiter)]) not in folders:
            folders.append(folder)
    return found, folders


@settings(max_examples=150, deadline=None)
@given(
    keys=st.sets(letters, max_size=20),
    prefix=st.text(alphabet="ab/\u00e9", max_size=2),
    limit=st.integers(1, 6),
    reverse=st.booleans(),
    delimiter=st.sampled_from(("", "/", "a", "\u00e9", "//")),
)
@example(keys={"a/", "a/a"}, prefix="a/", limit=1, reverse=False, delimiter="/")
@example(keys={"//", "///", "//a"}, prefix="/", limit=1, reverse=False, delimiter="//")
@example(keys={"aa", "aaa", "ab"}, prefix="a", limit=1, reverse=False, delimiter="a")
def test_pages_followed_to_the_end_give_all_keys_once(
    server: Server, keys: set[str], prefix: str, limit: int, reverse: bool, delimiter: str
) -> None:
    with Client(server) as client:
        client.clear()
        if keys:
            fill(client, *keys)
        query = f"prefix={quoted(prefix)}&limit={limit}&reverse={str(reverse).lower()}"
        query += f"&delimiter={quoted(delimiter)}" if delimiter else ""
        pages = list(by_link(client, f"/v1/keys?{query}"))
        count = page(client, prefix=prefix, count_only="true")["count"]
    found, folders = modelled(keys, prefix, delimiter, reverse)
    assert [name for one in pages for name in names(one)] == found
    assert [name for one in pages for name in one.get("folders", [])] == folders
    assert count == sum(key.startswith(prefix) for key in keys)
    assert all(len(one["keys"]) + len(one.get("folders", [])) <= limit for one in pages)
