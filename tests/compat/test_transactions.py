"""What others see of commands, and what comes between."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from compat_support.direct import DirectStore, do, do_together
from engine_support.world import EmbeddedWorld, memory_directory

from keyrack.compat import commands
from keyrack.engines.contract import CacheControl, Refusal, Set, Why
from keyrack.http.eager import at_once
from keyrack.http.key_locks import KeyLocks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from engine_support.world import World

    from keyrack.engines.contract import Outcome, Record, Write


@pytest.fixture
def store() -> Iterator[DirectStore]:
    with memory_directory() as directory:
        world = EmbeddedWorld(directory)
        yield DirectStore(world)
        assert world.engine.check() == []
        world.close()


def between(store: DirectStore, act: Callable[[], object]) -> None:
    """Have somebody else act once, before the next write."""

    def act_once() -> None:
        store.before_write = lambda: None
        act()

    store.before_write = act_once


def record_of(store: DirectStore, key: bytes) -> Record:
    record: Record | None = at_once(store.engine.get(key))
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("words", "reply", "left"),
    [
        ((b"APPEND", b"k", b"c"), 4, b"newc"),
        ((b"SETRANGE", b"k", b"1", b"X"), 3, b"nXw"),
        ((b"GETSET", b"k", b"v"), b"new", b"v"),
        ((b"GETDEL", b"k"), b"new", None),
        ((b"SETNX", b"free", b"v"), 0, None),
        ((b"SET", b"free", b"v", b"NX"), None, None),
        ((b"MSETNX", b"other", b"v", b"free", b"v"), 0, None),
        ((b"SET", b"k", b"v", b"GET"), b"new", b"v"),
        ((b"RENAME", b"k", b"other"), "OK", None),
        ((b"COPY", b"k", b"other"), 1, b"new"),
    ],
    ids=lambda value: value[0].decode() if isinstance(value, tuple) else "",
)
def test_a_command_that_somebody_came_before_is_done_on_what_they_left(
    store: DirectStore, words: tuple[bytes, ...], reply: object, left: bytes | None
) -> None:
    do(store, b"SET", b"k", b"old")
    between(store, lambda: do(store, b"MSET", b"k", b"new", b"free", b"taken"))
    assert do(store, *words) == reply
    key = words[1] if words[1] == b"k" else b"other"
    assert do(store, b"GET", key) == left
    assert do(store, b"GET", b"free") == b"taken"


def test_a_key_that_came_or_went_meanwhile_is_noticed(store: DirectStore) -> None:
    between(store, lambda: do(store, b"SET", b"k", b"a"))
    assert do(store, b"APPEND", b"k", b"b") == 2
    between(store, lambda: do(store, b"DEL", b"k"))
    assert do(store, b"APPEND", b"k", b"c") == 1
    do(store, b"SET", b"k", b"v", b"EX", b"100")
    between(store, lambda: do(store, b"DEL", b"k"))
    assert do(store, b"PERSIST", b"k") == 0


def test_counters_and_plain_sets_are_never_tried_twice(store: DirectStore) -> None:
    do(store, b"SET", b"n", b"5")
    store.writes.clear()
    for words in ((b"INCR", b"n"), (b"SET", b"k", b"v"), (b"MSET", b"a", b"1", b"b", b"2"),
                  (b"DEL", b"a", b"b"), (b"SETEX", b"k", b"9", b"v")):  # fmt: skip
        between(store, lambda: do(store, b"SET", b"n", b"7"))
        do(store, *words)
    assert do(store, b"GET", b"n") == b"7"
    assert [len(write) for write in store.writes] == [1, 1, 1, 1, 1, 2, 1, 2, 1, 1]


def test_a_command_gives_up_when_others_never_stop(store: DirectStore) -> None:
    numbers = iter(range(1000))
    do(store, b"SET", b"k", b"")

    def act() -> None:
        store.before_write = lambda: None
        do(store, b"SET", b"k", b"%d" % next(numbers))
        store.before_write = act

    store.before_write = act
    assert do(store, b"APPEND", b"k", b"x") == (
        "-TRYAGAIN others change these keys all the time; nothing was done"
    )


# Together


def test_commands_together_are_one_write_and_see_each_other(store: DirectStore) -> None:
    do(store, b"SET", b"n", b"1")
    store.writes.clear()
    replies = do_together(
        store,
        (b"INCR", b"n"), (b"GET", b"n"), (b"SET", b"k", b"v", b"NX"), (b"SET", b"k", b"w", b"NX"),
        (b"DEL", b"n"), (b"INCRBY", b"n", b"40"), (b"RENAME", b"k", b"l"), (b"EXISTS", b"k", b"l"),
        (b"EXPIRE", b"l", b"100"), (b"TTL", b"l"), (b"PERSIST", b"l"), (b"GETDEL", b"l"),
        (b"MGET", b"k", b"l", b"n"),
    )  # fmt: skip
    assert replies == [2, b"2", "OK", None, 1, 40, "OK", 1, 1, 100, 1, b"v", [None, None, b"40"]]
    assert len(store.writes) == 1
    assert do(store, b"MGET", b"k", b"l", b"n") == [None, None, b"40"]


def test_together_they_begin_anew_when_something_that_they_read_has_changed(
    store: DirectStore,
) -> None:
    do(store, b"MSET", b"a", b"1", b"b", b"1")
    between(store, lambda: do(store, b"SET", b"a", b"10"))
    replies = do_together(store, (b"GET", b"a"), (b"INCR", b"b"), (b"APPEND", b"a", b"0"))
    assert replies == [b"10", 2, 3]
    assert do(store, b"MGET", b"a", b"b") == [b"100", b"2"]


def test_together_a_key_that_is_only_read_is_part_of_it_too(store: DirectStore) -> None:
    do(store, b"MSET", b"a", b"1", b"b", b"1")
    between(store, lambda: do(store, b"MSET", b"a", b"2", b"b", b"2"))
    assert do_together(store, (b"GET", b"a"), (b"SET", b"c", b"x"), (b"GET", b"b")) == [
        b"2", "OK", b"2",
    ]  # fmt: skip


def test_a_command_that_fails_among_others_changes_nothing_of_its_own(store: DirectStore) -> None:
    long = b"x" * ((1 << 20) + 1)
    do(store, b"SET", b"w", b"word")
    replies = do_together(
        store, (b"SET", b"a", b"1"), (b"MSET", b"b", b"2", b"c", long), (b"INCR", b"w"),
        (b"APPEND", b"w", b"!"), (b"RENAME", b"none", b"d"),
    )  # fmt: skip
    assert replies[0] == "OK"
    assert "--max-value" in replies[1]
    assert replies[2:] == ["-ERR value is not an integer or out of range", 5, "-ERR no such key"]
    assert do(store, b"MGET", b"a", b"b", b"c", b"w") == [b"1", None, None, b"word!"]


def test_only_reading_together_writes_nothing(store: DirectStore) -> None:
    do(store, b"SET", b"a", b"1")
    store.writes.clear()
    replies = do_together(store, (b"GET", b"a"), (b"TTL", b"a"), (b"PING",), (b"PERSIST", b"a"))
    assert replies == [b"1", -1, "PONG", 0]
    assert store.writes == []


# On several shards


def test_only_deleting_takes_keys_of_several_shards(store: DirectStore) -> None:
    do(store, b"MSET", b"a", b"1", b"b", b"2")
    write = store.write

    async def of_one_shard(writes: Sequence[Write]) -> Sequence[Outcome]:
        spread = any(len({one.key for one in each}) > 1 for each in writes)
        return [Refusal(Why.SPREAD)] * len(writes) if spread else await write(writes)

    store.write = of_one_shard  # type: ignore[method-assign]  # keys of two shards in one process
    for words in ((b"MSET", b"a", b"3", b"b", b"4"), (b"RENAME", b"a", b"c")):
        assert do(store, *words).startswith("-CROSSSLOT ")
    assert do_together(store, (b"INCR", b"a"), (b"INCR", b"b")).startswith("-CROSSSLOT ")
    assert do(store, b"MGET", b"a", b"b") == [b"1", b"2"]
    assert do(store, b"DEL", b"a", b"b", b"c") == 2


# What stays


def test_a_value_that_is_changed_keeps_its_end_its_kind_and_what_caches_may_do(
    store: DirectStore,
) -> None:
    may_keep = CacheControl(60)
    page = Set(b"k", b"<p>", "text/html", 100_000, cache_control=may_keep)
    at_once(store.engine.write(((page,),)))
    for words in ((b"APPEND", b"k", b"hi"), (b"SETRANGE", b"k", b"0", b"<"),
                  (b"RENAME", b"k", b"l"), (b"COPY", b"l", b"k"),
                  (b"EXPIRE", b"k", b"100")):  # fmt: skip
        do(store, *words)
        record = record_of(store, b"l" if words[0] == b"RENAME" else b"k")
        assert (record.media_type, record.cache_control) == ("text/html", may_keep)
        assert record.expires_at == store.engine.now() + 100_000
    do(store, b"APPEND", b"k", b"\xff")
    record = record_of(store, b"k")
    assert record.media_type == "application/octet-stream"
    do(store, b"SET", b"k", b"v")
    record = record_of(store, b"k")
    assert (record.media_type, record.expires_at) == ("text/plain; charset=utf-8", 0)


# All keys


def test_a_cursor_is_a_number_that_stands_for_any_key(store: DirectStore) -> None:
    names = [b"\0", b"\0\0", b"0", b"a" * 511, "\u00fc".encode()]
    for name in names:
        do(store, b"SET", name, b"")
    found, cursor = [], b"0"
    while True:
        cursor, some = do(store, b"SCAN", cursor, b"COUNT", b"1")
        found += some
        if cursor == b"0":
            break
    assert found == names
    for bad in (b"-1", b"x", b"", b"2", b"9" * 5000):
        assert do(store, b"SCAN", bad) == "-ERR invalid cursor"


def test_keys_answers_no_more_than_it_says(
    store: DirectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.keyspace, "MOST_NAMES", 3)
    do(store, *(b"MSET", b"a", b"", b"b", b"", b"c", b"", b"d", b""))
    assert do(store, b"KEYS", b"[abc]") == [b"a", b"b", b"c"]
    assert "SCAN goes through them" in do(store, b"KEYS", b"*")


def test_an_odd_pattern_takes_no_time(store: DirectStore) -> None:
    pattern = commands.keyspace.compiled(b"*a" * 200 + b"b")
    assert not pattern.matches(b"a" * 511)
    assert pattern.matches(b"a" * 510 + b"b")


def test_the_table_needs_no_protocol() -> None:
    program = (
        "import keyrack.compat.commands, sys; "
        "print([name for name in sys.modules if name.startswith('keyrack.http')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


class StoreWithTurns(DirectStore):
    """A store whose keys have turns, as those of a worker have."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.locks = KeyLocks()

    def turn(self, key: bytes) -> AbstractAsyncContextManager[None]:
        return self.locks.held(key)


@pytest.mark.parametrize(
    "last",
    [(b"SET", b"%b", b"v", b"NX"), (b"SET", b"%b", b"v", b"GET"), (b"GETDEL", b"%b")],
    ids=["NX", "GET", "GETDEL"],
)
def test_transactions_on_the_same_keys_in_another_order_do_not_wait_for_each_other(
    store: DirectStore, last: tuple[bytes, ...]
) -> None:
    turns = StoreWithTurns(store.world)

    def transaction(first: bytes, second: bytes) -> Awaitable[object]:
        ends = [second if word == b"%b" else word for word in last]
        many = [[b"APPEND", first, b"1"], ends]
        return commands.run_together([commands.call_of(words) for words in many], turns)

    async def run() -> None:
        async with turns.locks.held(b"a"):
            orders = ((b"a", b"b"), (b"b", b"a"))
            both = [asyncio.ensure_future(transaction(*names)) for names in orders]
            for _ in range(10):
                await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*both), 20)

    asyncio.run(run())
