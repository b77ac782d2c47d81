"""Upstash's REST API for Redis: commands as JSON, alone, in pipelines and in transactions.

What its clients send and expect is described at https://upstash.com/docs/redis/features/restapi.
Below `/upstash` a command is a JSON array that is posted, or a path. A pipeline does one command
after the other, each by itself; a transaction is one commit.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec

from keyrack.access.compiled import successor
from keyrack.access.rules import Scope, Verb
from keyrack.compat import commands
from keyrack.compat.commands import Reach
from keyrack.compat.replies import OK, CommandError, SimpleString
from keyrack.engines.contract import Delete, Discard, Page, StoreAway
from keyrack.http import allowed, problems
from keyrack.http.answer import Answer
from keyrack.http.api import codec, deleting, keys, rights
from keyrack.http.api.keeping import keeping, sender_of
from keyrack.http.api.models import MAX_BATCH_OPERATIONS
from keyrack.http.api.named_locks import NO_LOCKS, NamedLocks
from keyrack.http.problems import Problem
from keyrack.http.tick import JSON_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from keyrack.compat.commands import CommandCall
    from keyrack.compat.replies import Reply
    from keyrack.engines.contract import Engine, Operation, Outcome, Write
    from keyrack.http.answer import Headers
    from keyrack.http.protocol.request import Request
    from keyrack.http.worker_context import WorkerContext

_BASE: Final = b"/upstash"
_METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT")
_WITH_BODY: Final = (b"POST", b"PUT")
_LONG_BODY: Final = 1 << 20
"""Bytes of a body that take a ms to read."""
_SPELL_SECONDS: Final = 0.0005
"""For how long a pipeline goes on before others are served."""
_MOST_AT_ONCE: Final = 100
"""Commands of a pipeline that are under way together."""
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ALLOW: Final = (b"Allow", b", ".join((*_METHODS, b"OPTIONS")))
Shown: TypeAlias = "Callable[[bytes], str]"
"""How bytes are shown in JSON."""
Result: TypeAlias = dict[str, Any]
"""What one command of several came to: its `result`, or its `error`."""
_decode_command: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_commands: Final = msgspec.json.Decoder(list[list[msgspec.Raw]]).decode
_decode_string: Final = msgspec.json.Decoder(str).decode


class Upstash:
    """The API, as one worker serves it."""

    name = "upstash"

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker

    def has(self, path: bytes) -> bool:
        """Tell whether a raw path belongs to it."""
        return problems.is_upstash(path)

    async def serve(self, request: Request) -> Answer:
        """Return the answer to a request; nothing escapes."""
        sender = RequestStore(request, self._worker)
        fields: Headers = ()
        try:
            fields = self._admit(request)
            sender.hold(NamedLocks.of(request))
            answer = await self._answered(request, sender)
        except CommandError as error:
            answer = _failed(error, request.path)
        except Exception as error:
            answer = problems.answer_to(error, request.path)
        sender.note()
        return answer._replace(headers=(*answer.headers, *fields, *sender.token()))

    def _admit(self, request: Request) -> Headers:
        """Judge a request as a whole: raise `Problem`, or return the fields that its answer has."""
        if request.method not in _METHODS:
            shown = request.method.decode()
            raise Problem("method-not-allowed", f"{shown} is not possible here.", (_ALLOW,))
        # A command in a path may write, whatever the method.
        if request.head.verdict.write is not None:
            raise request.head.verdict.write
        if any(name == b"_token" for name, _ in codec.pairs(request.query)):
            raise Problem(
                "bad-parameter",
                "A token in an address is kept in logs and histories. Send it as `Authorization: "
                "Bearer`.",
            )
        rights.require_known(request)
        _refuse_ignored(request)
        if request.head.is_coded:
            raise Problem("unsupported-media-type", "Send the body without a content coding.")
        if (_field(request, b"upstash-response-format") or b"json").lower() != b"json":
            raise Problem("bad-parameter", "Answers are JSON here: leave Upstash-Response-Format.")
        return self._worker.context.meter(request)

    async def _answered(self, request: Request, sender: RequestStore) -> Answer:
        shown = _as_base64 if _is_coded(request) else _as_text
        await _let_others_go_first(request)
        rest = request.path[len(_BASE) :]
        if rest == b"/pipeline":
            return _ok(await _pipeline(_many_of(request.body), sender, shown))
        if rest == b"/multi-exec":
            return _ok(await _transaction(_many_of(request.body), sender, shown))
        words = _words_of(request, rest)
        reply = await commands.run(sender.admitted(words), sender)
        return _ok({"result": _plain(reply, shown)})


def _refuse_ignored(request: Request) -> None:
    """Refuse what would be passed over, although the sender has made the write depend on it."""
    head = request.head
    for name, value in (
        ("If-Match and If-None-Match", head.condition),
        ("Idempotency-Key", head.idempotency_key),
        ("Keyrack-Recompute", head.lease),
    ):
        if value is not None:
            raise Problem("bad-parameter", f"{name} cannot be honoured with Redis' commands.")


async def _let_others_go_first(request: Request) -> None:
    if len(request.body) >= _LONG_BODY:
        await asyncio.sleep(0)


class RequestStore:
    """A store as the sender of one request may use it: what commands are done on."""

    def __init__(self, request: Request, worker: WorkerContext) -> None:
        self._request = request
        self._worker = worker
        self._done: list[Operation] = []
        self._revision = 0
        self._locks = NO_LOCKS

    # What commands use

    @property
    def engine(self) -> Engine:
        """What is read from."""
        return self._worker.context.engine

    @property
    def max_value(self) -> int:
        """Bytes that a value may have."""
        return self._worker.context.limits.max_value

    @property
    def max_read(self) -> int:
        """Bytes of values that may be read at once, or answered together."""
        return self._worker.context.limits.max_body

    def unix_ms(self) -> int:
        """Return what time it is, in ms since 1970."""
        return time.time_ns() // 1_000_000

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Do writes, with those of others of this tick."""
        writes = [self._kept(write) for write in writes]
        done = await self._worker.tick.write_many([self._locks.over(write) for write in writes])
        outcomes = [self._locks.outcome(outcome) for outcome in done]
        for write, outcome in zip(writes, outcomes, strict=True):
            self._request.note_write(write, outcome)
            self._revision = max(self._revision, self._request.revision)
            self._done += write
        return outcomes

    def _kept(self, write: Write) -> Write:
        """Return a write whose deletions can be undone, where that is so unless told otherwise."""
        context = self._worker.context
        seconds = context.limits.undo_default
        if not seconds or not any(isinstance(one, Delete) for one in write):
            return write
        kept = keeping(sender_of(self._request), seconds, context)
        return tuple(
            Discard(one.key, kept.until, kept.about, condition=one.condition)
            if isinstance(one, Delete)
            else one
            for one in write
        )

    async def clear(self) -> None:
        """Remove every key that is there when it begins."""
        context, sender = self._worker.context, sender_of(self._request)
        done = await deleting.by_prefix({b"all": b"true"}, context, sender, self._locks)
        self._revision = int(done.revision)

    async def page(self, prefix: bytes, after: bytes | None, limit: int) -> Page:
        """Return a page of the keys that the sender may list."""
        ranges = self._request.grant.rights.permission(Scope.KEYS, Verb.LIST).ranges(prefix)
        scan = self.engine.scan
        if ranges == [(prefix, successor(prefix))]:
            return await scan(prefix, after, limit)
        if not ranges:
            return Page([], [], None, 0)
        return await allowed.page(scan, ranges, prefix, after, limit, False, b"")

    def turn(self, key: bytes) -> AbstractAsyncContextManager[None]:
        """Be the one in this worker that works on a key."""
        return self._worker.context.patches.held(key)

    # What the protocol uses

    def hold(self, locks: NamedLocks) -> None:
        """Write only while these locks are held."""
        self._locks = locks

    def admitted(self, words: Sequence[bytes]) -> CommandCall:
        """Return what words call, if the sender may do it. Raises `CommandError` or `Problem`."""
        call = commands.call_of(words)
        for need in call.needs:
            if need.reach is Reach.KEY:
                rights.require(self._request, Scope.KEYS, need.verb, need.key)
            elif need.reach is Reach.SOME:
                rights.require_some(self._request, need.verb, need.key)
            else:
                rights.require_whole(self._request, need.verb, need.key)
        hot_keys = self._worker.hot_keys
        if hot_keys is not None:
            for key in call.keys:
                hot_keys.note(key)
        return call

    def note(self) -> None:
        """Keep all that was written, for the audit trail."""
        self._request.write = tuple(self._done)
        self._request.revision = self._revision

    def token(self) -> Headers:
        """Return what stands for the last change, for a client that wants to read what it wrote.

        All reads see all writes here, so it is told and never looked at.
        """
        given = _field(self._request, b"upstash-sync-token")
        if given is None:
            return ()
        return ((b"Upstash-Sync-Token", b"%d" % self._revision if self._revision else given),)


# Requests


def _is_coded(request: Request) -> bool:
    """Tell whether strings are wanted in base64."""
    return (_field(request, b"upstash-encoding") or b"").lower() == b"base64"


def _field(request: Request, wanted: bytes) -> bytes | None:
    for name, value in request.head.fields:
        if name == wanted:
            return value.strip()
    return None


def _words_of(request: Request, rest: bytes) -> list[bytes]:
    """Return the command of a request: its body, or its path with the body behind it."""
    if rest in (b"", b"/"):
        if request.method not in _WITH_BODY:
            raise CommandError("post a command as a JSON array, or name it in the path")
        return _strings(_decoded(request.body, _decode_command, "command"))
    words = [_unquoted(segment) for segment in rest[1:].split(b"/")]
    if request.body and request.method in _WITH_BODY:
        words.append(request.body)
    for name, value in codec.pairs(request.query):
        words.append(_unquoted(name))
        if value:
            words.append(value)
    return words


def _unquoted(segment: bytes) -> bytes:
    if _BAD_PERCENT.search(segment):
        raise CommandError("a % in a path begins a byte of two hex digits: %25")
    return unquote_to_bytes(segment)


def _many_of(body: bytes) -> list[list[bytes]]:
    return [_strings(one) for one in _decoded(body, _decode_commands, "pipeline request")]


def _decoded(body: bytes, decode: Callable[[bytes], Any], what: str) -> Any:
    try:
        found = decode(body)
    except codec.NOT_JSON as error:
        raise CommandError(f"failed to parse {what}: {error}") from None
    if not found:
        raise CommandError(f"empty {what}")
    return found


def _strings(raw: list[msgspec.Raw]) -> list[bytes]:
    """Return arguments as bytes: a string is its text, a number or a word is as it was written."""
    words = []
    for one in map(bytes, raw):
        if one[:1] in b"[{":
            raise CommandError("failed to parse command: an argument is a string or a number")
        words.append(one if one[:1] != b'"' else _text_of(one))
    return words


def _text_of(raw: bytes) -> bytes:
    try:
        return _decode_string(raw).encode()
    except (msgspec.DecodeError, UnicodeError) as error:
        raise CommandError(f"failed to parse command: {error}") from None


# Many commands


async def _pipeline(many: list[list[bytes]], store: RequestStore, shown: Shown) -> list[Result]:
    """Do one command after the other, each by itself. One that fails does not stop the others."""
    results: list[Result] = []
    left = store.max_read
    began = time.monotonic()
    for group in _groups(many, store):
        for reply in await _done(group, store) if left >= 0 else [_TOO_MUCH] * len(group):
            if isinstance(reply, BaseException):
                told = _told(reply)
                left -= len(told)
                results.append({"error": told})
            else:
                left -= commands.size_of(reply)
                results.append({"result": _plain(reply, shown)})
        if time.monotonic() - began > _SPELL_SECONDS:
            await asyncio.sleep(0)
            began = time.monotonic()
    return results


def _groups(
    many: list[list[bytes]], store: RequestStore
) -> Iterator[list[CommandCall | Exception]]:
    """Yield what is done at the same time: one command, or writes for which nothing is read.

    Those are done in their order, but share commits, and the wait for a disk or another server.
    """
    group: list[CommandCall | Exception] = []
    for words in many:
        call = _admitted(words, store)
        if isinstance(call, Exception) or not call.is_direct:
            if group:
                yield group
            yield [call]
            group = []
            continue
        group.append(call)
        if len(group) == _MOST_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _admitted(words: list[bytes], store: RequestStore) -> CommandCall | Exception:
    try:
        return store.admitted(words)
    except (CommandError, Problem) as error:
        return error.with_traceback(None)  # which would hold on to whoever holds the error


async def _done(
    group: list[CommandCall | Exception], store: RequestStore
) -> list[Reply | BaseException]:
    if len(group) > 1:
        return await asyncio.gather(
            *(commands.run(call, store) for call in group if not isinstance(call, Exception)),
            return_exceptions=True,
        )
    (call,) = group
    if isinstance(call, Exception):
        return [call]
    try:
        return [await commands.run(call, store)]
    except (CommandError, Problem, StoreAway) as error:
        return [error.with_traceback(None)]


_TOO_MUCH: Final = CommandError(
    "not done: what this pipeline answers has more bytes than may be (--max-body)"
)


async def _transaction(many: list[list[bytes]], sender: RequestStore, shown: Shown) -> list[Result]:
    """Do commands in one commit. One that cannot be called at all stops all of them."""
    if len(many) > MAX_BATCH_OPERATIONS:
        raise CommandError(
            f"a transaction has at most {MAX_BATCH_OPERATIONS} commands, and this {len(many)}"
        )
    calls = []
    for index, words in enumerate(many):
        try:
            calls.append(sender.admitted(words))
        except CommandError as error:
            raise CommandError(
                f"Transaction discarded because of command {index + 1}: {error}", "EXECABORT"
            ) from None
    return [
        {"error": _told(reply)}
        if isinstance(reply, CommandError)
        else {"result": _plain(reply, shown)}
        for reply in await commands.run_together(calls, sender)
    ]


# Answers


def _as_text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _as_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _plain(reply: Reply, shown: Shown) -> Any:
    """Return a reply as JSON has it. With base64 every string is in it, save for `OK`."""
    if isinstance(reply, SimpleString):
        return str(reply) if reply == OK else shown(reply.encode())
    if isinstance(reply, bytes):
        return shown(reply)
    return [_plain(one, shown) for one in reply] if isinstance(reply, list) else reply


def _ok(body: Any) -> Answer:
    return Answer(200, JSON_HEADERS, codec.encode(body))


def _failed(error: CommandError, path: bytes) -> Answer:
    """Return the answer to a request that a command has failed."""
    if error.refusal is not None:
        return problems.answer(keys.refused(error.refusal), path)
    return Answer(400, JSON_HEADERS, codec.encode({"error": str(error)}))


def _told(error: BaseException) -> str:
    """Return why one command of several failed."""
    if isinstance(error, CommandError):
        return (
            str(error) if error.refusal is None else problems.as_redis(keys.refused(error.refusal))
        )
    if isinstance(error, StoreAway):
        error = problems.away(str(error))
    if isinstance(error, Problem):
        return problems.as_redis(error)
    raise error
