"""A service for each file of tests, and the command line that asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_support import Keyrack
from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A service with one worker, so that it starts soon."""
    with Server() as served:
        yield served


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of its own, and no variable of whoever runs the tests."""
    import os

    for name in list(os.environ):
        if name.startswith("KEYRACK_") and not name.startswith("KEYRACK_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def keyrack(url: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Keyrack:
    """The command line, with a service that holds no keys."""
    monkeypatch.setenv("KEYRACK_URL", url)
    assert server.ask("DELETE", "/v1/keys?all=true").status == 200
    return Keyrack(url)
