from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.kept import KeptWorld
from engine_support.world import WORLDS, EmbeddedWorld, memory_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine_support.driven import Driven
    from engine_support.world import World


@pytest.fixture
def shm() -> Iterator[Path]:
    """An empty directory in memory."""
    with memory_directory() as path:
        yield path


_WORLDS = WORLDS | {"embedded-commit": KeptWorld}


@pytest.fixture(params=list(_WORLDS.values()), ids=list(_WORLDS))
def world(request: pytest.FixtureRequest, shm: Path) -> Iterator[World]:
    """An empty store of each engine; every test ends with the engine's audit of itself."""
    world: World = request.param(shm)
    yield world
    problems = world.engine.check()
    world.close()
    assert problems == []


@pytest.fixture
def engine(world: World) -> Driven:
    """The engine of `world`, for tests that never restart it."""
    return world.engine


@pytest.fixture
def embedded(shm: Path) -> Iterator[EmbeddedWorld]:
    """An empty store of the embedded engine, for tests of what only it does."""
    world = EmbeddedWorld(shm)
    yield world
    world.close()
