"""`docs/upstash.md` tells what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyrack.compat import keyspace, reference
from keyrack.compat.commands import COMMANDS, REFUSED, missing

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "upstash.md"

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the documentation is in the source tree only"
)


def test_the_page_has_the_commands_as_they_are() -> None:
    page = PAGE.read_text()
    assert reference.with_commands(page) == page, "run what the mark in the page says"
    assert page.count("\n| `") >= len(COMMANDS)


def test_no_command_is_both_there_and_refused() -> None:
    assert not COMMANDS.keys() & REFUSED.keys()
    for name in REFUSED:
        assert str(missing(name)).startswith(f"ERR '{name.decode()}' is not available: there ")


def test_the_decision_tells_how_long_a_cursor_may_be() -> None:
    page = (ROOT / "docs/decisions/upstash.md").read_text()
    (digits,) = re.findall(r"it may be (\d+) digits long", page)
    assert int(digits) == keyspace.MOST_DIGITS
