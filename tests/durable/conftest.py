"""Directories on a disk and in memory for services that are killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def disk(tmp_path: Path) -> str:
    """A data directory that does not exist yet."""
    return str(tmp_path / "data")
