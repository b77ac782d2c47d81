"""What the console ships: small, without other people's changes, and the same for everybody."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from keyrack.console import assets

ROOT = Path(__file__).parents[2]


def test_all_of_it_is_at_most_60_kb_compressed() -> None:
    total = sum(len(one.packed) for one in assets.assets().values()) + len(assets.page().packed)
    assert total <= 60_000


def test_the_vendored_files_are_what_they_are_said_to_be() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "vendor.py"), "--offline"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_page_names_files_that_exist() -> None:
    page = assets.page().data.decode()
    named = re.findall(r'console/([0-9a-f]{16})/([\w./]+)"', page)
    assert len(named) == 3
    assert all(version == assets.version() and path in assets.assets() for version, path in named)


@pytest.mark.parametrize(
    ("source", "left"),
    [
        (b"// alone\ncode();\n", b"code();\n"),
        (b"/** @type {x} */\nlet a;\n", b"let a;\n"),
        (b"/**\n * Several\n * lines.\n */\nlet a;\n", b"let a;\n"),
        (b"let a = /** @type {any} */ (b);\n", b"let a = (b);\n"),
        (b"  /** @type {any} */ (b).c; /** @type {d} */ (e);\n", b"  (b).c; (e);\n"),
        (b'let url = "https://host"; // why\n', b'let url = "https://host"; // why\n'),
    ],
)
def test_only_comments_are_left_out(source: bytes, left: bytes) -> None:
    assert assets.without_comments(source) == left


def test_nothing_in_the_modules_makes_code_or_html_of_text() -> None:
    for path in sorted((ROOT / "src/keyrack/console/static").glob("*.js")):
        text = path.read_text()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
            "new Function",
            "document.write",
            "dangerouslySetInnerHTML",
        ):
            assert word not in text, (path.name, word)
