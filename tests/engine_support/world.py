"""The world of an engine test: a store of its own, a clock that a test moves, and restarts.

An engine joins the conformance suite by a `World` of its own and one line in `WORLDS`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from engine_support.driven import Driven, embedded
from keyrack.engines.contract import Condition, Delete, Refusal, Result, Set, WhenFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.contract import Change, Operation, Outcome

MIB: Final = 1 << 20
MOST_SHARDS: Final = 64
EVENTS_KEPT: Final = 50
"""How many events the conformance suite's stores keep at least."""


def rounds(default: int) -> int:
    """Return how often to repeat: more when KEYRACK_TEST_ROUNDS asks for it."""
    return max(default, int(os.environ.get("KEYRACK_TEST_ROUNDS", "0")))


@contextmanager
def memory_directory() -> Iterator[Path]:
    """Make a directory in memory where the system has such, and remove it afterwards."""
    shared = Path("/dev/shm")
    parent = shared if os.access(shared, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="test-of-keyrack-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class SteadyClock:
    """A steady clock (ns) that stands still until it is moved."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000_000

    def __call__(self) -> int:
        return self.ns

    def advance(self, ms: float) -> None:
        """Let so many milliseconds pass."""
        self.ns += round(ms * 1_000_000)


class World(Protocol):
    """A store with an engine that has it open, its clock in the test's hand."""

    engine: Driven
    clock: SteadyClock

    def restart(self) -> None:
        """Close the engine and open the same store again, as the next service does."""

    def lose(self) -> None:
        """Lose the store, and begin an empty one."""

    def close(self) -> None:
        """End."""


class EmbeddedWorld:
    """The embedded engine in a directory of its own."""

    def __init__(
        self,
        parent: Path,
        memory: int = 64 * MIB,
        events: int = EVENTS_KEPT,
        when_full: WhenFull = WhenFull.REJECT,
    ) -> None:
        self.directory = parent / "store"
        self.when_full = when_full
        self.memory = memory
        self.events = events
        self.clock = SteadyClock()
        self.engine = self._open()

    def _open(self) -> Driven:
        self.directory.mkdir(exist_ok=True)
        directory = str(self.directory)
        engine = embedded(directory, self.memory, self.events, self.clock, when_full=self.when_full)
        engine.begin_life()
        return engine

    def restart(self) -> None:
        """Close the engine and open the same store again, as the next service does."""
        self.engine.close()
        self.engine = self._open()

    def lose(self) -> None:
        """Lose the store, and begin an empty one."""
        self.engine.close()
        shutil.rmtree(self.directory)
        self.engine = self._open()

    def close(self) -> None:
        """End."""
        self.engine.close()


def _on_valkey(name: str) -> Callable[[Path], World]:
    def make(parent: Path) -> World:
        from valkey_support import worlds  # not for tests that do without

        world: World = getattr(worlds, name)(parent)
        return world

    return make


WORLDS: Final[dict[str, Callable[[Path], World]]] = {
    "embedded": EmbeddedWorld,
    "valkey": _on_valkey("ValkeyWorld"),
    "valkey-sentinel": _on_valkey("SentinelWorld"),
    "valkey-cluster-of-one-shard": _on_valkey("OneShardWorld"),
    "valkey-cluster": _on_valkey("ClusterWorld"),
}


# Short words for what nearly every test does


def attempt(engine: Driven, *operations: Operation) -> Outcome:
    """Do one write of these operations and return its outcome."""
    (outcome,) = engine.write([operations])
    return outcome


def done(engine: Driven, *operations: Operation) -> tuple[Result, ...]:
    """Do one write of these operations, which must not be refused, and return the results."""
    outcome = attempt(engine, *operations)
    assert not isinstance(outcome, Refusal), outcome
    return outcome


def refused(engine: Driven, *operations: Operation) -> Refusal:
    """Do one write of these operations, which must be refused, and return the refusal."""
    outcome = attempt(engine, *operations)
    assert isinstance(outcome, Refusal), outcome
    return outcome


def put(engine: Driven, key: bytes, value: bytes = b"v", ttl_ms: int = 0) -> Result:
    """Set a key and return the result."""
    return done(engine, Set(key, value, ttl_ms=ttl_ms))[0]


def drop(engine: Driven, key: bytes) -> Result:
    """Delete a key and return the result."""
    return done(engine, Delete(key))[0]


def value_of(engine: Driven, key: bytes) -> bytes | None:
    """Return what is stored under a key, None when it is missing."""
    record = engine.get(key)
    return None if record is None else record.value


def history(engine: Driven, after: int = 0) -> list[tuple[Change, bytes]]:
    """Return the known changes, oldest first."""
    return [(event.change, event.key) for event in engine.events(after)]


def needs_all_keys_together(engine: Driven) -> None:
    """Skip a test of one write to several keys where an engine says that it cannot do that."""
    if not engine.capabilities.atomic_across_keys:
        pytest.skip("this engine writes to several keys at once only where they share a tag")


def follows(engine: Driven, revision: int, previous: int) -> bool:
    """Tell whether a revision comes next; engines that spread keys over shards leave gaps."""
    if engine.capabilities.atomic_across_keys:
        return revision == previous + 1
    return previous < revision <= previous + 2 * MOST_SHARDS


def at(*revisions: int) -> Condition:
    """Return the condition that a key is at one of these revisions."""
    return Condition(match=frozenset(revisions))


def not_at(*revisions: int) -> Condition:
    """Return the condition that a key is at none of these revisions."""
    return Condition(none_match=frozenset(revisions))


def blocks(directory: Path) -> int:
    """Return the bytes of memory that a directory's files really take."""
    return sum(file.stat().st_blocks * 512 for file in directory.iterdir())
