"""When a connection is one too many."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from keyrack.server.connection_limit import ConnectionLimit, most_connections
from keyrack.shared.counters import OPEN_CONNECTIONS, TURNED_AWAY, Counters

if TYPE_CHECKING:
    import pytest


def test_the_limit_of_open_files_leaves_room_for_the_worker_s_own() -> None:
    assert most_connections(1024, workers=4, listeners=2) == 970
    assert most_connections(16, workers=4, listeners=2) == 8


def test_a_worker_turns_away_what_it_cannot_hold_itself() -> None:
    counters = Counters.create(2)
    limit = ConnectionLimit(counters, 0, None, most_here=10)
    counters.slot(0)[OPEN_CONNECTIONS] = 10
    assert not limit.turns_away()
    counters.slot(0)[OPEN_CONNECTIONS] = 11
    assert limit.turns_away()
    assert counters.total(TURNED_AWAY) == 1


def test_the_service_s_limit_counts_the_connections_of_all_workers() -> None:
    counters = Counters.create(2)
    limit = ConnectionLimit(counters, 0, 10, most_here=1000)
    counters.slot(0)[OPEN_CONNECTIONS] = 1
    counters.slot(1)[OPEN_CONNECTIONS] = 9
    assert not limit.turns_away()
    counters.slot(1)[OPEN_CONNECTIONS] = 10
    assert limit.turns_away()


def test_the_log_has_a_line_in_ten_seconds_however_many_are_turned_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr("keyrack.server.connection_limit.time.monotonic", lambda: now)
    counters = Counters.create(1)
    limit = ConnectionLimit(counters, 0, 0, most_here=5)
    with caplog.at_level(logging.WARNING, "keyrack.connections"):
        for tick in range(60):
            now = 100.0 + tick / 2
            for _ in range(100):
                counters.slot(0)[OPEN_CONNECTIONS] = 1
                assert limit.turns_away()
            limit.tell()
    assert [record.getMessage().split()[0] for record in caplog.records] == ["100", "2000", "2000"]
