"""Pages are the same as those of the embedded engine, and complete whatever the shards."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from engine_support.world import MIB, EmbeddedWorld, rounds
from valkey_support.engines import done, opened, run

from keyrack.engines.contract import Set

if TYPE_CHECKING:
    from pathlib import Path

    from keyrack.engines.valkey.engine import ValkeyEngine

LETTERS = (b"a", b"b", b"/", b"//", b"\xff", b"\x00", b"{t}", b"z" * 200)
PREFIXES = (b"", b"a", b"a/", b"/", b"\xff", b"\xff\xff", b"{t}", b"zz")


def some_keys(chance: random.Random, number: int) -> list[bytes]:
    made = (b"".join(chance.choices(LETTERS, k=chance.randint(1, 6))) for _ in range(number))
    return [key for key in made if len(key) <= 511]


def asked(chance: random.Random, keys: list[bytes]) -> tuple[Any, ...]:
    after = chance.choice((None, None, b"", b"a/", b"b", chance.choice(keys)))
    delimiter = chance.choice((b"", b"", b"/", b"//", b"a", b"\xff"))
    return chance.choice(PREFIXES), after, chance.randint(1, 12), chance.random() < 0.5, delimiter


async def fill(engine: ValkeyEngine, keys: list[bytes]) -> None:
    outcomes = await engine.write([(Set(key, b"v" + key, ttl_ms=60_000),) for key in keys])
    assert all(isinstance(outcome, tuple) for outcome in outcomes)


def test_pages_of_one_shard_are_those_of_the_embedded_engine(server: str, tmp_path: Path) -> None:
    async def look() -> None:
        for seed in range(rounds(6)):
            chance = random.Random(seed)
            keys = some_keys(chance, 150)
            parent = tmp_path / str(seed)
            parent.mkdir()
            world = EmbeddedWorld(parent, 16 * MIB)
            world.engine.write([(Set(key, b"v" + key),) for key in keys])
            async with opened(f"{server}/{seed}/") as engine:
                await fill(engine, keys)
                for _ in range(150):
                    query = asked(chance, keys)
                    here, there = world.engine.scan(*query), await engine.scan(*query)
                    names = [key for key, _ in here.entries]
                    assert ([key for key, _ in there.entries], there.folders, there.next) == (
                        names,
                        here.folders,
                        here.next,
                    ), query
                    assert all(record.value == b"v" + key for key, record in there.entries)
            world.close()

    run(look())


def test_pages_of_all_shards_hold_every_key_once_and_in_order(shards: str, tmp_path: Path) -> None:
    async def look() -> None:
        chance = random.Random(3)
        keys = some_keys(chance, 400)
        world = EmbeddedWorld(tmp_path, 16 * MIB)
        world.engine.write([(Set(key, b"v" + key),) for key in keys])
        async with opened(shards) as engine:
            await fill(engine, keys)
            for _ in range(rounds(60)):
                prefix, after, limit, reverse, delimiter = asked(chance, keys)
                whole = world.engine.scan(prefix, after, 10_000, reverse, delimiter)
                entries, folders = [], []
                while True:
                    page = await engine.scan(prefix, after, limit, reverse, delimiter)
                    assert len(page.entries) + len(page.folders) <= limit
                    entries += [key for key, _ in page.entries]
                    folders += page.folders
                    if page.next is None:
                        break
                    after = page.next
                assert entries == [key for key, _ in whole.entries]
                assert folders == whole.folders
                assert await engine.count(prefix, None, 100) == world.engine.count(
                    prefix, None, 10_000
                )
        world.close()

    run(look())


def test_watching_from_a_pages_revision_misses_nothing(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            for number in range(40):
                page = await engine.scan(b"", None, 1000)
                (result,) = await done(engine, Set(b"%d" % number, b"v"))
                assert result.revision > page.revision
                told = await engine.events_after(page.revision, 10)
                assert [event.key for event in told] == [b"%d" % number]

    run(look())


def test_ended_keys_are_not_counted(anywhere: str) -> None:
    async def look() -> None:
        async with opened(anywhere) as engine:
            await fill(engine, [b"a%d" % number for number in range(30)])
            writes = [(Set(b"a-%d" % number, b"v", ttl_ms=1),) for number in range(30)]
            await engine.write(writes)
            await asyncio.sleep(0.02)
            for steps in (1, 10, 1000):
                total, after = 0, None
                while True:
                    number, after = await engine.count(b"a", after, steps)
                    total += number
                    if after is None:
                        break
                assert total == 30

    run(look())
