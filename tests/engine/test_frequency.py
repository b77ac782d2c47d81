"""The shared file of frequency and ghosts, by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from keyrack.engines.contract import Record
from keyrack.engines.embedded.eviction.frequency import (
    FILE,
    MOST_ACCESSES,
    AccessFrequency,
    size_for,
    slots,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 8 << 20
HELD = 80


@pytest.fixture
def frequency(shm: Path) -> Iterator[AccessFrequency]:
    one = AccessFrequency(str(shm), LIMIT)
    yield one
    one.close()


def level(frequency: AccessFrequency, key: bytes) -> int:
    return frequency.counts[crc32(key) & frequency.mask]


def forget(frequency: AccessFrequency, keys: int) -> None:
    """Evict so many others."""
    for number in range(keys):
        frequency.add_ghosts([b"other %d" % number], HELD)


def test_a_found_key_is_counted_up_to_a_bound(frequency: AccessFrequency) -> None:
    record = Record(b"v", "text/plain", 1)
    get = frequency.counting(lambda key: record if key == b"there" else None)
    seen = []
    for _ in range(MOST_ACCESSES + 2):
        assert get(b"there") is record
        assert get(b"missing") is None
        seen.append(level(frequency, b"there"))
    assert seen == [1, 2, 3, 3, 3]
    assert level(frequency, b"missing") == 0


def test_use_by_a_write_counts_up_to_the_same_bound(frequency: AccessFrequency) -> None:
    for _ in range(MOST_ACCESSES + 2):
        frequency.record_access(b"k")
    assert level(frequency, b"k") == MOST_ACCESSES


def test_a_new_key_is_not_counted_as_used_and_one_that_was_evicted_lately_is(
    frequency: AccessFrequency,
) -> None:
    frequency.note_new(b"new")
    assert level(frequency, b"new") == 0
    frequency.add_ghosts([b"back"], HELD)
    frequency.note_new(b"back")
    assert level(frequency, b"back") == 1


def test_every_key_can_come_back_counted_at_once(frequency: AccessFrequency) -> None:
    """In each generation, also the first: no fingerprint and no generation stands for nothing."""
    for number in range(400):
        key = b"%d" % number
        frequency.add_ghosts([key], HELD)
        before = level(frequency, key)
        frequency.note_new(key)
        assert level(frequency, key) == min(before + 1, MOST_ACCESSES), number


def test_ghosts_last_while_as_many_keys_are_evicted_as_the_store_holds(
    frequency: AccessFrequency,
) -> None:
    frequency.add_ghosts([b"early"], HELD)
    frequency.add_ghosts([b"late"], HELD)
    forget(frequency, HELD * 6 // 8)
    frequency.note_new(b"early")
    assert level(frequency, b"early") == 1
    forget(frequency, HELD * 4 // 8)
    frequency.note_new(b"late")
    assert level(frequency, b"late") == 0


def test_processes_share_counts_ghosts_and_the_hand(frequency: AccessFrequency, shm: Path) -> None:
    other = AccessFrequency(str(shm), LIMIT)
    frequency.record_access(b"k")
    frequency.add_ghosts([b"ghost"], HELD)
    frequency.main_hand = b"here\x00\xff"
    other.note_new(b"ghost")
    assert (level(other, b"k"), level(frequency, b"ghost"), other.main_hand) == (
        1,
        1,
        b"here\x00\xff",
    )
    other.close()


@pytest.mark.parametrize("key", [b"", b"k", b"x" * 511])
def test_the_hand_can_stand_at_any_key(frequency: AccessFrequency, key: bytes) -> None:
    frequency.main_hand = b"longer than some"
    frequency.main_hand = key
    assert frequency.main_hand == key


def test_the_file_takes_a_sixty_fourth_of_the_memory_at_most_and_all_of_it_is_backed(
    shm: Path,
) -> None:
    for limit in (LIMIT, LIMIT + 1, 100 << 20):
        frequency = AccessFrequency(str(shm), limit)
        taken = (shm / FILE).stat()
        assert taken.st_blocks * 512 == taken.st_size == size_for(limit) <= limit // 64 + 4096
        assert limit // 256 < slots(limit) <= limit // 128
        frequency.close()


def test_a_file_of_another_limit_is_made_anew_and_who_has_it_open_keeps_it(
    frequency: AccessFrequency, shm: Path
) -> None:
    frequency.record_access(b"k")
    other = AccessFrequency(str(shm), 4 * LIMIT)
    assert level(other, b"k") == 0
    assert level(frequency, b"k") == 1
    other.close()
