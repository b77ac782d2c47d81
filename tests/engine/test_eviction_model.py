"""A store that evicts holds a part of what a dictionary would, each key with its right value."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from engine_support.property import examples
from engine_support.world import MIB, EmbeddedWorld, blocks, memory_directory
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from keyrack.engines.contract import Change, Delete, Get, Refusal, Set, Space, Touch, WhenFull

if TYPE_CHECKING:
    from keyrack.engines.contract import Operation

MEMORY = 8 * MIB
KEYS = [b"%d" % number for number in range(40)]
SIZES = [0, 100, 3000, 5000, 50_000, 300_000, MIB]
"""Forty keys of these sizes are more than fits, so that some are always gone."""


def value_for(key: bytes, size: int, version: int) -> bytes:
    return (b"%b-%d " % (key, version) * (size // 4 + 1))[:size]


class EvictionAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        directory = self.stack.enter_context(memory_directory())
        self.world = EmbeddedWorld(directory, MEMORY, events=1_000_000, when_full=WhenFull.EVICT)
        self.versions = 0
        self.held: dict[bytes, tuple[bytes, int]] = {}
        """What was set: value and end. What the store says it evicted is taken out again."""
        self.locks: dict[bytes, bytes] = {}
        self.seen = self.world.engine.usage().revision

    def teardown(self) -> None:
        problems = self.world.engine.check()
        evicted = self.world.engine.usage().evicted
        told = sum(event.change is Change.EVICT for event in self.world.engine.events())
        self.world.close()
        self.stack.close()
        assert problems == []
        assert evicted == told

    def operation(self, draw: st.DataObject) -> Operation:
        key = draw.draw(st.sampled_from(KEYS))
        kind = draw.draw(st.integers(0, 9))
        if kind == 0:
            return Delete(key)
        if kind == 1:
            return Get(key)
        self.versions += 1
        value = value_for(key, draw.draw(st.sampled_from(SIZES)), self.versions)
        return Set(key, value, ttl_ms=draw.draw(st.sampled_from([0, 0, 0, 5, 50])))

    @rule(data=st.data(), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=6))
    def some_writes(self, data: st.DataObject, sizes: list[int]) -> None:
        writes = [tuple(self.operation(data) for _ in range(size)) for size in sizes]
        outcomes = self.world.engine.write(writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            assert not isinstance(outcome, Refusal)
            for operation in write:
                self.apply(operation)
        # Whatever was evicted for them, what the last of them set is there.
        self.learn(spared={one.key for one in writes[-1] if isinstance(one, Set)} & set(self.held))

    def apply(self, operation: Operation) -> None:
        if isinstance(operation, Set):
            ends = self.world.engine.now() + operation.ttl_ms if operation.ttl_ms else 0
            self.held[operation.key] = operation.value, ends
        elif isinstance(operation, Delete):
            self.held.pop(operation.key, None)

    @rule(key=st.sampled_from(KEYS))
    def a_touch(self, key: bytes) -> None:
        outcome = self.world.engine.write([(Touch(key, 50),)])[0]
        self.learn(spared={key})
        if isinstance(outcome, Refusal):
            return
        self.held[key] = self.held[key][0], self.world.engine.now() + 50

    @rule(name=st.sampled_from(KEYS[:5]), owner=st.binary(min_size=1, max_size=20))
    def a_lock(self, name: bytes, owner: bytes) -> None:
        lock = Set(name, owner, ttl_ms=10_000_000, space=Space.LOCKS)
        assert not isinstance(self.world.engine.write([(lock,)])[0], Refusal)
        self.locks[name] = owner
        self.learn()

    @rule(ms=st.sampled_from([1, 5, 50]))
    def time_passes(self, ms: int) -> None:
        self.world.clock.advance(ms)

    @rule()
    def upkeep(self) -> None:
        self.world.engine.expire(5)
        self.world.engine.evict()
        self.learn()

    @rule()
    def a_restart(self) -> None:
        self.world.restart()
        self.seen = max(self.seen, self.world.engine.usage().revision)

    def learn(self, spared: set[bytes] | None = None) -> None:
        """Take from the model what events say was evicted, in the order in which it was."""
        latest: dict[bytes, Change] = {}
        for event in self.world.engine.events(self.seen):
            latest[event.key] = event.change
            self.seen = event.revision
        for key, change in latest.items():
            if change is Change.EVICT:
                assert key not in (spared or ())
                self.held.pop(key, None)

    @invariant()
    def every_key_that_was_not_evicted_has_its_value(self) -> None:
        now = self.world.engine.now()
        for key in KEYS:
            value, ends = self.held.get(key, (None, 0))
            record = self.world.engine.get(key)
            if value is None or 0 < ends <= now:
                assert record is None
            else:
                assert record is not None, key
                assert record.value == value

    @invariant()
    def locks_are_never_evicted(self) -> None:
        for name, owner in self.locks.items():
            record = self.world.engine.lock_of(name)
            assert record is not None
            assert record.value == owner

    @invariant()
    def the_limit_holds(self) -> None:
        usage = self.world.engine.usage()
        assert usage.used <= usage.limit == MEMORY
        assert blocks(self.world.directory) <= MEMORY


TestEvictionAgainstModel = EvictionAgainstModel.TestCase
TestEvictionAgainstModel.settings = examples(20)
