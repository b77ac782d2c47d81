"""Whoever knows a revision whose change was lost is not told that nothing is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.kept import KeptStore
from engine_support.world import put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def knows_all_after(store: KeptStore, position: int) -> bool:
    """Tell whether a watcher that knows of a position can go on from there."""
    oldest, newest = store.engine.log.history(position)
    return oldest <= position <= newest


def write(store: KeptStore, key: bytes) -> int:
    revision = put(store.engine, key).revision
    if store.strict:
        assert store.sync()
    return revision


@pytest.fixture(params=[True, False], ids=["commit", "snapshot"])
def kept(request: pytest.FixtureRequest, shm: Path, tmp_path: Path) -> Iterator[KeptStore]:
    store = KeptStore(shm, tmp_path, strict=request.param)
    yield store
    assert store.engine.check() == []
    store.close()


def take_at_the_end(store: KeptStore) -> None:
    """End in order, as a service does."""
    if not store.strict:
        store.take()


def end_in_order(store: KeptStore) -> None:
    take_at_the_end(store)
    store.restart()


def end_in_order_without_memory(store: KeptStore) -> None:
    take_at_the_end(store)
    store.lose_memory()


WITHOUT_LOSS: list[Callable[[KeptStore], None]] = [
    KeptStore.restart,
    end_in_order,
    end_in_order_without_memory,
]


@pytest.mark.parametrize("end", WITHOUT_LOSS)
def test_where_nothing_was_lost_every_position_goes_on(
    kept: KeptStore, end: Callable[[KeptStore], None]
) -> None:
    positions = [kept.engine.log.history()[1]]
    for life in range(3):
        positions += [write(kept, b"%d/%d" % (life, n)) for n in range(3)]
        end(kept)
        positions.append(kept.engine.log.history()[1])
        assert [p for p in positions if not knows_all_after(kept, p)] == []
    assert [event.revision for event in kept.engine.events(positions[1])][-1] == positions[-2]


def test_an_idle_service_that_is_restarted_twice_resets_nobody(kept: KeptStore) -> None:
    write(kept, b"k")
    positions = []
    for _ in range(3):
        kept.restart()
        positions.append(kept.engine.log.history()[1])
    assert all(knows_all_after(kept, position) for position in positions)


def test_positions_before_in_and_after_what_was_lost(shm: Path, tmp_path: Path) -> None:
    store = KeptStore(shm, tmp_path)
    before = [write(store, b"kept/%d" % n) for n in range(3)]
    store.take()
    lost = [write(store, b"lost/%d" % n) for n in range(3)]
    store.lose_memory()
    for _ in range(3):
        after = [store.engine.log.history()[1]]
        after += [write(store, b"later/%d" % n) for n in range(3)]
        assert [knows_all_after(store, position) for position in before] == [True] * 3
        assert [knows_all_after(store, position) for position in lost] == [False] * 3
        assert [knows_all_after(store, position) for position in after] == [True] * 4
        assert not knows_all_after(store, after[-1] + 1)
        # It is known in later lives as well, however those begin.
        store.take()
        store.lose_memory()
    store.close()


def test_what_was_lost_before_anything_is_written_is_known_too(shm: Path, tmp_path: Path) -> None:
    store = KeptStore(shm, tmp_path)
    kept = write(store, b"kept")
    store.take()
    lost = write(store, b"lost")
    store.lose_memory()
    assert knows_all_after(store, kept)
    assert not knows_all_after(store, lost)
    store.close()


def test_a_revision_of_a_life_with_a_clock_that_was_ahead_does_not_come_again(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all of that life was lost, and with it the revisions that it gave."""
    import time

    write(kept, b"k")
    if not kept.strict:
        kept.take()
    now, year = time.time_ns(), 365 * 86400 * 10**9
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now + year)
        kept.lose_memory()
        seen = [put(kept.engine, b"k").revision for _ in range(3)]
    assert seen[0] > (now + year) // 1000
    for _ in range(3):
        kept.lose_memory()
        revision = put(kept.engine, b"k").revision
        assert revision > max(seen)
        seen.append(revision)
