from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from access_support import Guarded, Who
from api_support import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICIES = """
[policies]
app = [
  "all keys:app/*", "deny all keys:app/secret/*", "read keys:app/secret/open", "all locks:app/*",
  "all keys:terraform/app",
]
"""


class Cast:
    """Everybody who uses the service of these tests."""

    def __init__(self, service: Guarded) -> None:
        self.service = service
        self.admin = service.admin
        self.reader = service.add(policies=("read-only",))
        self.writer = service.add("set,delete keys:app/*", "set,delete keys:terraform/app")
        self.app = service.add(policies=("app",))
        self.metrics = service.add("metrics")
        self.helpless = service.add(policies=("none",))
        self.expired = service.expired()
        self.disabled = service.add(policies=("admin",), disabled=True)


@pytest.fixture(scope="session")
def cast() -> Iterator[Cast]:
    """A service of one worker, and who uses it."""
    service = Guarded(POLICIES)
    everybody = Cast(service)
    with service:
        yield everybody


@pytest.fixture
def client(cast: Cast) -> Iterator[Client]:
    """A connection to it."""
    with Client(cast.service.server) as one:
        yield one


@pytest.fixture
def admin(cast: Cast) -> Who:
    """Who may do everything."""
    return cast.admin


@pytest.fixture
def app(cast: Cast) -> Who:
    """Who may do everything below one prefix, but for a part of it."""
    return cast.app
