"""What is counted for quotas is what there is, whatever way keys come and go."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from engine_support.kept import KeptWorld
from engine_support.processes import Child
from engine_support.property import examples
from engine_support.world import MIB, EmbeddedWorld, attempt, done, memory_directory, put, refused
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from keyrack.engines import quotas
from keyrack.engines.contract import (
    Add,
    Condition,
    Delete,
    Discard,
    Quota,
    Refusal,
    Remember,
    Restore,
    Set,
    Space,
    Touch,
    WhenFull,
    Why,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine_support.world import World

    from keyrack.engines.contract import Operation, Outcome, QuotaUse


def keep(world: World, *wanted: Quota) -> None:
    """Have a store go by quotas, all keys counted."""
    for quota in wanted:
        key = quotas.QUOTA + quota.name.encode()
        done(world.engine, Set(key, quotas.encode(quota), space=Space.ADMIN))
    while world.engine.count_quotas():
        pass


def drop(world: World, name: str) -> None:
    done(world.engine, Delete(quotas.QUOTA + name.encode(), space=Space.ADMIN))
    world.engine.count_quotas()


def use(world: World, name: str = "a") -> QuotaUse:
    (found,) = [one for one in world.engine.usage().quotas if one.quota.name == name]
    return found


def used(world: World, name: str = "a") -> tuple[int, int]:
    """Return the bytes and the keys of a quota."""
    one = use(world, name)
    assert one.counted
    return one.bytes, one.keys


@pytest.fixture
def world() -> Iterator[EmbeddedWorld]:
    with memory_directory() as directory:
        world = EmbeddedWorld(directory)
        yield world
        assert world.engine.check() == []
        world.close()


def test_bytes_are_those_of_keys_and_values_of_every_kind(world: EmbeddedWorld) -> None:
    keep(world, Quota("a", "a/"))
    put(world.engine, b"a/1", b"12345")
    done(world.engine, Set(b"a/2", b"1234", "application/vnd.of-a-rare-kind"))
    done(world.engine, Set(b"a/3", b"x" * 100_000, ttl_ms=1000, stale_ms=1000))
    put(world.engine, b"b/1", b"not of it")
    assert used(world) == (3 * 3 + 5 + 4 + 100_000, 3)


def test_the_key_that_is_one_too_many_is_refused_and_nothing_of_its_write_is_done(
    world: EmbeddedWorld,
) -> None:
    keep(world, Quota("a", "a/", max_keys=2))
    done(world.engine, Set(b"a/1", b"v"), Set(b"a/2", b"v"))
    revision = world.engine.usage().revision
    refusal = refused(world.engine, Set(b"b/1", b"v"), Set(b"a/3", b"v", ttl_ms=1000))
    assert refusal.why is Why.QUOTA
    assert refusal.index == 1
    assert refusal.exceeded is not None
    assert (refusal.exceeded.of, refusal.exceeded.limit, refusal.exceeded.actual) == ("keys", 2, 3)
    assert world.engine.get(b"b/1") is None
    assert world.engine.usage().revision == revision
    assert used(world)[1] == 2
    done(world.engine, Set(b"b/1", b"v"))
    done(world.engine, Delete(b"a/1"), Set(b"a/3", b"v"))  # what counts is what comes of it


@pytest.mark.parametrize("size", [11, 5000, 100_000], ids=str)
def test_a_value_that_is_too_long_is_refused_and_the_one_before_stays(
    world: EmbeddedWorld, size: int
) -> None:
    keep(world, Quota("a", "a/", max_bytes=13))
    put(world.engine, b"a/1", b"0123456789")
    refusal = refused(world.engine, Set(b"a/1", b"x" * size))
    assert refusal.exceeded is not None
    assert (refusal.exceeded.of, refusal.exceeded.actual) == ("bytes", 3 + size)
    record = world.engine.get(b"a/1")
    assert record is not None
    assert record.value == b"0123456789"


def test_what_makes_it_no_more_is_done_beyond_the_limit_too(world: EmbeddedWorld) -> None:
    for key in (b"a/1", b"a/2", b"a/3"):
        put(world.engine, key, b"12345")
    keep(world, Quota("a", "a/", max_bytes=10, max_keys=1))
    put(world.engine, b"a/1", b"54321")
    put(world.engine, b"a/2", b"1")
    done(world.engine, Touch(b"a/2", 1000))
    assert refused(world.engine, Set(b"a/2", b"12")).why is Why.QUOTA
    done(world.engine, Delete(b"a/3"))
    assert used(world) == (3 + 5 + 3 + 1, 2)


def test_every_quota_of_a_key_holds(world: EmbeddedWorld) -> None:
    keep(world, Quota("all", "", max_keys=3), Quota("a", "a/", max_keys=2))
    assert all(not isinstance(one, Refusal) for one in sets(world, b"a/1", b"a/2"))
    assert isinstance(attempt(world.engine, Set(b"a/3", b"v")), Refusal)
    put(world.engine, b"b/1")
    refusal = refused(world.engine, Set(b"b/2", b"v"))
    assert refusal.exceeded is not None
    assert refusal.exceeded.quota.name == "all"


def sets(world: EmbeddedWorld, *keys: bytes) -> list[Outcome]:
    """Set keys, each by a write of its own, all of which come at once."""
    outcomes: list[Outcome] = world.engine.write([(Set(key, b"v"),) for key in keys])
    return outcomes


def test_of_writes_that_come_together_only_those_are_refused_that_are_too_many(
    world: EmbeddedWorld,
) -> None:
    keep(world, Quota("a", "a/", max_keys=2))
    outcomes = sets(world, b"a/1", b"b/1", b"a/2", b"a/3", b"b/2", b"a/1")
    assert [isinstance(one, Refusal) for one in outcomes] == [
        False,
        False,
        False,
        True,
        False,
        False,
    ]


def test_a_large_batch_of_sets_is_refused_as_a_whole(world: EmbeddedWorld) -> None:
    keep(world, Quota("a", "a/", max_keys=99))
    many: list[Operation] = [Set(b"a/%03d" % number, b"v") for number in range(100)]
    assert refused(world.engine, *many).why is Why.QUOTA
    assert used(world) == (0, 0)
    done(world.engine, *many[:99])
    assert used(world)[1] == 99


def test_what_comes_out_of_the_trash_counts_again_and_may_be_refused(world: EmbeddedWorld) -> None:
    keep(world, Quota("a", "a/", max_keys=1))
    revision = put(world.engine, b"a/1", b"x" * 6000).revision
    undo = done(world.engine, Discard(b"a/1", world.engine.now() + 10_000))[0].revision
    assert used(world) == (0, 0)
    put(world.engine, b"a/2")
    restore = Restore(b"a/1", undo, revision, 6000)
    assert refused(world.engine, restore).why is Why.QUOTA
    done(world.engine, Delete(b"a/2"))
    assert done(world.engine, restore)[0].revision
    assert used(world) == (3 + 6000, 1)


def test_a_refusal_is_not_remembered(world: EmbeddedWorld) -> None:
    keep(world, Quota("a", "a/", max_keys=1))
    put(world.engine, b"a/1")
    named = Remember(b"name", b"fingerprint", 10_000), Set(b"a/2", b"v")
    assert refused(world.engine, *named).why is Why.QUOTA
    done(world.engine, Delete(b"a/1"))
    assert done(world.engine, *named)[0].revision


def test_keys_that_were_there_before_are_counted_in_steps_while_others_are_written(
    world: EmbeddedWorld,
) -> None:
    keys = [b"a/%05d" % number for number in range(2500)]
    for start in range(0, len(keys), 500):
        done(world.engine, *(Set(key, b"v") for key in keys[start : start + 500]))
    wanted = Quota("a", "a/", max_keys=2500)
    done(world.engine, Set(quotas.QUOTA + b"a", quotas.encode(wanted), space=Space.ADMIN))
    steps = 0
    while world.engine.count_quotas():
        steps += 1
        assert steps < 100
        if steps < 3:
            assert not use(world).counted
            done(world.engine, Delete(keys[steps]), Delete(keys[-steps]))
            put(world.engine, b"a/new at the end", b"v" * steps)
    assert steps >= 3
    assert used(world) == (2496 * 8 + len(b"a/new at the end") + 2, 2497)
    put(world.engine, keys[1])
    put(world.engine, keys[2])
    put(world.engine, keys[-1])
    assert refused(world.engine, Set(keys[-2], b"v")).why is Why.QUOTA


def test_a_quota_with_another_prefix_is_counted_anew_and_one_that_is_dropped_is_forgotten(
    world: EmbeddedWorld,
) -> None:
    put(world.engine, b"a/1")
    put(world.engine, b"b/1", b"12345")
    keep(world, Quota("a", "a/", max_keys=1))
    keep(world, Quota("a", "b/", max_keys=1))
    assert used(world) == (8, 1)
    put(world.engine, b"a/2")
    assert isinstance(attempt(world.engine, Set(b"b/2", b"v")), Refusal)
    drop(world, "a")
    assert world.engine.usage().quotas == ()
    put(world.engine, b"b/2")


def test_a_process_that_has_the_store_open_goes_by_a_new_quota_at_once(
    world: EmbeddedWorld,
) -> None:
    with Child("serve", world.directory, world.memory) as other:
        assert other.hear() == "open"
        other.call("set", b"a/1", b"v")
        keep(world, Quota("a", "a/", max_keys=2))
        other.call("set", b"a/2", b"v")
        refusal = refused(world.engine, Set(b"a/3", b"v"))
        assert refusal.why is Why.QUOTA
        assert used(world)[1] == 2
        keep(world, Quota("a", "a/", max_keys=3))
        other.call("set", b"a/3", b"v")
        assert used(world)[1] == 3


KEYS = [b"a/1", b"a/2", b"a/b/1", b"a/b/2", b"b/1", b"a/" + b"k" * 500]
SIZES = [0, 3, 40, 3900, 10_000]
QUOTAS = [
    Quota("all", "", max_bytes=22_000),
    Quota("a", "a/", max_keys=3),
    Quota("ab", "a/b/", 11_000, 2),
]


class QuotasAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.world = self.make(self.stack.enter_context(memory_directory()))
        self.trash: list[tuple[bytes, int, int]] = []
        keep(self.world, QUOTAS[0])

    def make(self, directory: Path) -> World:
        return EmbeddedWorld(directory, 16 * MIB)

    def teardown(self) -> None:
        self.world.close()
        self.stack.close()

    def stored(self) -> dict[bytes, int]:
        """Return the size of every value that can be read."""
        records = {key: self.world.engine.get_stale(key) for key in KEYS}
        return {key: len(record.value) for key, record in records.items() if record is not None}

    def counts(self, quota: Quota) -> tuple[int, int]:
        prefix = quota.prefix.encode()
        sizes = [len(k) + size for k, size in self.stored().items() if k.startswith(prefix)]
        return sum(sizes), len(sizes)

    def write(self, *operations: Operation) -> Outcome:
        """Do a write, and see that it is refused only if, and always if, it brought too much."""
        present = [one.quota for one in self.world.engine.usage().quotas]
        before = [self.counts(quota) for quota in present]
        outcome = attempt(self.world.engine, *operations)
        after = [self.counts(quota) for quota in present]
        if isinstance(outcome, Refusal):
            assert after == before
            if outcome.why is Why.QUOTA:
                exceeded = outcome.exceeded
                assert exceeded is not None
                assert exceeded.actual > exceeded.limit
        else:
            for quota, (size, keys), (size_before, keys_before) in zip(
                present, after, before, strict=True
            ):
                assert quota.max_bytes is None or size <= max(quota.max_bytes, size_before)
                assert quota.max_keys is None or keys <= max(quota.max_keys, keys_before)
        return outcome

    @rule(
        key=st.sampled_from(KEYS),
        size=st.sampled_from(SIZES),
        ttl=st.sampled_from([0, 0, 5, 50]),
        stale=st.sampled_from([0, 20]),
    )
    def a_set(self, key: bytes, size: int, ttl: int, stale: int) -> None:
        self.write(Set(key, b"v" * size, ttl_ms=ttl, stale_ms=stale if ttl else 0))

    @rule(
        keys=st.lists(st.sampled_from(KEYS), min_size=2, max_size=4),
        size=st.sampled_from(SIZES),
        condition=st.sampled_from([None, Condition(match=frozenset({1}))]),
    )
    def a_batch(self, keys: list[bytes], size: int, condition: Condition | None) -> None:
        sets_ = [Set(key, b"v" * size, ttl_ms=5) for key in keys]
        self.write(Delete(KEYS[0]), *sets_, Set(keys[0], b"", condition=condition))

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=9), size=st.sampled_from(SIZES[:3]))
    def plain_sets_that_come_together(self, keys: list[bytes], size: int) -> None:
        self.world.engine.write([(Set(key, b"v" * size),) for key in keys])

    @rule(key=st.sampled_from(KEYS), delta=st.sampled_from([1, 10**9]))
    def an_increment(self, key: bytes, delta: int) -> None:
        self.write(Add(key, delta, ttl_ms=50))

    @rule(key=st.sampled_from(KEYS), ttl=st.sampled_from([0, 5, 50]))
    def a_touch(self, key: bytes, ttl: int) -> None:
        self.write(Touch(key, ttl))

    @rule(key=st.sampled_from(KEYS))
    def a_delete(self, key: bytes) -> None:
        self.write(Delete(key))

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, unique=True))
    def some_discards(self, keys: list[bytes]) -> None:
        found = {key: self.world.engine.get(key) for key in keys}
        until = self.world.engine.now() + 10_000
        results = done(self.world.engine, *(Discard(key, until) for key in keys))
        number = next((one.revision for one in results if one.existed), 0)
        for key, record in found.items():
            if record is not None:
                self.trash.append((key, number, record.revision))

    @rule(data=st.data())
    def a_restore(self, data: st.DataObject) -> None:
        if self.trash:
            key, undo, revision = data.draw(st.sampled_from(self.trash))
            self.write(Restore(key, undo, revision, 10_000))

    @rule(ms=st.sampled_from([1, 5, 50]), swept=st.booleans())
    def time_passes(self, ms: int, swept: bool) -> None:
        self.world.clock.advance(ms)
        while swept and self.world.engine.expire(100).expired:
            pass

    @rule(quota=st.sampled_from(QUOTAS))
    def a_quota_is_made(self, quota: Quota) -> None:
        keep(self.world, quota)

    @rule(quota=st.sampled_from(QUOTAS[1:]))
    def a_quota_is_dropped(self, quota: Quota) -> None:
        drop(self.world, quota.name)

    @rule()
    def a_restart(self) -> None:
        self.world.restart()

    @invariant()
    def the_audit_counts_the_same(self) -> None:
        assert all(one.counted for one in self.world.engine.usage().quotas)
        assert "all" in [one.quota.name for one in self.world.engine.usage().quotas]
        assert self.world.engine.check() == []


class KeptQuotasAgainstModel(QuotasAgainstModel):
    """Each restart loses what is in memory: all is read from the disk again."""

    world: KeptWorld

    def make(self, directory: Path) -> World:
        return KeptWorld(directory)

    @rule()
    def a_snapshot(self) -> None:
        self.world.take_snapshot()


def test_what_is_evicted_does_not_count_any_more() -> None:
    with memory_directory() as directory:
        world = EmbeddedWorld(directory, 8 * MIB, when_full=WhenFull.EVICT)
        keep(world, Quota("a", "a/"), Quota("all", ""))
        for number in range(6000):
            put(world.engine, b"%c/%d" % (b"ab"[number % 2], number), b"v" * 3000)
        usage = world.engine.usage()
        assert usage.evicted > 1000
        assert used(world, "all")[1] == usage.keys
        assert used(world)[1] > 0
        assert world.engine.check() == []
        world.close()


TestQuotasAgainstModel = QuotasAgainstModel.TestCase
TestQuotasAgainstModel.settings = examples(20)
TestKeptQuotasAgainstModel = KeptQuotasAgainstModel.TestCase
TestKeptQuotasAgainstModel.settings = examples(10)
