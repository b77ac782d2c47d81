"""The bytes of HTTP, without a socket. llhttp, by httptools, is the judge."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyrack.client import wire
from keyrack.client.errors import ProtocolError


class Seen(NamedTuple):
    status: int
    body: bytes


class Judge:
    """What llhttp makes of bytes: the answers that are whole."""

    def __init__(self, bodyless: bool = False) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.answers: list[Seen] = []
        self._body = b""

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.answers.append(Seen(self._parser.get_status_code(), self._body))

    def read(self, data: bytes) -> Judge:
        self._parser.feed_data(data)
        return self


def read(data: bytes, cuts: list[int] | None = None) -> Seen | None:
    """Return what our reader makes of bytes that come in pieces, None when there is no end."""
    reader = wire.ResponseReader()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    for start, end in pairwise(places):
        if (answer := reader.feed(data[start:end])) is not None:
            return Seen(answer.status, answer.body)
    return None


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;name="x"\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n'
)
ANSWERS = {
    "plain": (PLAIN, Seen(200, b"hello")),
    "chunked": (CHUNKED, Seen(200, b"hello!")),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Seen(200, b"")),
    "lower case": (b"HTTP/1.1 201 X\r\ncontent-length:2\r\n\r\nab", Seen(201, b"ab")),
    "no content": (b"HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n", Seen(204, b"")),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", Seen(304, b"")),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, Seen(200, b"hello")),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_the_same_wherever_it_is_cut(name: str) -> None:
    data, expected = ANSWERS[name]
    assert Judge().read(data).answers[-1] == expected
    for cut in range(len(data)):
        assert read(data, [cut]) == expected
    assert read(data, list(range(len(data)))) == expected


@pytest.mark.parametrize("name", ["plain", "no reason", "lower case", "no content"])
def test_what_comes_as_one_whole_answer_is_read_at_once(name: str) -> None:
    data, expected = ANSWERS[name]
    answer = wire.whole(data, False)
    assert answer is not None
    assert (answer.status, answer.body) == expected
    assert wire.whole(data + b"x", False) is None
    assert wire.whole(data[:-1], False) is None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\na",
        b"HTTP/1.1 404 No\r\nContent-Length:\r\n\r\na",
        b"HTTP/1.1 404 No\r\nContent-Length:\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 404 No\r\nTransfer-Encoding:\r\n\r\na",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5, 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\n Content-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil it closes",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 20 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0;" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad line\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 2000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 102,
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(head)
    with pytest.raises(ProtocolError):
        read(head, list(range(min(len(head), 300))))


LINE_ENDS = st.sampled_from([b"\r\n", b"\n", b"\r", b""])
NAMES = st.sampled_from(
    [
        b"Content-Length",
        b"content-length",
        b"Transfer-Encoding",
        b"Connection",
        b"ETag",
        b"X y",
        b"",
    ]
)
VALUES = st.sampled_from(
    [
        b"5",
        b"0",
        b"1",
        b"05",
        b"5, 5",
        b"",
        b" 5 ",
        b"chunked",
        b"Chunked",
        b"gzip",
        b"close",
        b"\xff",
        b"\0",
    ]
)
FIELDS = st.lists(
    st.builds(
        lambda n, c, v, e: n + c + v + e,
        NAMES,
        st.sampled_from([b": ", b":", b" :"]),
        VALUES,
        st.one_of(st.just(b"\r\n"), LINE_ENDS),
    ),
    max_size=4,
)
BODIES = st.sampled_from(
    [
        b"hello",
        b"",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"05;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
    ]
)
STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 404 Not Found\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 204 \r\n",
        b"HTTP/1.1 304 Not\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1 200\r\n",
    ]
)
HOSTILE = st.builds(
    lambda line, fields, body: line + b"".join(fields) + b"\r\n" + body,
    STATUS_LINES,
    FIELDS,
    BODIES,
)


@given(HOSTILE, st.lists(st.integers(0, 300), max_size=4))
@example(PLAIN, [])
@example(b"HTTP/1.1 204 \r\nContent-Length: 5, 5\r\n\r\nhello", [])
def test_what_is_taken_is_what_llhttp_takes(data: bytes, cuts: list[int]) -> None:
    try:
        ours = read(data, cuts)
    except ProtocolError:
        return  # to refuse more than llhttp does is fine
    if ours is None:
        return
    judge = Judge()
    try:
        judge.read(data)
    except httptools.HttpParserError:
        assert judge.answers, f"llhttp refuses {data!r}"
    finals = [seen for seen in judge.answers if seen.status >= 200]
    assert finals[0] == ours


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=4))
def test_nothing_but_a_protocol_error_comes_of_any_bytes(data: bytes, cuts: list[int]) -> None:
    with suppress(ProtocolError):
        read(data, cuts)
    with suppress(ProtocolError):
        wire.whole(data, False)


# Keys and queries


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
@example("..")
@example(".")
@example("a/../b")
@example("a//b")
@example("/a")
@example("a/")
@example("a\n")
@example("%41")
@example("a?b#c")
def test_a_key_survives_its_way_in_a_path(key: str) -> None:
    path = wire.key_path(key.encode())
    assert unquote_to_bytes(path) == key.encode()
    assert path.isascii()
    assert not set(path) & set(b' ?#"<>\\^`{}|\r\n')
    assert not set(path.split(b"/")) & {b"", b".", b".."}, "a proxy would normalise it"


def test_an_ordinary_key_is_sent_as_it_is() -> None:
    for key in (b"user/17:profile", b"a+b", b"a.b", b"...", b"a,b;c=d&e@f~"):
        assert wire.key_path(key) == key


def test_a_space_in_a_query_is_percent_20_and_a_plus_is_percent_2b() -> None:
    assert wire.query([("prefix", "a b+c&d"), ("n", "ü")]) == b"?prefix=a%20b%2Bc%26d&n=%C3%BC"


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "ä", "\x7f"])
def test_a_field_is_one_line_of_visible_characters(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent as X"):
        wire.field("X", value)
