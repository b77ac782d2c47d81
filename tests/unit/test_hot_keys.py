"""The sketch of what is asked for most: what it promises, for any order of any keys."""

from __future__ import annotations

import random
from collections import Counter

from engine_support.property import examples
from hypothesis import given
from hypothesis import strategies as st

from keyrack.engines.contract import Add, Check, Condition, Delete, Get, Remember, Set, Space
from keyrack.http.hot_keys import HotKeys, Sketch


@given(st.lists(st.tuples(st.binary(max_size=2), st.integers(1, 50)), max_size=300))
@examples(100)
def test_a_weight_is_between_what_is_told_and_that_plus_the_error(
    adds: list[tuple[bytes, int]],
) -> None:
    sketch, true = Sketch(8), Counter[bytes]()
    for name, weight in adds:
        sketch.add(name, weight)
        true[name] += weight
    assert sketch.total == sum(true.values())
    assert len(sketch.weights) <= 8
    for name, weight in true.items():
        told = sketch.weights.get(name, 0)
        assert told <= weight <= told + sketch.error


def test_few_names_are_counted_exactly() -> None:
    sketch = Sketch(8)
    for name in (b"a", b"b", b"a", b"c"):
        sketch.add(name, 1)
    assert sketch.heaviest(2) == [(b"a", 2), (b"b", 1)]
    assert sketch.error == 0


def test_a_few_requests_are_counted_each() -> None:
    hot = HotKeys()
    for number in range(1500):
        hot.note(b"%d" % (number % 3))
    assert hot.sketch.weights == {b"0": 500, b"1": 500, b"2": 500}


def test_of_many_requests_a_sample_finds_the_hot_key_whatever_their_rhythm() -> None:
    random.seed(7)
    hot = HotKeys()
    for number in range(200_000):
        # Every sixteenth is another key: a sample at a fixed distance would see but one of both.
        hot.note(b"hot" if number % 16 else b"cold-%d" % number)
    ((name, weight), *_) = hot.sketch.heaviest(1)
    assert name == b"hot"
    # The mean of 12 500 gaps of 1 to 31: its standard deviation is half a percent.
    assert abs(weight + hot.sketch.error / 2 - 187_500) < 187_500 * 0.05


def test_of_a_write_each_key_of_users_is_counted() -> None:
    hot = HotKeys()
    hot.note_write(
        (
            Remember(b"name", b"", 1),
            Set(b"a", b""),
            Get(b"b"),
            Add(b"c", 1),
            Delete(b"lock", space=Space.LOCKS),
            Check(b"d", Condition()),
        )
    )
    assert set(hot.sketch.weights) == {b"a", b"b", b"c", b"d"}


def test_the_key_of_a_path_is_decoded() -> None:
    hot = HotKeys()
    hot.note_request(b"/v1/keys/a%2Fb/c", "/v1/keys/{key}")
    assert set(hot.sketch.weights) == {b"a/b/c"}
