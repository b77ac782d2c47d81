"""Lines of an import that are read together are read as they are one by one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrack.engines.contract import MAX_KEY_BYTES, Set
from keyrack.http.api import codec
from keyrack.http.api.models import ExportedKey
from keyrack.http.api.plain_lines import plain_sets
from keyrack.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

MOST = 1000
PLAIN = b'{"key":"a","value":"b"}'


def one_by_one(decoder: msgspec.json.Decoder[ExportedKey], line: bytes) -> Set | None:
    """Return what a line sets as it is read by itself, None where it is refused."""
    try:
        read = codec.exported_line(line, decoder.decode)
        key = codec.checked_key(codec.utf8(read.given.key))
        value, media_type = codec.stored(read.value, line)
    except Problem:
        return None
    return Set(key, value, media_type)


@pytest.fixture(scope="module")
def decoder() -> msgspec.json.Decoder[ExportedKey]:
    import msgspec

    return msgspec.json.Decoder(ExportedKey)


def together(*lines: bytes, may_set: Callable[[bytes], object] | None = None) -> Any:
    return plain_sets(lines, MOST, may_set)


def test_plain_lines_are_sets_in_their_order() -> None:
    spaced = b'{"key": "c", "value": ""}'
    assert together(PLAIN, spaced) == [(Set(b"a", b"b"),), (Set(b"c", b""),)]


def test_text_of_any_language_is_plain() -> None:
    line = '{"key":"日本","value":"größer"}'.encode()
    assert together(line) == [(Set("日本".encode(), "größer".encode()),)]


OTHERS = {
    "another member": b'{"key":"a","value":"b","ttl":5}',
    "a member twice": b'{"key":"a","value":"b","value":"c"}',
    "a number": b'{"key":"a","value":1}',
    "an escape in the value": b'{"key":"a","value":"\\n"}',
    "an escape in the key": b'{"key":"\\u0061","value":"b"}',
    "a tabulator": b'{"key":"a","value":"\t"}',
    "no key": b'{"key":"","value":"b"}',
    "a long key": b'{"key":"%b","value":"b"}' % (b"k" * (MAX_KEY_BYTES + 1)),
    "a long value": b'{"key":"a","value":"%b"}' % (b"v" * (MOST + 1)),
    "no UTF-8": b'{"key":"a","value":"\xff"}',
    "half a character": b'{"key":"a","value":"\xc3"}',
    "nothing": b"",
    "a carriage return": PLAIN + b"\r",
    "something behind it": PLAIN + b" ",
}


@pytest.mark.parametrize("line", OTHERS.values(), ids=OTHERS)
def test_a_line_of_any_other_shape_leaves_all_of_them_to_be_read_one_by_one(line: bytes) -> None:
    assert together(PLAIN, line, PLAIN) is None


def test_a_key_that_may_not_be_set_leaves_all_of_them_to_be_read_one_by_one() -> None:
    lines = PLAIN, b'{"key":"c","value":"d"}'
    assert together(*lines, may_set=lambda key: key == b"a") is None
    assert together(*lines, may_set=lambda key: key in b"ac") is not None


TEXT = st.text(st.characters(exclude_categories=()), max_size=8)


@given(st.lists(st.tuples(TEXT, TEXT, st.booleans()), max_size=5))
def test_what_is_read_together_is_what_is_read_one_by_one(
    decoder: msgspec.json.Decoder[ExportedKey], pairs: list[tuple[str, str, bool]]
) -> None:
    lines = []
    for key, value, escaped in pairs:
        line = json.dumps({"key": key, "value": value}, ensure_ascii=escaped)
        lines.append(line.encode("utf-8", "surrogatepass"))
    found = together(*lines)
    if found is not None:
        assert [operation for (operation,) in found] == [one_by_one(decoder, x) for x in lines]


def test_only_what_has_more_quotes_than_its_members_need_is_looked_at_for_members_that_come_twice(
    decoder: msgspec.json.Decoder[ExportedKey],
) -> None:
    members = {
        "type": '"text/css"', "encoding": '"base64"', "ttl": "5", "stale": "null",
    }  # fmt: skip
    for name, value in members.items():
        once = f'{{"key":"a","value":"b","{name}":{value}}}'.encode()
        twice = once[:-1] + f',"{name}":{value}}}'.encode()
        assert not codec.exported_line(once, decoder.decode).bare
        with pytest.raises(Problem, match="two members"):
            codec.exported_line(twice, decoder.decode)
