"""A service that the tests of the client share, and each kind of client on it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from client_support import KINDS, Asked, asked
from keyrack_server import Server

from keyrack.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A service of two workers."""
    with Server(workers=2, memory="256m") as running:
        yield running


@pytest.fixture(scope="session")
def url(server: Server) -> str:
    """Where it is."""
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of client."""
    return str(request.param)


@pytest.fixture
def client(kind: str, url: str) -> Iterator[Asked]:
    """A client of each kind."""
    with asked(kind, url) as one:
        yield one


@pytest.fixture
def sync(url: str) -> Iterator[Client]:
    """A client without an event loop."""
    with Client(url) as one:
        yield one


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"key-{next(_numbers)}"
