"""Any sequence of operations leaves what a dictionary with times and revisions says."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from engine_support.kept import KeptWorld
from engine_support.property import examples
from engine_support.world import MIB, EmbeddedWorld, memory_directory
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyrack.engines.contract import (
    ANY,
    BINARY,
    JSON,
    TEXT,
    Change,
    Condition,
    Delete,
    Record,
    Refusal,
    Result,
    Set,
    Sweep,
    Why,
)

if TYPE_CHECKING:
    from pathlib import Path

    from engine_support.world import World

    from keyrack.engines.contract import Operation, Outcome, Write

KEYS = [b"a", b"a\x00", b"b", b"c" * 511, *(b"%d" % number for number in range(8))]


def revision_of(record: Record | None) -> int | None:
    return None if record is None else record.revision


class Model:
    """What an engine should hold: every key that was not yet swept, and all changes.

    Of keys that end together the one that was set first is swept first, or with `by_key` the least.
    """

    def __init__(self, revision: int, by_key: bool = False) -> None:
        self.revision = revision
        self.by_key = by_key
        self.now = 0
        self.held: dict[bytes, Record] = {}
        self.copies: dict[bytes, Record] = {}
        self.changes: list[tuple[int, Change, bytes, int]] = []

    def get(self, key: bytes) -> Record | None:
        record = self.held.get(key)
        return None if record is None or 0 < record.expires_at <= self.now else record

    def get_stale(self, key: bytes) -> Record | None:
        record = self.held.get(key) or self.copies.get(key)
        end = record and (record.stale_until or record.expires_at)
        return None if end and end <= self.now else record

    def write(self, write: Write) -> Outcome:
        """Try it on a copy of everything, and keep the copy only if nothing was refused."""
        kept = self.revision, dict(self.held), dict(self.copies), list(self.changes)
        results = []
        for index, operation in enumerate(write):
            present = self.get(operation.key)
            condition = operation.condition or Condition()
            if not condition.holds(revision_of(present)):
                self.revision, self.held, self.copies, self.changes = kept
                stored = revision_of(self.get(operation.key))
                return Refusal(Why.CONDITION, index, stored)
            results.append(self._do(operation, existed=present is not None))
        return tuple(results)

    def _do(self, operation: Operation, existed: bool) -> Result:
        if operation.key in self.held and not existed:
            self._end(Change.EXPIRE, operation.key)
        self.copies.pop(operation.key, None)
        if isinstance(operation, Set):
            revision = self._log(Change.SET, operation.key)
            ends = self.now + operation.ttl_ms if operation.ttl_ms else 0
            stale = ends and operation.stale_ms and ends + operation.stale_ms
            value, media_type = operation.value, operation.media_type
            record = Record(value, media_type, revision, ends, stale, stale and self.now)
            self.held[operation.key] = record
            return Result(revision, existed)
        return Result(self._end(Change.DELETE, operation.key) if existed else 0, existed)

    def sweep(self, limit: int) -> Sweep:
        """Keys that end become copies, or go; copies go without an event. One after the other."""
        swept = 0
        while swept < limit and (due := self._due()) and due[0][1] <= self.now:
            key = due[0][3]
            record = self.copies.pop(key, None)
            if record is None:
                record = self.held[key]
                self._end(Change.EXPIRE, key)
                if record.stale_until > self.now:
                    self.copies[key] = record
            swept += 1
        ends = [end for _, end, _, _ in self._due()]
        return Sweep(swept, min(ends, default=None))

    def _due(self) -> list[tuple[bool, int, int, bytes]]:
        """What is to end, in the order in which it is swept."""
        ends = [(False, r.expires_at, key, r) for key, r in self.held.items() if r.expires_at]
        ends += [(self.by_key, r.stale_until, key, r) for key, r in self.copies.items()]
        due = sorted((c, end, 0 if self.by_key else r.revision, key) for c, end, key, r in ends)
        over = [one for one in due if one[1] <= self.now]
        return over + [one for one in due if one[1] > self.now]

    def _end(self, change: Change, key: bytes) -> int:
        del self.held[key]
        return self._log(change, key)

    def _log(self, change: Change, key: bytes) -> int:
        self.revision += 1
        self.changes.append((self.revision, change, key, self.now))
        return self.revision


class EngineAgainstModel(RuleBasedStateMachine):
    sweeps_by_key = False

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        directory = self.stack.enter_context(memory_directory())
        self.world = self.make(directory)
        self.model = Model(self.world.engine.usage().revision, self.sweeps_by_key)
        self.model.now = self.world.engine.now()

    def make(self, directory: Path) -> World:
        return EmbeddedWorld(directory, 16 * MIB, events=1_000_000)

    def teardown(self) -> None:
        problems = self.world.engine.check()
        replayed = {event.key: event.change for event in self.world.engine.events()}
        self.world.close()
        self.stack.close()
        assert problems == []
        still = {key for key, change in replayed.items() if change is Change.SET}
        assert still == set(self.model.held)

    # Operations are made from the state, so that conditions hold about as often as not

    def condition(self, key: bytes, draw: st.DataObject) -> Condition | None:
        seen = [r for r, change, of, _ in self.model.changes if change is Change.SET and of == key]
        known = st.sampled_from(seen[-2:]) if seen else st.just(1)
        revisions = st.none() | st.just(ANY) | st.frozensets(known, max_size=2)
        match, none_match = draw.draw(revisions), draw.draw(revisions)
        return None if match is none_match is None else Condition(match, none_match)

    def operation(self, draw: st.DataObject) -> Operation:
        key = draw.draw(st.sampled_from(KEYS))
        condition = self.condition(key, draw) if draw.draw(st.integers(0, 3)) == 0 else None
        if draw.draw(st.integers(0, 2)) == 0:
            return Delete(key, condition)
        size = draw.draw(st.sampled_from([0, 1, 40, 3000, 10_000]))
        media_type = draw.draw(st.sampled_from([TEXT, JSON, BINARY, "odd/one"]))
        ttl = draw.draw(st.sampled_from([0, 0, 1, 2, 5, 50]))
        stale = draw.draw(st.sampled_from([0, 1, 5, 50])) if ttl else 0
        value = b"%d" % size * (size // 5)
        return Set(key, value, media_type, ttl, condition, stale_ms=stale)

    @rule(data=st.data())
    def one_operation(self, data: st.DataObject) -> None:
        self.do([(self.operation(data),)])

    @rule(data=st.data(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5))
    def a_call_of_many(self, data: st.DataObject, sizes: list[int]) -> None:
        self.do([tuple(self.operation(data) for _ in range(size)) for size in sizes])

    def do(self, writes: list[Write]) -> None:
        assert self.world.engine.write(writes) == [self.model.write(write) for write in writes]

    @rule(ms=st.sampled_from([1, 2, 5, 100]))
    def time_passes(self, ms: int) -> None:
        self.world.clock.advance(ms)
        self.model.now += ms

    @rule(limit=st.integers(1, 4))
    def a_sweep(self, limit: int) -> None:
        assert self.world.engine.expire(limit) == self.model.sweep(limit)

    @rule()
    def a_restart(self) -> None:
        self.world.restart()
        self.model.revision = max(self.model.revision, self.world.engine.usage().revision)

    @precondition(lambda self: self.model.changes)
    @rule(data=st.data())
    def the_events_since_one(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.model.changes) - 1))
        events = list(self.world.engine.events(self.model.changes[position][0]))
        told = [(event.revision, event.change, event.key, event.time) for event in events]
        assert told == self.model.changes[position + 1 :]

    @invariant()
    def every_key_reads_as_the_model_says(self) -> None:
        assert self.world.engine.now() == self.model.now
        for key in KEYS:
            assert self.world.engine.get(key) == self.model.get(key)
            assert self.world.engine.get_stale(key) == self.model.get_stale(key)

    @invariant()
    def the_counts_are_the_models(self) -> None:
        usage, held = self.world.engine.usage(), self.model.held
        assert (usage.keys, usage.revision) == (len(held), self.model.revision)
        assert usage.keys_with_ttl == sum(1 for record in held.values() if record.expires_at)
        assert usage.stale_copies == len(self.model.copies)
        assert usage.events == len(self.model.changes)


class KeptEngineAgainstModel(EngineAgainstModel):
    """Each restart loses what is in memory: all is read from the disk again."""

    world: KeptWorld

    def make(self, directory: Path) -> World:
        return KeptWorld(directory, events=1_000_000)

    @rule()
    def a_snapshot(self) -> None:
        self.world.take_snapshot()


class ValkeyAgainstModel(EngineAgainstModel):
    sweeps_by_key = True

    def make(self, directory: Path) -> World:
        from valkey_support.worlds import ValkeyWorld

        return ValkeyWorld(directory, events=1_000_000)


TestValkeyAgainstModel = ValkeyAgainstModel.TestCase
TestValkeyAgainstModel.settings = examples(10)
TestEngineAgainstModel = EngineAgainstModel.TestCase
TestEngineAgainstModel.settings = examples(20)
TestKeptEngineAgainstModel = KeptEngineAgainstModel.TestCase
TestKeptEngineAgainstModel.settings = examples(10)
