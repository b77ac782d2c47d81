"""Connections to a store whose answers come later than the turn of the event loop that asked.

A durable commit is answered when it is on disk, a store on another machine when that has answered.
Meanwhile the connection is occupied, as it is by a request of the wide lane: what is pipelined
behind waits, so answers keep their order and a read sees the writes before it. Clients on other
connections share the flush or the round trip; on the connection itself nothing is gained by haste.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from keyrack.http import problems, semantics
from keyrack.http.api import dispatch
from keyrack.http.asked import resolve
from keyrack.http.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Outcome, Record, WaitingEngine
    from keyrack.http.api.dispatch import Resource
    from keyrack.http.message import Head, Request
    from keyrack.http.reply import PendingWrite

T = TypeVar("T")


class LateWrites(Connection):
    """Reads are answered at once, writes when they are durable."""

    def _occupied(self) -> bool:
        return self._unanswered > 0 or super()._occupied()

    def _flush(self) -> None:
        """Nothing is served while a write waits, so there is nothing to be done first."""

    def _hot_set(self, head: Head, body: bytes) -> bool:
        self._known = not super()._hot_set(head, body)
        return not self._known

    def _conclude_hot_set(self, outcome: Outcome) -> None:
        super()._conclude_hot_set(outcome)
        self._go_on()

    def _hot_key_put(self, key: bytes, head: Head, body: bytes) -> bool:
        self._known = not super()._hot_key_put(key, head, body)
        return not self._known

    def _conclude_hot_put(self, outcome: Outcome) -> None:
        super()._conclude_hot_put(outcome)
        self._go_on()

    def _submit(self, pending: PendingWrite, request: Request, name: str) -> None:
        def conclude(outcome: Outcome) -> None:
            self._unanswered -= 1
            self._later(
                lambda: problems.answered(lambda: pending.conclude(outcome), request.path),
                lambda answer: self._answer(request, answer, name),
            )
            self._go_on()

        self._await_answer()
        self.turn.submit(pending.write, conclude)

    def _later(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do `then` with what `work` returns, when all that it reads is known."""
        at_once = True

        def go_on(result: T) -> None:
            self._unanswered -= 1
            if self._transport.is_closing():
                return
            then(result)
            if not at_once:
                self._go_on()

        known = self._known
        self._await_answer()
        resolve(work, go_on)
        at_once = False
        self._known = known and not self._occupied()

    def _await_answer(self) -> None:
        self._unanswered += 1
        self._known = False

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._serve_queued()


class LateReads(LateWrites):
    """Neither reads nor writes are answered at once."""

    @property
    def _store(self) -> WaitingEngine:
        return cast("WaitingEngine", self.lane.context.store)

    def _hot_get(self, key: bytes) -> None:
        turn = self.turn
        if not turn.running:
            turn.begin()
        self._used = turn.now
        self._await_answer()
        asked = asyncio.ensure_future(self._store.get(key))
        asked.add_done_callback(partial(self._conclude_hot_get, key, turn.started))

    def _conclude_hot_get(
        self, key: bytes, started: int, asked: asyncio.Future[Record | None]
    ) -> None:
        self._unanswered -= 1
        self.turn.observe_read(started)
        if self._transport.is_closing():
            asked.exception()
            return
        if self._leaving or self._half_closed or asked.exception() is not None:
            answer = problems.answered(
                lambda: semantics.seed_get_answer(key, asked.result()), b"/get/"
            )
            self._send(answer, b"GET", "get", close=self._leaving)
        else:
            self._answer_hot_get(key, asked.result())
        self._go_on()

    def _hot_key_get(self, key: bytes) -> bool:
        return False

    def _serve_resource(self, request: Request, resource: Resource, name: str) -> None:
        context = self.lane.context.afresh()
        self._later(
            lambda: dispatch.serve(request, resource, context),
            lambda reply: self._carry_out(reply, request, name),
        )
