"""What is sent to the functions inside Valkey, and what they take: two files that must agree."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from libvalkey import Reader
from valkey_support.engines import opened, run

from keyrack.engines.contract import (
    ANY,
    KEEP_END,
    Add,
    Check,
    Condition,
    Delete,
    Get,
    Remember,
    Set,
    Space,
    Touch,
)
from keyrack.engines.valkey.arguments import FUNCTIONS, OPERATIONS, arguments_of

if TYPE_CHECKING:
    from keyrack.engines.contract import Operation

TEXT = files("keyrack.engines.valkey").joinpath("library.lua").read_text(encoding="ascii")
SAME = Condition(match=frozenset((5,)), none_match=ANY)


def test_the_functions_take_as_many_arguments_of_each_operation_as_are_named() -> None:
    table = re.search(r"^local ARGUMENTS = \{\n(.*?)^\}", TEXT, re.DOTALL | re.MULTILINE)
    assert table is not None
    rows = re.findall(r"(\w) = (\d+), -- (.+)", table[1])
    assert {letter: int(number) for letter, number, _ in rows} == {
        letter: len(names) for letter, names in OPERATIONS.items()
    }
    assert {letter: tuple(names.split(", ")) for letter, _, names in rows} == OPERATIONS


@pytest.mark.parametrize(
    "operation",
    [
        Set(b"k", b"v"),
        Set(b"k", bytes(100_000), "odd/type", 5, SAME),
        Set(b"k", b"v", ttl_ms=5, stale_ms=6),
        Set(b"k", bytes(100_000), "odd/type", 5, SAME, stale_ms=6),
        Set(b"k", b"v", "odd/type", KEEP_END, SAME, Space.LOCKS),
        Delete(b"k", SAME),
        Get(b"k", SAME),
        Add(b"k", 5, 6, 7, SAME),
        Touch(b"k", 9, SAME),
        Check(b"k", SAME),
        Remember(b"name", b"print", 9),
    ],
)
def test_as_many_arguments_of_each_operation_are_sent_as_are_named(operation: Operation) -> None:
    number, encoded = arguments_of((operation,))
    reader = Reader()
    reader.feed(b"*%d\r\n%b" % (number, b"".join(encoded)))
    what, *_ = sent = reader.gets()
    assert reader.gets() is False
    assert len(sent) == number == len(OPERATIONS[chr(what[0])])


def names_of(function: str) -> tuple[str, ...]:
    """Return the names of a function's arguments, as its text has them."""
    callback = {"remove": "write"}.get(function, function)
    body = re.search(rf"^local function {callback}\(keys, args\)\n(.*?)^end", TEXT, re.S | re.M)
    assert body is not None
    if unpacked := re.search(r"^  local ([\w, ]+) = unpack\(args, 4\)$", body[1], re.MULTILINE):
        assert "args[" not in body[1]
        return tuple(unpacked[1].split(", "))
    if first := re.search(r"^  local (\w+), at = args\[4\], 5$", body[1], re.MULTILINE):
        return first[1], "*"
    return ("*",) if "= 4, #args do" in body[1] else ()


def test_each_function_takes_what_is_named() -> None:
    registered = set(re.findall(r"'keyrack_(\w+)_@'", TEXT))
    assert registered == FUNCTIONS.keys()
    for function, names in FUNCTIONS.items():
        found = names_of(function)
        assert len(found) == len(names), function
        for one, other in zip(found, names, strict=True):
            assert one in (other, "_"), function


def test_a_call_with_another_number_of_arguments_is_a_mistake_that_is_noticed(server: str) -> None:
    async def look() -> None:
        async with opened(server) as engine:
            for function, names in FUNCTIONS.items():
                if "*" not in names:
                    with pytest.raises(TypeError, match=function):
                        engine.calls.parts(0, function, *([b"1"] * (len(names) + 1)))

    run(look())
