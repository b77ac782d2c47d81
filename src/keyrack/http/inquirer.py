"""A worker's part in questions to all workers: it answers those of others, and asks its own.

The questions are few, and people ask them: nothing here runs while nobody asks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from keyrack.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from keyrack.shared.counters import Counters

    Answering = Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]

_LOOK_SECONDS: Final = 0.005
_TURN_SECONDS: Final = 10.0
"""How long one waits until nobody else asks."""
_PATIENCE_SECONDS: Final = 5.0
"""How long the workers get to answer, beyond what the answer itself takes."""

_log = logging.getLogger("keyrack.http")


class Findings(NamedTuple):
    """What the workers have answered, by their numbers, and which of them did not."""

    answers: dict[int, Any]
    missing: list[int]
    """These live and do not react: they are stuck, or stopped."""


class Inquirer:
    """Asks all workers, this one included. What a worker answers with is made known by `answers`.

    An answer is a coroutine: it gets what the question is about and returns what JSON can hold.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters, slot: int) -> None:
        self._loop = loop
        self._counters = counters
        self._inquiries = counters.inquiries
        self._slot = slot
        self._seen = self._inquiries.number
        self._kinds: dict[str, Answering] = {}
        self._asking = False
        self._tasks: set[asyncio.Task[None]] = set()

    def answers(self, kind: str, answering: Answering) -> None:
        """Have questions of a kind answered by a function."""
        self._kinds[kind] = answering

    def look(self) -> None:
        """Answer a question that is new. Call it when this worker was woken."""
        number = self._inquiries.number
        if number == self._seen:
            return
        self._seen = number
        task = self._loop.create_task(self._answer(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int) -> None:
        about = msgspec.json.decode(self._inquiries.question())
        try:
            found = await self._kinds[about["kind"]](about)
        except Exception:
            _log.exception("a question of another worker could not be answered")
            return
        self._inquiries.answer(self._slot, number, msgspec.json.encode(found))

    async def ask(self, kind: str, lasts: float = 0.0, **about: Any) -> Findings:
        """Ask all workers; it lasts so many seconds to find the answer.

        Raises `Problem` where others ask all the time.
        """
        await self._take_turn()
        try:
            number = self._inquiries.ask(msgspec.json.encode({"kind": kind, **about}))
            self._counters.wake_all()
            deadline = time.monotonic() + lasts + _PATIENCE_SECONDS
            while True:
                findings = self._found(number)
                if not findings.missing or time.monotonic() > deadline:
                    return findings
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._inquiries.end()
            self._asking = False

    async def _take_turn(self) -> None:
        deadline = time.monotonic() + _TURN_SECONDS
        # The lock is the process's: two requests of one worker would both get it.
        while self._asking or not self._inquiries.try_begin():
            if time.monotonic() > deadline:
                raise Problem(
                    "busy", "Others ask the same kind of thing just now.", ((b"Retry-After", b"1"),)
                )
            await asyncio.sleep(_LOOK_SECONDS)
        self._asking = True

    def _found(self, number: int) -> Findings:
        answers, missing = {}, []
        for worker in range(self._inquiries.workers):
            raw = self._inquiries.answered(worker, number)
            if raw is not None:
                answers[worker] = msgspec.json.decode(raw)
            elif self._counters.ready(worker):
                missing.append(worker)
        return Findings(answers, missing)
