"""The shared file of heat and ghosts, by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from keyrack.engines.contract import Record
from keyrack.engines.embedded.eviction.frequency import FILE, HOTTEST, Heat, size_for, slots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 8 << 20
HELD = 80


@pytest.fixture
def heat(shm: Path) -> Iterator[Heat]:
    one = Heat(str(shm), LIMIT)
    yield one
    one.close()


def level(heat: Heat, key: bytes) -> int:
    return heat.levels[crc32(key) & heat.mask]


def forget(heat: Heat, keys: int) -> None:
    """Evict so many others."""
    for number in range(keys):
        heat.bury([b"other %d" % number], HELD)


def test_a_found_key_gets_warmer_up_to_a_bound(heat: Heat) -> None:
    record = Record(b"v", "text/plain", 1)
    get = heat.warming(lambda key: record if key == b"there" else None)
    seen = []
    for _ in range(HOTTEST + 2):
        assert get(b"there") is record
        assert get(b"missing") is None
        seen.append(level(heat, b"there"))
    assert seen == [1, 2, 3, 3, 3]
    assert level(heat, b"missing") == 0


def test_use_by_a_write_warms_up_to_the_same_bound(heat: Heat) -> None:
    for _ in range(HOTTEST + 2):
        heat.warm(b"k")
    assert level(heat, b"k") == HOTTEST


def test_a_new_key_is_cold_and_one_that_was_evicted_lately_is_warm(heat: Heat) -> None:
    heat.welcome(b"new")
    assert level(heat, b"new") == 0
    heat.bury([b"back"], HELD)
    heat.welcome(b"back")
    assert level(heat, b"back") == 1


def test_every_key_can_come_back_warm_at_once(heat: Heat) -> None:
    """In each generation, also the first: no fingerprint and no generation stands for nothing."""
    for number in range(400):
        key = b"%d" % number
        heat.bury([key], HELD)
        before = level(heat, key)
        heat.welcome(key)
        assert level(heat, key) == min(before + 1, HOTTEST), number


def test_ghosts_last_while_as_many_keys_are_evicted_as_the_store_holds(heat: Heat) -> None:
    heat.bury([b"early"], HELD)
    heat.bury([b"late"], HELD)
    forget(heat, HELD * 6 // 8)
    heat.welcome(b"early")
    assert level(heat, b"early") == 1
    forget(heat, HELD * 4 // 8)
    heat.welcome(b"late")
    assert level(heat, b"late") == 0


def test_processes_share_heat_ghosts_and_the_hand(heat: Heat, shm: Path) -> None:
    other = Heat(str(shm), LIMIT)
    heat.warm(b"k")
    heat.bury([b"ghost"], HELD)
    heat.hand = b"here\x00\xff"
    other.welcome(b"ghost")
    assert (level(other, b"k"), level(heat, b"ghost"), other.hand) == (1, 1, b"here\x00\xff")
    other.close()


@pytest.mark.parametrize("key", [b"", b"k", b"x" * 511])
def test_the_hand_can_stand_at_any_key(heat: Heat, key: bytes) -> None:
    heat.hand = b"longer than some"
    heat.hand = key
    assert heat.hand == key


def test_the_file_takes_a_sixty_fourth_of_the_memory_at_most_and_all_of_it_is_backed(
    shm: Path,
) -> None:
    for limit in (LIMIT, LIMIT + 1, 100 << 20):
        heat = Heat(str(shm), limit)
        taken = (shm / FILE).stat()
        assert taken.st_blocks * 512 == taken.st_size == size_for(limit) <= limit // 64 + 4096
        assert limit // 256 < slots(limit) <= limit // 128
        heat.close()


def test_a_file_of_another_limit_is_made_anew_and_who_has_it_open_keeps_it(
    heat: Heat, shm: Path
) -> None:
    heat.warm(b"k")
    other = Heat(str(shm), 4 * LIMIT)
    assert level(other, b"k") == 0
    assert level(heat, b"k") == 1
    other.close()
