"""Every engine: writes that depend on what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.world import (
    at,
    done,
    drop,
    needs_all_keys_together,
    not_at,
    put,
    refused,
    value_of,
)

from keyrack.engines.contract import ANY, Condition, Delete, Refusal, Set, Why

if TYPE_CHECKING:
    from engine_support.driven import Driven
    from engine_support.world import World


EXISTS = Condition(match=ANY)
IS_NEW = Condition(none_match=ANY)


def test_a_set_at_the_named_revision_is_done(engine: Driven) -> None:
    revision = put(engine, b"k").revision
    done(engine, Set(b"k", b"new", condition=at(revision)))
    assert value_of(engine, b"k") == b"new"


def test_a_set_at_an_earlier_revision_is_refused_with_the_present_one(engine: Driven) -> None:
    earlier, present = put(engine, b"k").revision, put(engine, b"k", b"kept").revision
    refusal = refused(engine, Set(b"k", b"new", condition=at(earlier)))
    assert refusal == Refusal(Why.CONDITION, 0, present)
    assert value_of(engine, b"k") == b"kept"


def test_one_of_several_named_revisions_is_enough(engine: Driven) -> None:
    revision = put(engine, b"k").revision
    done(engine, Set(b"k", b"new", condition=at(1, revision, 2**63)))
    assert refused(engine, Set(b"k", b"", condition=at(1, revision, 2**63))).why is Why.CONDITION


def test_no_revision_at_all_is_never_matched(engine: Driven) -> None:
    put(engine, b"k")
    assert refused(engine, Set(b"k", b"", condition=at())).why is Why.CONDITION
    done(engine, Set(b"k", b"", condition=not_at()))


@pytest.mark.parametrize("condition", [EXISTS, at(1)])
def test_a_missing_key_matches_nothing(engine: Driven, condition: Condition) -> None:
    assert refused(engine, Set(b"k", b"", condition=condition)) == Refusal(Why.CONDITION, 0, None)
    assert refused(engine, Delete(b"k", condition=condition)) == Refusal(Why.CONDITION, 0, None)
    assert engine.get(b"k") is None


def test_any_matches_every_key_that_exists(engine: Driven) -> None:
    put(engine, b"k")
    done(engine, Set(b"k", b"new", condition=EXISTS))
    done(engine, Delete(b"k", condition=EXISTS))


def test_a_key_is_made_only_if_it_is_new(engine: Driven) -> None:
    revision = done(engine, Set(b"k", b"first", condition=IS_NEW))[0].revision
    refusal = refused(engine, Set(b"k", b"second", condition=IS_NEW))
    assert refusal == Refusal(Why.CONDITION, 0, revision)
    assert value_of(engine, b"k") == b"first"


def test_none_of_the_named_revisions_may_be_there(engine: Driven) -> None:
    revision = put(engine, b"k").revision
    refused(engine, Set(b"k", b"", condition=not_at(1, revision)))
    done(engine, Set(b"k", b"", condition=not_at(1, revision + 1)))
    done(engine, Set(b"missing", b"", condition=not_at(1)))


def test_both_conditions_must_hold(engine: Driven) -> None:
    revision = put(engine, b"k").revision
    named = frozenset([revision])
    refused(engine, Set(b"k", b"", condition=Condition(match=named, none_match=named)))
    done(engine, Set(b"k", b"", condition=Condition(match=named, none_match=frozenset([1]))))


def test_a_delete_has_conditions_too(engine: Driven) -> None:
    earlier, present = put(engine, b"k").revision, put(engine, b"k").revision
    assert refused(engine, Delete(b"k", condition=at(earlier))).revision == present
    done(engine, Delete(b"k", condition=at(present)))
    assert engine.get(b"k") is None


def test_a_deleted_key_is_new_again(engine: Driven) -> None:
    put(engine, b"k")
    drop(engine, b"k")
    done(engine, Set(b"k", b"", condition=IS_NEW))


def test_a_key_whose_time_is_over_is_missing_to_a_condition(world: World) -> None:
    revision = put(world.engine, b"k", ttl_ms=5).revision
    world.clock.advance(5)
    assert refused(world.engine, Set(b"k", b"", condition=at(revision))).revision is None
    assert refused(world.engine, Delete(b"k", condition=EXISTS)).revision is None
    assert not done(world.engine, Set(b"k", b"", condition=IS_NEW))[0].existed


# Conditions see the operations before them in the same write


def test_a_condition_sees_a_set_of_the_same_write(engine: Driven) -> None:
    done(engine, Set(b"k", b"1"), Set(b"k", b"2", condition=EXISTS))
    done(engine, Set(b"k", b"3"), Delete(b"k", condition=EXISTS))
    assert refused(engine, Set(b"k", b"1"), Set(b"k", b"2", condition=IS_NEW)).index == 1


def test_a_condition_sees_a_delete_of_the_same_write(engine: Driven) -> None:
    put(engine, b"k")
    done(engine, Delete(b"k"), Set(b"k", b"again", condition=IS_NEW))
    assert value_of(engine, b"k") == b"again"
    assert refused(engine, Delete(b"k"), Set(b"k", b"", condition=EXISTS)).index == 1
    assert value_of(engine, b"k") == b"again"


def test_no_named_revision_is_that_of_a_set_in_the_same_write(engine: Driven) -> None:
    revision = put(engine, b"k").revision
    refused(engine, Set(b"k", b"1"), Set(b"k", b"2", condition=at(revision)))
    refused(engine, Set(b"k", b"1"), Set(b"k", b"2", condition=at(revision + 1)))
    done(engine, Set(b"k", b"1"), Set(b"k", b"2", condition=not_at(revision)))


@pytest.mark.parametrize("first", [Set(b"k", b"1"), Delete(b"k")])
def test_a_refusal_names_the_revision_that_is_stored(engine: Driven, first: Set | Delete) -> None:
    """The operations before the one that was refused were not done, so they count for nothing."""
    revision = put(engine, b"k").revision
    refusal = refused(engine, first, Set(b"k", b"2", condition=at(1)))
    assert refusal == Refusal(Why.CONDITION, 1, revision)


def test_the_first_operation_that_cannot_be_done_is_named(engine: Driven) -> None:
    needs_all_keys_together(engine)
    put(engine, b"there")
    refusal = refused(
        engine,
        Set(b"new", b"", condition=IS_NEW),
        Set(b"there", b"", condition=EXISTS),
        Set(b"missing", b"", condition=EXISTS),
        Set(b"there", b"", condition=IS_NEW),
    )
    assert refusal == Refusal(Why.CONDITION, 2, None)
