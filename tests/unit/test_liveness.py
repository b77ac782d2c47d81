"""Who is silent, as another process sees it."""

from __future__ import annotations

import pytest

from keyrack.server.liveness import Heartbeat, Liveness
from keyrack.shared.counters import Counters


def test_a_process_is_silent_for_as_long_as_its_sign_stays_the_same() -> None:
    liveness = Liveness(2)
    liveness.look((1, 1), now=100.0)
    liveness.look((1, 2), now=100.5)
    liveness.look((1, 3), now=101.0)
    assert liveness.seconds == [1.0, 0.0]
    liveness.look((2, 3), now=101.5)
    assert liveness.seconds == [0.0, 0.5]


def test_time_in_which_nobody_looked_is_nobody_s_silence() -> None:
    """The machine slept, or the one who looks was stopped itself."""
    liveness = Liveness(1)
    liveness.look((1,), now=100.0)
    liveness.look((1,), now=5000.0)
    assert liveness.seconds == [1.0]
    liveness.look((1,), now=5000.5)
    assert liveness.seconds == [1.5]


def test_a_new_process_is_not_blamed_for_the_one_before() -> None:
    liveness = Liveness(1)
    for now in range(10):
        liveness.look((1,), now=float(now))
    assert liveness.seconds == [9.0]
    liveness.forgive(0, 5.0)
    assert liveness.seconds == [5.0]
    liveness.forgive(0)
    assert liveness.seconds == [0.0]


@pytest.fixture
def heartbeat(monkeypatch: pytest.MonkeyPatch) -> tuple[Counters, Heartbeat]:
    counters = Counters.create(2)
    counters.set_ready(1)
    clock = iter(range(1000))
    monkeypatch.setattr("keyrack.server.liveness.time.monotonic", lambda: next(clock) / 2)
    return counters, Heartbeat(counters, 0, limit=3.0)


def test_a_service_in_which_all_give_signs_has_no_trouble(
    heartbeat: tuple[Counters, Heartbeat],
) -> None:
    counters, mine = heartbeat
    for _ in range(50):
        counters.beats.give(1)
        counters.beats.give_as_supervisor()
        mine.beat()
        assert mine.trouble == ""


def test_a_supervisor_that_gives_no_sign_is_trouble_until_it_does(
    heartbeat: tuple[Counters, Heartbeat],
) -> None:
    counters, mine = heartbeat
    for _ in range(10):
        counters.beats.give(1)
        mine.beat()
    assert mine.trouble == "the supervisor has given no sign of life for 4 s"
    counters.beats.give_as_supervisor()
    mine.beat()
    assert mine.trouble == ""


def test_a_silent_worker_is_trouble_when_the_supervisor_has_not_replaced_it(
    heartbeat: tuple[Counters, Heartbeat],
) -> None:
    counters, mine = heartbeat
    for number in range(17):
        counters.beats.give_as_supervisor()
        mine.beat()
        assert (mine.trouble != "") == (number > 14), number
    assert mine.trouble == "worker 1 has given no sign of life for 8 s"
    counters.clear_ready(1)
    mine.beat()
    assert mine.trouble == ""


def test_without_a_limit_nobody_is_watched(heartbeat: tuple[Counters, Heartbeat]) -> None:
    counters, _ = heartbeat
    unlimited = Heartbeat(counters, 0, limit=0.0)
    for _ in range(100):
        unlimited.beat()
    assert unlimited.trouble == ""
