"""How many requests are let through, over several workers, and how many wrong log-ins."""

from __future__ import annotations

import os

from keyrack.access.model import Rate
from keyrack.access.rates import MOST_FAILURES, Failures, Meters, slot_of

RATE = Rate(10, 20)
_SECOND = 1_000_000_000


def let_through(meters: Meters, asked: int, now: float, rate: Rate = RATE, slot: int = 1) -> int:
    return sum(meters.take(slot, rate, round(now * _SECOND)).allowed for _ in range(asked))


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    meters = Meters(1)
    assert let_through(meters, 100, 5.0) == 20
    assert let_through(meters, 100, 6.0) == 10
    assert let_through(meters, 100, 1000.0) == 20


def test_a_refused_request_says_when_the_next_is_let_through() -> None:
    meters = Meters(1)
    let_through(meters, 100, 5.0)
    verdict = meters.take(1, RATE, 5 * _SECOND)
    assert (verdict.allowed, verdict.left) == (False, 0)
    assert let_through(meters, 1, 5 + verdict.wait - 0.001) == 0
    assert let_through(meters, 1, 5 + verdict.wait + 0.001) == 1


def test_an_answer_can_say_how_many_more_are_let_through() -> None:
    meters = Meters(1)
    assert [meters.take(1, RATE, _SECOND).left for _ in range(20)] == list(range(19, -1, -1))


def test_a_thousand_requests_a_second_get_the_rate_in_the_long_run() -> None:
    meters = Meters(1)
    assert 119 <= sum(let_through(meters, 1, 5 + n / 1000) for n in range(10_000)) <= 121


def test_processes_share_what_is_used() -> None:
    meters = Meters(2)
    if (child := os.fork()) == 0:
        os._exit(let_through(meters, 15, 5.0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 15
    assert let_through(meters, 100, 5.0) == 5


def test_tokens_do_not_use_up_each_other_s_rates() -> None:
    assert slot_of("a") != slot_of("b")
    meters = Meters(1)
    let_through(meters, 100, 5.0, slot=slot_of("a"))
    assert let_through(meters, 100, 5.0, slot=slot_of("b")) == 20


def test_a_raised_rate_counts_once_the_earlier_burst_is_over() -> None:
    meters = Meters(1)
    let_through(meters, 100, 5.0)
    assert let_through(meters, 1000, 7.0, Rate(1000, 1000)) == 1000


def test_less_than_one_a_second_can_be_allowed() -> None:
    meters = Meters(1)
    rate = Rate(1 / 60, 1)
    assert let_through(meters, 5, 100.0, rate) == 1
    assert let_through(meters, 5, 159.0, rate) == 0
    assert let_through(meters, 5, 161.0, rate) == 1


def test_the_watches_of_a_worker_that_ended_are_taken_back() -> None:
    meters = Meters(2)
    for worker in (0, 1, 1):
        meters.hold(7, worker, 1)
    assert meters.held(7) == 3
    meters.hold(7, 1, -1)
    assert meters.held(7) == 2
    meters.release(1)
    assert meters.held(7) == 1


def test_an_address_that_guesses_is_not_looked_at_until_the_next_second() -> None:
    failures = Failures()
    for _ in range(MOST_FAILURES):
        assert not failures.too_many("a", 5.0)
        failures.note("a", 5.0)
    assert failures.too_many("a", 5.9)
    assert not failures.too_many("b", 5.9)
    assert not failures.too_many("a", 6.0)


def test_the_table_of_addresses_is_bounded() -> None:
    failures = Failures()
    for number in range(10_001):
        for _ in range(MOST_FAILURES):
            failures.note(str(number), 5.0)
    assert not failures.too_many("0", 5.0)
    assert failures.too_many("1", 5.0)
    assert failures.too_many("10000", 5.0)
