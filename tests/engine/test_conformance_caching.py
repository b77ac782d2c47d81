"""Every engine: what a writer lets caches do with a value stays with it, and goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support.world import done, put, refused

from keyrack.engines.contract import (
    ANY,
    JSON,
    KEEP_END,
    TEXT,
    Add,
    CacheControl,
    Condition,
    Delete,
    Get,
    Record,
    Set,
    Touch,
    Why,
)

if TYPE_CHECKING:
    from engine_support.world import World

LONG = b"0123456789" * 2000
SHOP = CacheControl(30, 60, public=True)
ODD = "application/x-" + "odd" * 60


def caching_of(world: World, key: bytes = b"k") -> CacheControl | None:
    record = world.engine.get(key)
    assert record is not None
    return record.cache_control


@pytest.mark.parametrize("value", [b"", b"v", LONG], ids=["empty", "short", "long"])
@pytest.mark.parametrize("media_type", [TEXT, ODD], ids=["text", "odd"])
@pytest.mark.parametrize("times", [(0, 0), (1000, 0), (1000, 500)], ids=["none", "ttl", "stale"])
@pytest.mark.parametrize("condition", [None, Condition(none_match=ANY)], ids=["any", "new"])
def test_every_read_tells_what_caches_may_do(
    world: World,
    value: bytes,
    media_type: str,
    times: tuple[int, int],
    condition: Condition | None,
) -> None:
    ttl, stale = times
    now = world.engine.now()
    operation = Set(b"k", value, media_type, ttl, condition, stale_ms=stale, cache_control=SHOP)
    revision = done(world.engine, operation)[0].revision
    ends = (now + ttl if ttl else 0, now + ttl + stale if stale else 0, now if stale else 0)
    record = Record(value, media_type, revision, *ends, SHOP)
    assert world.engine.get(b"k") == record
    assert world.engine.get_stale(b"k") == record
    assert world.engine.get_many([b"k"]) == [record]
    assert done(world.engine, Get(b"k"))[0].record == record
    assert world.engine.scan().entries == [(b"k", record)]
    part = world.engine.get_part(b"k", (0, 2))
    assert part is not None
    assert (part.record.cache_control, part.record.value) == (SHOP, value[:3])
    assert world.engine.check() == []


def test_it_survives_a_restart(world: World) -> None:
    done(world.engine, Set(b"k", LONG, cache_control=SHOP))
    world.restart()
    assert caching_of(world) == SHOP


def test_a_set_without_it_ends_it(world: World) -> None:
    for again in (Set(b"k", b"w"), Set(b"k", b"w", ttl_ms=KEEP_END), Set(b"k", LONG)):
        done(world.engine, Set(b"k", b"v", cache_control=SHOP))
        done(world.engine, again)
        assert caching_of(world) is None
    done(world.engine, Set(b"k", b"v", cache_control=SHOP))
    done(world.engine, Delete(b"k"))
    put(world.engine, b"k")
    assert caching_of(world) is None
    assert world.engine.check() == []


def test_a_set_of_many_keeps_it_apart_from_its_neighbours(world: World) -> None:
    named = CacheControl(0)
    done(
        world.engine,
        Set(b"{t}a", b"1"),
        Set(b"{t}b", b"2", cache_control=SHOP),
        Set(b"{t}c", b"3", JSON, cache_control=named),
    )
    found = [caching_of(world, key) for key in (b"{t}a", b"{t}b", b"{t}c")]
    assert found == [None, SHOP, named]


@pytest.mark.parametrize("ttl", [0, 50])
@pytest.mark.parametrize("media_type", [TEXT, ODD], ids=["text", "odd"])
def test_a_counter_keeps_it(world: World, ttl: int, media_type: str) -> None:
    done(world.engine, Set(b"n", b"41", media_type, ttl, cache_control=SHOP))
    assert done(world.engine, Add(b"n", 1))[0].number == 42
    record = world.engine.get(b"n")
    assert record is not None
    assert (record.value, record.media_type, record.cache_control) == (b"42", media_type, SHOP)
    assert (record.expires_at > 0) is (ttl > 0)
    done(world.engine, Add(b"new", 1))
    assert caching_of(world, b"new") is None
    done(world.engine, Set(b"n", b"text", media_type, cache_control=SHOP))
    assert refused(world.engine, Add(b"n", 1)).why is Why.NUMBER


def test_another_end_leaves_it(world: World) -> None:
    for value in (b"v", LONG):
        done(world.engine, Set(b"k", value, cache_control=SHOP))
        for touch in (Touch(b"k", 10), Touch(b"k", 10, stale_ms=5), Touch(b"k", 0)):
            done(world.engine, touch)
            record = world.engine.get(b"k")
            assert record is not None
            assert (record.value, record.cache_control) == (value, SHOP)
    assert world.engine.check() == []


def test_a_stale_copy_has_it(world: World) -> None:
    done(world.engine, Set(b"k", b"v", ttl_ms=10, stale_ms=100, cache_control=SHOP))
    world.clock.advance(20)
    world.engine.expire(100)
    assert world.engine.get(b"k") is None
    copy = world.engine.get_stale(b"k")
    assert copy is not None
    assert copy.cache_control == SHOP
    assert world.engine.check() == []


def test_a_batch_that_is_refused_leaves_it(world: World) -> None:
    for value in (b"v", LONG):
        done(world.engine, Set(b"k", value, ttl_ms=1000, cache_control=SHOP))
        before = world.engine.get(b"k")
        never = Condition(match=ANY, none_match=ANY)
        refusal = refused(world.engine, Set(b"k", b"w"), Delete(b"{k}x", never))
        assert (refusal.why, refusal.index) == (Why.CONDITION, 1)
        assert world.engine.get(b"k") == before
    assert world.engine.check() == []
