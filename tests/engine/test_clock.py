"""The store's clock: the same for every process, and moved by no clock setting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from engine_support.driven import embedded
from engine_support.world import put, value_of

from keyrack.engines.embedded import clock
from keyrack.engines.embedded.clock import Anchor
from keyrack.engines.embedded.shared_words import open_words

if TYPE_CHECKING:
    from pathlib import Path

    from engine_support.world import EmbeddedWorld

HOUR_NS = 3600 * 10**9
YEAR_NS = 365 * 24 * HOUR_NS
ANOTHER_BOOT = b"00000000-1111-2222-3333-444444444444"


def set_wall_clock(monkeypatch: pytest.MonkeyPatch, difference_ns: int) -> None:
    true = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: true() + difference_ns)


def start_machine_anew(world: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has another boot, and its steady clock begins at nothing."""
    monkeypatch.setattr(clock, "boot_id", lambda: ANOTHER_BOOT)
    world.clock.ns = 5 * 10**9


def test_a_new_stores_clock_shows_wall_time(shm: Path) -> None:
    engine = embedded(str(shm), 8 << 20)
    wall, now = time.time_ns() // 10**6, engine.now()
    engine.close()
    assert wall - 1000 < now < wall + 1000


def test_a_new_stores_revision_begins_at_the_wall_clocks_microseconds(shm: Path) -> None:
    before = time.time_ns() // 1000
    engine = embedded(str(shm), 8 << 20)
    revision = engine.usage().revision
    engine.close()
    assert before <= revision <= time.time_ns() // 1000


@pytest.mark.parametrize("difference", [YEAR_NS, -HOUR_NS])
def test_setting_the_wall_clock_moves_no_ttl(
    embedded: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch, difference: int
) -> None:
    put(embedded.engine, b"k", ttl_ms=100)
    before = embedded.engine.now()
    set_wall_clock(monkeypatch, difference)
    assert embedded.engine.now() == before
    embedded.clock.advance(99)
    assert value_of(embedded.engine, b"k") == b"v"
    embedded.clock.advance(1)
    assert embedded.engine.get(b"k") is None


@pytest.mark.parametrize("difference", [YEAR_NS, -HOUR_NS])
def test_an_engine_opened_after_the_wall_clock_was_set_shows_the_same_time(
    embedded: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch, difference: int
) -> None:
    before = embedded.engine.now()
    set_wall_clock(monkeypatch, difference)
    embedded.clock.advance(10)
    embedded.restart()
    assert embedded.engine.now() == before + 10


def test_the_steady_clock_is_the_one_that_no_setting_moves() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before <= clock.steady_ns() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_after_a_start_of_the_machine_the_clock_follows_the_wall_again(
    embedded: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(embedded.engine, b"k", ttl_ms=2 * 3_600_000)
    set_wall_clock(monkeypatch, HOUR_NS)
    start_machine_anew(embedded, monkeypatch)
    embedded.restart()
    wall = time.time_ns() // 10**6
    assert wall - 1000 < embedded.engine.now() <= wall
    assert value_of(embedded.engine, b"k") == b"v"
    embedded.clock.advance(3_600_000)
    assert embedded.engine.get(b"k") is None


def test_after_a_start_of_the_machine_the_clock_never_goes_back(
    embedded: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock starts wrong must not let a key live twice."""
    embedded.clock.advance(1000)
    put(embedded.engine, b"k")
    (last,) = embedded.engine.events()
    set_wall_clock(monkeypatch, -YEAR_NS)
    start_machine_anew(embedded, monkeypatch)
    embedded.restart()
    assert embedded.engine.now() == last.time
    embedded.clock.advance(3)
    embedded.restart()
    assert embedded.engine.now() == last.time + 3


def test_after_a_start_of_the_machine_expired_keys_are_swept(
    embedded: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever swept before is gone with the machine; so is what it said on its steady clock."""
    put(embedded.engine, b"k", ttl_ms=5)
    words = open_words(str(embedded.directory))
    words.sweeper, words.sweep_until = 1, embedded.clock.ns + 200_000_000
    set_wall_clock(monkeypatch, HOUR_NS)
    start_machine_anew(embedded, monkeypatch)
    embedded.restart()
    embedded.clock.advance(1000)
    assert embedded.engine.expire(10).expired == 1


def test_an_anchor_is_stored_in_a_form_that_never_changes() -> None:
    anchor = Anchor(1, 2, ANOTHER_BOOT)
    assert anchor.pack() == bytes(7) + b"\x01" + bytes(7) + b"\x02" + ANOTHER_BOOT
    again = Anchor.unpack(anchor.pack())
    assert (again.wall_ms, again.steady_ns, again.boot) == (1, 2, ANOTHER_BOOT)


def test_the_boot_id_has_always_the_same_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(clock.boot_id()) == 36
    monkeypatch.setattr(clock, "_BOOT_ID", tmp_path / "missing")
    assert clock.boot_id() == bytes(36)
