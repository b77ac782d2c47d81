"""A service that the tests of the client share, and each kind of client on it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from client_support import KINDS, Asked, Where, asked, client_of
from keyrack_server import Server
from keyrack_server.server import ENGINE

from keyrack.inprocess.store import OwnStore
from keyrack.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.client import Client

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A service of two workers."""
    with Server(workers=2, memory="256m") as running:
        yield running


@pytest.fixture(scope="session")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStore]:
    """A store in the process of the tests."""
    flags: dict[str, object] = {"memory": "256m"}
    if ENGINE == "commit":
        flags |= {"durability": "commit", "data_dir": str(tmp_path_factory.mktemp("own"))}
    store = OwnStore(load(flags, {})[0])
    yield store
    store.close()


@pytest.fixture(scope="session")
def url(server: Server) -> str:
    """Where that service is."""
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="session", params=["service", "own"])
def where(request: pytest.FixtureRequest) -> Where:
    """Where clients find their store: a service, and one in this process."""
    if request.param == "own":
        store: OwnStore = request.getfixturevalue("own_store")
        return store.endpoint
    found: str = request.getfixturevalue("url")
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of client."""
    return str(request.param)


@pytest.fixture
def client(kind: str, where: Where) -> Iterator[Asked]:
    """A client of each kind."""
    with asked(kind, where) as one:
        yield one


@pytest.fixture
def sync(where: Where) -> Iterator[Client]:
    """A client without an event loop."""
    with client_of(where) as one:
        yield one


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"key-{next(_numbers)}"
