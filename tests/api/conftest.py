"""Servers that the tests of the wider API share; each test uses keys of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from api_support import Client, spread
from api_support.inside import Inside
from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A service of one worker."""
    with Server(workers=1, memory="256m") as running:
        yield running


@pytest.fixture(scope="session")
def pair() -> Iterator[Server]:
    """A service of two workers."""
    with Server(workers=2, memory="128m") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A connection to the service of one worker."""
    with Client(server) as one:
        yield one


@pytest.fixture
def two(pair: Server) -> Iterator[list[Client]]:
    """A connection to each of the two workers."""
    with spread(pair) as clients:
        yield clients


@pytest.fixture
def key() -> str:
    """A key that no other test uses, whatever a test appends to it."""
    return f"key-{next(_numbers)}_"


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    """A worker's parts in this process."""
    one = Inside(tmp_path / "store")
    yield one
    one.close()
