"""A store in Valkey needs a package that a plain installation has not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from keyrack_server import refused_start

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_package_that_is_missing_is_named_as_pip_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libvalkey.py").write_text(
        "raise ModuleNotFoundError('as if it were not installed', name='libvalkey')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = refused_start("--port", "0", "--engine", "valkey://127.0.0.1:1")
    assert re.search(r"pip install 'libvalkey[^'\[]*[0-9][^'\[]*'", said), said
