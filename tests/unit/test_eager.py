"""Coroutines that are run without a task: at once as far as they can, then by their futures."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from keyrack.http import eager

if TYPE_CHECKING:
    from collections.abc import Callable


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def in_loop(work: Callable[[asyncio.AbstractEventLoop], Any]) -> None:
    """Run something in a loop, and raise what a callback has raised."""
    raised: list[BaseException] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
        await work(loop)

    asyncio.run(run())
    assert raised == []


async def twice(futures: list[asyncio.Future[Any]], seen: list[Any]) -> str:
    for future in futures:
        answer = await future
        seen.append(answer)
    return "end"


def test_what_never_suspends_has_ended_when_run_returns_without_a_loop() -> None:
    async def work() -> int:
        return 5

    results: list[int] = []
    assert eager.run(work(), results.append) is None
    assert results == [5]


def test_what_awaits_goes_on_when_its_futures_are_done() -> None:
    async def work(loop: asyncio.AbstractEventLoop) -> None:
        futures = [loop.create_future(), loop.create_future()]
        seen: list[Any] = []
        results: list[Any] = []
        assert eager.run(twice(futures, seen), results.append) is not None
        for number, future in enumerate(futures):
            future.set_result(number)
            await turns()
            assert seen == list(range(number + 1))
        assert results == ["end"]

    in_loop(work)


def test_the_error_of_a_future_is_raised_where_it_is_awaited() -> None:
    async def caught(future: asyncio.Future[Any]) -> str:
        try:
            await future
        except ValueError as error:
            return str(error)
        return "nothing"

    async def work(loop: asyncio.AbstractEventLoop) -> None:
        future, results = loop.create_future(), []
        eager.run(caught(future), results.append)
        future.set_exception(ValueError("gone"))
        await turns()
        assert results == ["gone"]

    in_loop(work)


def test_a_sleep_of_nothing_lets_others_go_first() -> None:
    async def sleeps(seen: list[str]) -> None:
        await asyncio.sleep(0)
        seen.append("slept")

    async def work(loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        eager.run(sleeps(seen), lambda _: seen.append("done"))
        assert seen == []
        await turns()
        assert seen == ["slept", "done"]

    in_loop(work)


def test_what_is_cancelled_cleans_up_and_gives_no_result() -> None:
    async def tidy(future: asyncio.Future[Any], seen: list[str]) -> None:
        try:
            await future
        finally:
            seen.append("tidied")
            await asyncio.sleep(0)
            seen.append("even later")

    async def work(loop: asyncio.AbstractEventLoop) -> None:
        future, seen, results = loop.create_future(), [], []
        running = eager.run(tidy(future, seen), results.append)
        assert running is not None
        running.cancel()
        assert future.cancelled()
        assert seen == ["tidied"]
        await turns()
        assert (seen, results) == (["tidied", "even later"], [])

    in_loop(work)


def test_what_is_cancelled_in_the_moment_of_its_answer_stays_cancelled() -> None:
    """The future is done, and its callback is in the loop's queue already."""

    async def work(loop: asyncio.AbstractEventLoop) -> None:
        future, seen, results = loop.create_future(), [], []
        running = eager.run(twice([future], seen), results.append)
        assert running is not None
        future.set_result(1)
        running.cancel()
        await turns()
        assert (seen, results) == ([], [])

    in_loop(work)


@pytest.mark.parametrize("how", ["waiting", "failed just before"])
def test_a_gathering_that_nobody_waits_for_any_more_is_not_complained_of(how: str) -> None:
    """It does not end as cancelled, but with an error that somebody has to look at."""

    async def work(loop: asyncio.AbstractEventLoop) -> None:
        future: asyncio.Future[Any] = loop.create_future()
        running = eager.run(twice([asyncio.gather(future)], []), lambda _: None)
        assert running is not None
        if how == "failed just before":
            future.set_exception(ValueError("late"))
            await turns(1)
        running.cancel()
        del running, future
        await turns()
        gc.collect()  # a future complains when it goes

    in_loop(work)


def test_what_was_to_be_done_at_once_and_is_not_is_an_error() -> None:
    async def work(loop: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(RuntimeError, match="wait"):
            eager.at_once(twice([loop.create_future()], []))

    in_loop(work)


def test_what_is_done_at_once_has_nobody_to_let_go_first() -> None:
    async def sleeps() -> int:
        await asyncio.sleep(0)
        return 5

    assert eager.at_once(sleeps()) == 5
