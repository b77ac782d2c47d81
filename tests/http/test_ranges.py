"""Parts of a value over HTTP: RFC 9110 section 14."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from keyrack_server import Server

SIZE = 10_000
VALUE = bytes(number % 251 for number in range(SIZE))


@pytest.fixture
def stored(server: Server, key: str) -> tuple[str, str]:
    """The path of a value of 10 000 bytes, and its ETag."""
    return f"/v1/keys/{key}", server.put(key, VALUE, Content_Type="application/x-thing")


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-4095", 0, 4096),
        ("bytes=4080-8200", 4080, 8201),
        ("bytes=9999-", 9999, SIZE),
        ("bytes=9990-99999999", 9990, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        ("bytes=-99999", 0, SIZE),
        ("Bytes= 5-6 ", 5, 7),
    ],
)
def test_one_range_is_answered_with_206(
    server: Server, stored: tuple[str, str], asked: str, first: int, end: int
) -> None:
    path, tag = stored
    answer = server.ask("GET", path, Range=asked)
    assert (answer.status, answer.body) == (206, VALUE[first:end])
    assert answer["content-range"] == f"bytes {first}-{end - 1}/{SIZE}"
    assert answer["content-length"] == str(end - first)
    assert (answer["etag"], answer["content-type"]) == (tag, "application/x-thing")
    assert answer["content-security-policy"] == "sandbox"


@pytest.mark.parametrize("asked", ["bytes=10000-", "bytes=10000-10001", "bytes=-0"])
def test_a_range_that_the_value_has_not_is_416(
    server: Server, stored: tuple[str, str], asked: str
) -> None:
    answer = server.ask("GET", stored[0], Range=asked)
    assert (answer.status, answer["content-range"]) == (416, f"bytes */{SIZE}")
    assert answer.json["type"] == "/docs/problems/range-not-satisfiable"
    assert answer.json["limit"] == SIZE


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,3-4", "bytes=5-4", "lines=0-1", "bytes", "bytes=", "bytes=-", "bytes=a-b", "0-1"],
)
def test_what_is_no_single_range_of_bytes_is_passed_over(
    server: Server, stored: tuple[str, str], asked: str
) -> None:
    answer = server.ask("GET", stored[0], Range=asked)
    assert (answer.status, answer.body) == (200, VALUE)
    assert answer.get("content-range") is None


def test_a_whole_answer_says_that_parts_can_be_had(server: Server, stored: tuple[str, str]) -> None:
    for method in ("GET", "HEAD"):
        assert server.ask(method, stored[0])["accept-ranges"] == "bytes"


def test_head_has_no_ranges(server: Server, stored: tuple[str, str]) -> None:
    answer = server.ask("HEAD", stored[0], Range="bytes=0-1")
    assert (answer.status, answer["content-length"]) == (200, str(SIZE))


def test_if_range_gives_the_part_of_this_state_and_else_the_whole(
    server: Server, stored: tuple[str, str]
) -> None:
    path, tag = stored
    assert server.ask("GET", path, Range="bytes=0-1", If_Range=tag).status == 206
    for other in ('"1"', f"W/{tag}", "Mon, 30 Nov 2026 08:00:00 GMT"):
        answer = server.ask("GET", path, Range="bytes=0-1", If_Range=other)
        assert (answer.status, answer.body) == (200, VALUE), other


def test_preconditions_come_before_the_range(server: Server, stored: tuple[str, str]) -> None:
    path, tag = stored
    assert server.ask("GET", path, Range="bytes=0-1", If_Match='"1"').status == 412
    assert server.ask("GET", path, Range="bytes=0-1", If_None_Match=tag).status == 304
    assert server.ask("GET", path, Range="bytes=0-1", If_Match=tag).status == 206


def test_a_missing_key_has_no_part(server: Server, key: str) -> None:
    assert server.ask("GET", f"/v1/keys/{key}", Range="bytes=0-1").status == 404


def test_a_part_tells_the_ttl_that_is_left(server: Server, key: str) -> None:
    server.put(f"{key}?ttl=100", VALUE)
    answer = server.ask("GET", f"/v1/keys/{key}", Range="bytes=0-1")
    assert 90 < float(answer["keyrack-ttl"]) <= 100
