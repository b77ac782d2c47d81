"""Serving one request of a connection after the other: from a whole request to its answer.

What takes longer than a turn of the event loop occupies the connection: an operation that waits, a
request of the wide lane, a stream. What is pipelined behind it waits, so that answers keep their
order.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from keyrack.http import eager, pages, problems
from keyrack.http.access_log import Access
from keyrack.http.answer import Answer
from keyrack.http.api import dispatch
from keyrack.http.api.counting import LIST_WORDS, denied_word, request_word
from keyrack.http.client_memory import LARGE, LITTLE
from keyrack.http.gate import DENIALS, NOBODY
from keyrack.http.hot_keys import READS
from keyrack.http.problems import Problem
from keyrack.http.protocol.asgi import AsgiExchange
from keyrack.http.protocol.outlet import CLOSE, KEEP, KEEP_1_0
from keyrack.http.protocol.reader import RefusedMessage
from keyrack.http.protocol.state import State
from keyrack.http.protocol.stream import StreamedAnswer
from keyrack.http.reply import PendingWrite, Stream
from keyrack.http.trace_context import server_timing, trace_of, wants_timing
from keyrack.http.watch import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from keyrack.access.grant import Grant
    from keyrack.engines.contract import Outcome
    from keyrack.http.eager import Running
    from keyrack.http.protocol.asgi import AsgiHost
    from keyrack.http.protocol.outlet import Outlet
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Reply
    from keyrack.http.worker_context import WorkerContext

T = TypeVar("T")

_ASK_ALL: Final = frozenset(("hot", "clients_list", "client_end"))
"""Operations that wait until all workers have answered: that is not slow."""
_FAILURE: Final = 400
"""The least status of an answer that says what is wrong."""
_LONG: Final = frozenset((b"/v1/export", b"/v1/import", b"/v1/big"))
"""Paths of the wide lane that may take for as long as their clients like."""


class Owner(Protocol):
    """The connection, as far as serving its requests concerns it."""

    grant: Grant
    """What those may do on it who send no credentials."""

    state: State
    """How far it is on its way to its end."""

    def settle(self) -> None:
        """Learn that the connection is occupied now, or free again."""

    def count_held(self) -> None:
        """Learn that more or less is held for its client."""

    def stop_reading(self) -> None:
        """Read nothing more as a request."""

    def go_on(self) -> None:
        """Serve what waits behind a request that was answered later than its turn."""

    def rest(self) -> None:
        """Learn that a request was answered."""

    def linger(self) -> None:
        """Close, so that the answer arrives."""

    def wide_answered(self) -> None:
        """Learn that the wide lane has answered."""


class _Gone:
    """In place of a connection that has ended: what is still done for it concerns nobody."""

    grant = NOBODY
    state = State.CLOSED

    def settle(self) -> None: ...
    def count_held(self) -> None: ...
    def stop_reading(self) -> None: ...
    def go_on(self) -> None: ...
    def rest(self) -> None: ...
    def linger(self) -> None: ...
    def wide_answered(self) -> None: ...


_GONE: Final = _Gone()


class WaitingOperation:
    """The operation of a request, while it waits for its engine, or for something to happen."""

    __slots__ = ("_running", "request")

    def __init__(self, running: Running[Any], request: Request | None) -> None:
        self._running = running
        self.request = request

    @property
    def held(self) -> int:
        """Bytes that are held for it."""
        return 0 if self.request is None else len(self.request.body)

    @property
    def waits_for_clients(self) -> bool:
        """Whether it waits for what others do, which may take long, and not only for the engine."""
        return self.request is not None and bool(self.request.head.prefer)

    @property
    def ends_with_input(self) -> bool:
        """Whether a client that closes its sending side gives it up.

        A read is answered all the same. Who waits for a lock could get one after it is gone. A
        client of HTTP/1.0 cannot be asked whether it is still there; see `Outlet.probe`.
        """
        if self.request is None or not self.waits_for_clients:
            return False
        return self.request.head.http_1_0 or self.request.method not in (b"GET", b"HEAD")

    def disconnect(self) -> None:
        """Learn that the client is gone."""
        self._running.cancel()


class Responder:
    """Serves the requests of one connection, and knows what it is occupied with."""

    __slots__ = (
        "_answers_later",
        "_host",
        "_owner",
        "_tick",
        "_worker",
        "occupant",
        "outlet",
        "serving",
        "unanswered",
    )

    def __init__(self, owner: Owner, outlet: Outlet, worker: WorkerContext, host: AsgiHost) -> None:
        self._owner = owner
        self.outlet = outlet
        self._worker = worker
        self._tick = worker.tick
        self._host = host
        self._answers_later = worker.context.engine.capabilities.answers_later
        self.unanswered = 0
        """Writes that wait for the end of the turn, or longer where the engine answers later."""
        self.occupant: WaitingOperation | AsgiExchange | StreamedAnswer | None = None
        """What the present request is, while it takes longer than a turn."""
        self.serving = 0
        """Bytes of the body that is being served."""

    @property
    def is_occupied(self) -> bool:
        """Whether nothing can be served beside the present request."""
        # Where the engine answers later, what follows a write sees it and is answered behind it.
        return self.occupant is not None or (self._answers_later and self.unanswered > 0)

    @property
    def must_wait(self) -> bool:
        """Whether the next request cannot be served now."""
        return self.outlet.is_blocked or self.is_occupied

    @property
    def waits_for_clients(self) -> bool:
        """Whether the present request waits for what others do, which may take long."""
        occupant = self.occupant
        return isinstance(occupant, WaitingOperation) and occupant.waits_for_clients

    @property
    def request(self) -> Request | None:
        """The present request, while it takes longer than a turn."""
        return None if self.occupant is None else self.occupant.request

    @property
    def held(self) -> int:
        """Bytes that are held for the present request."""
        return self.serving if self.occupant is None else max(self.serving, self.occupant.held)

    def serve(self, request: Request | RefusedMessage) -> None:
        """Serve a request, or answer a message that is none."""
        if isinstance(request, RefusedMessage):
            self._flush()
            self.answer_problem(
                request.problem, request.method, request.target, shared=request.shared
            )
            return
        if not self._tick.running:
            self._tick.begin()  # it has waited behind another one
        resource = dispatch.find(request.path)
        route = resource and resource.routes.get(request.method)
        if self.unanswered and (request.head.prefer or not (route and route.blind)):
            # A read behind a write of the same connection sees it.
            self._flush()
        name = route.name if route else "other"
        if self._worker.hot_keys is not None and route is not None and name in READS:
            self._worker.hot_keys.note_request(request.path, route.path)
        if resource is None:
            self._carry_out(request, name, self._tick.started, None)
            return
        if len(request.body) > LITTLE:
            self.serving = len(request.body)
            self._owner.count_held()
        self.run(
            request,
            dispatch.serve(request, resource, self._worker.context),
            partial(self._carry_out, request, name, self._tick.started),
        )

    def serve_wide(self, request: Request, *, more_body: bool = False) -> AsgiExchange:
        """Have the wide lane serve a request, whose body may still be arriving."""
        exchange = AsgiExchange(
            request,
            self.outlet,
            self._worker,
            self._owner.wide_answered,
            more_body=more_body,
            keep_alive=request.keep_alive and self._owner.state is not State.LAST,
        )
        self.occupant = exchange
        self._owner.settle()
        self._owner.count_held()
        self._host.serve(exchange)
        return exchange

    # Operations

    def run(
        self, request: Request | None, operation: Coroutine[Any, Any, T], done: Callable[[T], None]
    ) -> None:
        """Run an operation. While it waits for something, the connection is occupied.

        Without a request it is one that was recognised, and waits for the engine only.
        """
        running = eager.run(operation, done)
        if running is not None:
            running.done = partial(self._end_run, done)
            self.occupant = WaitingOperation(running, request)
            self._owner.settle()

    def _end_run(self, done: Callable[[T], None], result: T) -> None:
        self.occupant = None
        if not self.outlet.transport.is_closing():
            done(result)
            self._owner.go_on()

    def _carry_out(self, request: Request, name: str, started: int, reply: Reply | None) -> None:
        if reply is None:
            self._flush()
            self.serving = 0
            self.serve_wide(request)
            return
        if type(reply) is PendingWrite:
            self._submit(reply, request, name)
            return
        if self.unanswered:
            self._flush()
        if isinstance(reply, Stream):
            self._stream(reply, request, name)
            return
        assert isinstance(reply, Answer)
        self._watch(request, name, time.monotonic_ns() - started, reply)
        lane = LIST_WORDS.get(name)
        if lane is not None:
            self._tick.observe(lane, time.monotonic_ns() - started)
        elif self._tick.running and self._tick.started == started:
            self._tick.reads += 1
        elif not request.head.prefer:
            self._tick.observe_read(started)
        self._answer(request, name, reply)

    def _watch(self, request: Request, name: str, took: int, answer: Answer) -> None:
        """Tell the slow log of an answer that took long, or is large."""
        slow = self._tick.slow
        size = len(answer.body)
        waits = request.head.prefer or name in _ASK_ALL
        if (took >= slow.slow_ns and not waits) or size >= slow.large:
            slow.request(name, request, answer.status, took, size)

    def _flush(self) -> None:
        """Do the writes that wait. The request at hand is due as well: nothing is closed yet.

        Where the engine answers later none does: nothing is served beside a write there.
        """
        if self._answers_later:
            return
        self.unanswered += 1
        self._tick.flush()
        self.unanswered -= 1

    def _submit(self, pending: PendingWrite, request: Request, name: str) -> None:
        def conclude(outcome: Outcome) -> None:
            self.unanswered -= 1
            if self._worker.looks_at_all:
                request.note_write(pending.write, outcome)
            answer = dispatch.conclude(pending, outcome, request.path)
            if isinstance(answer, Answer):
                self._answer(request, name, answer)
            else:
                self.run(request, answer, partial(self._answer, request, name))
            if self._answers_later and self.occupant is None:
                self._owner.go_on()

        self.unanswered += 1
        if self._answers_later:
            self._owner.settle()
        if self._worker.hot_keys is not None:
            self._worker.hot_keys.note_write(pending.write)
        self._tick.submit(pending.write, conclude)
        if len(request.body) > LARGE:
            # Large bodies do not share a commit: all of them would be held until its end.
            self._tick.flush()

    def _stream(self, stream: Stream, request: Request, name: str) -> None:
        """Begin an answer that goes on until the client leaves. The connection ends with it."""
        self._tick.counters[request_word(name, 200)] += 1
        if request.came:
            self._timed(request, name, Answer(200))
        self._log_access(request, Answer(200))
        self._owner.stop_reading()
        self.occupant = answer = StreamedAnswer(request, self.outlet, self._owner.count_held)
        answer.start(stream, self._tick.stamp)
        if self._worker.ends_streams:
            answer.break_off()

    # Answers

    def _answer(self, request: Request, name: str, answer: Answer) -> None:
        if answer.status >= _FAILURE:
            if (trace := trace_of(request.head.fields)) is not None:
                answer = problems.in_trace(answer, trace.trace_id)
            answer = pages.for_people(answer, request)
        if request.came:
            answer = self._timed(request, name, answer)
        self._log_access(request, answer)
        if request.refusal is not None:
            self._tick.counters[denied_word(name)] += 1
        if self.serving:
            self.serving = 0
            self._owner.count_held()
        end = KEEP_1_0 if request.head.http_1_0 else KEEP
        if not request.keep_alive or self._owner.state is State.LAST:
            end = CLOSE
        self.send(answer, request.method, name, request.head.shared + end)
        self._owner.rest()

    def answer_problem(
        self,
        problem: Problem,
        method: bytes,
        target: bytes,
        name: str = "other",
        shared: bytes = b"",
    ) -> None:
        """Answer a request of which there is no more than this; `shared` is as in its head."""
        if not self._tick.running:
            self._tick.begin()
        path, _, query = target.partition(b"?")
        answer = problems.answer(problem, path)
        if self._worker.access_log is not None:
            size = 0 if method == b"HEAD" else len(answer.body)
            self._worker.access_log(
                Access(self.outlet.peer, method, path, query, answer.status, size, 0, ())
            )
        if problem.slug in DENIALS:
            route = dispatch.route_for(method, path)
            self._tick.counters[denied_word(route.name if route else "other")] += 1
        closes = problem.kind.closes or self._owner.state is State.LAST
        self.send(answer, method, name, shared + (CLOSE if closes else KEEP))
        if problem.kind.closes:
            self._owner.linger()
        else:
            self._owner.rest()

    def send(self, answer: Answer, method: bytes, name: str, end: bytes) -> None:
        """Count and send an answer to an operation's request; see `Outlet.write_answer`."""
        self._tick.counters[request_word(name, answer.status)] += 1
        self.outlet.write_answer(answer, method, end)

    def _timed(self, request: Request, name: str, answer: Answer) -> Answer:
        """Record a span of a request, and tell how long it took where that was asked for."""
        took = time.monotonic_ns() - request.came
        if self._worker.spans is not None:
            outlet = self.outlet
            self._worker.spans.note(
                name, request, answer.status, took, outlet.peer, secure=outlet.is_secure
            )
        if request.head.prefer and wants_timing(request.head.prefer):
            return answer._replace(headers=(*answer.headers, *server_timing(took)))
        return answer

    def _log_access(self, request: Request, answer: Answer) -> None:
        if self._worker.is_audited:
            self._worker.note(request, answer.status, self.outlet.peer)
        if self._worker.access_log is None:
            return
        self._worker.access_log(
            Access(
                self.outlet.peer,
                request.method,
                request.path,
                request.query,
                answer.status,
                0 if request.method == b"HEAD" else len(answer.body),
                time.monotonic_ns() - request.came,
                request.head.fields,
            )
        )

    # Ends

    def disconnect(self) -> None:
        """Learn that the client is gone, and let go of the connection."""
        self._drop_occupant()
        self._owner = _GONE

    def _drop_occupant(self) -> None:
        occupant, self.occupant = self.occupant, None
        self.serving = 0
        if occupant is not None:
            occupant.disconnect()

    def give_notice(self) -> bool:
        """Have the present answer say that it is the last one; False if it said otherwise."""
        if isinstance(self.occupant, AsgiExchange):
            if self.occupant.has_begun_to_answer:
                return False
            self.occupant.close_after_answer()
        return True

    def break_off_stream(self) -> None:
        """End a stream where it is."""
        if isinstance(self.occupant, StreamedAnswer):
            self.occupant.break_off()

    def end_long_ones(self) -> bool:
        """End what would outlast any grace: its client asks again elsewhere. Tell if there was."""
        occupant = self.occupant
        if isinstance(occupant, StreamedAnswer):
            occupant.break_off()
            return True
        if self.waits_for_clients:
            self.outlet.transport.close()
            return True
        return False

    # Who may do what, when that changes

    def judge_again(self) -> None:
        """End the present request if its client may not do it any more, and it may take long."""
        occupant = self.occupant
        if occupant is None or occupant.request is None or not _goes_on(occupant):
            return
        request = occupant.request
        before = request.grant.rights.rules.lines()
        self.admit_again(request)
        try:
            dispatch.judge_head(request)
        except Problem as problem:
            self._revoke(problem)
            return
        # What a watch without a prefix tells was settled when it began.
        if (
            isinstance(occupant, StreamedAnswer)
            and b"prefix=" not in request.query
            and request.grant.rights.rules.lines() != before
        ):
            occupant.finish(messages.REVOKED)

    def admit_again(self, request: Request) -> None:
        """Find out anew what a request's sender may do."""
        self._worker.gate.admit(request.head, self.outlet.address)
        request.grant = request.head.grant or self._owner.grant
        if request.ticket is not None:
            try:
                self._worker.gate.admit_ticket(request)
            except Problem:
                request.grant = NOBODY

    def is_over(self, now: float) -> bool:
        """Tell whether the time is over for which the present request was allowed (since 1970)."""
        request = None if self.occupant is None else self.occupant.request
        return request is not None and request.grant.is_over(now)

    @property
    def needs_looks(self) -> bool:
        """Whether the present request is to be looked at now and then: it sends, or may be over."""
        occupant = self.occupant
        if not isinstance(occupant, WaitingOperation):
            return occupant is not None
        return occupant.request is not None and occupant.request.grant.expires is not None

    def _revoke(self, problem: Problem) -> None:
        occupant = self.occupant
        if isinstance(occupant, StreamedAnswer):
            occupant.finish(messages.REVOKED)
        elif isinstance(occupant, AsgiExchange):
            self.outlet.transport.abort()
        elif occupant is not None and occupant.request is not None:
            self._drop_occupant()
            self._owner.stop_reading()
            request = occupant.request
            self.answer_problem(problem, request.method, request.path, shared=request.head.shared)
            self._owner.rest()


def _goes_on(occupant: WaitingOperation | AsgiExchange | StreamedAnswer) -> bool:
    """Tell whether a request may take for as long as its client likes."""
    if isinstance(occupant, WaitingOperation):
        return occupant.waits_for_clients
    return isinstance(occupant, StreamedAnswer) or occupant.request.path in _LONG
