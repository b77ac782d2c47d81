"""`get_or_compute` and `cached`: what functions compute is kept, and computed once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from client_support import asked

from keyrack.client import AsyncClient, Client, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_support import Asked

NO_ANSWER = "http://127.0.0.1:9"


def computing(kind: str, function: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function as a kind of client takes it: a coroutine function on an event loop."""
    if kind == "sync":
        return function

    async def coroutine() -> Any:
        return function()

    return coroutine


class Counting:
    """Computes a value, and counts how often."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        value = self.values[min(self.calls, len(self.values)) - 1]
        if isinstance(value, Exception):
            raise value
        return value


def until_it_ended(sync: Client, key: str) -> None:
    deadline = time.monotonic() + 5
    while sync.get_value(key) is not None:
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.005)


@pytest.mark.parametrize("value", ["text", b"bytes", {"a": [1, None]}, None, 0])
def test_what_is_computed_is_kept(client: Asked, kind: str, key: str, value: Any) -> None:
    compute = Counting(value)
    for _ in range(3):
        assert client.get_or_compute(key, computing(kind, compute), ttl=60) == value
    assert compute.calls == 1
    assert 59 < client.get_value(key).ttl <= 60


def test_a_value_that_has_ended_is_computed_anew(
    client: Asked, sync: Client, kind: str, key: str
) -> None:
    compute = Counting("first", "second")
    one = computing(kind, compute)
    assert client.get_or_compute(key, one, ttl=0.05, stale=60) == "first"
    until_it_ended(sync, key)
    assert client.get_value(key, max_stale=60).data == b"first"
    assert client.get_or_compute(key, one, ttl=60, stale=60) == "second"
    assert compute.calls == 2


def test_others_get_the_old_value_while_one_computes(
    client: Asked, sync: Client, kind: str, key: str
) -> None:
    sync.set(key, "old", ttl=0.05, stale=60)
    until_it_ended(sync, key)
    seen: list[str] = []

    def compute() -> str:
        seen.append(sync.get_or_compute(key, never, ttl=60, stale=60))
        return "new"

    assert client.get_or_compute(key, computing(kind, compute), ttl=60, stale=60) == "new"
    assert seen == ["old"]
    assert sync.get(key) == "new"


def never() -> str:
    raise AssertionError("somebody else computes it")


def test_a_value_is_computed_before_its_end(client: Asked, kind: str, key: str) -> None:
    compute = Counting("first", "second")
    one = computing(kind, compute)
    client.get_or_compute(key, one, ttl=30)
    assert client.get_or_compute(key, one, ttl=3000, early=60) == "second"
    assert client.get_or_compute(key, one, ttl=3000, early=60) == "second"


def test_who_waits_gets_what_another_client_computes(
    client: Asked, sync: Client, kind: str, key: str
) -> None:
    began = threading.Event()

    def compute() -> str:
        began.set()
        time.sleep(0.2)
        return "computed"

    thread = threading.Thread(target=sync.get_or_compute, args=(key, compute), kwargs={"ttl": 9})
    thread.start()
    assert began.wait(5)
    assert client.get_or_compute(key, computing(kind, never), ttl=9) == "computed"
    thread.join()


def test_who_has_waited_long_enough_computes_it(
    client: Asked, sync: Client, kind: str, key: str
) -> None:
    def compute() -> str:
        own = Counting("own")
        assert client.get_or_compute(key, computing(kind, own), ttl=60, wait=1) == "own"
        return "slow"

    # Whoever was slower than that has lost its lease, and overwrites nothing.
    assert sync.get_or_compute(key, compute, ttl=60) == "slow"
    assert sync.get(key) == "own"


def test_a_function_that_fails_gives_its_lease_back(client: Asked, kind: str, key: str) -> None:
    compute = Counting(RuntimeError("no"), "second")
    one = computing(kind, compute)
    with pytest.raises(RuntimeError, match="no"):
        client.get_or_compute(key, one, ttl=60, lease=300, wait=0)
    assert client.get_or_compute(key, one, ttl=60, wait=0) == "second"
    assert client.get(key) == "second"


def test_the_old_value_is_used_where_that_was_asked_for(
    client: Asked, sync: Client, kind: str, key: str
) -> None:
    sync.set(key, "old", ttl=0.05, stale=60)
    until_it_ended(sync, key)
    one = computing(kind, Counting(RuntimeError("no")))
    assert client.get_or_compute(key, one, ttl=60, stale=60, stale_if_error=True) == "old"
    with pytest.raises(RuntimeError, match="no"):
        client.get_or_compute(key, one, ttl=60, stale=60)


def test_a_value_that_cannot_be_stored_is_refused_and_gives_the_lease_back(
    client: Asked, kind: str, key: str
) -> None:
    with pytest.raises(TypeError, match="set"):
        client.get_or_compute(key, computing(kind, Counting({1})), ttl=60, wait=0)
    assert client.get_or_compute(key, computing(kind, Counting(1)), ttl=60, wait=0) == 1
    assert client.get(key) == 1


def test_what_is_written_meanwhile_stays(client: Asked, sync: Client, kind: str, key: str) -> None:
    def compute() -> str:
        sync.set(key, "written")
        return "computed"

    assert client.get_or_compute(key, computing(kind, compute), ttl=60) == "computed"
    assert sync.get(key) == "written"


def test_what_cannot_be_read_is_computed_anew(
    client: Asked, sync: Client, kind: str, key: str
) -> None:
    sync.set(key, b"{", media_type="application/json", ttl=0.05, stale=60)
    until_it_ended(sync, key)
    assert client.get_or_compute(key, computing(kind, Counting(1)), ttl=60) == 1
    assert sync.get(key) == 1


def test_a_server_that_does_not_answer_is_told(kind: str, key: str) -> None:
    with asked(kind, NO_ANSWER, retries=0) as client, pytest.raises(Unreachable):
        client.get_or_compute(key, computing(kind, never), ttl=60)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stale": 5, "ttl": None},
        {"ttl": 5, "lease": 0},
        {"ttl": 5, "lease": 301},
        {"ttl": 5, "wait": -1},
    ],
)
def test_what_cannot_be_is_refused_at_once(
    client: Asked, kind: str, key: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="="):
        client.get_or_compute(key, computing(kind, never), **wrong)
    with pytest.raises(ValueError, match="="):
        client.cached(**wrong)


# One flight for each key inside a process


def test_threads_compute_a_key_once(sync: Client, key: str) -> None:
    compute = Counting("value")
    ready = threading.Barrier(16)
    found: list[str] = []

    def slowly() -> str:
        time.sleep(0.05)
        value: str = compute()
        return value

    def work() -> None:
        ready.wait()
        found.append(sync.get_or_compute(key, slowly, ttl=60))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["value"] * 16
    assert compute.calls == 1


def test_threads_are_told_why_it_could_not_be_computed(sync: Client, key: str) -> None:
    ready = threading.Barrier(4)
    told: list[str] = []

    def fail() -> str:
        time.sleep(0.1)
        raise RuntimeError("no")

    def work() -> None:
        ready.wait()
        try:
            sync.get_or_compute(key, fail, ttl=60)
        except RuntimeError as error:
            told.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["no"] * 4


def test_who_waits_for_a_thread_that_was_interrupted_computes_it(sync: Client, key: str) -> None:
    began = threading.Event()
    compute = Counting("value")

    def interrupted() -> str:
        began.set()
        time.sleep(0.1)
        raise KeyboardInterrupt

    def work() -> None:
        with pytest.raises(KeyboardInterrupt):
            sync.get_or_compute(key, interrupted, ttl=60, wait=0)

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(5)
    assert sync.get_or_compute(key, compute, ttl=60, wait=0) == "value"
    thread.join()
    assert sync.get(key) == "value"


def test_tasks_compute_a_key_once_and_outlive_one_that_is_cancelled(url: str, key: str) -> None:
    compute = Counting("value")

    async def slowly() -> str:
        await asyncio.sleep(0.05)
        value: str = compute()
        return value

    async def work() -> None:
        async with AsyncClient(url) as client:
            first, *others = [
                asyncio.create_task(client.get_or_compute(key, slowly, ttl=60)) for _ in range(8)
            ]
            assert await asyncio.gather(first, *others) == ["value"] * 8
            assert compute.calls == 1
            await client.delete(key)
            first, *others = [
                asyncio.create_task(client.get_or_compute(key, slowly, ttl=60)) for _ in range(8)
            ]
            await asyncio.sleep(0.02)
            first.cancel()
            assert await asyncio.gather(*others) == ["value"] * 7
            assert first.cancelled()
            assert await client.get(key) == "value"

    asyncio.run(work())


# The decorator


def test_a_cached_function_computes_each_of_its_keys_once(sync: Client, key: str) -> None:
    calls: list[tuple[int, str]] = []

    @sync.cached(ttl=60, stale=60, key=key + "/{number}/{kind}")
    def looked_up(number: int, kind: str = "plain") -> str:
        """Look something up."""
        calls.append((number, kind))
        return f"{kind} {number}"

    assert [looked_up(1), looked_up(1), looked_up(number=1, kind="plain"), looked_up(2)] == [
        "plain 1", "plain 1", "plain 1", "plain 2",
    ]  # fmt: skip
    assert calls == [(1, "plain"), (2, "plain")]
    assert looked_up.key(2) == f"{key}/2/plain"
    assert sync.get(f"{key}/2/plain") == "plain 2"
    assert (looked_up.__name__, looked_up.__doc__) == ("looked_up", "Look something up.")
    assert (looked_up.forget(2), looked_up.forget(2)) == (True, False)
    looked_up(2)
    assert calls[2:] == [(2, "plain")]


def test_a_cached_method_has_the_key_that_a_function_gives(sync: Client, key: str) -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @sync.cached(ttl=60, key=lambda shop, number: f"{key}/{shop.name}/{number}")
        def price(self, number: int) -> str:
            return f"{self.name} {number}"

    assert [Shop("a").price(1), Shop("b").price(1)] == ["a 1", "b 1"]
    assert sync.get(f"{key}/b/1") == "b 1"


def test_without_a_key_the_arguments_are_it(sync: Client) -> None:
    @sync.cached(ttl=60)
    def added(*numbers: int, **more: int) -> int:
        return sum(numbers) + sum(more.values())

    assert added(1, 2, x=3, a=4) == added(1, 2, a=4, x=3) == 10
    assert added.key(1, x=2).endswith("added(numbers=(1),more={'x':2})")
    assert len(added.key("x" * 1000).encode()) <= 510
    assert added.key("x" * 1000) != added.key("x" * 1001)
    assert added.key("1") != added.key(1)
    with pytest.raises(TypeError, match="key="):
        added.key(object())


def test_a_cached_coroutine_function_is_awaited(url: str, key: str) -> None:
    compute = Counting("value")

    async def work() -> None:
        async with AsyncClient(url) as client:

            @client.cached(ttl=60, key=key + "/{number}")
            async def looked_up(number: int) -> str:
                value: str = compute()
                return f"{value} {number}"

            assert [await looked_up(1), await looked_up(1)] == ["value 1"] * 2
            assert compute.calls == 1
            assert await looked_up.forget(1)
            await looked_up(1)
            assert compute.calls == 2

    asyncio.run(work())


# What else ends and stays


def test_a_stale_value_is_for_those_who_take_it(client: Asked, sync: Client, key: str) -> None:
    etag = client.set(key, "v", ttl=0.05, stale=60)
    until_it_ended(sync, key)
    assert client.get_value(key) is None
    value = client.get_value(key, max_stale=60)
    assert (value.data, value.etag, value.ttl) == (b"v", etag, 0.0)
    with pytest.raises(ValueError, match="stale= needs ttl="):
        client.set(key, "v", stale=60)


def exported(client: Client, key: str) -> dict[str, object]:
    (line,) = client.export(key)
    members = json.loads(line)
    return {name: members[name] for name in ("max_age", "swr", "public") if name in members}


def test_a_write_says_for_how_long_caches_may_keep_the_value(
    client: Asked, sync: Client, key: str
) -> None:
    client.set(key, "v", ttl=60, stale=60, max_age=30, swr=60, public=True)
    assert exported(sync, key) == {"max_age": 30, "swr": 60, "public": True}
    client.set(key, "v", max_age=0)
    assert exported(sync, key) == {"max_age": 0}
    client.set(key, "v")
    assert exported(sync, key) == {}
    with sync.lock(f"{key}/lock", ttl=30) as lock:
        sync.set(key, "w", lock=lock, max_age=5, public=True)
    assert exported(sync, key) == {"max_age": 5, "public": True}
    for wrong in ({"swr": 5}, {"public": True}):
        with pytest.raises(ValueError, match="max_age="):
            client.set(key, "v", **wrong)


def test_a_batch_says_so_too(sync: Client, key: str) -> None:
    with sync.batch() as batch:
        batch.set(key, "v", max_age=30, swr=60, public=True)
    assert exported(sync, key) == {"max_age": 30, "swr": 60, "public": True}
