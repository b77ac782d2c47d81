"""The examples of docs/python.md run as they are written, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from keyrack import Client

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def where(url: str) -> str:
    """A service: the page opens a store of its own itself."""
    return url


@pytest.mark.timeout(120)
def test_the_examples_for_python_run(
    url: str, sync: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sync.delete_prefix("", everything=True)
    blocks = BLOCKS.findall(PAGE.read_text())
    assert len(blocks) >= 8
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        code = block.replace("http://127.0.0.1:8088", url)
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), names)
    names["client"].close()


def test_every_adapter_has_a_page_that_is_linked() -> None:
    pages = sorted(page.name for page in (PAGE.parent / "python").glob("*.md"))
    assert pages == sorted(re.findall(r"\(python/([a-z-]+\.md)\)", PAGE.read_text()))
