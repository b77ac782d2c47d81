"""The fast lane: one HTTP/1.1 connection, served inside the transport's own callbacks.

A request for a single key costs no task, no framework and no allocation that can be avoided. How:

- A client sends the same header section again and again. The parser (llhttp) and `head.read` judge
  it once; after that the very same bytes are recognised by one dictionary look-up. Only a message
  that arrives whole, begins with a plain request line and continues with known bytes takes this
  way (`data_received`, `HotRequests`); everything else goes through the parser (`reader`).
- Whatever way it came, a request is whole before it is served: head and body are bounded, and a
  slow client occupies memory, never a task.
- `responder` serves one request after the other; `asgi` those of the wide lane. What is pipelined
  behind one that takes longer waits in `_queue`, as it does while the client does not read its
  answers. Answers keep their order.

There is no timer for a connection or a request: a worker looks at all its connections once a second
(`check_deadlines`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from keyrack.engines.contract import MAX_KEY_BYTES, TEXT, Refusal, Set
from keyrack.http import problems
from keyrack.http.answer import Answer
from keyrack.http.api import codec, keys
from keyrack.http.api.codec import encode
from keyrack.http.api.counting import request_word
from keyrack.http.api.models import ConnectedClient, Pair
from keyrack.http.client_memory import LARGE
from keyrack.http.problems import Problem
from keyrack.http.protocol.asgi import AsgiExchange, AsgiHost
from keyrack.http.protocol.body_fill import BodyFill
from keyrack.http.protocol.outlet import CLOSE, KEEP, Outlet
from keyrack.http.protocol.reader import REQUEST_LINE, MessageReader, RefusedMessage
from keyrack.http.protocol.request import Request
from keyrack.http.protocol.responder import Responder
from keyrack.http.protocol.state import State
from keyrack.http.protocol.stream import StreamedAnswer
from keyrack.http.worker_context import LAST
from keyrack.shared.counters import ACCEPTED, OPEN_CONNECTIONS

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from keyrack.access.grant import Grant
    from keyrack.engines.contract import Outcome, Record
    from keyrack.http.api.models import ClientState
    from keyrack.http.hot_keys import HotKeys
    from keyrack.http.protocol.request import Head
    from keyrack.http.spans import SpanRecorder
    from keyrack.http.worker_context import ServerConfig, WorkerContext

_GET_LINE: Final = re.compile(rb"GET /get/([!-\"$&->@-~]{1,511}) HTTP/1\.1\r\n").match
"""A read of a key that is written without percent signs: the most frequent request of all."""
_SET_LINE: Final = b"POST /set HTTP/1.1\r\n"
_PLAIN_KEY: Final = re.compile(rb"[!-\"$&->@-~]{1,511}").fullmatch
_KEY_AND_TTL: Final = re.compile(rb"([!-\"$&->@-~]{1,511})\?ttl=([1-9][0-9]{0,7})").fullmatch
"""Such a key, and whole seconds that are below the most there may be."""

_GET_200: Final = request_word("get", 200)
_GET_404: Final = request_word("get", 404)
_SET_200: Final = request_word("set", 200)
_KEY_GET_200: Final = request_word("key_get", 200)
_KEY_PUT_201: Final = request_word("key_put", 201)
_KEY_PUT_204: Final = request_word("key_put", 204)

_VALUE_FIELDS: Final = b"".join(b"%b: %b\r\n" % field for field in keys.VALUE_HEADERS)

_QUEUE_HIGH: Final = 64
"""Pipelined requests that may wait before the connection is no longer read from."""
_COARSE_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 1.0
_TOO_MANY: Final = "There are more connections than may be; see --max-connections. Try again soon."


_OPEN: Final = State.OPEN
_ENDS_SOON: Final = (State.UNWELCOME, State.LINGERING)
_SHOWN_PATH: Final = 200
"""Characters of a path that a list of clients shows."""


class Connection(asyncio.Protocol):  # structure: what transport, reader, responder, worker call
    """One client's connection: the order of its requests, backpressure, and its end.

    All connections of a worker share its `WorkerContext`.
    """

    # Made when the transport is there.
    reader: MessageReader
    _outlet: Outlet
    _responder: Responder
    _hot: HotRequests

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.worker = config.worker
        self.tick = self.worker.tick
        self._heads = self.worker.heads
        self._host = AsgiHost(config, server_state, app_state)
        self._queue: deque[Request | RefusedMessage] = deque()
        """What has arrived and is not served, because something else occupies the connection."""
        self.grant = self.worker.gate.nobody
        self.state = State.OPEN
        self._since = 0.0
        """When it began to be unwelcome, or to linger (coarse seconds)."""
        self._known = False
        """Whether the next bytes may be recognised without the parser; see `settle`."""
        self.used = self.tick.now
        """When it was last used (coarse seconds)."""
        self.next_look = 0.0
        """When its deadlines are to be looked at (coarse seconds); always where that is past."""
        self.held = 0
        """Bytes that are counted as held for this client; see `client_memory`."""
        self.last_head: Head | None = None
        """That of the last request."""

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's
        """Begin; the transport is ready."""
        self._outlet = Outlet(transport, self.worker)
        self.reader = MessageReader(self.worker, self, self._outlet)
        self._responder = Responder(self, self._outlet, self.worker, self._host)
        self.sample(self.worker.hot_keys)
        self.worker.connections.add(self)
        count = self.tick.counters
        count[OPEN_CONNECTIONS] += 1
        count[ACCEPTED] += 1
        self.grant = self.worker.gate.of_connection(transport)
        if self.worker.turns_away():
            self.state = State.UNWELCOME
            self._since = self.tick.now
        elif self.worker.leaving:
            self.state = State.LAST
        self.settle()

    def sample(self, hot_keys: HotKeys | None) -> None:
        """Tell of the keys that are asked for from now on; None: no longer."""
        about = (self, self._outlet.transport, self._responder, self.worker)
        if hot_keys is not None:
            self._hot = SampledRequests(hot_keys, *about)
        elif self.worker.spans is not None:
            self._hot = TracedRequests(self.worker.spans, *about)
        else:
            self._hot = HotRequests(*about)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; whatever waited for this client is dropped."""
        self.state = State.CLOSED
        self._known = False
        self._outlet.count_traffic()
        self.worker.connections.discard(self)
        self.tick.counters[OPEN_CONNECTIONS] -= 1
        self._queue.clear()
        self._responder.disconnect()
        # Without this the connection and what serves it would refer to each other for ever.
        del self._hot
        self._outlet.unblock()
        self.reader.close()
        self.count_held()

    def data_received(self, data: bytes) -> None:
        """Take bytes: known messages at once, anything else through the parser."""
        if self._known:
            self.used = self.tick.now
            if self.last_head is None and self._hot.serve_last(data):
                return
            line = _GET_LINE(data)
            if line is not None:
                section = data[line.end() :]
                head = self._heads.get(section) or self.worker.recognise(section)
                if head is not None and head.content_length == 0:
                    reads = (head.grant or self.grant).reads
                    if reads is None or reads(line[1]):
                        self.last_head = head
                        self._hot.get(line[1])
                        return
            elif data.startswith(_SET_LINE):
                end = data.find(b"\r\n\r\n", len(_SET_LINE) - 2) + 4
                section = data[len(_SET_LINE) : end]
                head = self._heads.get(section) or self.worker.recognise(section)
                if (
                    head is not None
                    and len(data) - end == head.content_length
                    and self._hot.set(head, data[end:])
                ):
                    self.last_head = head
                    return
            taken = self._take_known(data)
            if taken == len(data):
                return
            if taken:
                self._parse(data[taken:], behind_others=True)
                return
            if self._hot.serve_last(data):
                return
        self._parse(data)

    def eof_received(self) -> bool:
        """The client sends no more. What it asked for is still answered."""
        self._outlet.client_is_done = True
        self.next_look = 0.0
        self.stop_reading()
        occupant = self._responder.occupant
        if occupant is not None and occupant.ends_with_input:
            return False
        if self._responder.waits_for_clients:
            self._outlet.probe()
        self._abandon_body()
        return self.busy() and not self._outlet.is_secure

    def pause_writing(self) -> None:
        """The client does not read: nothing more is read from it, or served to it."""
        self._outlet.block()
        self.next_look = 0.0
        self.settle()
        self.count_held()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._outlet.unblock()
        self.count_held()
        if len(self._queue) < _QUEUE_HIGH:
            self._outlet.flow.resume_reading()
        if isinstance(self._responder.occupant, StreamedAnswer):
            self._responder.occupant.resume()
        self._serve_queued()

    # Messages

    def _take_known(self, data: bytes) -> int:
        """Serve the whole messages with known header sections that data begins with.

        Return how many bytes they had.
        """
        position, size = 0, len(data)
        while self._known and position < size:
            line = REQUEST_LINE(data, position)
            if line is None:
                break
            after = line.end()
            end = data.find(b"\r\n\r\n", after - 2) + 4
            section = data[after:end]
            head = self._heads.get(section)
            is_whole = head is not None
            if head is None:
                head = self.worker.recognise(section)
            if head is None or size - end < head.content_length:
                break
            self.last_head = head
            body_end = end + head.content_length
            method, target, body = line[1], line[2], data[end:body_end]
            grant = head.grant or self.grant
            if not self._hot.serve(method, target, head, body, grant):
                if not is_whole:
                    break
                self._accept(Request(method, target, head, body, grant, keep_alive=True))
            position = body_end
        return position

    def _parse(self, data: bytes, *, behind_others: bool = False) -> None:
        reader = self.reader
        self.next_look = 0.0
        if self.state is State.UNWELCOME:
            # Not before: an answer to nothing confuses many clients.
            problem = Problem("too-many-connections", _TOO_MANY, ((b"Retry-After", b"1"),))
            reader.refuse(problem, unread=data)
        if self.state is State.LINGERING:
            self._outlet.discard(len(data))
        if reader.stopped:
            return
        reader.feed(data, behind_others=behind_others)
        if reader.misses_much and not self._outlet.is_secure:
            BodyFill(self, self, reader, self._outlet, self.worker)
        self.settle()
        if reader.arriving:
            self.used = self.tick.now
        if self.held or reader.held:
            self.count_held()

    def take_request(self, request: Request) -> None:
        """Reader: serve a whole request when it is its turn."""
        self.used = self.tick.now
        self.last_head = request.head
        if self.reader.stopped:
            self.stop_reading()
        if not self.tick.running:
            self.tick.begin()
        self._accept(request)

    def take_refused(self, refused: RefusedMessage) -> None:
        """Reader: answer a message that is not whole, when it is its turn."""
        self.stop_reading()
        exchange = self._responder.occupant
        if isinstance(exchange, AsgiExchange) and exchange.awaits_body:
            # What was made of the part that came is for the application to tell.
            if exchange.break_body(refused.problem):
                return
            self._abandon_body()
        self._accept(refused)

    def begin_streaming(self, request: Request) -> AsgiExchange:
        """Reader: serve a request whose body is still arriving."""
        return self._responder.serve_wide(request, more_body=True)

    def _abandon_body(self) -> None:
        """Let go of a request whose body will not be whole."""
        exchange = self._responder.occupant
        if isinstance(exchange, AsgiExchange) and exchange.awaits_body:
            self._responder.occupant = None
            exchange.abandon()

    # Order

    def settle(self) -> None:
        """Work out whether the next bytes may be recognised without the parser.

        They may where the next message is served at once, whole as it is, and as any other.
        """
        self._known = (
            self.state is _OPEN
            and not self.worker.looks_at_all
            and not (self.reader.arriving or self._queue)
            and not (self._outlet.is_blocked or self._responder.is_occupied)
        )

    def busy(self) -> bool:
        """Whether an answer is due that has not been written."""
        responder = self._responder
        return bool(responder.unanswered or self._queue or responder.is_occupied)

    def _accept(self, request: Request | RefusedMessage) -> None:
        """Serve a request now, or when it is its turn."""
        self.next_look = 0.0
        if isinstance(request, Request) and (self.worker.times_all or request.head.prefer):
            request.came = time.monotonic_ns()
        if not self._queue and not self._responder.must_wait:
            self._responder.serve(request)
            return
        self._queue.append(request)
        self.settle()
        self.count_held()
        if len(self._queue) >= _QUEUE_HIGH:
            self._outlet.flow.pause_reading()

    def _serve_queued(self) -> None:
        while self._queue and not self._responder.must_wait:
            self._responder.serve(self._queue.popleft())
        if not self._queue and not self._responder.must_wait:
            self._outlet.flow.resume_reading()
            self.settle()
            self.reader.send_continue()
            self.rest()

    def go_on(self) -> None:
        """Serve what waits behind a request that was answered later than its turn."""
        self.used = self.tick.now
        if not self._outlet.transport.is_closing():
            self._serve_queued()

    def wide_answered(self) -> None:
        """Go on: the wide lane has answered."""
        exchange, self._responder.occupant = self._responder.occupant, None
        is_cut_off = self.reader.streaming or (
            isinstance(exchange, AsgiExchange) and exchange.broken is not None
        )
        self.count_held()
        self._host.server.total_requests += 1
        if is_cut_off and not self._outlet.transport.is_closing():
            # Answered before the body had come: nothing of it may be read as a request.
            self.reader.give_up()
            self.linger()
            return
        self.go_on()
        if self.worker.leaving:
            self.announce_end()

    # What is held for the client

    def count_held(self) -> None:
        """Count what is held for this client now."""
        held = self.reader.held + self._responder.held + self._outlet.held
        if self._queue:
            held += sum(len(one.body) for one in self._queue if isinstance(one, Request))
        if held != self.held:
            self.worker.client_memory.add(held - self.held)
            self.held = held

    def stalled(self, seconds: float) -> bool:
        """Tell whether the client has neither taken nor sent what is due, for so long."""
        now = self.tick.now
        since = self._outlet.unread_since or (self.used if self.reader.held else now)
        return now - since >= seconds

    def cut(self) -> None:
        """End the connection at once: what is held for it is wanted for others."""
        self._outlet.transport.abort()

    # The end

    def stop_reading(self) -> None:
        """Read nothing more as a request; what is due is still answered."""
        self.reader.stop()
        if self.state in (State.OPEN, State.LAST, State.UNWELCOME):
            self.state = State.ENDING
        self.settle()

    def rest(self) -> None:
        """Close where nothing more is due and nothing more is wanted."""
        if self.state is _OPEN and not self.reader.owes_continue:
            return
        if self.busy():
            return
        self.reader.send_continue()
        last = self.state is State.LAST and not self.reader.arriving
        if last or self.state is State.ENDING:
            self._outlet.transport.close()

    def linger(self) -> None:
        """Close so that the answer arrives: bytes that are still coming must not cause a reset."""
        self.reader.stop()
        if self.state is not State.CLOSED:
            self.state = State.LINGERING
            self._since = self.tick.now
            self.next_look = 0.0
        self.settle()
        self._outlet.linger()

    def announce_end(self) -> None:
        """Have the next answer be the last one, and say so.

        Nothing is closed before it: a client may just be about to send something.
        """
        # An answer that has begun did not say that it is the last one: the next will.
        if self.state is _OPEN and self._responder.give_notice():
            self.state = State.LAST
            self.settle()

    def leave(self) -> None:
        """Another service has taken over: give one more answer, and end what goes on for long."""
        self.announce_end()
        self._responder.break_off_stream()

    def shutdown(self) -> None:
        """The service ends: finish what is in flight, then close. Called by uvicorn's server."""
        self._responder.give_notice()
        if self.state is _OPEN:
            self.state = State.LAST
            self.settle()
        # Somebody may have asked in this very moment; then the answer is the last one.
        if not self._responder.end_long_ones() and not self._outlet.has_input:
            self.rest()

    def check_deadlines(self, now: float) -> None:
        """Close what has been waited for long enough; `now` in coarse seconds."""
        calm = self.state not in _ENDS_SOON and self._outlet.is_calm
        calm = calm and not (self.reader.arriving or self._responder.needs_looks)
        # A request that is served now is the last use of the connection when it is answered.
        used = now if self.busy() else self.used
        self.next_look = used + self.worker.timeouts.keep_alive if calm else 0.0
        if self._responder.is_over(time.time()):
            self.judge_again()
        if now - self.used <= 2 * _COARSE_SECONDS or self._responder.is_occupied:
            self._outlet.count_traffic()
        # The coarse clock is behind by up to a tick, which may be late: never be early.
        now -= _COARSE_SECONDS
        settings = self.worker.timeouts
        if self.state in _ENDS_SOON:
            if now - self._since > _LINGER_SECONDS:
                self._outlet.transport.abort()
        elif self._outlet.unread_since:
            if now - self._outlet.unread_since > settings.send:
                self._outlet.transport.abort()
        elif self._outlet.client_is_done:
            if self._outlet.is_reset:
                self._outlet.transport.abort()
        elif (problem := self.reader.overdue(now)) is not None:
            self.reader.refuse(problem)
        elif not (self.reader.arriving or now - self.used <= settings.keep_alive or self.busy()):
            self._outlet.transport.close()

    # Who is here

    def describe(self) -> ConnectedClient:
        """Say who the client is, and what it waits for."""
        outlet, responder = self._outlet, self._responder
        request = responder.request
        head = self.last_head if request is None else request.head
        grant = self.grant if head is None or head.grant is None else head.grant
        now = self.tick.now
        return ConnectedClient(
            id=f"{outlet.number}",
            worker=0,
            address=outlet.peer,
            tls=outlet.is_secure,
            age=now - outlet.since,
            idle=0.0 if self.busy() else max(0.0, now - self.used),
            state=self._doing(),
            request=None
            if request is None
            else f"{request.method.decode()} {request.path.decode('latin-1')[:_SHOWN_PATH]}",
            queued=len(self._queue),
            owed=outlet.owed,
            held=self.held,
            token=grant.identity.id,
            agent=None if head is None else _agent(head),
        )

    def _doing(self) -> ClientState:
        if self.state is not _OPEN and self.state is not State.LAST and not self.busy():
            return "ending"
        if self._outlet.is_blocked:
            return "reading"
        if isinstance(self._responder.occupant, StreamedAnswer):
            return "watching"
        if self._responder.waits_for_clients:
            return "waiting"
        if self.busy():
            return "working"
        return "sending" if self.reader.arriving else "idle"

    def judge_again(self) -> None:
        """Find out anew what the client may do, and end what it may do no longer.

        Call it when it matters again who may do what. Answers that are short are left to come.
        """
        self.grant = self.worker.gate.of_connection(self._outlet.transport)
        self.reader.admit_again()
        for queued in self._queue:
            if isinstance(queued, Request):
                self._responder.admit_again(queued)
        self._responder.judge_again()


class HotRequests:
    """Requests that are recognised, served in the shortest way that means the same as any other.

    Which shapes are served here, and which are left to the `Responder`, is for speed alone.
    """

    __slots__ = (
        "_answers_later",
        "_connection",
        "_max_value",
        "_responder",
        "_tick",
        "_transport",
        "_worker",
    )

    def __init__(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        responder: Responder,
        worker: WorkerContext,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._responder = responder
        self._worker = worker
        self._tick = worker.tick
        self._max_value = worker.context.limits.max_value
        self._answers_later = worker.context.engine.capabilities.answers_later

    def serve(self, method: bytes, target: bytes, head: Head, body: bytes, grant: Grant) -> bool:
        """Serve a request if it is of a hot shape; say if it was."""
        tick = self._tick
        if not tick.running:
            tick.begin()
        if target == b"/set":
            return method == b"POST" and self.set(head, body)
        if target.startswith(b"/v1/keys/"):
            key, ttl_ms = target[9:], 0
            if not _PLAIN_KEY(key):
                match = _KEY_AND_TTL(key)
                if match is None or method != b"PUT":
                    return False
                key, ttl_ms = match[1], int(match[2]) * 1000
            if method == b"GET":
                return bool(grant.reads is None or grant.reads(key)) and self._key_get(key)
            return (
                method == b"PUT"
                and bool(grant.sets is None or grant.sets(key))
                and self._key_put(key, head, body, ttl_ms)
            )
        if method == b"GET" and target.startswith(b"/get/") and _PLAIN_KEY(target[5:]):
            key = target[5:]
            if grant.reads is None or grant.reads(key):
                self.get(key)
                return True
        return False

    def serve_last(self, data: bytes) -> bool:
        """Serve a whole message whose known header section ends the connection; say if it is one.

        Clients without keep-alive make one for each request: then this is as frequent as any.
        """
        line = REQUEST_LINE(data)
        if line is None:
            return False
        after = line.end()
        end = data.find(b"\r\n\r\n", after - 2) + 4
        head = self._worker.heads.get(LAST + data[after:end])
        if head is None or len(data) - end != head.content_length:
            return False
        connection = self._connection
        method, target, grant = line[1], line[2], head.grant or connection.grant
        connection.reader.stop()
        connection.last_head = head
        if not (
            method == b"GET" and target.startswith(b"/get/") and self._get_last(target[5:], grant)
        ):
            body = data[end:]
            connection.take_request(Request(method, target, head, body, grant, keep_alive=False))
        return True

    def _get_last(self, key: bytes, grant: Grant) -> bool:
        """`GET /get/<key>` as `keys.seed_get` has it, and end; say if it was of the hot shape."""
        tick = self._tick
        if tick.get_now is None or not _PLAIN_KEY(key):
            return False
        if not (grant.reads is None or grant.reads(key)):
            return False
        if not tick.running:
            tick.begin()
        if self._responder.unanswered:
            tick.flush()
        try:
            record = tick.get_now(key)
        except Exception:
            return False  # it happens again where it is answered for
        if record is not None and len(record.value) > LARGE:
            return False
        tick.reads += 1
        self._connection.stop_reading()
        self._responder.send(keys.seed_get_answer(key, record), b"GET", "get", CLOSE)
        self._connection.rest()
        return True

    def get(self, key: bytes) -> None:
        """`GET /get/<key>` as `keys.seed_get` has it, for the most frequent shape."""
        tick = self._tick
        if not tick.running:
            tick.begin()
        get_now = tick.get_now
        if get_now is None:
            self._responder.run(None, self._get(key, tick.started), self._answer_later)
            return
        if self._responder.unanswered:
            tick.flush()
        tick.reads += 1
        try:
            record = get_now(key)
        except Exception:
            self._worker.log.exception("reading failed")
            self._responder.answer_problem(problems.internal(), b"GET", b"/get/", "get")
            return
        self._answer_get(key, record)

    async def _get(self, key: bytes, started: int) -> Answer | tuple[bytes, Record | None]:
        """Return what an engine that answers later has of a key, or why there is no answer."""
        try:
            record = await self._worker.context.engine.get(key)
        except Exception as error:
            return problems.answer_to(error, b"/get/")
        finally:
            took = self._tick.observe_read(started)
            if took >= self._tick.slow.slow_ns:
                self._tick.slow.read("get", key, took, None)
        return key, record

    def _answer_later(self, found: Answer | tuple[bytes, Record | None]) -> None:
        if isinstance(found, Answer):
            self._conclude(found, b"GET", "get")
        elif self._connection.state is _OPEN:
            self._answer_get(*found)
        else:
            self._conclude(keys.seed_get_answer(*found), b"GET", "get")

    def _answer_get(self, key: bytes, record: Record | None) -> None:
        tick = self._tick
        if record is None:
            tick.counters[_GET_404] += 1
            self._transport.write(tick.not_found)
            return
        if record.media_type is TEXT:
            try:
                body = encode(Pair(key.decode(), record.value.decode()))
            except UnicodeDecodeError:
                body = codec.shown(key, record)
        else:
            body = codec.shown(key, record)
        if len(body) > LARGE:
            head = b"%b%d\r\n\r\n" % (tick.ok_json, len(body))
            self._answer_large(head, body, b"/get/", key, _GET_200)
            return
        data = b"%b%d\r\n\r\n%b" % (tick.ok_json, len(body), body)
        tick.counters[_GET_200] += 1
        self._transport.write(data)

    def _answer_large(self, head: bytes, body: bytes, path: bytes, key: bytes, word: int) -> None:
        """Send an answer to a request for a key below `path`, if there is room for it."""
        outlet = self._responder.outlet
        name = "get" if word == _GET_200 else "key_get"
        took = time.monotonic_ns() - self._tick.started
        slow = self._tick.slow
        size = len(head) + len(body)
        if size >= slow.large or took >= slow.slow_ns:
            slow.read(name, key, took, size)
        if not outlet.has_room_for(body):
            refusal = self._worker.client_memory.refusal()
            self._responder.answer_problem(refusal, b"GET", path, name)
            return
        self._tick.counters[word] += 1
        outlet.write_long(head, body)

    def set(self, head: Head, body: bytes) -> bool:
        """`POST /set` as `keys.seed_set` has it, for a text without TTL; say if it was one."""
        if (
            head.content_type != b"application/json"
            or len(body) > self._max_value
            or body.count(b'"') != codec.QUOTES_OF_TWO_STRINGS
        ):
            return False
        try:
            asked = codec.decode_set_text(body)
        except codec.NOT_JSON:
            return False
        key = asked.key.encode()
        if not 0 < len(key) <= MAX_KEY_BYTES:
            return False
        sets = (head.grant or self._connection.grant).sets
        if sets is not None and not sets(key):
            return False
        self._responder.unanswered += 1
        if self._answers_later:
            self._connection.settle()
        self._tick.submit((Set(key, asked.value.encode()),), self._conclude_set)
        return True

    def _conclude_set(self, outcome: Outcome) -> None:
        self._responder.unanswered -= 1
        if isinstance(outcome, Refusal) or self._connection.state is not _OPEN:
            self._conclude(keys.seed_set_answer(outcome), b"POST", "set")
        else:
            tick = self._tick
            tick.counters[_SET_200] += 1
            self._transport.write(tick.set_ok)
            if self._connection.reader.owes_continue:
                self._connection.reader.send_continue()
        if self._answers_later:
            self._connection.go_on()

    def _key_get(self, key: bytes) -> bool:
        """`GET` of a key as `keys.key_get` has it; say if it is there, and no cache may keep it."""
        tick = self._tick
        if tick.get_now is None:
            return False
        if self._responder.unanswered:
            tick.flush()
        try:
            record = tick.get_now(key)
        except Exception:
            return False  # it happens again where it is answered for
        if record is None or record.cache_control is not None:
            return False
        left = b""
        if record.expires_at:
            ms = max(0, record.expires_at - self._worker.context.engine.now())
            left = b"Keyrack-TTL: %b\r\n" % codec.seconds(ms)
        tick.reads += 1
        value = record.value
        size = len(value)
        data = (
            b'HTTP/1.1 200 OK\r\n%bContent-Type: %b\r\nETag: "%d"\r\n'
            b"%b%bContent-Length: %d\r\n\r\n%b"
            % (
                tick.stamp,
                record.media_type.encode("ascii"),
                record.revision,
                _VALUE_FIELDS,
                left,
                size,
                value if size <= LARGE else b"",
            )
        )
        if size > LARGE:
            self._answer_large(data, value, b"/v1/keys/", key, _KEY_GET_200)
        else:
            tick.counters[_KEY_GET_200] += 1
            self._transport.write(data)
        return True

    def _key_put(self, key: bytes, head: Head, body: bytes, ttl_ms: int) -> bool:
        """`PUT` of a key as `keys.key_put` has it, 0 for no TTL; say if it can be done so."""
        if len(body) > self._max_value:
            return False
        try:
            media_type = codec.media_type_of(head.content_type, body)
        except Problem:
            return False
        self._responder.unanswered += 1
        if self._answers_later:
            self._connection.settle()
        self._tick.submit((Set(key, body, media_type, ttl_ms),), self._conclude_put)
        return True

    def _conclude_put(self, outcome: Outcome) -> None:
        self._responder.unanswered -= 1
        if isinstance(outcome, Refusal) or self._connection.state is not _OPEN:
            self._conclude(keys.key_put_answer(outcome), b"PUT", "key_put")
        else:
            tick = self._tick
            (result,) = outcome
            if result.existed:
                tick.counters[_KEY_PUT_204] += 1
                head = b'HTTP/1.1 204 No Content\r\n%bETag: "%d"\r\nCache-Control: no-store\r\n\r\n'
            else:
                tick.counters[_KEY_PUT_201] += 1
                head = (
                    b'HTTP/1.1 201 Created\r\n%bETag: "%d"\r\nCache-Control: no-store\r\n'
                    b"Content-Length: 0\r\n\r\n"
                )
            self._transport.write(head % (tick.stamp, result.revision))
            if self._connection.reader.owes_continue:
                self._connection.reader.send_continue()
        if self._answers_later:
            self._connection.go_on()

    def _conclude(self, answer: Answer, method: bytes, name: str) -> None:
        """Send an answer that is not of the frequent kind, or on a connection that ends."""
        end = CLOSE if self._connection.state is State.LAST else KEEP
        self._responder.send(answer, method, name, end)
        self._connection.rest()


class SampledRequests(HotRequests):
    """The same, while somebody asks which keys are asked for most: each key is told of."""

    __slots__ = ("_hot_keys",)

    def __init__(
        self,
        hot_keys: HotKeys,
        connection: Connection,
        transport: asyncio.Transport,
        responder: Responder,
        worker: WorkerContext,
    ) -> None:
        super().__init__(connection, transport, responder, worker)
        self._hot_keys = hot_keys

    def serve(self, method: bytes, target: bytes, head: Head, body: bytes, grant: Grant) -> bool:
        """Serve a request if it is of a hot shape; say if it was."""
        served = super().serve(method, target, head, body, grant)
        if served and target.startswith(b"/v1/keys/"):
            self._hot_keys.note(target[9:].partition(b"?")[0])
        return served

    def get(self, key: bytes) -> None:
        """`GET /get/<key>`."""
        self._hot_keys.note(key)
        super().get(key)

    def _get_last(self, key: bytes, grant: Grant) -> bool:
        """`GET /get/<key>`, and end; say if it was of the hot shape."""
        served = super()._get_last(key, grant)
        if served:
            self._hot_keys.note(key)
        return served

    def set(self, head: Head, body: bytes) -> bool:
        """`POST /set`; say if it was of the hot shape."""
        served = super().set(head, body)
        if served:
            self._hot_keys.note(codec.decode_set_text(body).key.encode())
        return served


class TracedRequests(HotRequests):
    """The same, where spans are recorded: now and then one is served as any other request is.

    That one is recorded. Of the others none is looked at.
    """

    __slots__ = ("_declined", "_left", "_spans")

    def __init__(
        self,
        spans: SpanRecorder,
        connection: Connection,
        transport: asyncio.Transport,
        responder: Responder,
        worker: WorkerContext,
    ) -> None:
        super().__init__(connection, transport, responder, worker)
        self._spans = spans
        self._left = spans.gap
        self._declined = False
        """The request at hand was chosen already, and comes here a second time."""

    def _is_chosen(self) -> bool:
        self._left -= 1
        if self._left:
            return False
        self._left = self._spans.gap
        self._spans.choose()
        return True

    def serve(self, method: bytes, target: bytes, head: Head, body: bytes, grant: Grant) -> bool:
        """Serve a request if it is of a hot shape, and not chosen; say if it was."""
        if target.startswith(b"/v1/keys/") and self._is_chosen():
            return False
        return super().serve(method, target, head, body, grant)

    def get(self, key: bytes) -> None:
        """`GET /get/<key>`."""
        head = self._connection.last_head
        if head is None or not self._is_chosen():
            super().get(key)
            return
        grant = head.grant or self._connection.grant
        request = Request(b"GET", b"/get/" + key, head, b"", grant, keep_alive=True)
        self._connection.take_request(request)

    def _get_last(self, key: bytes, grant: Grant) -> bool:
        """Decline: what ends a connection is recorded whenever it comes."""
        return False

    def set(self, head: Head, body: bytes) -> bool:
        """`POST /set`; say if it was of the hot shape, and not chosen."""
        if self._declined:
            self._declined = False
            return False
        self._declined = self._is_chosen()
        return not self._declined and super().set(head, body)


def _agent(head: Head) -> str | None:
    for name, value in head.fields:
        if name == b"user-agent":
            return value[:_SHOWN_PATH].decode("latin-1")
    return None
