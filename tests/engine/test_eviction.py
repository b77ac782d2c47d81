"""A store that evicts: room is made for every write, by keys that nobody asked for lately."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from engine_support.kept import KeptStore
from engine_support.processes import Child
from engine_support.world import (
    MIB,
    EmbeddedWorld,
    attempt,
    blocks,
    done,
    drop,
    history,
    put,
    rounds,
)

from keyrack.engines.contract import (
    Add,
    Change,
    Condition,
    Delete,
    Get,
    Refusal,
    Remember,
    Set,
    Space,
    Touch,
    WhenFull,
    Why,
)
from keyrack.engines.embedded.eviction.frequency import FILE, SMALL_QUEUE_SETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from engine_support.driven import Driven

    from keyrack.engines.contract import Operation, Record
    from keyrack.engines.embedded.eviction.policy import Evictor

MEMORY = 8 * MIB
A_PAGE = 3000
"""A value that takes a page, so that it is known how many fit."""
FIT = 1400
"""About so many of them fit into `MEMORY`."""


@pytest.fixture
def world(shm: Path) -> Iterator[EmbeddedWorld]:
    """A store of 8 MiB that evicts; every test ends with its audit and within its memory."""
    world = EmbeddedWorld(shm, MEMORY, events=100_000, when_full=WhenFull.EVICT)
    yield world
    taken, problems, usage = blocks(world.directory), world.engine.check(), world.engine.usage()
    told = Counter(change for change, _ in history(world.engine))
    world.close()
    assert problems == []
    assert taken <= MEMORY
    assert usage.evicted >= told[Change.EVICT]


@pytest.fixture
def engine(world: EmbeddedWorld) -> Driven:
    return world.engine


def stream(engine: Driven, number: int, size: int = A_PAGE, name: bytes = b"new") -> list[bytes]:
    """Set so many new keys one by one, none of which may be refused."""
    keys = [b"%b-%05d" % (name, at) for at in range(number)]
    for key in keys:
        put(engine, key, key + bytes(size - len(key)))
    return keys


def evictor_of(engine: Driven) -> Evictor:
    assert engine.evictor is not None
    return engine.evictor


def present(engine: Driven, keys: Sequence[bytes]) -> int:
    """Count keys without warming them."""
    records = engine.database.spaces[0]
    with engine.database.read() as txn:
        return sum(txn.get(key, records) is not None for key in keys)


def contents(engine: Driven) -> dict[bytes, Record]:
    found, after = {}, None
    while True:
        page = engine.scan(after=after)
        found.update(page.entries)
        if page.next is None:
            return found
        after = page.next


def use(engine: Driven, keys: Sequence[bytes]) -> None:
    for key in keys:
        assert engine.get(key) is not None


# Room

MIXES = {
    "10 B": [10],
    "100 B": [100],
    "1 KiB": [1024],
    "3000 B": [A_PAGE],
    "64 KiB": [65_536],
    "1 MiB": [MIB],
    "mixed": [10] * 30 + [100] * 30 + [1024] * 20 + [A_PAGE] * 10 + [20_000] * 6 + [MIB],
}


@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("sizes", MIXES.values(), ids=MIXES.keys())
def test_no_write_is_refused_whatever_the_sizes(
    world: EmbeddedWorld, sizes: list[int], ttl: int
) -> None:
    """Twice what fits, with replaced and deleted keys and TTLs in between."""
    engine, chance, written = world.engine, random.Random(ttl), 0
    while written < 3 * MEMORY // 2:
        operations: list[Operation] = []
        batch = chance.randrange(1, 33)
        for _ in range(batch):
            key, size = b"%d" % chance.randrange(1 << 20), chance.choice(sizes)
            ttl_ms = ttl * chance.choice([0, 100_000, 200_000, 400_000])
            operations.append(Set(key, bytes(size), ttl_ms=ttl_ms))
            written += size + 60
        operations.append(Delete(b"%d" % chance.randrange(1 << 20)))
        outcomes = engine.write([(operation,) for operation in operations])
        assert not any(isinstance(outcome, Refusal) for outcome in outcomes)
        world.clock.advance(batch)
        if chance.randrange(16) == 0:
            engine.expire(64)
            engine.trim(64)
    assert engine.usage().evicted > 0


@pytest.mark.parametrize(("first", "then"), [(60, MIB), (MIB, 100), (A_PAGE, 200), (200, 30_000)])
def test_what_is_stored_may_change_its_size_altogether(
    engine: Driven, first: int, then: int
) -> None:
    for number in range(2 * MEMORY // (first + 150)):
        put(engine, b"first-%d" % number, bytes(first))
    for number in range(min(40_000, MEMORY // (then + 150))):
        put(engine, b"then-%d" % number, bytes(then))


def test_a_full_store_stays_nearly_full(engine: Driven) -> None:
    """Evicting goes no further than it must: a sixth is for the log, deletes and what is next."""
    stream(engine, 3 * FIT)
    least = engine.usage().keys
    for at in range(500):
        put(engine, b"more-%d" % at, bytes(A_PAGE))
        least = min(least, engine.usage().keys)
    assert least > FIT


def test_a_write_that_can_never_fit_is_refused_and_evicts_nothing(engine: Driven) -> None:
    stream(engine, 2 * FIT)
    before = engine.usage()
    operations = [Set(b"big-%d" % at, bytes(MIB)) for at in range(7)]
    assert attempt(engine, *operations) == Refusal(Why.FULL)
    assert engine.usage().evicted == before.evicted
    assert engine.usage().keys == before.keys


def evictions(engine: Driven, after: int) -> int:
    return sum(event.change is Change.EVICT for event in engine.events(after))


def test_a_long_value_waits_for_few_evictions_and_the_rest_is_done_later(shm: Path) -> None:
    """In a store of 64 MiB there is always room for a value of 1 MiB: it owes what it took."""
    world = EmbeddedWorld(shm, 64 * MIB, events=100_000, when_full=WhenFull.EVICT)
    engine = world.engine
    stream(engine, 19_000)
    assert engine.usage().evicted > 0
    for number in range(5):
        revision = put(engine, b"long-%d" % number, bytes(MIB)).revision
        assert evictions(engine, revision) <= evictor_of(engine).most_keys
        while engine.evict():
            pass
    assert evictions(engine, revision) > 200
    assert engine.evict() == 0
    assert engine.check() == []
    world.close()


# Which


def test_keys_that_are_read_stay_and_those_that_are_not_go(engine: Driven) -> None:
    read, unread = stream(engine, 100, name=b"read"), stream(engine, 100, name=b"unread")
    for start in range(0, 4 * FIT, 100):
        use(engine, read)
        stream(engine, 100, name=b"new-%d" % start)
    assert (present(engine, read), present(engine, unread)) == (100, 0)


@pytest.mark.parametrize("way", ["set", "add", "touch", "get in a batch"])
def test_any_use_keeps_a_key(engine: Driven, way: str) -> None:
    ways: dict[str, Operation] = {
        "set": Set(b"used", b"1"),
        "add": Add(b"used", 1),
        "touch": Touch(b"used", 1_000_000),
        "get in a batch": Get(b"used"),
    }
    put(engine, b"used", b"1")
    put(engine, b"unused", b"1")
    for start in range(0, 4 * FIT, 50):
        done(engine, ways[way])
        stream(engine, 50, name=b"new-%d" % start)
    assert (present(engine, [b"used"]), present(engine, [b"unused"])) == (1, 0)


def test_keys_that_are_asked_for_once_do_not_displace_those_that_are_in_use(
    engine: Driven,
) -> None:
    """A scan of five times what fits, and no use in between."""
    popular = stream(engine, FIT // 2, name=b"popular")
    for _ in range(3):
        use(engine, popular)
    stream(engine, 5 * FIT, name=b"scan")
    assert present(engine, popular) > 0.9 * len(popular)


def test_some_of_more_keys_than_fit_are_found_when_they_are_asked_for_in_a_loop(
    engine: Driven,
) -> None:
    """Of two and a half times as many as fit, a third; without a way out of the loop, none."""
    keys, rounds_ = [b"loop-%04d" % at for at in range(5 * FIT // 2)], 8
    for number in range(rounds_):
        hits = 0
        for key in keys:
            found = engine.get(key) is not None
            hits += found
            if not found:
                put(engine, key, bytes(A_PAGE))
        if number == 0:
            assert hits == 0
    assert hits > len(keys) // 5


def test_what_comes_back_soon_after_it_was_evicted_is_kept(engine: Driven) -> None:
    """Beside keys that are as new and were never there, under the same stream of others."""
    returning = stream(engine, 50, name=b"returning")
    stream(engine, FIT + 200, name=b"first")
    gone = [key for key in returning if not present(engine, [key])]
    assert len(gone) > 40
    stranger = [b"stranger" + key for key in gone]
    for pair in zip(gone, stranger, strict=True):
        for key in pair:
            put(engine, key, bytes(A_PAGE))
    stream(engine, 2 * FIT, name=b"second")
    assert present(engine, stranger) == 0
    assert present(engine, gone) > 0.9 * len(gone)


def test_a_full_store_of_hot_keys_still_takes_new_ones(engine: Driven) -> None:
    keys = stream(engine, FIT)
    for round_ in range(20):
        for _ in range(3):
            use(engine, [key for key in keys if present(engine, [key])])
        stream(engine, 30, name=b"more-%d" % round_)


def test_room_is_made_for_a_long_value_though_every_key_is_hot(engine: Driven) -> None:
    """Many steps find nothing cold: each takes the least warm key that it has seen."""
    keys = stream(engine, 18_000, 200)
    for _ in range(3):
        use(engine, keys)
    for number in range(7):
        put(engine, b"long-%d" % number, bytes(MIB))


def test_a_step_that_finds_nothing_cold_takes_the_least_warm(engine: Driven) -> None:
    keys = stream(engine, 18_000, 200)
    for _ in range(3):
        use(engine, keys)
    frequency = evictor_of(engine).frequency
    while frequency.words[SMALL_QUEUE_SETS] > 1800:
        evictor_of(engine).evict(1, frozenset(keys))
    for _ in range(3):
        use(engine, keys)
    before = engine.usage().evicted
    for step in range(10):
        evictor_of(engine).evict(1, frozenset())
        assert engine.usage().evicted == before + step + 1


def grown_up(engine: Driven) -> list[bytes]:
    """Fill a store with keys that have proved themselves and are cold since."""
    keys = stream(engine, FIT, name=b"grown-up")
    use(engine, keys)
    while evictor_of(engine).frequency.words[SMALL_QUEUE_SETS] > FIT // 10:
        evictor_of(engine).evict(1, frozenset(keys))
    return [key for key in keys if present(engine, [key])]


def test_the_hand_leaves_young_keys_alone(engine: Driven) -> None:
    """They lie before it in the order of keys, and are as cold as those that it takes."""
    old = grown_up(engine)
    young = stream(engine, FIT // 40, name=b"aaa")
    while present(engine, old) > len(old) // 2:
        evictor_of(engine).evict(A_PAGE, frozenset())
    assert present(engine, young) == len(young)


@pytest.mark.parametrize("ages", ["young", "grown up"])
def test_spared_keys_stay_however_much_is_owed(engine: Driven, ages: str) -> None:
    keys = grown_up(engine) if ages == "grown up" else stream(engine, FIT)
    for _ in range(FIT):
        evictor_of(engine).evict(MEMORY, frozenset(keys[1:]))
    assert present(engine, keys[1:]) == len(keys) - 1
    assert present(engine, keys[:1]) == 0


def test_a_key_that_was_set_anew_has_its_time_from_then_on(engine: Driven) -> None:
    keys = stream(engine, 20, name=b"anew")
    stream(engine, FIT - 100, name=b"fill")
    for key in keys:
        drop(engine, key)
        put(engine, key, bytes(A_PAGE))
    stream(engine, FIT // 2, name=b"more")
    assert engine.usage().evicted > 100
    assert present(engine, keys) == len(keys)


@pytest.mark.parametrize("events", [1, 100_000])
def test_keys_go_also_when_the_log_remembers_nothing(shm: Path, events: int) -> None:
    """Then there is no queue of young keys, and the hand does all of it."""
    world = EmbeddedWorld(shm, MEMORY, events=events, when_full=WhenFull.EVICT)
    read = stream(world.engine, 100, name=b"read")
    for start in range(0, 4 * FIT, 100):
        use(world.engine, read)
        stream(world.engine, 100, name=b"new-%d" % start)
        world.engine.trim(1000)
    assert present(world.engine, read) == 100
    assert world.engine.check() == []
    world.close()


# What is spared


def test_a_batch_evicts_none_of_its_own_keys(engine: Driven) -> None:
    stream(engine, 2 * FIT)
    keys = [b"mine-%d" % number for number in range(FIT // 2)]
    done(engine, *(Set(key, bytes(A_PAGE)) for key in keys))
    assert present(engine, keys) == len(keys)


def test_no_call_evicts_what_it_has_just_set(engine: Driven) -> None:
    stream(engine, 2 * FIT)
    for start in range(0, 2000, 64):
        keys = [b"mine-%d" % number for number in range(start, start + 64)]
        engine.write([(Set(key, bytes(A_PAGE)),) for key in keys])
        assert present(engine, keys) == len(keys)


def test_a_key_that_a_write_is_about_is_not_evicted_for_it(engine: Driven) -> None:
    """Else a write on condition would fail because of itself."""
    for number in range(FIT // 4):
        revision = put(engine, b"old", b"v").revision
        stream(engine, FIT, name=b"stream-%d" % number) if number % 64 == 0 else None
        if not present(engine, [b"old"]):
            revision = put(engine, b"old", b"v").revision
        at_it = Condition(match=frozenset([revision]))
        new = Set(b"new-%d" % number, bytes(30_000))
        assert not isinstance(
            attempt(engine, Touch(b"old", 10_000, at_it), new, Set(b"old", b"w", condition=at_it)),
            Refusal,
        )


def test_locks_and_answers_are_never_evicted(world: EmbeddedWorld) -> None:
    engine = world.engine
    owners = {b"lock-%d" % number: b"owner-%d" % number for number in range(50)}
    for name, owner in owners.items():
        done(engine, Set(name, owner, ttl_ms=1_000_000, space=Space.LOCKS))
    name = Remember(b"answer", b"fingerprint", 1_000_000)
    first = done(engine, name, Add(b"counter", 1))
    stream(engine, 4 * FIT)
    assert {lock: getattr(engine.lock_of(lock), "value", None) for lock in owners} == owners
    assert done(engine, name, Add(b"counter", 1)) == first
    assert present(engine, [b"counter"]) == 0


# What is told


def test_each_evicted_key_has_its_event_and_is_counted(shm: Path) -> None:
    world = EmbeddedWorld(shm, MEMORY, events=100_000, when_full=WhenFull.EVICT)
    keys = [key for part in range(2) for key in stream(world.engine, FIT, name=b"%d" % part)]
    evicted = [key for change, key in history(world.engine) if change is Change.EVICT]
    assert len(evicted) == len(set(evicted)) == world.engine.usage().evicted > 0
    assert {key for key in keys if not present(world.engine, [key])} == set(evicted)
    world.close()


def test_revisions_grow_over_evictions(engine: Driven) -> None:
    stream(engine, 2 * FIT)
    revisions = [event.revision for event in engine.events()]
    assert all(later > earlier for earlier, later in pairwise(revisions))


def test_a_key_whose_time_is_over_is_told_as_expired(world: EmbeddedWorld) -> None:
    engine = world.engine
    for number in range(200):
        put(engine, b"ends-%d" % number, bytes(A_PAGE), ttl_ms=10)
    world.clock.advance(10)
    stream(engine, 2 * FIT)
    told = Counter(change for change, key in history(engine) if key.startswith(b"ends"))
    assert told == {Change.SET: 200, Change.EXPIRE: 200}
    assert engine.usage().keys_with_ttl == 0


# Processes and lives


def test_stale_copies_go_before_keys_that_were_used_as_much_and_stay_if_somebody_asks_for_them(
    world: EmbeddedWorld,
) -> None:
    engine = world.engine
    copies = [b"copy/%03d" % number for number in range(100)]
    keys = [b"key/%03d" % number for number in range(100)]
    for key in copies:
        done(engine, Set(key, bytes(A_PAGE), ttl_ms=10, stale_ms=10_000_000))
    for key in keys:
        done(engine, Set(key, bytes(A_PAGE)))
    for _ in range(3):
        use(engine, [*copies, *keys])
    world.clock.advance(10)
    while engine.expire(1000).expired:
        pass
    wanted = copies[:20]
    for number in range(400):
        for key in (*wanted, *keys):
            engine.get_stale(key)
        stream(engine, 20, name=b"new/%d/" % number)
        if engine.usage().stale_copies <= 25:
            break
    assert engine.usage().stale_copies <= 25
    assert present(engine, keys) > 90
    assert sum(engine.get_stale(key) is not None for key in wanted) > 15
    assert engine.check() == []
    assert all(
        change is not Change.EVICT for change, key in history(engine) if key.startswith(b"copy/")
    )


def test_several_processes_evict_at_the_same_time(world: EmbeddedWorld) -> None:
    children = [Child("overfill", world.directory, MEMORY, name, 1500) for name in "abc"]
    for child in children:
        assert child.hear() == "open"
        child.tell()
    lines = [child.hear_all()[-1] for child in children]
    for child in children:
        child.__exit__()
    assert lines == ["refused 0"] * 3
    told = Counter(change for change, _ in history(world.engine))
    assert told[Change.EVICT] == world.engine.usage().evicted > 500


def test_readers_that_lose_their_processor_make_no_store_full(world: EmbeddedWorld) -> None:
    """Pages that were freed since a reader began cannot be used until it is done."""
    chance = random.Random(3)
    with Child("read_slowly", world.directory, MEMORY) as child:
        assert child.hear() == "reading"
        for number in range(4000):
            key, size = b"%d" % chance.randrange(30_000), chance.randrange(400)
            assert not isinstance(attempt(world.engine, Set(key, bytes(size))), Refusal), number
        child.tell()


@pytest.mark.parametrize("at", [300 + 97 * number for number in range(rounds(3))])
def test_a_process_that_is_killed_while_it_evicts_harms_nothing(
    world: EmbeddedWorld, at: int
) -> None:
    with Child("overfill", world.directory, MEMORY, "a", 1_000_000) as child:
        assert child.hear() == "open"
        child.tell()
        while child.hear() != str(at % 1000 + 600):
            pass
        child.kill()
    assert world.engine.check() == []
    stream(world.engine, FIT)


def test_a_key_that_another_process_reads_is_warm_for_all(world: EmbeddedWorld) -> None:
    put(world.engine, b"read", b"v")
    put(world.engine, b"unread", b"v")
    with Child("read_often", world.directory, MEMORY, "read") as child:
        assert child.hear() == "open"
        for start in range(0, 4 * FIT, 50):
            child.tell()
            assert child.hear() == "1"
            stream(world.engine, 50, name=b"new-%d" % start)
    assert (present(world.engine, [b"read"]), present(world.engine, [b"unread"])) == (1, 0)


def test_an_old_snapshot_costs_writes_and_not_the_store(world: EmbeddedWorld) -> None:
    """While somebody reads the store as it was, evicting frees nothing: it is soon given up."""
    engine = world.engine
    keys = stream(engine, 2 * FIT)
    key = next(key for key in reversed(keys) if present(engine, [key]))
    with Child("hold_snapshot", world.directory, MEMORY, key.decode()) as child:
        assert child.hear().startswith("holding")
        before = engine.usage().keys
        outcomes = [attempt(engine, Set(b"more-%d" % at, bytes(A_PAGE))) for at in range(600)]
        assert Refusal(Why.FULL) in outcomes
        assert engine.usage().keys > before // 2
        assert engine.check() == []
    stream(engine, FIT)


def test_a_store_goes_on_evicting_in_its_next_life(world: EmbeddedWorld) -> None:
    stream(world.engine, 2 * FIT)
    before = world.engine.usage().evicted
    world.restart()
    stream(world.engine, FIT, name=b"next")
    assert world.engine.usage().evicted > before


def test_a_store_may_begin_and_cease_to_evict(shm: Path) -> None:
    """The database keeps what it has claimed, a sixty-fourth more than when it began to evict."""
    world = EmbeddedWorld(shm, MEMORY, when_full=WhenFull.EVICT)
    stream(world.engine, 2 * FIT)
    world.when_full = WhenFull.REJECT
    world.restart()
    assert not (world.directory / FILE).exists()
    outcomes = [attempt(world.engine, Set(b"%d" % at, bytes(A_PAGE))) for at in range(600)]
    assert outcomes[-1] == Refusal(Why.FULL)
    world.when_full = WhenFull.EVICT
    world.restart()
    stream(world.engine, FIT, name=b"next")
    assert blocks(world.directory) < MEMORY * 1.02
    world.close()


@pytest.mark.parametrize("strict", [False, True], ids=["snapshot", "commit"])
def test_what_was_evicted_does_not_come_back_from_the_disk(
    shm: Path, tmp_path: Path, strict: bool
) -> None:
    """Evictions are written down like every other change, by sets and by steps of their own."""
    store = KeptStore(shm, tmp_path, strict, size=MEMORY, events=100_000, when_full=WhenFull.EVICT)
    stream(store.engine, 300)
    store.take()
    keys = stream(store.engine, FIT, name=b"young")
    for number in range(4):
        put(store.engine, b"long-%d" % number, bytes(MIB))
        store.engine.evict()
    if strict:
        assert store.sync()
    else:
        store.take()
    held = contents(store.engine)
    assert len(held) < len(keys)
    store.lose_memory()
    assert contents(store.engine) == held
    stream(store.engine, FIT, name=b"next")
    assert store.engine.check() == []
    store.close()


def test_who_rejects_pays_nothing_for_reads(embedded: EmbeddedWorld) -> None:
    """The method is the class's own, and no file is made."""
    assert "get" not in vars(embedded.engine)
    assert not (embedded.directory / FILE).exists()
    assert not embedded.engine.capabilities.eviction
    assert embedded.engine.evict() == 0


def test_an_engine_says_that_it_evicts(engine: Driven, shm: Path) -> None:
    (shm / "other").mkdir()
    assert engine.capabilities.eviction
    rejecting = EmbeddedWorld(shm / "other")
    assert not rejecting.engine.capabilities.eviction
    rejecting.close()
