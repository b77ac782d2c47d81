"""The shared counters: every word has one meaning, however many operations there are."""

from __future__ import annotations

import itertools

import pytest

from keyrack.http.api.counting import (
    LAYERS,
    OPERATIONS,
    REQUEST_WORDS,
    RequestWords,
    denied_word,
    request_word,
)
from keyrack.http.api.routes import ROUTES
from keyrack.http.api.statuses import STATUS_LINES, STATUSES
from keyrack.http.problems import KINDS
from keyrack.shared import counters
from keyrack.shared.counters import (
    BUCKETS,
    DEATHS,
    DURATIONS,
    LANES,
    REQUESTS,
    SIZE_BUCKETS,
    Counters,
    duration_word,
    latency_word,
    size_bound,
    size_bucket,
    size_word,
)

SERVICE = (
    "_DRAINING", "_SUPERVISOR_BEATS", "_SHARED", "_LAST_SNAPSHOT", "_SNAPSHOTS_FAILED",
    "_SNAPSHOTS_WANTED", "_SNAPSHOTS_ANSWERED", "_SNAPSHOTS_TAKEN",
    "_LEAVING", "_CERTIFICATE", "_LOG_DROPPED", "_STARTED", "_CERTIFICATE_ENDS", "_DEATHS",
)  # fmt: skip
SIZES = (
    "_HEADER", "BUCKETS", "REQUESTS", "_LATENCY", "_LATENCY_WORDS", "_CACHE_LINE", "_SIZES",
    "SIZE_BUCKETS", "_SIZE_WORDS", "_LEAST_SIZE_BITS",
)  # fmt: skip


def named_words() -> dict[str, int]:
    """The numbers in the module: words of the service and words of a worker."""
    return {
        name: number
        for name, number in vars(counters).items()
        if name.isupper() and type(number) is int and name not in SIZES
    }


def words_of_a_worker(requests: RequestWords, operations: tuple[str, ...]) -> list[int]:
    named = [word for name, word in named_words().items() if name not in SERVICE]
    firsts = [*map(latency_word, LANES), *map(duration_word, DURATIONS)]
    histograms = [first + n for first in firsts for n in range(BUCKETS + 1)]
    histograms += range(size_word(), size_word() + SIZE_BUCKETS + 1)
    pairs = itertools.product(operations, STATUSES)
    denied = [requests.denied(operation) for operation in operations]
    return named + histograms + denied + [requests.word(*pair) for pair in pairs]


def test_no_two_words_of_the_service_are_the_same_and_all_are_in_front_of_the_workers() -> None:
    words = [named_words()[name] for name in SERVICE]
    words += [named_words()["_DEATHS"] + n for n in range(1, len(DEATHS))]
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
    assert {*ROUTES, *LAYERS, "other"} == set(OPERATIONS)
    answered = {answer.status for route in ROUTES.values() for answer in route.answers}
    assert set(STATUSES) == answered | {kind.status for kind in KINDS.values()}
    words = {request_word(*pair) for pair in itertools.product(OPERATIONS, STATUSES)}
    words |= set(map(denied_word, OPERATIONS))
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


@pytest.mark.parametrize("size", [0, 1, 64, 65, 128, 129, 4096, 4097, 1 << 20, (1 << 20) + 1])
def test_a_size_is_counted_in_the_first_bucket_that_takes_it(size: int) -> None:
    index = size_bucket(size)
    assert index == SIZE_BUCKETS - 1 or size <= size_bound(index)
    assert index == 0 or size > size_bound(index - 1)


def test_the_sizes_reach_from_64_bytes_to_a_mebibyte() -> None:
    assert (size_bound(0), size_bound(SIZE_BUCKETS - 2)) == (64, 1 << 20)


def test_deaths_are_counted_by_their_reasons() -> None:
    made = Counters.create(1)
    made.deaths.count("killed")
    made.deaths.count("killed")
    made.deaths.count("stuck")
    assert made.deaths.by_reason == {"ended": 0, "failed": 0, "killed": 2, "stuck": 1}
