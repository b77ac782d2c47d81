"""Deletions and undos between other writes, TTLs, restarts and short memory."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine_support.kept import KeptWorld
from engine_support.property import examples
from engine_support.world import MIB, EmbeddedWorld, done, memory_directory
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyrack.engines.contract import (
    Change,
    Delete,
    Discard,
    Refusal,
    Restore,
    Set,
    Touch,
    WhenFull,
    Why,
)

if TYPE_CHECKING:
    from pathlib import Path

    from engine_support.world import World

    from keyrack.engines.contract import Outcome

KEYS = [b"a", b"b", b"c", b"d" * 511, b"e", b"f"]
SIZES = [0, 40, 3900, 10_000]


@dataclass
class Kept:
    """What the model knows of an undo."""

    until: int
    trash: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    """Value and end of each key that is in the trash."""
    deleted: int = 0
    restored: int = 0
    ended: int = 0


class UndoAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.world = self.make(self.stack.enter_context(memory_directory()))
        self.versions = 0
        self.held: dict[bytes, tuple[bytes, int]] = {}
        self.undos: dict[int, Kept] = {}

    def make(self, directory: Path) -> World:
        return EmbeddedWorld(directory, 16 * MIB)

    def teardown(self) -> None:
        problems = self.world.engine.check()
        self.world.close()
        self.stack.close()
        assert problems == []

    @property
    def now(self) -> int:
        now: int = self.world.engine.now()
        return now

    def present(self, key: bytes) -> tuple[bytes, int] | None:
        value, ends = self.held.get(key, (b"", 1))
        return None if 0 < ends <= self.now else (value, ends)

    @rule(
        key=st.sampled_from(KEYS),
        size=st.sampled_from(SIZES),
        ttl=st.sampled_from([0, 0, 5, 50]),
        stale=st.sampled_from([0, 20]),
    )
    def a_set(self, key: bytes, size: int, ttl: int, stale: int) -> None:
        self.versions += 1
        value = (b"%d " % self.versions * (size // 2 + 1))[:size]
        done(self.world.engine, Set(key, value, ttl_ms=ttl, stale_ms=stale if ttl else 0))
        self.held[key] = value, self.now + ttl if ttl else 0

    @rule(key=st.sampled_from(KEYS), ttl=st.sampled_from([0, 5, 50]))
    def a_touch(self, key: bytes, ttl: int) -> None:
        (outcome,) = self.world.engine.write([(Touch(key, ttl),)])
        found = self.present(key)
        assert isinstance(outcome, Refusal) == (found is None)
        if found is not None:
            self.held[key] = found[0], self.now + ttl if ttl else 0

    @rule(key=st.sampled_from(KEYS))
    def a_delete(self, key: bytes) -> None:
        done(self.world.engine, Delete(key))
        self.held.pop(key, None)

    @rule(data=st.data(), key=st.sampled_from(KEYS), for_ms=st.sampled_from([10, 100, 10_000]))
    def a_discard(self, data: st.DataObject, key: bytes, for_ms: int) -> None:
        joinable = [number for number, kept in self.undos.items() if key not in kept.trash]
        number = data.draw(st.sampled_from([0, *joinable]))
        result = done(self.world.engine, Discard(key, self.now + for_ms, undo=number))[0]
        found = self.present(key)
        self.held.pop(key, None)
        assert result.existed == (found is not None)
        if found is not None:
            kept = self.undos.setdefault(number or result.revision, Kept(self.now + for_ms))
            kept.deleted += 1
            kept.trash[key] = found
            assert result.number == kept.until

    @precondition(lambda self: self.undos)
    @rule(data=st.data())
    def an_undo(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.undos)))
        kept = self.undos[number]
        after: bytes | None = b""
        while after is not None:
            page, after = self.world.engine.trashed(number, after, 2)
            for one in page:
                restore = Restore(one.key, number, one.revision, one.size)
                self.restored(kept, one.key, self.world.engine.write([(restore,)])[0])
        assert all(self.present(key) for key in kept.trash)

    def restored(self, kept: Kept, key: bytes, outcome: Outcome) -> None:
        assert not isinstance(outcome, Refusal)
        if self.present(key) is not None:
            assert (outcome[0].revision, outcome[0].existed) == (0, True)
            return
        assert outcome[0].revision
        self.held[key] = kept.trash.pop(key)
        kept.restored += 1

    @rule(ms=st.sampled_from([1, 5, 50, 200]))
    def time_passes(self, ms: int) -> None:
        self.world.clock.advance(ms)
        while self.world.engine.expire(100).expired:
            pass
        self.undos = {number: kept for number, kept in self.undos.items() if kept.until > self.now}
        for kept in self.undos.values():
            over = [key for key, (_, ends) in kept.trash.items() if 0 < ends <= self.now]
            kept.ended += len(over)
            for key in over:
                del kept.trash[key]

    @rule()
    def a_restart(self) -> None:
        self.world.restart()

    @invariant()
    def every_key_has_its_value(self) -> None:
        for key in KEYS:
            record, found = self.world.engine.get(key), self.present(key)
            assert (record and (record.value, record.expires_at)) == found

    @invariant()
    def every_undo_knows_what_it_has(self) -> None:
        found = {undo.number: undo for undo in self.world.engine.undos(None, 1000)}
        assert found.keys() == self.undos.keys()
        for number, kept in self.undos.items():
            undo = found[number]
            counts = undo.deleted, undo.restored, undo.ended, undo.gone, undo.until
            assert counts == (kept.deleted, kept.restored, kept.ended, 0, kept.until)
            assert undo == self.world.engine.undo_of(number)
            names, _ = self.world.engine.trashed(number, b"", 1000)
            assert {one.key for one in names} == kept.trash.keys()
        assert self.world.engine.usage().trash == sum(len(k.trash) for k in self.undos.values())


class KeptUndoAgainstModel(UndoAgainstModel):
    """Each restart loses what is in memory: all is read from the disk again."""

    world: KeptWorld

    def make(self, directory: Path) -> World:
        return KeptWorld(directory)

    @rule()
    def a_snapshot(self) -> None:
        self.world.take_snapshot()


class ValkeyUndoAgainstModel(UndoAgainstModel):
    def make(self, directory: Path) -> World:
        from valkey_support.worlds import ValkeyWorld

        return ValkeyWorld(directory)


class ClusterUndoAgainstModel(UndoAgainstModel):
    def make(self, directory: Path) -> World:
        from valkey_support.worlds import ClusterWorld

        return ClusterWorld(directory)


MEMORY = 8 * MIB
MANY = [b"%d" % number for number in range(40)]
LARGE = [0, 3000, 50_000, 300_000, MIB]
"""Forty keys of these sizes are more than fits."""


class ShortMemory(RuleBasedStateMachine):
    """Nothing is refused and no key is evicted while there is trash; what comes back is right."""

    when_full = WhenFull.REJECT

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        directory = self.stack.enter_context(memory_directory())
        self.world = EmbeddedWorld(directory, MEMORY, 1_000_000, self.when_full)
        self.versions = 0
        self.held: dict[bytes, bytes] = {}
        self.trash: dict[tuple[int, int], bytes] = {}
        """Values by undo and revision; what the store has dropped of them is there, too."""
        self.seen = self.world.engine.usage().revision

    def teardown(self) -> None:
        problems = self.world.engine.check()
        self.world.close()
        self.stack.close()
        assert problems == []

    @rule(key=st.sampled_from(MANY), size=st.sampled_from(LARGE))
    def a_set(self, key: bytes, size: int) -> None:
        self.versions += 1
        value = (b"%d " % self.versions * (size // 2 + 1))[:size]
        (outcome,) = self.world.engine.write([(Set(key, value),)])
        if isinstance(outcome, Refusal):
            assert outcome.why is Why.FULL
            assert self.world.engine.usage().trash == 0
        else:
            self.held[key] = value
        self.learn()

    @rule(first=st.integers(0, 30), count=st.integers(5, 30), size=st.sampled_from(LARGE[2:]))
    def many_sets(self, first: int, count: int, size: int) -> None:
        for key in MANY[first : first + count]:
            self.a_set(key, size)

    @rule(keys=st.lists(st.sampled_from(MANY), min_size=1, max_size=20, unique=True))
    def some_discards(self, keys: list[bytes]) -> None:
        revisions = {key: self.revision_of(key) for key in keys if key in self.held}
        until = self.world.engine.now() + 10_000_000
        results = done(self.world.engine, *(Discard(key, until) for key in keys))
        number = next((result.revision for result in results if result.existed), 0)
        for key, result in zip(keys, results, strict=True):
            assert result.existed == (key in self.held)
            if result.existed:
                self.trash[number, revisions[key]] = self.held.pop(key)
        self.learn()  # what sets before it owe is evicted with it

    def revision_of(self, key: bytes) -> int:
        record = self.world.engine.get(key)
        assert record is not None
        return record.revision

    @rule()
    def an_undo(self) -> None:
        for undo in self.world.engine.undos(None, 1):
            page, _ = self.world.engine.trashed(undo.number, b"", 1000)
            for one in page:
                restore = Restore(one.key, undo.number, one.revision, one.size)
                (outcome,) = self.world.engine.write([(restore,)])
                if not isinstance(outcome, Refusal) and outcome[0].revision:
                    self.held[one.key] = self.trash.pop((undo.number, one.revision))
                self.learn()

    def evictions(self) -> list[bytes]:
        events = list(self.world.engine.events(self.seen))
        self.seen = max([self.seen, *(event.revision for event in events)])
        return [event.key for event in events if event.change is Change.EVICT]

    def learn(self) -> None:
        gone = self.evictions()
        assert not gone or self.world.engine.usage().trash == 0
        for key in gone:
            del self.held[key]

    @rule()
    def upkeep(self) -> None:
        self.world.engine.evict()
        self.learn()

    @rule()
    def a_restart(self) -> None:
        self.world.restart()
        self.seen = max(self.seen, self.world.engine.usage().revision)

    @invariant()
    def every_key_has_its_value(self) -> None:
        for key in MANY:
            record = self.world.engine.get(key)
            assert (record and record.value) == self.held.get(key)

    @invariant()
    def the_limit_holds(self) -> None:
        usage = self.world.engine.usage()
        assert usage.used <= usage.limit == MEMORY


class ShortMemoryThatEvicts(ShortMemory):
    when_full = WhenFull.EVICT


TestUndoAgainstModel = UndoAgainstModel.TestCase
TestUndoAgainstModel.settings = examples(20)
TestKeptUndoAgainstModel = KeptUndoAgainstModel.TestCase
TestKeptUndoAgainstModel.settings = examples(10)
TestValkeyUndoAgainstModel = ValkeyUndoAgainstModel.TestCase
TestValkeyUndoAgainstModel.settings = examples(8)
TestClusterUndoAgainstModel = ClusterUndoAgainstModel.TestCase
TestClusterUndoAgainstModel.settings = examples(4)
TestShortMemory = ShortMemory.TestCase
TestShortMemory.settings = examples(20)
TestShortMemoryThatEvicts = ShortMemoryThatEvicts.TestCase
TestShortMemoryThatEvicts.settings = examples(20)
