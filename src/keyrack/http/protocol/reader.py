"""From bytes to whole requests: everything about one connection's message that is arriving.

The parser (llhttp) finds the parts, `head.read` judges the header section, and this module bounds
what a message may hold while it is on its way, in bytes and in time. A message ends as a whole
`Request`, or as a `RefusedMessage`, after which nothing more is read from the connection: where the
next message would begin is not known.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import httptools

from keyrack.http import problems
from keyrack.http.api import dispatch, keys
from keyrack.http.client_memory import LITTLE
from keyrack.http.problems import Problem
from keyrack.http.protocol.head import MAX_FIELDS, MAX_HEAD_BYTES, MAX_TARGET_BYTES
from keyrack.http.protocol.head import read as read_head
from keyrack.http.protocol.request import Request

if TYPE_CHECKING:
    from keyrack.access.grant import Grant
    from keyrack.http.protocol.outlet import Outlet
    from keyrack.http.protocol.request import Head
    from keyrack.http.reply import Limits
    from keyrack.http.worker_context import WorkerContext

REQUEST_LINE: Final = re.compile(
    rb"(GET|HEAD|PUT|POST|DELETE) (/[!-\"$-~]{0,%d}) HTTP/1\.1\r\n" % (MAX_TARGET_BYTES - 1)
).match
"""A request line that needs no second look: a frequent method and a target in origin form."""
_UNKNOWN_METHOD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32})(?: |\Z)").match
_HTTP_2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
_TARGET: Final = re.compile(rb"/[!-\"$-~]*").fullmatch
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(/[!-\"$-~]*)?", re.IGNORECASE).fullmatch

_WORTH_FILLING: Final = 256 << 10
"""Bytes that must be missing: changing who is called costs as much as copying some of them."""
_MOST_FILLED: Final = 4 << 20
"""Bytes of the longest body that is read so: the room for all of it is taken when it begins."""
_WIRE_FACTOR: Final = 8
"""What has come of a body may have taken this many times its size (one-byte chunks take six)."""
_LEAST_RATE: Final = 16
"""Bytes a second of a body that is served as it comes, over the time that a body may take.

Less is a client that is broken or means ill: somebody who types sends more.
"""
_MAX_KNOWN_HEAD: Final = 2048
_MOST_EMPTY_BYTES: Final = 16
"""Bytes of empty lines before a request line (RFC 9112 section 2.2 asks for one line at least)."""


class RefusedMessage(NamedTuple):
    """A message that is not whole and never will be: why, and what is known of its request line."""

    problem: Problem
    method: bytes
    target: bytes
    shared: bytes
    """Lines of the answer by which a browser lets a page of another origin read it."""


class BodySink(Protocol):
    """Who gets a body as it comes: the request that is served meanwhile."""

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""

    def end_body(self) -> None:
        """Learn that the body is whole."""


class Receiver(Protocol):
    """Who gets what a `MessageReader` reads: the connection."""

    @property
    def grant(self) -> Grant:
        """What those may do on this connection who send no credentials."""

    def busy(self) -> bool:
        """Tell whether an answer is due that has not been written."""

    def take_request(self, request: Request) -> None:
        """Take a whole request."""

    def take_refused(self, refused: RefusedMessage) -> None:
        """Take a message that must be refused. The reader has stopped."""

    def begin_streaming(self, request: Request) -> BodySink:
        """Serve a request whose body is still arriving; return what takes the body."""


class MessageReader:  # structure: what the parser, the connection and a body fill call
    """The message that is arriving on one connection. It calls its `Receiver` as it goes."""

    __slots__ = (
        "_beginning",
        "_body",
        "_body_limit",
        "_body_since",
        "_body_size",
        "_empty_bytes",
        "_fields",
        "_filling",
        "_head",
        "_head_since",
        "_long",
        "_outlet",
        "_parser",
        "_receiver",
        "_request_line",
        "_sink",
        "_url",
        "_wire_bytes",
        "_worker",
        "owes_continue",
        "stopped",
    )

    def __init__(self, worker: WorkerContext, receiver: Receiver, outlet: Outlet) -> None:
        self._worker = worker
        self._outlet = outlet
        self._receiver = receiver
        self._parser: httptools.HttpRequestParser | None = None
        self.stopped = False
        """Nothing more is read as a request."""
        self._sink: BodySink | None = None
        """Who gets the body that is arriving as it comes."""

        # The message that is arriving
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._beginning = b""
        """The piece of data that is being read, if the message begins with it."""
        self._request_line = b""
        """The same, if it is the first message of what came together."""
        self._body: list[bytes] = []
        self._long: io.BytesIO | None = None
        """What has come of a body with more than `_MOST_FILLED` bytes, instead of `_body`: it
        grows in place, so that nothing is copied when it is whole."""
        self._body_size = 0
        self._body_limit = 0
        self._wire_bytes = 0
        self._filling = 0
        """Bytes of a body that is read past the parser: the room for all of it is taken."""
        self._empty_bytes = 0
        self.owes_continue = False
        """The client waits for a word before it sends the body."""
        self._head_since = 0.0
        """Since when the part is arriving (coarse seconds); 0 while it is not."""
        self._body_since = 0.0

    @property
    def arriving(self) -> bool:
        """Whether a message has begun and is not whole."""
        return self._head_since != 0.0 or self._body_since != 0.0

    @property
    def streaming(self) -> bool:
        """Whether the body that is arriving is served as it comes."""
        return self._sink is not None

    @property
    def held(self) -> int:
        """Bytes that are held of the message that is arriving."""
        if self._sink is not None or not self.arriving:
            return 0
        return self._filling or self._wire_bytes

    @property
    def misses_much(self) -> bool:
        """Whether the rest of the body is worth a `BodyFill`."""
        head = self._head
        if head is None or self._sink is not None or self.stopped:
            return False
        size = head.content_length
        return size <= _MOST_FILLED and size - self._body_size >= _WORTH_FILLING

    def feed(self, data: bytes, *, behind_others: bool = False) -> None:
        """Read bytes. Call only while it has not stopped.

        `behind_others`: whole messages before these bytes came with them and were recognised.
        """
        if self._parser is None:
            self._parser = _parser_for(self)
        if not self.arriving:
            data = self._without_empty_lines(data)
            self._beginning = data
            # Of messages behind others the parser does not say where they begin, so that no answer
            # may depend on it, recognised or not.
            self._request_line = b"" if behind_others else data
        self._wire_bytes += len(data)
        rest: bytes | memoryview = data
        try:
            while rest:
                rest = self._parse(rest)
        except httptools.HttpParserError as error:
            if not self.stopped:
                self.refuse(_parser_problem(error, self._request_line), self._request_line)
        self._beginning = self._request_line = b""
        self._check_size()

    def refuse(self, problem: Problem, unread: bytes = b"") -> None:
        """Stop reading, and have what is arriving, or due to arrive, answered with a problem.

        `unread` is how it begins, where its header section may not have been read.
        """
        # Before the target is seen, the parser still has the method of the message before.
        method = self._parser.get_method() if self._parser is not None and self._url else b"GET"
        self.give_up()
        if not problem.kind.closes:
            problem = _closing(problem)
        self._receiver.take_refused(
            RefusedMessage(problem, method, self._url, self._shared(unread))
        )

    def _shared(self, unread: bytes) -> bytes:
        cors = self._worker.guard.cors
        origins = [value for name, value in self._fields if name == b"origin"]
        return cors.shared({b"origin": origins}) or cors.shared_unread(unread)

    def stop(self) -> None:
        """Read nothing more as a request."""
        self.stopped = True

    def give_up(self) -> None:
        """Stop, and wait no longer for the rest of what is arriving."""
        self.stopped = True
        self._sink = None
        self._head_since = self._body_since = 0.0

    def close(self) -> None:
        """Let go of parser and receiver: each of them refers to the reader as well."""
        self.give_up()
        self._parser = None
        del self._receiver

    def admit_again(self) -> None:
        """Find out anew who sends what is arriving: somebody may have been let in, or out."""
        if self._head is not None:
            self._worker.gate.admit(self._head, self._outlet.address)

    def overdue(self, now: float) -> Problem | None:
        """Return why the message may not go on arriving at this time (coarse seconds), or None."""
        timeouts = self._worker.timeouts
        if self._head_since:
            if now - self._head_since > timeouts.head:
                return Problem("request-timeout", "The header section took too long.")
        elif self._body_since and now - self._body_since > timeouts.body:
            return self._too_slow()
        return None

    def _too_slow(self) -> Problem:
        seconds = self._worker.timeouts.body
        if self._sink is None:
            return Problem("request-timeout", "The body took too long.")
        return Problem(
            "request-timeout",
            f"Of the body {self._wire_bytes} bytes came in {seconds:g} seconds; "
            f"it must be {_LEAST_RATE} a second.",
        )

    def send_continue(self) -> None:
        """Ask for the body where the client waits for that and nothing else is due first."""
        if self.owes_continue and not (self._body_size or self.stopped or self._receiver.busy()):
            self._outlet.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.owes_continue = False

    # The parser

    def _without_empty_lines(self, data: bytes) -> bytes:
        """Return data without the empty lines before a message, of which there may be a few."""
        message = data.lstrip(b"\r\n")
        self._empty_bytes += len(data) - len(message)
        if self._empty_bytes > _MOST_EMPTY_BYTES:
            self.refuse(Problem("malformed-message", "There are only empty lines, no request."))
            return b""
        if message:
            self._empty_bytes = 0
        return message

    def _parse(self, data: bytes | memoryview) -> bytes | memoryview:
        """Give data to the parser and return what is still to be read.

        Where a message asks for another protocol, the parser takes all that follows its head for
        that protocol, the body included. We know no other, and Java's HttpClient asks for HTTP/2
        with whatever it sends, so such a head is read again as if it had not asked.
        """
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self.stopped:
                self._read_without_upgrade()
                return memoryview(data)[upgrade.args[0] :]
        return b""

    def _read_without_upgrade(self) -> None:
        assert self._parser is not None
        line = (self._parser.get_method(), self._url, self._parser.get_http_version().encode())
        fields = (b"%b: %b\r\n" % field for field in self._fields if field[0] != b"upgrade")
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (*line, b"".join(fields))
        self._forget_message()
        self._parser = _parser_for(self)
        self._parser.feed_data(head)

    def _check_size(self) -> None:
        """Bound what a message may hold while it is on its way."""
        if self.stopped or not self.arriving:
            return
        if self._head is None and self._wire_bytes > MAX_HEAD_BYTES + MAX_TARGET_BYTES:
            self.refuse(
                Problem(
                    "head-too-large",
                    f"The header section has more than {MAX_HEAD_BYTES} bytes.",
                    limit=MAX_HEAD_BYTES,
                )
            )
        elif self.held > LITTLE and not self._worker.client_memory.has_room(0, self.held):
            self.refuse(self._worker.client_memory.refusal())
        elif self._wire_bytes > MAX_HEAD_BYTES * 2 + self._body_size * _WIRE_FACTOR:
            self.refuse(Problem("malformed-message", "The body is mostly framing: tiny chunks."))

    def on_message_begin(self) -> None:
        """Parser: the first byte of a message."""
        if self.stopped:
            return
        self._url = b""
        self._fields = []
        self._head = None
        self._body = []
        self._long = None
        self._body_size = 0
        self.owes_continue = False
        self._head_since = self._worker.tick.now

    def on_url(self, url: bytes) -> None:
        """Parser: a piece of the request target."""
        if self.stopped:
            return
        self._url += url
        if len(self._url) > MAX_TARGET_BYTES:
            self.refuse(
                Problem(
                    "target-too-long",
                    f"The target has more than {MAX_TARGET_BYTES} bytes.",
                    limit=MAX_TARGET_BYTES,
                )
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser: a field of the header section, or of the trailer section, which is not used."""
        if self.stopped:
            return
        self._fields.append((name.lower(), value))
        if len(self._fields) > MAX_FIELDS:
            self.refuse(
                Problem(
                    "head-too-large",
                    f"The message has more than {MAX_FIELDS} fields.",
                    limit=MAX_FIELDS,
                )
            )

    def on_headers_complete(self) -> None:
        """Parser: the header section is whole. Judge it before a byte of the body is taken."""
        assert self._parser is not None
        asks_for_upgrade = self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"
        if self.stopped or asks_for_upgrade:
            return
        try:
            self._begin_body(self._judged_head())
        except Problem as problem:
            self.refuse(problem)

    def _judged_head(self) -> Head:
        assert self._parser is not None
        version = self._parser.get_http_version()
        if not version.startswith("1."):
            raise _unspoken(version, self._request_line)
        if self._parser.get_method() == b"CONNECT":
            raise Problem("bad-target", "This is no proxy: CONNECT is not possible here.")
        size = sum(len(name) + len(value) + 4 for name, value in self._fields)
        if size > MAX_HEAD_BYTES:
            raise Problem(
                "head-too-large",
                f"The header section has {size} bytes; the limit is {MAX_HEAD_BYTES}.",
                limit=MAX_HEAD_BYTES,
                actual=size,
            )
        authority, self._url = _target(self._parser.get_method(), self._url)
        head = read_head(self._fields, version == "1.0", self._worker.guard, authority)
        if head.credentials is not None:
            self._worker.gate.admit(head, self._outlet.address)
        # What is recognised is not asked again whether its body may come.
        if head.cacheable and head.content_length <= self._worker.context.limits.max_value:
            raw = _head_bytes(self._beginning)
            if raw is not None and _lines_up(raw, head):
                self._worker.remember(raw, head)
        return head

    def _begin_body(self, head: Head) -> None:
        """Decide from the head alone whether the body may come, and ask for it if need be."""
        assert self._parser is not None
        limits = self._worker.context.limits
        method = self._parser.get_method()
        is_value = self._url.startswith(b"/v1/keys/" if method == b"PUT" else b"/v1/terraform/")
        self._body_limit = limits.max_value if is_value else limits.max_body
        streams = method == b"POST" and self._url.partition(b"?")[0] == b"/v1/import"
        request = Request(
            method,
            self._url,
            head,
            b"",
            head.grant or self._receiver.grant,
            keep_alive=head.keep_alive,
        )
        if head.content_length != 0:
            # A body is not read, nor its length judged, for what is refused in any case.
            self._judge_head(request)
        if head.content_length > self._body_limit and not streams:
            raise _body_too_large(self._body_limit, limits, head.content_length)
        memory = self._worker.client_memory
        if (
            head.content_length > LITTLE
            and not streams
            and not memory.has_room(head.content_length)
        ):
            raise memory.refusal()
        self._head = head
        self._head_since = 0.0
        self._body_since = self._worker.tick.now
        self.owes_continue = head.wants_continue and head.content_length != 0
        self.send_continue()
        if streams and head.content_length != 0 and not self._receiver.busy():
            self._sink = self._receiver.begin_streaming(request)

    def _judge_head(self, request: Request) -> None:
        try:
            dispatch.judge_head(request, self._worker.gate)
        except Problem as problem:
            self._worker.note(request, problem.kind.status, self._outlet.peer)
            raise

    def on_body(self, body: bytes) -> None:
        """Parser: a piece of the body, chunked or not."""
        if self.stopped:
            return
        self._body_size += len(body)
        if self._sink is not None:
            if self._wire_bytes >= _LEAST_RATE * self._worker.timeouts.body:
                # It makes progress, so its time begins anew.
                self._body_since = self._worker.tick.now
                self._wire_bytes = 0
            self._sink.feed(body)
            return
        if self._body_size > self._body_limit:
            limits = self._worker.context.limits
            self.refuse(_body_too_large(self._body_limit, limits, None))
            return
        if self._long is not None:
            self._long.write(body)
            return
        self._body.append(body)
        if self._body_size > _MOST_FILLED:
            self._long = io.BytesIO()
            self._long.writelines(self._body)
            self._body = []

    def on_message_complete(self) -> None:
        """Parser: the message is whole."""
        head = self._head
        if self.stopped or head is None or self._parser is None:
            return
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._forget_message()
            sink.end_body()
            return
        if self._long is not None:
            body = self._long.getvalue()
        else:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(
            self._parser.get_method(),
            self._url,
            head,
            body,
            head.grant or self._receiver.grant,
            keep_alive=head.keep_alive,
        )
        self._forget_message()
        if not head.keep_alive:
            self.stopped = True
        self._receiver.take_request(request)

    # A body that is read past the parser; see `body_fill`

    def take_begun(self) -> tuple[list[bytes], int]:
        """Give away what there is of the body; return that and how many bytes the body has."""
        assert self._head is not None
        begun, self._body = self._body, []
        self._filling = self._head.content_length
        return begun, self._filling

    def count_body(self, size: int) -> None:
        """Count bytes of the body that were read elsewhere."""
        self._body_size += size
        self._wire_bytes += size
        self._check_size()

    def end_body(self, body: bytes) -> None:
        """Take the whole body, and go on behind it."""
        self._body = [body]
        self.on_message_complete()
        # The parser still waits for it.
        self._parser = None

    def _forget_message(self) -> None:
        self._url = b""
        self._fields = []
        self._head = None
        self._beginning = self._request_line = b""
        self._body = []
        self._long = None
        self._wire_bytes = self._filling = 0
        self.owes_continue = False
        self._head_since = self._body_since = 0.0


def _parser_for(reader: MessageReader) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(reader)
    # A version is judged here: what is not 1.0 or 1.1 is no reason to call a message malformed.
    parser.set_dangerous_leniencies(lenient_version=True)
    return parser


def _body_too_large(limit: int, limits: Limits, actual: int | None) -> Problem:
    if limit == limits.max_value:
        return keys.too_large("value", actual, limit, "--max-value")
    return keys.too_large("body", actual, limit, "--max-body")


def _closing(problem: Problem) -> Problem:
    closing = Problem(problem.slug, problem.detail, problem.headers, **problem.members)
    closing.kind = problem.kind._replace(closes=True)
    return closing


def _head_bytes(data: bytes) -> bytes | None:
    """Return the header section at the beginning of a message, as it may be recognised later."""
    line = REQUEST_LINE(data)
    if line is None:
        return None
    end = data.find(b"\r\n\r\n", line.end() - 2)
    if end < 0 or end - line.end() > _MAX_KNOWN_HEAD:
        return None
    return data[line.end() : end + 4]


def _lines_up(raw: bytes, head: Head) -> bool:
    """Tell whether bytes hold the fields of a head and nothing else that the parser passed over."""
    lines = len(head.fields) + 1
    return raw.count(b"\r\n") == raw.count(b"\r") == raw.count(b"\n") == lines


def _target(method: bytes, url: bytes) -> tuple[bytes | None, bytes]:
    """Return the authority that a request target names, or None, and the target in origin form."""
    if _TARGET(url) or (url == b"*" and method == b"OPTIONS"):
        return None, url
    absolute = _ABSOLUTE(url)
    if absolute is None:
        raise Problem("bad-target", problems.KINDS["bad-target"].explanation)
    path: bytes | None = absolute[2]
    if path is None:
        path = b"*" if method == b"OPTIONS" else b"/"
    return absolute[1], path


def _not_implemented(method: bytes) -> Problem:
    name = method.decode("latin-1")
    return Problem("method-not-implemented", f"The method {name} is not known to this server.")


def _unspoken(version: str, message: bytes) -> Problem:
    if version == "0.9" and b" HTTP/0.9\r\n" not in message:
        return Problem("malformed-message", "The request line names no version of HTTP.")
    return Problem("version-not-supported", f"HTTP/{version} is not spoken here; HTTP/1.1 is.")


def _parser_problem(error: httptools.HttpParserError, message: bytes) -> Problem:
    """Return why a message is refused; `message` is how it begins, empty if that is not known."""
    if message.startswith(_HTTP_2_PREFACE):
        return _unspoken("2.0", message)
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        method = _UNKNOWN_METHOD(message)
        if method is not None:
            return _not_implemented(method[1])
    return Problem("malformed-message", _parser_message(error))


def _parser_message(error: Exception) -> str:
    text = str(error) or "It cannot be parsed."
    return text if text.isprintable() and len(text) < 200 else "It cannot be parsed."
