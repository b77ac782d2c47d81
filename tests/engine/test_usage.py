"""How full the embedded engine says it is, against what the system says."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from engine_support.world import MIB, EmbeddedWorld, attempt, blocks, drop, history, put

from keyrack.engines.contract import Refusal, Set

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
SMALL_FILES = 20 * PAGE


def test_an_empty_store_counts_nothing(embedded: EmbeddedWorld) -> None:
    usage = embedded.engine.usage()
    assert (usage.keys, usage.keys_with_ttl, usage.events) == (0, 0, 0)
    assert usage.used < SMALL_FILES + 16 * PAGE


def test_keys_events_and_revision_are_counted(embedded: EmbeddedWorld) -> None:
    put(embedded.engine, b"a")
    put(embedded.engine, b"b", ttl_ms=1000)
    put(embedded.engine, b"c", ttl_ms=1000)
    last = drop(embedded.engine, b"c").revision
    usage = embedded.engine.usage()
    assert (usage.keys, usage.keys_with_ttl, usage.revision) == (2, 1, last)
    assert usage.events == len(history(embedded.engine)) == 4


def test_used_and_free_are_the_limit_which_the_given_memory_bounds(
    embedded: EmbeddedWorld,
) -> None:
    put(embedded.engine, b"k", b"x" * MIB)
    usage = embedded.engine.usage()
    assert usage.used + usage.free == usage.limit == embedded.memory


def test_what_was_freed_is_reclaimable_and_used_again_first(embedded: EmbeddedWorld) -> None:
    put(embedded.engine, b"k", b"x" * MIB)
    put(embedded.engine, b"other", b"x")
    assert embedded.engine.usage().reclaimable < 16 * PAGE
    drop(embedded.engine, b"k")
    freed = embedded.engine.usage()
    assert MIB < freed.reclaimable < MIB + 32 * PAGE
    assert freed.reclaimable <= freed.free
    put(embedded.engine, b"other", b"y")
    put(embedded.engine, b"k", b"x" * MIB)
    again = embedded.engine.usage()
    assert again.reclaimable < 64 * PAGE
    assert again.reserved < freed.reserved + MIB + 64 * PAGE  # two commits see no freed page


def test_used_grows_and_shrinks_with_what_is_stored(embedded: EmbeddedWorld) -> None:
    before = embedded.engine.usage().used
    put(embedded.engine, b"k", b"x" * MIB)
    full = embedded.engine.usage().used
    assert before + MIB < full < before + MIB + 16 * PAGE
    drop(embedded.engine, b"k")
    assert embedded.engine.usage().used < before + 16 * PAGE


def test_reserved_is_what_the_file_really_takes(embedded: EmbeddedWorld) -> None:
    """Within four pages, at every size; and it covers what is used."""
    for number in range(20):
        put(embedded.engine, b"%d" % number, b"x" * MIB)
        usage = embedded.engine.usage()
        assert 0 <= usage.reserved - blocks(embedded.directory) <= 4 * PAGE
        assert usage.used <= usage.reserved <= usage.limit


def test_a_value_above_two_kib_takes_whole_pages_of_its_own(embedded: EmbeddedWorld) -> None:
    """The known price: what the documentation says about sizes."""
    engine = embedded.engine
    engine.write([(Set(b"%05d" % i, b"x" * 3000),) for i in range(1000)])
    assert 1000 * PAGE < engine.usage().used < 1100 * PAGE


def test_a_hundred_thousand_small_keys_take_about_as_much_as_promised(shm: Path) -> None:
    """99 bytes a key of 16 bytes with a value of 32, with a tenth of room for the log's."""
    world = EmbeddedWorld(shm, events=1)
    for start in range(0, 100_000, 1000):
        some = range(start, start + 1000)
        world.engine.write([(Set(b"user:%011d" % i, b"v" * 32),) for i in some])
        world.engine.trim(1000)
    used = world.engine.usage().used
    world.close()
    assert used < 110 * 100_000


def test_keys_that_come_in_about_their_order_fill_their_leaves(shm: Path) -> None:
    """As many clients send them, a commit has them in any order, and each commit greater ones.

    73 bytes a key of 16 bytes with a value of 32, and 110 where each commit splits leaves in two.
    """
    world, chance = EmbeddedWorld(shm, events=1), random.Random(1)
    for start in range(0, 100_000, 50):
        some = chance.sample(range(start, start + 50), 50)
        world.engine.write([(Set(b"user:%011d" % i, b"v" * 32),) for i in some])
        world.engine.trim(1000)
    used = world.engine.usage().used
    world.close()
    assert used < 80 * 100_000


@pytest.mark.parametrize("memory", [8, 64])
def test_a_full_store_has_no_more_free_than_what_is_kept(shm: Path, memory: int) -> None:
    world = EmbeddedWorld(shm, memory * MIB, events=100_000)
    number = 0
    while not isinstance(attempt(world.engine, Set(b"%08d" % number, bytes(1000))), Refusal):
        number += 1
    usage = world.engine.usage()
    assert 128 * PAGE <= usage.kept_free <= usage.free < usage.kept_free + 128 * PAGE
    world.close()
