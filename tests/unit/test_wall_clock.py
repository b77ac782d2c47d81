"""Steps of the machine's clock are told of, and what is no step is not."""

from __future__ import annotations

import logging

import pytest

from keyrack.server.wall_clock import WallClock
from keyrack.shared.counters import CLOCK_STEPS, Counters


class Clocks:
    """A wall clock and a steady one (seconds)."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 500.0

    def pass_(self, seconds: float, step: float = 0.0) -> None:
        self.wall += seconds + step
        self.steady += seconds


@pytest.mark.parametrize(("step", "way"), [(3600.0, "forward"), (-90.0, "back")])
def test_a_step_is_told_of_once(step: float, way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clocks, words = Clocks(), Counters.create(1).slot(0)
    clock = WallClock(words, lambda: clocks.wall, lambda: clocks.steady)
    clocks.pass_(0.5, step)
    clock.look()
    clocks.pass_(0.5)
    clock.look()
    (record,) = caplog.records
    assert f"was set {way} by {abs(step):.1f} s" in record.getMessage()
    assert vars(record)["event"] == "clock_set"
    assert words[CLOCK_STEPS] == 1


def test_time_that_passes_is_no_step(caplog: pytest.LogCaptureFixture) -> None:
    clocks, words = Clocks(), Counters.create(1).slot(0)
    clock = WallClock(words, lambda: clocks.wall, lambda: clocks.steady)
    for seconds, slewed in ((0.5, 0.0003), (3600.0, -0.9), (0.5, 0.9)):
        clocks.pass_(seconds, slewed)
        clock.look()
    assert (caplog.records, words[CLOCK_STEPS]) == ([], 0)
