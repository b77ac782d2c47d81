"""Which store a service has: a row for each kind, and all that the rest of the server asks of it.

The supervisor prepares the store before it forks, and each worker serves it then. Neither of them
knows which kind it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import uvloop

from keyrack.engines.contract import WhenFull
from keyrack.engines.embedded.directory import prepare as prepare_directory
from keyrack.server import valkey_store
from keyrack.server.durability import open_store
from keyrack.server.durability import prepare as prepare_durability
from keyrack.server.group_commit import GroupCommit
from keyrack.server.serving import acknowledged_later, direct
from keyrack.system import memory_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from keyrack.engines.embedded import EmbeddedEngine
    from keyrack.engines.embedded.directory import Place
    from keyrack.engines.embedded.durability import DurabilityConfig
    from keyrack.server.durability import Durability
    from keyrack.server.serving import Serving
    from keyrack.settings import Settings

Work: TypeAlias = "Callable[[Serving], Coroutine[Any, Any, None]]"


class Held(Protocol):
    """A store that this service may use. `memory` is its limit in bytes, 0 for one elsewhere."""

    path: str
    memory: int
    named: bool
    """Whether it outlives the service."""
    notes: list[str]
    kept: DurabilityConfig | None
    """Where this service keeps it on a disk, if it does."""

    @property
    def lock(self) -> int:
        """The descriptor of its lock, for a service that takes over; -1 where there is none."""

    def hand_over(self) -> None:
        """Leave its fate to another service."""

    def adopt(self) -> None:
        """Take it over from another service, or back."""

    def close(self) -> None:
        """Give it up."""


class Kind(NamedTuple):
    """A kind of store. `serve` runs a worker's event loop, with `Work` in it."""

    prepare: Callable[[Settings], Held]
    keep: Callable[[Settings, Any, bool], Durability | None]
    """Told whether the store is in use already, by a service that is being taken over."""
    serve: Callable[[Settings, Any, Work], None]


def kind_of(settings: Settings) -> Kind:
    """Return the kind that the settings name."""
    return _KINDS["embedded" if settings.engine == "embedded" else "valkey"]


def _prepare_embedded(settings: Settings) -> Place:
    return prepare_directory(
        settings.store,
        settings.memory,
        memory_limit(),
        settings.events,
        when_full=WhenFull(settings.when_full),
    )


def _keep_embedded(settings: Settings, place: Place, running: bool) -> Durability | None:
    return prepare_durability(settings, place, running=running)


def _serve_embedded(settings: Settings, place: Place, work: Work) -> None:
    engine = open_store(settings, place, place.kept)
    with (
        contextlib.closing(engine),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        _served(engine, place, runner.get_loop()) as serving,
    ):
        runner.run(work(serving))


@contextlib.contextmanager
def _served(
    engine: EmbeddedEngine, place: Place, loop: asyncio.AbstractEventLoop
) -> Iterator[Serving]:
    if place.kept is None or not place.kept.strict:
        yield direct(engine)
        return
    with contextlib.closing(GroupCommit(engine, loop)) as kept:
        yield acknowledged_later(engine, kept.perform)


_KINDS = {
    "embedded": Kind(_prepare_embedded, _keep_embedded, _serve_embedded),
    "valkey": Kind(valkey_store.prepare, valkey_store.keep, valkey_store.serve),
}
