from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from valkey_support.servers import alone, cluster, wipe

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[str]:
    """The address of an empty server."""
    wipe(alone().primaries())
    yield alone().url
    wipe(alone().primaries())


@pytest.fixture(params=["server", "cluster"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty server, and of an empty cluster with all its shards."""
    servers = {"server": alone, "cluster": cluster}[request.param]()
    wipe(servers.primaries())
    yield servers.url
    wipe(servers.primaries())


@pytest.fixture
def shards() -> Iterator[str]:
    """The address of an empty cluster with all its shards."""
    wipe(cluster().primaries())
    yield cluster().url
    wipe(cluster().primaries())
