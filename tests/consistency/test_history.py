"""The checker itself: which histories are linearizable, and which are not."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import chain, combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.history import (
    INITIAL,
    NEVER,
    Add,
    Added,
    Delete,
    Done,
    Found,
    Get,
    Missing,
    Operation,
    Refused,
    Set,
    after,
    why_not_linearizable,
    why_not_ordered,
)

A, B, C = b"a", b"b", b"c"


def history(*operations: tuple[object, ...]) -> list[Operation]:
    return [Operation("k", *operation) for operation in operations]  # type: ignore[arg-type]


def linearizable(*operations: tuple[object, ...]) -> bool:
    return why_not_linearizable(history(*operations)) is None


# Histories that one store could have given


def test_nothing_happened() -> None:
    assert linearizable()
    assert linearizable((Get(), 0, 1, Missing()))


def test_a_read_during_a_write_may_see_either_value() -> None:
    write = (Set(A), 0, 10, Done(1))
    assert linearizable(write, (Get(), 1, 2, Missing()))
    assert linearizable(write, (Get(), 1, 2, Found(A, 1)))
    assert linearizable(write, (Get(), 1, 2, Missing()), (Get(), 3, 4, Found(A)))


def test_concurrent_writes_may_be_in_either_order() -> None:
    writes = ((Set(A), 0, 10, Done(1)), (Set(B), 0, 10, Done(2)))
    assert linearizable(*writes, (Get(), 11, 12, Found(B, 2)))


def test_a_lost_write_may_have_been_done_or_not_and_late() -> None:
    lost = (Set(B), 2, NEVER, None)
    before = (Set(A), 0, 1, Done(1))
    assert linearizable(before, lost, (Get(), 3, 4, Found(A)))
    assert linearizable(before, lost, (Get(), 3, 4, Found(B, 7)))
    assert linearizable(before, lost, (Get(), 3, 4, Found(A)), (Get(), 5, 6, Found(B, 7)))


def test_lost_additions_explain_any_sum_up_to_their_number() -> None:
    lost = [(Add(1), 0, NEVER, None)] * 40
    assert linearizable(*lost, (Add(1), 1, 2, Added(30, 5)), (Add(1), 3, 4, Added(41, 6)))


def test_a_compare_and_set_that_succeeds_and_one_that_is_refused() -> None:
    assert linearizable(
        (Set(A), 0, 1, Done(1, False)),
        (Set(B, match=1), 2, 5, Done(2, True)),
        (Set(C, match=1), 2, 5, Refused(2)),
        (Set(C, create=True), 6, 7, Refused(2)),
        (Delete(match=2), 8, 9, Done(0, True)),
        (Set(C, match=2), 10, 11, Refused(0)),
        (Delete(), 12, 13, Missing()),
        (Set(C, create=True), 14, 15, Done(9, False)),
    )


def test_a_lost_write_gets_its_revision_from_the_answer_that_shows_it() -> None:
    lost = (Set(A), 0, NEVER, None)
    assert linearizable(lost, (Set(B, match=4), 1, 2, Done(5)))
    assert linearizable(lost, (Set(B, create=True), 1, 2, Refused(4)), (Get(), 3, 4, Found(A, 4)))


def test_keys_are_independent() -> None:
    assert (
        why_not_linearizable(
            [
                Operation("one", Set(A), 0, 1, Done(1)),
                Operation("two", Get(), 2, 3, Missing()),
                Operation("one", Get(), 2, 3, Found(A, 1)),
            ]
        )
        is None
    )


# Histories that no single store could have given


def test_a_stale_read() -> None:
    assert not linearizable(
        (Set(A), 0, 1, Done(1)), (Set(B), 2, 3, Done(2)), (Get(), 4, 5, Found(A, 1))
    )


def test_a_lost_update() -> None:
    assert not linearizable((Add(1), 0, 5, Added(1, 1)), (Add(1), 0, 5, Added(1, 2)))


def test_two_compare_and_sets_on_one_revision_that_both_succeed() -> None:
    assert not linearizable(
        (Set(A), 0, 1, Done(1)),
        (Set(B, match=1), 2, 5, Done(2)),
        (Set(C, match=1), 2, 5, Done(3)),
    )


def test_an_addition_that_was_done_twice() -> None:
    assert not linearizable((Add(1), 0, 1, Added(1, 1)), (Add(1), 2, 3, Added(3, 3)))
    assert not linearizable((Add(1), 0, NEVER, None), (Add(1), 2, 3, Added(3, 3)))


def test_a_write_that_was_acknowledged_and_vanished() -> None:
    assert not linearizable((Set(A), 0, 1, Done(1)), (Get(), 2, 3, Missing()))


def test_a_value_that_goes_back() -> None:
    writes = ((Set(A), 0, 10, Done(1)), (Set(B), 0, 10, Done(2)))
    assert not linearizable(
        *writes, (Get(), 11, 12, Found(B)), (Get(), 13, 14, Found(A)), (Get(), 15, 16, Found(B))
    )


def test_a_lost_write_that_is_done_twice() -> None:
    assert not linearizable(
        (Set(B), 0, NEVER, None),
        (Get(), 1, 2, Found(B, 5)),
        (Set(A), 3, 4, Done(6)),
        (Get(), 5, 6, Found(B, 7)),
    )


def test_a_lost_write_that_is_done_after_it_was_given_up() -> None:
    lost = (Set(B), 0, 3, None)
    assert linearizable(lost, (Get(), 2, 4, Missing()), (Get(), 5, 6, Found(B, 5)))
    assert not linearizable(lost, (Get(), 4, 5, Missing()), (Get(), 6, 7, Found(B, 5)))


def test_a_value_that_nobody_wrote() -> None:
    assert not linearizable((Get(), 0, 1, Found(A)))
    assert not linearizable((Set(A), 5, 6, Done(1)), (Get(), 0, 1, Found(A)))


def test_a_revision_that_is_not_that_of_the_value() -> None:
    write = (Set(A), 0, 1, Done(5))
    assert not linearizable(write, (Get(), 2, 3, Found(A, 6)))
    assert not linearizable(write, (Set(B), 2, 3, Done(4)))
    assert not linearizable(write, (Set(B, match=5), 2, 3, Refused(5)))
    assert not linearizable(write, (Set(B, create=True), 2, 3, Done(6)))


def test_an_answer_that_is_wrong_about_what_was_there() -> None:
    assert not linearizable((Set(A), 0, 1, Done(1, True)))
    assert not linearizable((Set(A), 0, 1, Done(1)), (Set(B), 2, 3, Done(2, False)))
    assert not linearizable((Set(A), 0, 1, Done(1)), (Delete(), 2, 3, Missing()))


def test_the_fault_is_shown_with_what_happened_around_it() -> None:
    why = why_not_linearizable(history((Set(A), 0, 1, Done(1)), (Get(), 2, 3, Missing())))
    assert why is not None
    assert ">> 2 to 3 k: Get() -> Missing()" in why


# Revisions over all keys


@pytest.mark.parametrize(
    ("first", "second", "ordered"),
    [
        ((0, 1, 1), (2, 3, 2), True),
        ((0, 5, 2), (1, 6, 1), True),
        ((0, 1, 2), (2, 3, 1), False),
        ((0, 5, 1), (1, 6, 1), False),
    ],
)
def test_revisions_are_unique_and_follow_real_time_over_all_keys(
    first: tuple[int, int, int], second: tuple[int, int, int], ordered: bool
) -> None:
    operations = [
        Operation(key, Set(A), asked, answered, Done(revision))
        for key, (asked, answered, revision) in (("one", first), ("two", second))
    ]
    assert (why_not_ordered(operations) is None) is ordered


# Against a store whose moments are known


@pytest.mark.parametrize("seed", range(20))
def test_what_a_store_answers_is_linearizable_and_one_changed_answer_is_not(seed: int) -> None:
    chance = random.Random(seed)
    operations = _lived(chance, 80)
    assert why_not_linearizable(operations) is None
    assert why_not_ordered(operations) is None
    reads = [one for one in operations if isinstance(one.answer, Found) and one.answer.revision]
    wrong = chance.choice(reads)
    changed = replace(wrong, answer=Found(wrong.answer.value + b"0", wrong.answer.revision))
    operations[operations.index(wrong)] = changed
    assert why_not_linearizable(operations) is not None


def _lived(chance: random.Random, count: int) -> list[Operation]:
    """What clients would see of a store that does one operation after the other."""
    operations = []
    value: int | None = None
    for moment in range(1, count + 1):
        asked, answered = moment - chance.uniform(0, 5), moment + chance.uniform(0, 5)
        lost = chance.random() < 0.1
        action, answer = Get(), Missing() if value is None else Found(b"%d" % value, moment - 1)
        if value is None or chance.random() < 0.6:
            action, answer = Add(2), Added((value or 0) + 2, moment)
            if not (lost and chance.random() < 0.5):
                value = (value or 0) + 2
        elif answer.revision != _last_change(operations):
            answer = Found(answer.value)
        ends = chance.choice((answered, NEVER)) if lost else answered
        operations.append(Operation("k", action, asked, ends, None if lost else answer))
    return operations


def _last_change(operations: list[Operation]) -> int:
    """The revision of the last operation, if that is known to have made one."""
    answer = operations[-1].answer
    return answer.revision if isinstance(answer, Added) else 0


# Against trying every order

_action = st.one_of(
    st.just(Get()),
    st.builds(Set, st.sampled_from((b"1", b"2")), st.sampled_from((0, 0, 1, 2)), st.booleans()),
    st.builds(Delete, st.sampled_from((0, 0, 1, 2))),
    st.builds(Add, st.just(1)),
)
_answer = st.one_of(
    st.none(),
    st.builds(Found, st.sampled_from((b"1", b"2", b"3")), st.integers(0, 3)),
    st.just(Missing()),
    st.builds(Done, st.integers(0, 3), st.sampled_from((None, False, True))),
    st.builds(Added, st.integers(1, 3), st.integers(0, 3)),
    st.builds(Refused, st.integers(0, 3)),
)


@st.composite
def _operation(draw: st.DrawFn) -> Operation:
    asked = draw(st.integers(0, 6))
    answer = draw(_answer)
    latest = [NEVER] if answer is None and draw(st.booleans()) else list(range(asked, 10))
    return Operation("k", draw(_action), asked, draw(st.sampled_from(latest)), answer)


@settings(max_examples=300, deadline=None)
@given(st.lists(_operation(), max_size=5))
def test_the_search_agrees_with_trying_every_order(operations: list[Operation]) -> None:
    assert (why_not_linearizable(operations) is None) is _some_order_explains(operations)


def _some_order_explains(operations: list[Operation]) -> bool:
    answered = [one for one in range(len(operations)) if operations[one].answer is not None]
    lost = [one for one in range(len(operations)) if operations[one].answer is None]
    subsets = chain.from_iterable(combinations(lost, size) for size in range(len(lost) + 1))
    return any(
        _explains([operations[number] for number in order])
        for subset in subsets
        for order in permutations((*answered, *subset))
    )


def _explains(order: list[Operation]) -> bool:
    for position, operation in enumerate(order):
        if any(later.answered < operation.asked for later in order[position + 1 :]):
            return False
    state = INITIAL
    for operation in order:
        following = after(state, operation.action, operation.answer)
        if following is None:
            return False
        state = following
    return True
