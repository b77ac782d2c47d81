"""A slot of a cluster moves to another server: what is asked meanwhile is done right, or not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING

import pytest
from engine_support.world import rounds
from valkey_support.engines import done, opened, run, value_of
from valkey_support.load import Load
from valkey_support.moving import CLI, Move, finish_reshard, fix, reshard
from valkey_support.servers import ClusterOfSix, Server, is_primary, until

from keyrack.engines.contract import (
    ANY,
    Add,
    Condition,
    Delete,
    Discard,
    Outcome,
    Refusal,
    Restore,
    Set,
    Space,
    StoreAway,
    Why,
    Write,
)
from keyrack.engines.valkey.layout import COPIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from keyrack.engines.valkey.engine import ValkeyEngine

pytestmark = pytest.mark.timeout(120)
PATIENCE = 0.15
SLOTS = 300
"""So many of a primary's slots are moved; they hold the first shards of a store."""
MOVING = Refusal(Why.MOVING)
NEW = Condition(none_match=ANY)
LOCK = Set(b"{t}lock", b"me", ttl_ms=600_000, condition=NEW, space=Space.LOCKS)
STAYS = Set(b"{t}stays", b"v", ttl_ms=600_000, condition=NEW)
NAMES = [b"{t}%d" % number for number in range(4)]


@contextlib.asynccontextmanager
async def impatient(url: str) -> AsyncIterator[ValkeyEngine]:
    """Have a store open that does not wait long for a slot, but for a server on a busy machine."""
    async with opened(url, 5.0) as engine:
        engine.calls.timeout = engine.calls.servers.patience = PATIENCE
        yield engine


@pytest.fixture(scope="module")
def six() -> Iterator[ClusterOfSix]:
    """A cluster whose slots this module moves about."""
    cluster = ClusterOfSix()
    yield cluster
    for one in cluster.everybody():
        one.remove()


def state_first(keys: list[bytes]) -> list[bytes]:
    return sorted(keys, key=lambda key: (not key.endswith(b"}s"), key))


def records_first(keys: list[bytes]) -> list[bytes]:
    return sorted(keys, key=lambda key: (key.endswith(b"}s"), b"}k" not in key, key))


class Model:
    """What a shard must hold by all that was acknowledged."""

    def __init__(self, engine: ValkeyEngine) -> None:
        self._engine = engine
        self._number = 40
        self._value = b"old"
        self.done = 0
        self.refused = 0

    async def prepare(self) -> None:
        await done(self._engine, *(Set(name, self._value) for name in NAMES))
        await done(self._engine, Set(b"{t}n", b"40"), STAYS)
        await done(self._engine, LOCK)

    def _writes(self, value: bytes) -> list[Write]:
        writes: list[Write] = [(LOCK,), (STAYS,), (Add(b"{t}n", 1),)]
        writes += [(Set(name, value),) for name in NAMES]
        return [*writes, (Set(b"{t}new", b"v"),), (Delete(b"{t}new"),), (Delete(b"{t}none"),)]

    def _took_place(self, value: bytes, outcomes: list[Outcome]) -> None:
        lock, stays, added, *sets, new, deleted, missing = outcomes
        for outcome in (lock, stays):
            assert isinstance(outcome, Refusal)
            assert outcome.why is Why.CONDITION
        assert isinstance(added, tuple)
        self._number += 1
        self._value = value
        assert added[0].number == self._number
        there = [outcome[0].existed for outcome in (*sets, new, deleted, missing)]  # type: ignore[union-attr]
        assert there == [True] * len(NAMES) + [False, True, False]

    async def write(self, value: bytes) -> None:
        """Ask for everything that would go wrong, and take note of whether it was done."""
        outcomes = await self._engine.write(self._writes(value))
        if MOVING in outcomes:
            assert set(outcomes) == {MOVING}
            self.refused += 1
        else:
            self._took_place(value, outcomes)
            self.done += 1

    async def read(self) -> None:
        """Read: a part on the move is not listed, but each of its keys is there."""
        for name in NAMES:
            assert await value_of(self._engine, name) == self._value
        assert await value_of(self._engine, b"{t}n") == b"%d" % self._number
        lock = await self._engine.lock_of(b"{t}lock")
        assert lock is not None
        assert lock.value == b"me"

    async def list(self) -> None:
        names = sorted([*NAMES, b"{t}n", b"{t}stays"])
        assert [name for name, _ in (await self._engine.scan(limit=1000)).entries] == names
        assert await self._engine.count(b"", None, 1000) == (len(names), None)


@pytest.mark.parametrize("order", [state_first, records_first])
@pytest.mark.parametrize("replace", [False, True], ids=["", "replace"])
def test_each_stage_of_a_move_serves_a_shard_right_or_not_at_all(
    six: ClusterOfSix, order: Callable[[list[bytes]], list[bytes]], replace: bool
) -> None:
    async def look() -> None:
        for server in six.primaries():
            server.ask("FLUSHALL")
        async with impatient(six.url) as engine:
            model = Model(engine)
            await model.prepare()
            slot = engine.layout.slots[engine.layout.shard_of(b"{t}")]
            for way in (b"there", b"on"):
                move = Move(six, slot, replace=replace)
                for stage, what in enumerate(move.stages(order(move.keys()))):
                    print(what)
                    await model.write(b"%b %d" % (way, stage))
                    await model.read()
                    if "have moved" in what:
                        with pytest.raises(StoreAway, match="being moved"):
                            await engine.scan()
                    elif "on the move" not in what:
                        await model.list()
            assert model.refused > 20
            assert model.done == 6
            assert await engine.check() == []

    run(look())


class Copies:
    """A shard with a stale copy, and with a key that will leave one."""

    OVER, ENDS = b"{t}over", b"{t}ends"

    def __init__(self, engine: ValkeyEngine) -> None:
        self._engine = engine
        self.refused = 0

    def _ends(self, value: bytes) -> Set:
        return Set(self.ENDS, value, ttl_ms=600_000, stale_ms=600_000)

    async def prepare(self) -> None:
        await done(self._engine, self._ends(b"old"))
        await done(self._engine, Set(self.OVER, b"copy", ttl_ms=1, stale_ms=600_000))
        await asyncio.sleep(0.01)
        assert (await self._engine.expire(10)).expired == 1

    async def look(self, value: bytes) -> None:
        """Each question is answered right, or refused because the shard is on the move."""
        (outcome,) = await self._engine.write([(self._ends(value),)])
        if outcome == MOVING:
            self.refused += 1
        else:
            assert isinstance(outcome, tuple)
            assert outcome[0].existed
        for key, there in ((self.OVER, False), (self.ENDS, True)):
            with self._or_refused():
                assert ((await self._engine.get(key)) is not None) == there
            with self._or_refused():
                assert await self._engine.get_stale(key) is not None
        with self._or_refused():
            assert await self._engine.stale_copies(b"", None, 10) == ([self.OVER], None)

    @contextlib.contextmanager
    def _or_refused(self) -> Iterator[None]:
        try:
            yield
        except StoreAway as error:
            if "being moved" not in str(error):
                raise
            self.refused += 1


@pytest.mark.parametrize("order", [state_first, records_first])
def test_a_stale_copy_goes_with_its_slot(
    six: ClusterOfSix, order: Callable[[list[bytes]], list[bytes]]
) -> None:
    async def look() -> None:
        for server in six.primaries():
            server.ask("FLUSHALL")
        async with impatient(six.url) as engine:
            copies = Copies(engine)
            await copies.prepare()
            slot = engine.layout.slots[engine.layout.shard_of(b"{t}")]
            move = Move(six, slot)
            for stage, what in enumerate(move.stages(order(move.keys()))):
                print(what)
                before = copies.refused
                await copies.look(b"%d" % stage)
                if "on the move" not in what and "have moved" not in what:
                    assert copies.refused == before
            assert copies.refused > 5
            assert not (await done(engine, Set(copies.OVER, b"new")))[0].existed
            assert await engine.stale_copies(b"", None, 10) == ([], None)
            assert await engine.check() == []

    run(look())


def test_stale_copies_are_not_passed_over_when_their_names_are_at_the_other_server(
    six: ClusterOfSix,
) -> None:
    async def look() -> None:
        for server in six.primaries():
            server.ask("FLUSHALL")
        async with impatient(six.url) as engine:
            copies = Copies(engine)
            await copies.prepare()
            shard = engine.layout.shard_of(b"{t}")
            move = Move(six, engine.layout.slots[shard])
            move.begin()
            move.carry(engine.layout.bases[shard] + COPIES)
            move.close()
            with pytest.raises(StoreAway, match="being moved"):
                await engine.stale_copies(b"", None, 10)
            assert await engine.write([(Set(copies.OVER, b"new"),)]) == [MOVING]
            move.bring_back()
            assert await engine.stale_copies(b"", None, 10) == ([copies.OVER], None)
            assert not (await done(engine, Set(copies.OVER, b"new")))[0].existed
            assert await engine.stale_copies(b"", None, 10) == ([], None)

    run(look())


async def _undone(engine: ValkeyEngine, undo: int) -> int:
    """Put back what there is of an undo, and return of how many keys it was said that they are."""
    page, _ = await engine.trashed(undo, b"", 100)
    back = 0
    for one in page:
        (outcome,) = await engine.write([(Restore(one.key, undo, one.revision),)])
        if outcome == MOVING:
            raise StoreAway("The key is being moved.")
        assert not isinstance(outcome, Refusal)
        back += outcome[0].revision > 0
    return back


@pytest.mark.parametrize("order", [state_first, records_first])
def test_what_is_in_the_trash_goes_with_its_slot_and_nothing_of_it_is_passed_over(
    six: ClusterOfSix, order: Callable[[list[bytes]], list[bytes]]
) -> None:
    async def look() -> None:
        for server in six.primaries():
            server.ask("FLUSHALL")
        async with impatient(six.url) as engine:
            until_ = engine.now() + 600_000
            for name in NAMES:
                await done(engine, Set(name, b"v"))
            gone = await done(engine, *(Discard(name, until_) for name in NAMES))
            undo, back, refused = gone[0].revision, 0, 0
            slot = engine.layout.slots[engine.layout.shard_of(b"{t}")]
            move = Move(six, slot)
            for what in move.stages(order(move.keys())):
                print(what)
                if "have moved" not in what:
                    continue
                try:
                    back += await _undone(engine, undo)
                except StoreAway:
                    refused += 1
            # Had any been taken for gone or ended, fewer would come back.
            back += await _undone(engine, undo)
            assert back == len(NAMES)
            assert refused > 0
            for name in NAMES:
                assert await value_of(engine, name) == b"v"
            known = await engine.undo_of(undo)
            assert known is not None
            assert (known.restored, known.gone, known.ended, known.left) == (len(NAMES), 0, 0, 0)
            assert await engine.check() == []

    run(look())


def test_the_trash_is_not_empty_when_its_names_are_at_the_other_server(six: ClusterOfSix) -> None:
    async def look() -> None:
        for server in six.primaries():
            server.ask("FLUSHALL")
        async with impatient(six.url) as engine:
            await done(engine, Set(NAMES[0], b"v"))
            gone = await done(engine, Discard(NAMES[0], engine.now() + 600_000))
            undo, shard = gone[0].revision, engine.layout.shard_of(b"{t}")
            move = Move(six, engine.layout.slots[shard])
            move.begin()
            move.carry(engine.layout.bases[shard] + b"j" + undo.to_bytes(8, "big"))
            move.close()
            with pytest.raises(StoreAway, match="being moved"):
                await engine.trashed(undo, b"", 10)
            move.bring_back()
            assert await _undone(engine, undo) == 1
            assert await value_of(engine, NAMES[0]) == b"v"

    run(look())


@pytest.mark.parametrize("order", [state_first, records_first])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_a_shard_is_not_served_when_its_slot_was_closed_with_a_part_at_the_other_server(
    six: ClusterOfSix, order: Callable[[list[bytes]], list[bytes]], part: float
) -> None:
    """Neither server knows of a move then: some tools mend an interrupted one in this way."""

    def move_a_part_and_back(slot: int) -> None:
        time.sleep(0.3)
        move = Move(six, slot)
        move.begin()
        keys = order(move.keys())
        move.carry(*keys[: round(len(keys) * part)])
        time.sleep(0.2)
        move.close()
        time.sleep(0.5)
        move.bring_back()
        time.sleep(0.3)

    async def look() -> None:
        for server in six.primaries():
            server.ask("FLUSHALL")
        async with impatient(six.url) as engine:
            load = Load(engine, [b"{t}%d" % number for number in range(12)])
            async with load.running():
                slot = engine.layout.slots[engine.layout.shard_of(b"{t}")]
                await asyncio.to_thread(move_a_part_and_back, slot)
            assert Why.MOVING in load.refused
            await load.prove()

    run(look())


def test_a_record_that_no_server_has_counts_as_gone(six: ClusterOfSix) -> None:
    async def look() -> None:
        for server in six.primaries():
            server.ask("FLUSHALL")
        async with opened(six.url, 2.0) as engine:
            names = [b"{t}%d" % number for number in range(3)]
            for name in names:
                await done(engine, Set(name, b"v"))
            shard = engine.layout.shard_of(b"{t}")
            holder = Move(six, engine.layout.slots[shard]).source
            for name in names:
                assert holder.ask("DEL", engine.layout.records[shard] + name) == 1
            assert [name for name, _ in (await engine.scan()).entries] == []
            assert not (await done(engine, Set(names[0], b"new")))[0].existed
            assert not (await done(engine, Delete(names[1])))[0].existed
            assert not (await done(engine, Set(names[2], b"new", condition=NEW)))[0].existed
            assert [name for name, _ in (await engine.scan()).entries] == [names[0], names[2]]

    run(look())


# Under load


def keys_of(engine: ValkeyEngine, slots: list[int], number: int) -> list[bytes]:
    """Return so many keys of each shard whose slot is among some."""
    layout = engine.layout
    names: dict[int, list[bytes]] = {s: [] for s in range(64) if layout.slots[s] in slots}
    for count in itertools.count():
        found = names.get(layout.shard_of(key := b"key %d" % count), [])
        found += [key] if len(found) < number else []
        if all(len(some) == number for some in names.values()):
            return list(itertools.chain(*names.values()))
    raise AssertionError


def kill_between(source: Server, target: Server, slot: int) -> None:
    """Have slots moved, and kill what moves them when it has moved a part of one."""
    while True:
        process = reshard(source, target, SLOTS)
        while process.poll() is None and not target.ask("CLUSTER", "COUNTKEYSINSLOT", str(slot)):
            pass
        process.kill()
        output, _ = process.communicate()
        if process.returncode < 0:
            break
        # The servers did not agree yet on what was repaired.
        assert b"fix your cluster problems" in output
        fix(source)
    assert source.ask("CLUSTER", "COUNTKEYSINSLOT", str(slot)) > 0


@pytest.mark.skipif(not CLI, reason="neither valkey-cli nor redis-cli is installed")
@pytest.mark.parametrize(
    "killed",
    [
        pytest.param(False, id="whole"),
        pytest.param(
            True, id="killed in between", marks=[pytest.mark.slow, pytest.mark.timeout(300)]
        ),
    ],
)
def test_a_reshard_there_and_back_under_load_breaks_nothing(
    six: ClusterOfSix, killed: bool
) -> None:
    def there_and_back(slots: list[int]) -> None:
        one, other, _ = six.primaries()
        for source, target in ((one, other), (other, one)):
            for slot in slots if killed else []:
                kill_between(source, target, slot)
                time.sleep(1.0)  # the slot is open for longer than anything is waited for
                fix(source)
            finish_reshard(source, target, SLOTS)

    async def look() -> None:
        for server in six.primaries():
            server.ask("FLUSHALL")
        async with impatient(six.url) as engine:
            slots = [slot for slot in engine.layout.slots if slot < SLOTS]
            load = Load(engine, keys_of(engine, slots, 12))
            async with load.running():
                await asyncio.to_thread(there_and_back, slots)
            await load.prove()
            print(load.done, load.refused)
            assert load.done > 1000
            assert (Why.MOVING in load.refused) == killed

    run(look())


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not CLI, reason="neither valkey-cli nor redis-cli is installed")
# The last writes before the kill are lost where the replica is behind, as it is on a busy machine:
# this is of the long part, `make test-valkey`, which runs it alone.
@pytest.mark.skipif(rounds(1) < 2, reason="needs a machine to itself: make test-valkey")
@pytest.mark.parametrize("victim", ["source", "target"])
@pytest.mark.parametrize("order", [state_first, records_first])
def test_a_primary_that_dies_in_the_middle_of_a_move_breaks_nothing(
    victim: str, order: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Its replica has all of it and takes over; then the move is brought to its end."""
    six = ClusterOfSix()

    def move_and_kill(slot: int) -> None:
        move = Move(six, slot)
        move.begin()
        keys = order(move.keys())
        for key in keys[: len(keys) // 2]:
            move.carry(key)
            time.sleep(0.01)
        time.sleep(1.0)  # so that replicas have it too
        dead = {"source": move.source, "target": move.target}[victim]
        dead.kill()
        until(lambda: len(six.primaries()) == 3, "another primary")
        dead.start()
        until(lambda: not is_primary(dead), "a replica")
        fix(six.primaries()[0])
        until(lambda: settled(six), "a cluster that agrees")

    async def look() -> None:
        async with opened(six.url, 1.0) as engine:
            slot = engine.layout.slots[0]
            load = Load(engine, keys_of(engine, [slot], 20))
            async with load.running():
                await asyncio.sleep(0.5)
                await asyncio.to_thread(move_and_kill, slot)
                await asyncio.sleep(0.5)
            assert load.done > 500
            await load.prove()

    try:
        run(look())
    finally:
        for one in six.everybody():
            one.remove()


def settled(six: ClusterOfSix) -> bool:
    """Tell whether no slot is open at any primary."""
    return not any(b"[" in server.ask("CLUSTER", "NODES") for server in six.primaries())
