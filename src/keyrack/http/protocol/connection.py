"""The fast lane: one HTTP/1.1 connection, served inside the transport's own callbacks.

A request for a single key costs no task, no framework and no allocation that can be avoided. How:

- A client sends the same header section again and again. The parser (llhttp) and `head.read` judge
  it once; after that the very same bytes are recognised by one dictionary look-up. Only a message
  that arrives whole, begins with a plain request line and continues with known bytes takes this
  way (`data_received`); everything else goes through the parser.
- Whatever way it came, a request is whole before it is served: head and body are bounded, and a
  slow client occupies memory, never a task.
- Paths that are no single key go to the wide lane, an ASGI application run by uvicorn's own
  request cycle. A connection serves one such request at a time; what is pipelined behind it waits
  in `_queue`, as it does while the client does not read its answers. Answers keep their order.

There is no timer for a connection or a request: a worker looks at all its connections once a second
(`check_deadlines`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_remote_addr, is_ssl

from keyrack.engines.contract import MAX_KEY_BYTES, TEXT, Refusal, Set
from keyrack.http import eager, problems
from keyrack.http.access_log import Access
from keyrack.http.answer import Answer
from keyrack.http.api import codec, dispatch, keys
from keyrack.http.api.codec import encode
from keyrack.http.api.counting import request_word
from keyrack.http.api.models import Pair
from keyrack.http.api.statuses import STATUS_LINES
from keyrack.http.client_memory import LARGE, LITTLE
from keyrack.http.problems import Problem
from keyrack.http.protocol.asgi import AsgiExchange, AsgiHost, ClientSide
from keyrack.http.protocol.reader import REQUEST_LINE, MessageReader, RefusedMessage
from keyrack.http.protocol.request import Request
from keyrack.http.reply import PendingWrite, Stream
from keyrack.http.watch import messages
from keyrack.shared.counters import ACCEPTED, OPEN_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from uvicorn.server import ServerState

    from keyrack.access.grant import Grant
    from keyrack.engines.contract import Outcome, Record
    from keyrack.http.api.dispatch import Resource
    from keyrack.http.eager import Running
    from keyrack.http.protocol.request import Head
    from keyrack.http.reply import Reply
    from keyrack.http.watch.sink import Chunk, Subscription
    from keyrack.http.worker_context import ServerConfig

T = TypeVar("T")

_GET_LINE: Final = re.compile(rb"GET /get/([!-\"$&->@-~]{1,511}) HTTP/1\.1\r\n").match
"""A read of a key that is written without percent signs: the most frequent request of all."""
_SET_LINE: Final = b"POST /set HTTP/1.1\r\n"
_PLAIN_KEY: Final = re.compile(rb"[!-\"$&->@-~]{1,511}").fullmatch

_GET_200: Final = request_word("get", 200)
_GET_404: Final = request_word("get", 404)
_SET_200: Final = request_word("set", 200)
_KEY_GET_200: Final = request_word("key_get", 200)
_KEY_PUT_201: Final = request_word("key_put", 201)
_KEY_PUT_204: Final = request_word("key_put", 204)

_VALUE_FIELDS: Final = b"".join(b"%b: %b\r\n" % field for field in keys.VALUE_HEADERS)

_LONG: Final = frozenset((b"/v1/export", b"/v1/import"))
"""Paths of the wide lane that may take for as long as their clients like."""
_WITHOUT_BODY: Final = frozenset((204, 304))

_QUEUE_HIGH: Final = 64
"""Pipelined requests that may wait before the connection is no longer read from."""
_COARSE_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 1 << 20
_MOST_UNSENT: Final = 1 << 18
"""Bytes of a stream that may wait for a client before no more are sent to it."""
_LAST_CHUNK: Final = b"0\r\n\r\n"
_TOO_MANY: Final = "There are more connections than may be; see --max-connections. Try again soon."


class Connection(asyncio.Protocol):
    """One client's connection. All connections of a worker share its `WorkerContext`."""

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # The worker
        self.worker = config.worker
        self.tick = self.worker.tick
        self._heads = self.worker.heads
        self._max_value = self.worker.context.limits.max_value
        self._answers_later = self.worker.context.engine.capabilities.answers_later
        self._host = AsgiHost(config, server_state, app_state)

        # The connection
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until it is made
        self._flow: FlowControl = None  # type: ignore[assignment]  # likewise
        self._reader = MessageReader(self.worker, self)
        self._may_know = self.worker.access_log is None
        self._known = self._may_know
        """Whether the next bytes may be recognised without the parser."""
        self._leaving = False
        """The service ends: the answer that is due is the last one."""
        self.grant = self.worker.gate.nobody
        """What those may do here who send no credentials."""
        self._half_closed = False
        self._unwelcome = False
        """There are too many connections: whatever comes is answered with that."""

        # Requests that have arrived and are not answered
        self._queue: deque[Request | RefusedMessage] = deque()
        self.held = 0
        """Bytes that are counted as held for this client; see `client_memory`."""
        self._untaken = 0
        """Bytes of what the transport holds, as long as it holds much."""
        self._serving = 0
        """Bytes of the body that is being served."""
        self._unanswered = 0
        """Writes that wait for the end of the turn, or longer where the engine answers later."""
        self._running: Running[Any] | None = None
        """The operation of the present request, while it waits for something."""
        self._waits = False
        """It waits for something to happen, and not only for the engine."""
        self._exchange: AsgiExchange | None = None
        self._subscription: Subscription | None = None
        """What sends the stream that is this connection's present request."""
        self._streams = False
        self._chunked = True
        self._present: Request | None = None
        """The present request, while it takes longer than a turn."""

        # Since when something is so, and when the connection was last used (coarse seconds)
        self._unread_since = 0.0
        self._linger_since = 0.0
        self._discarded = 0
        """Bytes that have come since the last answer was given."""
        self._used = self.tick.now

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's
        """Begin; the transport is ready."""
        self._transport = transport
        self._flow = FlowControl(transport)
        self.worker.connections.add(self)
        count = self.tick.counters
        count[OPEN_CONNECTIONS] += 1
        count[ACCEPTED] += 1
        if self.worker.turns_away():
            self._turn_away()
        elif self.worker.leaving:
            self.leave()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; whatever waited for this client is dropped."""
        self.worker.connections.discard(self)
        self.tick.counters[OPEN_CONNECTIONS] -= 1
        self._known = False
        self._half_closed = True
        self._queue.clear()
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        if self._running is not None:
            self._running.cancel()
            self._running = None
        if self._exchange is not None:
            self._exchange.disconnect()
            self._exchange = None
        self._flow.resume_writing()
        self._reader.close()
        self._hold(0)

    def data_received(self, data: bytes) -> None:
        """Take bytes: known messages at once, anything else through the parser."""
        if self._known:
            line = _GET_LINE(data)
            if line is not None:
                section = data[line.end() :]
                head = self._heads.get(section) or self.worker.recognise(section)
                if head is not None and head.content_length == 0:
                    reads = (head.grant or self.grant).reads
                    if reads is None or reads(line[1]):
                        self._hot_get(line[1])
                        return
            elif data.startswith(_SET_LINE):
                end = data.find(b"\r\n\r\n", len(_SET_LINE) - 2) + 4
                section = data[len(_SET_LINE) : end]
                head = self._heads.get(section) or self.worker.recognise(section)
                if (
                    head is not None
                    and len(data) - end == head.content_length
                    and self._hot_set(head, data[end:])
                ):
                    return
            taken = self._take_known(data)
            if taken == len(data):
                return
            if taken:
                self._parse(data[taken:], behind_others=True)
                return
        self._parse(data)

    def eof_received(self) -> bool:
        """The client sends no more. What it asked for is still answered."""
        self._half_closed = True
        self._stop_reading()
        if self._subscription is not None or (self._running is not None and self._waits):
            # Who waits or watches is waiting for us; closing its side is how it says goodbye.
            return False
        if self._reader.streaming:
            self._abandon_body()
        return self.busy() and not is_ssl(self._transport)

    def pause_writing(self) -> None:
        """The client does not read: nothing more is read from it, or served to it."""
        self._known = False
        self._unread_since = self.tick.now
        self._flow.pause_writing()
        self._flow.pause_reading()
        self._count_held()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._unread_since = 0.0
        self._flow.resume_writing()
        self._count_held()
        if self._subscription is not None:
            self._subscription.resume()
        if len(self._queue) < _QUEUE_HIGH:
            self._flow.resume_reading()
        self._serve_queued()

    # A message that is recognised

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
            body_end = end + head.content_length
            method, target, body = line[1], line[2], data[end:body_end]
            if not self._serve_hot(method, target, head, body):
                if not is_whole:
                    break
                grant = head.grant or self.grant
                self._accept(Request(method, target, head, body, grant, keep_alive=True))
            position = body_end
        return position

    def _serve_hot(self, method: bytes, target: bytes, head: Head, body: bytes) -> bool:
        """Serve one of the four hot requests in its most frequent shape; say if it was one."""
        tick = self.tick
        if not tick.running:
            tick.begin()
        self._used = tick.now
        grant = head.grant or self.grant
        if target == b"/set":
            return method == b"POST" and self._hot_set(head, body)
        if target.startswith(b"/v1/keys/"):
            key = target[9:]
            if not _PLAIN_KEY(key):
                return False
            if method == b"GET":
                if grant.reads is None or grant.reads(key):
                    return self._hot_key_get(key)
            elif method == b"PUT" and (grant.sets is None or grant.sets(key)):
                return self._hot_key_put(key, head, body)
            return False
        if method == b"GET" and target.startswith(b"/get/") and _PLAIN_KEY(target[5:]):
            key = target[5:]
            if grant.reads is None or grant.reads(key):
                self._hot_get(key)
                return True
        return False

    def _hot_get(self, key: bytes) -> None:
        """`GET /get/<key>` as `keys.seed_get` has it, for the most frequent shape."""
        tick = self.tick
        if not tick.running:
            tick.begin()
        self._used = tick.now
        get_now = tick.get_now
        if get_now is None:
            self._run(self._get(key), partial(self._answer_get, key, tick.started))
            return
        if self._unanswered:
            tick.flush()
        tick.reads += 1
        try:
            record = get_now(key)
        except Exception:
            self.worker.log.exception("reading failed")
            self._answer_problem(problems.internal(), b"GET", b"/get/", "get")
            return
        self._answer_hot_get(key, record)

    async def _get(self, key: bytes) -> Record | Exception | None:
        try:
            return await self.worker.context.engine.get(key)
        except Exception as error:
            return error

    def _answer_get(self, key: bytes, started: int, found: Record | Exception | None) -> None:
        """Answer a `GET /get/<key>` whose record has come by now."""
        self.tick.observe_read(started)
        if isinstance(found, Exception):
            answer = problems.answer_to(found, b"/get/")
        elif self._leaving or self._half_closed:
            answer = keys.seed_get_answer(key, found)
        else:
            self._answer_hot_get(key, found)
            return
        self._send(answer, b"GET", "get", close=self._leaving)
        self._rest()

    def _answer_hot_get(self, key: bytes, record: Record | None) -> None:
        tick = self.tick
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
        data = b"%b%d\r\n\r\n%b" % (tick.ok_json, len(body), body)
        if len(data) > LARGE:
            self._answer_large(data, b"/get/", "get", _GET_200)
            return
        tick.counters[_GET_200] += 1
        self._transport.write(data)

    def _answer_large(self, answer: bytes, path: bytes, name: str, word: int) -> None:
        """Send an answer to a hot request for `path`, if there is room for it."""
        if not self._has_room_for(answer):
            self._answer_problem(self.worker.client_memory.refusal(), b"GET", path, name)
            return
        self.tick.counters[word] += 1
        self._write_large(answer)

    def _hot_set(self, head: Head, body: bytes) -> bool:
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
        sets = (head.grant or self.grant).sets
        if sets is not None and not sets(key):
            return False
        self._unanswered += 1
        if self._answers_later:
            self._known = False
        tick = self.tick
        tick.submit((Set(key, asked.value.encode()),), self._conclude_hot_set)
        self._used = tick.now
        return True

    def _conclude_hot_set(self, outcome: Outcome) -> None:
        self._unanswered -= 1
        if isinstance(outcome, Refusal) or self._leaving or self._half_closed:
            answer = keys.seed_set_answer(outcome)
            self._send(answer, b"POST", "set", close=self._leaving)
            self._rest()
            if self._answers_later:
                self._go_on()
            return
        tick = self.tick
        tick.counters[_SET_200] += 1
        self._transport.write(tick.set_ok)
        if self._reader.owes_continue:
            self._reader.send_continue()
        if self._answers_later:
            self._go_on()

    def _hot_key_get(self, key: bytes) -> bool:
        """`GET` of a key as `keys.key_get` has it; say whether it is there and has no TTL."""
        tick = self.tick
        if tick.get_now is None:
            return False
        if self._unanswered:
            tick.flush()
        try:
            record = tick.get_now(key)
        except Exception:
            return False  # it happens again where it is answered for
        if record is None or record.expires_at:
            return False
        tick.reads += 1
        self._answer_hot_key_get(record)
        return True

    def _answer_hot_key_get(self, record: Record) -> None:
        tick = self.tick
        value = record.value
        data = (
            b'HTTP/1.1 200 OK\r\n%bContent-Type: %b\r\nETag: "%d"\r\n%bContent-Length: %d\r\n\r\n%b'
            % (
                tick.stamp,
                record.media_type.encode("ascii"),
                record.revision,
                _VALUE_FIELDS,
                len(value),
                value,
            )
        )
        if len(data) > LARGE:
            self._answer_large(data, b"/v1/keys/", "key_get", _KEY_GET_200)
            return
        tick.counters[_KEY_GET_200] += 1
        self._transport.write(data)

    def _hot_key_put(self, key: bytes, head: Head, body: bytes) -> bool:
        """`PUT` of a key as `keys.key_put` has it, without TTL; say if it can be done so."""
        if len(body) > self._max_value:
            return False
        try:
            media_type = codec.media_type_of(head.content_type, body)
        except Problem:
            return False
        self._unanswered += 1
        if self._answers_later:
            self._known = False
        self.tick.submit((Set(key, body, media_type),), self._conclude_hot_put)
        return True

    def _conclude_hot_put(self, outcome: Outcome) -> None:
        self._unanswered -= 1
        if isinstance(outcome, Refusal) or self._leaving or self._half_closed:
            answer = keys.key_put_answer(outcome)
            self._send(answer, b"PUT", "key_put", close=self._leaving)
            self._rest()
            if self._answers_later:
                self._go_on()
            return
        tick = self.tick
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
        if self._reader.owes_continue:
            self._reader.send_continue()
        if self._answers_later:
            self._go_on()

    # A message through the parser

    def _parse(self, data: bytes, *, behind_others: bool = False) -> None:
        reader = self._reader
        if self._unwelcome and not reader.stopped:
            # Not before: an answer to nothing confuses many clients.
            reader.refuse(Problem("too-many-connections", _TOO_MANY, ((b"Retry-After", b"1"),)))
        if reader.stopped:
            self._discard(data)
            return
        reader.feed(data, behind_others=behind_others)
        self._settle()
        if reader.arriving:
            self._used = self.tick.now
        if self.held or reader.held:
            self._count_held()

    def write(self, data: bytes) -> None:
        """Reader: send bytes to the client."""
        self._transport.write(data)

    def take_request(self, request: Request) -> None:
        """Reader: serve a whole request when it is its turn."""
        self._used = self.tick.now
        if not self.tick.running:
            self.tick.begin()
        self._accept(request)

    def take_refused(self, refused: RefusedMessage) -> None:
        """Reader: answer a message that is not whole, when it is its turn."""
        if self._reader.streaming:
            self._abandon_body()
        self._settle()
        self._accept(refused)

    def begin_streaming(self, request: Request) -> None:
        """Reader: serve a request whose body is still arriving."""
        self._serve_wide(request, more_body=True)

    def take_body(self, data: bytes) -> None:
        """Reader: pass a piece of that body on."""
        # Where it was answered before all of it had come, the rest is thrown away.
        if self._exchange is not None:
            self._exchange.feed(data)

    def end_streaming(self) -> None:
        """Reader: the body is whole."""
        if self._exchange is not None:
            self._exchange.end_body()
        else:
            self._serve_queued()

    def _abandon_body(self) -> None:
        """Let go of a request whose body will not be whole."""
        self._reader.streaming = False
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

    def _settle(self) -> None:
        """Work out whether the next bytes may be recognised without the parser."""
        reader = self._reader
        self._known = (
            self._may_know
            and not (self._leaving or reader.stopped or reader.arriving)
            and not (self._queue or self._flow.write_paused or self._occupied())
        )

    # Serving, in order

    def busy(self) -> bool:
        """Whether an answer is due that has not been written."""
        return bool(self._unanswered or self._queue or self._occupied())

    def _occupied(self) -> bool:
        """Whether the present request is of a kind that nothing can be served beside."""
        return (
            self._running is not None
            or self._exchange is not None
            or self._subscription is not None
            # What follows a write sees it, and its answer is the next one.
            or (self._answers_later and self._unanswered > 0)
        )

    def _accept(self, request: Request | RefusedMessage) -> None:
        """Serve a request now, or when it is its turn."""
        if self.worker.access_log is not None and isinstance(request, Request):
            request.came = time.monotonic_ns()
        if not self._occupied() and not self._queue and not self._flow.write_paused:
            self._serve(request)
            return
        self._known = False
        self._queue.append(request)
        self._count_held()
        if len(self._queue) >= _QUEUE_HIGH:
            self._flow.pause_reading()

    def _serve_queued(self) -> None:
        while self._queue and not self._occupied() and not self._flow.write_paused:
            self._serve(self._queue.popleft())
        if not self._queue and not self._occupied() and not self._flow.write_paused:
            self._flow.resume_reading()
            self._settle()
            self._reader.send_continue()
            self._rest()

    def _serve(self, request: Request | RefusedMessage) -> None:
        if isinstance(request, RefusedMessage):
            self._flush()
            self._answer_problem(request.problem, request.method, request.target, "other")
            return
        resource = dispatch.find(request.path)
        route = resource and resource.routes.get(request.method)
        if self._unanswered and (request.head.prefer or not (route and route.blind)):
            # A read behind a write of the same connection sees it.
            self._flush()
        name = route.name if route else "other"
        if resource is None:
            self._carry_out(request, name, self.tick.started, None)
        else:
            self._serve_resource(request, resource, name)

    def _serve_resource(self, request: Request, resource: Resource, name: str) -> None:
        self._waits = bool(request.head.prefer)
        if len(request.body) > LITTLE:
            self._serving = len(request.body)
            self._count_held()
        self._run(
            dispatch.serve(request, resource, self.worker.context),
            partial(self._carry_out, request, name, self.tick.started),
            request,
        )

    def _run(
        self,
        operation: Coroutine[Any, Any, T],
        done: Callable[[T], None],
        request: Request | None = None,
    ) -> None:
        """Run an operation. While it waits for something, what is pipelined behind it does too."""
        running = eager.run(operation, done)
        if running is not None:
            running.done = partial(self._end_run, done)
            self._running = running
            self._present = request
            self._known = False

    def _end_run(self, done: Callable[[T], None], result: T) -> None:
        """Take the result of the present request's operation, which had to wait for something."""
        self._running = self._present = None
        self._used = self.tick.now
        if not self._transport.is_closing():
            done(result)
            self._go_on()

    def _go_on(self) -> None:
        """Serve what waits behind a request that has been answered later than its turn."""
        if not self._transport.is_closing():
            self._serve_queued()

    def _carry_out(self, request: Request, name: str, started: int, reply: Reply | None) -> None:
        if reply is None:
            self._flush()
            self._serving = 0
            self._serve_wide(request)
            return
        if type(reply) is PendingWrite:
            self._submit(reply, request, name)
            return
        if self._unanswered:
            self._flush()
        if isinstance(reply, Stream):
            self._stream(reply, request, name)
            return
        assert isinstance(reply, Answer)
        if self.tick.running and self.tick.started == started:
            self.tick.reads += 1
        elif not self._waits:
            self.tick.observe_read(started)
        self._answer(request, name, reply)

    def _flush(self) -> None:
        """Do the writes that wait. The request at hand is due as well: nothing is closed yet.

        Where the engine answers later none does: nothing is served beside a write there.
        """
        if self._answers_later:
            return
        self._unanswered += 1
        self.tick.flush()
        self._unanswered -= 1

    def _submit(self, pending: PendingWrite, request: Request, name: str) -> None:
        def conclude(outcome: Outcome) -> None:
            self._unanswered -= 1
            answer = dispatch.conclude(pending, outcome, request.path)
            if isinstance(answer, Answer):
                self._answer(request, name, answer)
            else:
                self._run(answer, partial(self._answer, request, name))
            if self._answers_later and self._running is None:
                self._go_on()

        self._unanswered += 1
        if self._answers_later:
            self._known = False
        self.tick.submit(pending.write, conclude)
        if len(request.body) > LARGE:
            # Large bodies do not share a commit: all of them would be held until its end.
            self.tick.flush()

    def _answer(self, request: Request, name: str, answer: Answer) -> None:
        if self.worker.access_log is not None:
            self._log_access(request, answer)
        if self._serving:
            self._serving = 0
            self._count_held()
        close = not request.keep_alive or self._leaving
        if request.head.http_1_0 and not close:
            answer = answer._replace(headers=(*answer.headers, (b"Connection", b"keep-alive")))
        self._send(answer, request.method, name, close)
        self._rest()

    def _answer_problem(self, problem: Problem, method: bytes, path: bytes, name: str) -> None:
        if not self.tick.running:
            self.tick.begin()
        path, _, query = path.partition(b"?")
        answer = problems.answer(problem, path)
        if self.worker.access_log is not None:
            size = 0 if method == b"HEAD" else len(answer.body)
            self.worker.access_log(
                Access(self._peer(), method, path, query, answer.status, size, 0, ())
            )
        self._send(answer, method, name, close=problem.kind.closes or self._leaving)
        if problem.kind.closes:
            self._linger()
        else:
            self._rest()

    def _log_access(self, request: Request, answer: Answer) -> None:
        assert self.worker.access_log is not None
        self.worker.access_log(
            Access(
                self._peer(),
                request.method,
                request.path,
                request.query,
                answer.status,
                0 if request.method == b"HEAD" else len(answer.body),
                time.monotonic_ns() - request.came,
                request.head.fields,
            )
        )

    def _send(self, answer: Answer, method: bytes, name: str, close: bool) -> None:
        self.tick.counters[request_word(name, answer.status)] += 1
        self._write_answer(answer, method, close)

    def _write_answer(self, answer: Answer, method: bytes, close: bool) -> None:
        if not self._has_room_for(answer.body) and method != b"HEAD":
            answer = problems.answer(self.worker.client_memory.refusal(), b"/v1/")
        if self._transport.is_closing():
            # The client went away while its write was done; uvloop raises on such a transport.
            return
        parts = [STATUS_LINES[answer.status], self.tick.stamp]
        parts += [b"%b: %b\r\n" % field for field in answer.headers]
        if answer.status not in _WITHOUT_BODY:
            parts.append(b"Content-Length: %d\r\n" % len(answer.body))
        parts.append(b"Connection: close\r\n\r\n" if close else b"\r\n")
        if method != b"HEAD":
            parts.append(answer.body)
        data = b"".join(parts)
        if len(data) > LARGE:
            self._write_large(data)
        else:
            self._transport.write(data)

    def _rest(self) -> None:
        """Close where nothing more is due and nothing more is wanted."""
        if self.busy() or self._linger_since:
            return
        self._reader.send_continue()
        if self._reader.stopped or (self._leaving and not self._reader.arriving):
            self._transport.close()

    # Waiting and streaming

    def _stream(self, stream: Stream, request: Request, name: str) -> None:
        """Begin an answer that goes on until the client leaves. The connection ends with it."""
        self.tick.counters[request_word(name, 200)] += 1
        if self.worker.access_log is not None:
            self._log_access(request, Answer(200))
        parts = [STATUS_LINES[200], self.tick.stamp]
        parts += [b"%b: %b\r\n" % field for field in stream.headers]
        self._chunked = not request.head.http_1_0
        if self._chunked:
            parts.append(b"Transfer-Encoding: chunked\r\n")
        parts.append(b"Connection: close\r\n\r\n")
        self._stop_reading()
        self._transport.write(b"".join(parts))
        if request.method == b"HEAD":
            self._transport.close()
            return
        self._streams = True
        self._present = request
        self._subscription = stream.start(self)
        if self._leaving:
            self._break_off_stream()

    def _has_room_for(self, body: bytes) -> bool:
        memory = self.worker.client_memory
        return len(body) <= LARGE or memory.has_room(len(body), self.held)

    @property
    def full(self) -> bool:
        """Whether the client is so far behind that nothing more should be sent to it now."""
        # Only where the transport has said that it holds much is it asked how much.
        return self._unread_since > 0.0 and self._transport.get_write_buffer_size() > _MOST_UNSENT

    def push(self, chunk: Chunk) -> None:
        """Send a piece of the stream."""
        if self._transport.is_closing():
            return
        self._transport.write(chunk.framed if self._chunked else chunk.data)
        if self._unread_since:
            self._count_held()

    def finish(self, reset: bytes = messages.RESET) -> None:
        """Tell the client that it missed something, or may no longer watch; end the stream."""
        if self._chunked:
            reset = b"%x\r\n%b\r\n%b" % (len(reset), reset, _LAST_CHUNK)
        self._transport.write(reset)
        self._end_stream()

    def _break_off_stream(self) -> None:
        """End the stream where it is; the client goes on with another connection."""
        if self._subscription is None:
            return  # it has ended already, and the client is about to know
        if self._chunked:
            self._transport.write(_LAST_CHUNK)
        self._end_stream()

    def _end_stream(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = self._present = None
        self._transport.close()

    # The wide lane

    def _serve_wide(self, request: Request, *, more_body: bool = False) -> None:
        self._exchange = AsgiExchange(
            request,
            ClientSide(self._transport, self._flow),
            self.worker,
            self._wide_answered,
            more_body=more_body,
            keep_alive=request.keep_alive and not self._leaving,
        )
        self._known = False
        self._present = request
        self._count_held()
        self._host.serve(self._exchange)

    def _wide_answered(self) -> None:
        self._exchange = self._present = None
        self._count_held()
        self._used = self.tick.now
        self._host.server.total_requests += 1
        if self._transport.is_closing():
            return
        if self._reader.streaming:
            # Answered before the body had come: nothing of it may be read as a request.
            self._reader.give_up()
            self._linger()
            return
        self._serve_queued()
        if self.worker.leaving:
            self.leave()

    # What is held for the client

    def _count_held(self) -> None:
        """Count what is held for this client now."""
        held = self._reader.held + self._serving
        if self._queue:
            held += sum(len(one.body) for one in self._queue if isinstance(one, Request))
        if self._exchange is not None:
            held += self._exchange.held
        if self._flow.write_paused:
            # The transport lets go of an answer when all of it is taken, not bit by bit.
            self._untaken = max(self._untaken, self._transport.get_write_buffer_size())
            held += self._untaken
        else:
            self._untaken = 0
        self._hold(held)

    def _write_large(self, answer: bytes) -> None:
        """Send an answer that a client may not take at once."""
        self._untaken = len(answer)
        self._transport.write(answer)
        self._count_held()

    def _hold(self, held: int) -> None:
        if held != self.held:
            self.worker.client_memory.add(held - self.held)
            self.held = held

    def stalled(self, seconds: float) -> bool:
        """Tell whether the client has neither taken nor sent what is due, for so long."""
        since = self._unread_since or (self._used if self._reader.held else self.tick.now)
        return bool(self.tick.now - since >= seconds)

    def cut(self) -> None:
        """End the connection at once: what is held for it is wanted for others."""
        self._hold(0)
        self._transport.abort()

    # Who may do what, when that changes

    def judge_again(self) -> None:
        """Find out anew what the client may do, and end what it may do no longer.

        Call it when it matters again who may do what. Answers that are short are left to come.
        """
        gate = self.worker.gate
        self.grant = gate.nobody
        self._reader.admit_again()
        for queued in self._queue:
            if isinstance(queued, Request):
                self._admit_again(queued)
        request = self._present
        if request is None or not self._goes_on(request):
            return
        before = request.grant.rights.rules.lines()
        self._admit_again(request)
        try:
            dispatch.judge_head(request)
        except Problem as problem:
            self._revoke(request, problem)
            return
        # What a watch without a prefix tells was settled when it began.
        if (
            self._streams
            and b"prefix=" not in request.query
            and request.grant.rights.rules.lines() != before
        ):
            self._revoke(request, None)

    def _admit_again(self, request: Request) -> None:
        self.worker.gate.admit(request.head, self.address)
        request.grant = request.head.grant or self.grant

    def _goes_on(self, request: Request) -> bool:
        """Tell whether a request may take for as long as its client likes."""
        return self._streams or self._waits or request.path in _LONG

    def _revoke(self, request: Request, problem: Problem | None) -> None:
        if self._streams:
            self.finish(messages.REVOKED)
        elif self._exchange is not None:
            self._transport.abort()
        elif self._running is not None and problem is not None:
            self._running.cancel()
            self._running = self._present = None
            self._stop_reading()
            self._answer_problem(problem, request.method, request.path, "other")
            self._rest()

    # Ends

    def _stop_reading(self) -> None:
        self._reader.stop()
        self._known = False

    def _turn_away(self) -> None:
        """Answer one request, with a refusal, if it comes soon."""
        self._unwelcome = True
        self._known = False
        self._linger_since = self.tick.now

    def _linger(self) -> None:
        """Close so that the answer arrives: bytes that are still coming must not cause a reset."""
        self._linger_since = self.tick.now
        self._discarded = 0
        if self._half_closed or is_ssl(self._transport):
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._linger_since and self._discarded > _LINGER_BYTES:
            self._transport.abort()

    def shutdown(self) -> None:
        """The service ends: finish what is in flight, then close. Called by uvicorn's server."""
        self._leaving = True
        self._known = False
        if self._exchange is not None:
            self._exchange.close_after_answer()
        # Waits and streams would outlast any grace; their clients ask again elsewhere.
        if self._streams:
            self._break_off_stream()
            return
        if self._running is not None and self._waits:
            self._transport.close()
            return
        self._rest()

    def leave(self) -> None:
        """Another service has taken over: the next answer is the last one, and says so.

        Nothing is closed before it: a client may just be about to send something.
        """
        if self._exchange is not None and self._exchange.has_begun_to_answer:
            return  # its answer has not said that it is the last one: the next will
        self._leaving = True
        self._known = False
        if self._exchange is not None:
            self._exchange.close_after_answer()
        if self._streams:
            self._break_off_stream()

    def check_deadlines(self, now: float) -> None:
        """Close what has been waited for long enough; `now` in coarse seconds."""
        # The coarse clock is behind by up to a tick, which may be late: never be early.
        now -= _COARSE_SECONDS
        settings = self.worker.timeouts
        if self._present is not None and self._present.grant.expires is not None:
            self._end_if_over(self._present.grant)
        if self._linger_since:
            if now - self._linger_since > _LINGER_SECONDS:
                self._transport.abort()
        elif self._unread_since:
            if now - self._unread_since > settings.send:
                self._transport.abort()
        elif (problem := self._reader.overdue(now)) is not None:
            self._reader.refuse(problem)
        elif (
            not self._reader.arriving and now - self._used > settings.keep_alive and not self.busy()
        ):
            self._transport.close()

    def _end_if_over(self, grant: Grant) -> None:
        if grant.is_over(time.time()):
            self.judge_again()

    @property
    def address(self) -> str:
        """Where the client is, without its port; empty on a Unix socket."""
        found = get_remote_addr(self._transport)
        return found[0] if found else ""

    def _peer(self) -> str:
        address = get_remote_addr(self._transport)
        return f"{address[0]}:{address[1]}" if address else "unix"
