"""The shared counters: every word has one meaning, however many operations there are."""

from __future__ import annotations

import itertools

import pytest

from keyrack.http.api.counting import OPERATIONS, REQUEST_WORDS, RequestWords, request_word
from keyrack.http.api.routes import ROUTES
from keyrack.http.api.statuses import STATUS_LINES, STATUSES
from keyrack.http.problems import KINDS
from keyrack.shared import counters
from keyrack.shared.counters import BUCKETS, LANES, REQUESTS, Counters, latency_word

SERVICE = (
    "_DRAINING", "_SUPERVISOR_BEATS", "_SHARED", "_LAST_SNAPSHOT", "_SNAPSHOTS_FAILED",
    "_SNAPSHOTS_WANTED", "_SNAPSHOTS_ANSWERED", "_SNAPSHOTS_TAKEN",
    "_LEAVING", "_CERTIFICATE", "_LOG_DROPPED", "_STARTED", "_CERTIFICATE_ENDS",
)  # fmt: skip
SIZES = ("_HEADER", "BUCKETS", "REQUESTS", "_LATENCY", "_LATENCY_WORDS", "_CACHE_LINE")


def named_words() -> dict[str, int]:
    """The numbers in the module: words of the service and words of a worker."""
    return {
        name: number
        for name, number in vars(counters).items()
        if name.isupper() and type(number) is int and name not in SIZES
    }


def words_of_a_worker(requests: RequestWords, operations: tuple[str, ...]) -> list[int]:
    named = [word for name, word in named_words().items() if name not in SERVICE]
    latency = [latency_word(lane) + n for lane in LANES for n in range(BUCKETS + 1)]
    pairs = itertools.product(operations, STATUSES)
    return named + latency + [requests.word(*pair) for pair in pairs]


def test_no_two_words_of_the_service_are_the_same_and_all_are_in_front_of_the_workers() -> None:
    words = [named_words()[name] for name in SERVICE]
    assert len(set(words)) == len(words)
    assert max(words) < counters._HEADER


@pytest.mark.parametrize("more", [0, 40])
def test_no_two_words_of_a_worker_are_the_same_and_all_are_in_its_slot(more: int) -> None:
    operations = (*OPERATIONS, *(f"new_{number}" for number in range(more)))
    requests = RequestWords(operations, STATUSES)
    words = words_of_a_worker(requests, operations)
    made = Counters.create(2, requests.number)
    for word in words:
        made.slot(0)[word] += 1
    assert set(made.slot(1)) == {0}
    assert [made.total(word) for word in words] == [1] * len(words)


def test_requests_are_counted_for_each_operation_and_status_of_the_tables() -> None:
    assert {*ROUTES, "other"} == set(OPERATIONS)
    answered = {answer.status for route in ROUTES.values() for answer in route.answers}
    assert set(STATUSES) == answered | {kind.status for kind in KINDS.values()}
    words = {request_word(*pair) for pair in itertools.product(OPERATIONS, STATUSES)}
    assert words == set(range(REQUESTS, REQUESTS + REQUEST_WORDS.number))


def test_a_status_that_is_in_no_table_is_counted_as_a_defect() -> None:
    assert request_word("get", 299) == request_word("get", 500)


def test_workers_write_to_cache_lines_of_their_own() -> None:
    made = Counters.create(3, 5)
    assert len(made.slot(0)) % 8 == 0
    assert counters._HEADER % 8 == 0


def test_a_status_line_has_the_phrase_of_rfc_9110() -> None:
    assert set(STATUS_LINES) == set(STATUSES)
    assert STATUS_LINES[200] == b"HTTP/1.1 200 OK\r\n"
    assert STATUS_LINES[413] == b"HTTP/1.1 413 Content Too Large\r\n"
    assert STATUS_LINES[507] == b"HTTP/1.1 507 Insufficient Storage\r\n"
