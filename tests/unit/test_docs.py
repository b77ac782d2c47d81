"""The documentation tells what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyrack.cli import manual
from keyrack.cli.table import VERBS
from keyrack.http.api import reference
from keyrack.http.api.routes import ROUTES
from keyrack.http.problems import KINDS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="the documentation is in the source tree only"
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_api_page_has_the_operations_as_they_are() -> None:
    """`make docs` was run after the last change of an operation."""
    page = read("docs/http-api.md")
    assert reference.with_operations(page) == page


def test_every_operation_is_described_with_an_example_and_its_cost() -> None:
    for route in ROUTES.values():
        assert route.summary
        assert route.cost
        assert route.example.startswith("curl ")
        assert route.answers, route.name


def test_every_problem_that_an_operation_names_exists() -> None:
    named = {slug for route in ROUTES.values() for slug in route.problems}
    assert named <= KINDS.keys()


def test_every_problem_is_explained() -> None:
    for kind in KINDS.values():
        assert kind.title
        assert kind.explanation.endswith(".")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))
    for fragment in (ROOT / "deploy").glob("*.mk"):
        targets |= set(re.findall(r"^([a-z][a-z-]*):", fragment.read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", read(page), re.MULTILINE))
    assert named, "the page names the commands"
    assert named <= targets


def test_the_pages_of_the_command_are_as_its_declarations_are() -> None:
    """`make docs` was run after the last change of a verb."""
    assert read("docs/cli.md") == manual.page()
    assert read("docs/keyrack.1") == manual.man()


def test_the_page_of_the_command_names_every_verb() -> None:
    page = read("docs/cli.md")
    for verb in VERBS:
        assert f"### `keyrack {verb}" in page, verb


PAGES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md"))
)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", read(str(page))):
        if not re.match(r"[a-z]+:", link):
            assert (ROOT / page.parent / link).exists(), link
