"""Every sentence of the page of guarantees names tests, and those are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "guarantees.md"

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the documentation is in the source tree only"
)

ID = re.compile(r"`([a-z]+/test_\w+\.py)::(test_\w+)`")


def promises() -> list[str]:
    """Return the items of the lists, each with what belongs to it."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^- .*(?:\n  .*)*", text, re.MULTILINE)


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_promises_in_every_section() -> None:
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    assert len(sections) == 8
    assert all("\n- " in section for section in sections)
    assert len(promises()) > 35


@pytest.mark.parametrize("promise", promises() if PAGE.is_file() else [])
def test_a_promise_is_one_sentence_and_names_the_tests_that_show_it(promise: str) -> None:
    ids = ID.findall(promise)
    assert ids, promise
    sentence = ID.sub("", promise).removeprefix("- ").strip()
    assert sentence.endswith("."), sentence
    assert sentence.count(". ") == 0, sentence
    assert "::" not in sentence, "an id that is not understood"
    for file, name in ids:
        assert name in names_in(TESTS / file), f"{file} has no {name}"


def test_every_line_outside_the_lists_is_an_introduction_or_a_table() -> None:
    """So that no promise escapes by standing somewhere else."""
    text = PAGE.read_text(encoding="utf-8")
    body = text[text.index("\n## ") :]
    for promise in promises():
        body = body.replace(promise, "")
    assert [line for line in body.splitlines() if line and not line.startswith("## ")] == []
