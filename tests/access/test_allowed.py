"""Pages of what may be listed, against a model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from engine_support.world import EmbeddedWorld, memory_directory
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrack.access.compiled import Permission
from keyrack.access.rules import Rule, RuleSet, Scope, Verb
from keyrack.engines.contract import Set
from keyrack.http import allowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from keyrack.engines.contract import Page

# Few different characters, so that keys, rules, prefixes and delimiters lie within one another.
_PATHS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2).map("/".join)
_TEXTS = st.one_of(_PATHS, _PATHS, st.lists(st.sampled_from("ab/é\0"), max_size=4).map("".join))
_KEYS = st.sets(_TEXTS.filter(bool).map(str.encode), min_size=1, max_size=8)


@st.composite
def _rules(draw: st.DrawFn) -> Rule:
    pattern = draw(st.one_of(st.just(""), _TEXTS)).encode()
    beginning = not pattern or draw(st.booleans())
    return Rule(frozenset((Verb.LIST,)), Scope.KEYS, pattern, beginning, draw(st.booleans()))


_PERMISSIONS = st.lists(_rules(), min_size=1, max_size=5).map(
    lambda rules: Permission(RuleSet((r, None) for r in rules).naming(Scope.KEYS, Verb.LIST))
)


class Store:
    """A store with some keys, that counts what it is asked for."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.asked = 0
        self.calls = 0

    async def scan(
        self,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit: int = 100,
        reverse: bool = False,
        delimiter: bytes = b"",
    ) -> Page:
        self.asked += limit
        self.calls += 1
        found: Page | Awaitable[Page] = self._engine.scan(prefix, after, limit, reverse, delimiter)
        return found if not asyncio.iscoroutine(found) else await found  # type: ignore[return-value]  # one of them


@pytest.fixture
def store_of() -> Iterator[Any]:
    with memory_directory() as path:
        worlds: list[EmbeddedWorld] = []

        def make(keys: set[bytes], size: int = 1) -> Store:
            directory = path / str(len(worlds))
            directory.mkdir()
            worlds.append(EmbeddedWorld(directory))
            world = worlds[-1]
            world.engine.write([(Set(key, b"v" * size),) for key in keys])
            return Store(world.engine)

        yield make
        for world in worlds:
            world.close()


def expected(
    keys: set[bytes],
    may: Permission,
    prefix: bytes,
    delimiter: bytes,
    reverse: bool,
    after: bytes | None = None,
) -> list[bytes]:
    """Return what there is to show behind `after`, folders as their names, in order."""
    shown = {
        folder_of(key, prefix, delimiter) or key
        for key in keys
        if key.startswith(prefix)
        and may.allows(key)
        and (after is None or is_behind(key, after, prefix, delimiter, reverse))
    }
    return sorted(shown, reverse=reverse)


def folder_of(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    at = key.find(delimiter, len(prefix)) if delimiter and key.startswith(prefix) else -1
    return None if at < 0 else key[: at + len(delimiter)]


def is_behind(key: bytes, after: bytes, prefix: bytes, delimiter: bytes, reverse: bool) -> bool:
    if reverse:
        return key < after
    if folder_of(after, prefix, delimiter) == after:
        return key > after and not key.startswith(after)
    return key > after


def told(page: Page, reverse: bool) -> list[bytes]:
    return sorted([*(key for key, _ in page.entries), *page.folders], reverse=reverse)


@settings(max_examples=1000, deadline=None)
@given(
    _KEYS,
    _PERMISSIONS,
    st.one_of(st.just(b""), _TEXTS.map(str.encode)),
    st.sampled_from([b"/", b"/", b"", b"a"]),
    st.booleans(),
    st.integers(1, 6),
)
def test_all_pages_together_hold_what_may_be_listed(
    keys: set[bytes],
    may: Permission,
    prefix: bytes,
    delimiter: bytes,
    reverse: bool,
    limit: int,
) -> None:
    ranges = may.ranges(prefix)
    wanted = expected(keys, may, prefix, delimiter, reverse)
    if not ranges:
        assert wanted == []
        return
    with memory_directory() as path:
        world = EmbeddedWorld(path)
        world.engine.write([(Set(key, b"v"),) for key in keys])
        store = Store(world.engine)
        after: bytes | None = None
        found: list[bytes] = []
        for _ in range(100):
            store.asked = store.calls = 0
            page = asyncio.run(
                allowed.page(store.scan, ranges, prefix, after, limit, reverse, delimiter)
            )
            assert store.asked <= 3 * (limit + 1) + 11 * len(ranges)
            assert store.calls <= 3 * (limit + 1) + 3 * len(ranges)
            names = told(page, reverse)
            assert len(names) <= limit
            assert names == expected(keys, may, prefix, delimiter, reverse, after)[:limit]
            found += names
            after = page.next
            if after is None:
                break
        world.close()
    assert found == wanted


@settings(max_examples=200, deadline=None)
@given(
    _KEYS,
    _PERMISSIONS,
    _TEXTS.map(str.encode),
    st.sampled_from([b"", b"/", b"a"]),
    st.booleans(),
    _TEXTS.map(str.encode),
)
def test_a_page_goes_on_behind_any_key(
    keys: set[bytes],
    may: Permission,
    prefix: bytes,
    delimiter: bytes,
    reverse: bool,
    after: bytes,
) -> None:
    ranges = may.ranges(prefix)
    if not ranges:
        return
    with memory_directory() as path:
        world = EmbeddedWorld(path)
        world.engine.write([(Set(key, b"v"),) for key in keys])
        page = asyncio.run(
            allowed.page(Store(world.engine).scan, ranges, prefix, after, 100, reverse, delimiter)
        )
        world.close()
    assert told(page, reverse) == expected(keys, may, prefix, delimiter, reverse, after)
    assert page.next is None


def permission(*lines: str) -> Permission:
    from keyrack.access.rules import parse

    return Permission(RuleSet((parse(line), None) for line in lines).naming(Scope.KEYS, Verb.LIST))


def test_a_thousand_denied_keys_between_two_that_are_allowed_cost_nothing(store_of: Any) -> None:
    keys = {b"a/%04d" % n for n in range(1000)} | {b"a", b"b"}
    store = store_of(keys)
    may = permission("list keys:*", "deny list keys:a/*")
    page = asyncio.run(allowed.page(store.scan, may.ranges(b""), b"", None, 10, False, b""))
    assert told(page, False) == [b"a", b"b"]
    assert store.asked <= 30


def test_a_page_of_long_values_ends_early_and_goes_on(store_of: Any) -> None:
    keys = {b"a/%d" % n for n in range(20)} | {b"b/%d" % n for n in range(20)}
    store = store_of(keys, 1 << 19)
    may = permission("list keys:a/*", "list keys:b/*")
    found: list[bytes] = []
    after: bytes | None = None
    pages = 0
    while pages == 0 or after is not None:
        page = asyncio.run(allowed.page(store.scan, may.ranges(b""), b"", after, 1000, False, b""))
        assert sum(len(record.value) for _, record in page.entries) <= 6 << 20
        found += told(page, False)
        after = page.next
        pages += 1
    assert found == sorted(keys)
    assert pages >= 4


@given(_PERMISSIONS, _PERMISSIONS, _TEXTS.map(str.encode))
def test_what_is_in_both_of_two_lists_of_ranges(
    one: Permission, other: Permission, key: bytes
) -> None:
    found = allowed.both(one.ranges(b""), other.ranges(b""))
    inside = any(low <= key and (high is None or key < high) for low, high in found)
    assert inside == (one.allows(key) and other.allows(key)) or not key
    assert found == sorted(found, key=lambda r: r[0])
