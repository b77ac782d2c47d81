"""Operations on an engine that answers later: called again until all that they read is known."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from keyrack.engines.contract import Capabilities, Page, Record, StoreAway
from keyrack.http.asked import Asked, resolve, resolved, told, when_told

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

CAPABILITIES = Capabilities("slow", "nobody", False, False, False, waits=True)


class Slow:
    """A waiting engine whose answers come when the test says so."""

    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers: list[asyncio.Future[Any]] = []

    def now(self) -> int:
        return 7

    def _ask(self, *what: Any) -> asyncio.Future[Any]:
        self.asked.append(what)
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def get(self, key: bytes) -> asyncio.Future[Record | None]:
        return self._ask("get", key)

    def lock_of(self, name: bytes) -> asyncio.Future[Record | None]:
        return self._ask("lock_of", name)

    def scan(self, *about: Any) -> asyncio.Future[Page]:
        return self._ask("scan", *about)

    def history(self) -> asyncio.Future[tuple[int, int]]:
        return self._ask("history")


def record(revision: int) -> Record:
    return Record(b"v", "text/plain", revision)


def in_loop(work: Callable[[Slow], Any]) -> Any:
    """Run a coroutine function of a slow engine."""

    async def run() -> Any:
        return await work(Slow())

    return asyncio.run(run())


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_an_operation_goes_on_with_what_it_was_told_and_asks_for_nothing_twice() -> None:
    async def work(slow: Slow) -> None:
        asked = Asked(slow)  # type: ignore[arg-type]  # the part that is read
        done: list[tuple[Any, ...]] = []
        resolve(lambda: (asked.get(b"a"), asked.lock_of(b"a"), asked.get(b"b")), done.append)
        for answer in (record(1), None, record(2)):
            assert done == []
            slow.answers[-1].set_result(answer)
            await turns()
        assert done == [(record(1), None, record(2))]
        assert slow.asked == [("get", b"a"), ("lock_of", b"a"), ("get", b"b")]

    in_loop(work)


def test_all_kinds_of_reads_are_told_apart() -> None:
    async def work(slow: Slow) -> None:
        asked = Asked(slow)  # type: ignore[arg-type]  # the part that is read
        reads = (
            lambda: asked.get(b"x"),
            lambda: asked.lock_of(b"x"),
            asked.history,
            lambda: asked.scan(b"x"),
            lambda: asked.scan(b"x", limit=5),
            lambda: asked.scan(b"x", reverse=True),
        )
        for number, read in enumerate(reads):
            found: list[Any] = []
            resolve(read, found.append)
            slow.answers[-1].set_result(number)
            await turns()
            resolve(read, found.append)
            assert found == [number, number]
        assert len(slow.asked) == len(reads)
        assert asked.now() == 7
        assert asked.capabilities is CAPABILITIES

    in_loop(work)


def test_another_operation_is_not_told_what_one_was_told() -> None:
    async def work(slow: Slow) -> None:
        first = Asked(slow)  # type: ignore[arg-type]  # the part that is read
        found: list[Any] = []
        for view, revision in ((first, 1), (first.afresh(), 2), (first, 1)):
            resolve(lambda view=view: view.get(b"k"), found.append)
            if not slow.answers[-1].done():
                slow.answers[-1].set_result(record(revision))
            await turns()
        assert found == [record(1), record(2), record(1)]

    in_loop(work)


def test_what_was_called_off_is_never_done() -> None:
    async def work(slow: Slow) -> None:
        asked = Asked(slow)  # type: ignore[arg-type]  # the part that is read
        done: list[Any] = []
        call_off = resolve(lambda: asked.get(b"a"), done.append)
        call_off()
        await turns()
        assert slow.answers[0].cancelled()
        assert done == []

    in_loop(work)


def test_a_store_that_is_away_is_an_exception_where_it_is_read() -> None:
    async def work(slow: Slow) -> None:
        asked = Asked(slow)  # type: ignore[arg-type]  # the part that is read

        def read() -> str:
            try:
                asked.get(b"a")
            except StoreAway as error:
                return f"away: {error}"
            return "there"

        done: list[str] = []
        resolve(read, done.append)
        slow.answers[0].set_exception(StoreAway("gone for a walk"))
        await turns()
        assert done == ["away: gone for a walk"]

    in_loop(work)


def test_a_coroutine_can_await_what_an_operation_returns() -> None:
    async def work(slow: Slow) -> None:
        asked = Asked(slow)  # type: ignore[arg-type]  # the part that is read
        task = asyncio.create_task(resolved(lambda: (asked.get(b"a"), asked.history())))
        for answer in (record(3), (1, 2)):
            await turns()
            slow.answers[-1].set_result(answer)
        assert await task == (record(3), (1, 2))

    in_loop(work)


def test_answers_of_both_kinds_of_engines_are_taken() -> None:
    async def work(slow: Slow) -> None:
        assert await told(5) == 5
        coming = slow.get(b"k")
        coming.set_result(record(1))  # type: ignore[attr-defined]  # a future
        assert await told(coming) == record(1)

        heard: list[Any] = []
        when_told(5, heard.append, lambda: heard.append("away"))
        assert heard == [5], "at once"
        when_told(slow.get(b"a"), heard.append, lambda: heard.append("away"))
        when_told(slow.get(b"b"), heard.append, lambda: heard.append("away"))
        slow.answers[-2].set_result(None)
        slow.answers[-1].set_exception(StoreAway(""))
        await turns()
        assert heard == [5, None, "away"]

    in_loop(work)


def test_a_defect_of_an_engine_is_logged_and_counts_as_being_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(slow: Slow) -> None:
        heard: list[Any] = []
        when_told(slow.get(b"a"), heard.append, lambda: heard.append("away"))
        slow.answers[0].set_exception(KeyError("what"))
        await turns()
        assert heard == ["away"]

    in_loop(work)
    assert "the engine failed" in caplog.text
