"""Several operations, all or none; and counters, which are a batch of one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from keyrack.access.rules import Scope, Verb
from keyrack.engines.contract import (
    ANY,
    KEEP_STALE,
    Add,
    Check,
    Condition,
    Delete,
    Discard,
    Get,
    Refusal,
    Set,
    Space,
    Touch,
    Why,
)
from keyrack.http import problems
from keyrack.http.answer import Answer
from keyrack.http.api import caching, codec, rights
from keyrack.http.api.codec import etag
from keyrack.http.api.keeping import keeping, number_of, sender_of
from keyrack.http.api.keys import check_size, refused
from keyrack.http.api.models import (
    BatchAdd,
    BatchAnswer,
    BatchCheck,
    BatchDelete,
    BatchGet,
    BatchRequest,
    BatchResult,
    BatchSet,
    BatchTouch,
    Conditional,
    CounterAnswer,
    CounterRequest,
)
from keyrack.http.problems import Problem
from keyrack.http.reply import PendingWrite
from keyrack.http.tick import JSON_HEADERS
from keyrack.http.watch.messages import clock_text

if TYPE_CHECKING:
    from keyrack.engines.contract import Operation, Outcome, Result, Write
    from keyrack.http.api.keeping import Keeping
    from keyrack.http.api.models import BatchOperation
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context, Limits

_NONE: Final[frozenset[bytes]] = frozenset()
_MOST_KEPT: Final = 1 << 16
_LONG_BODY: Final = 1 << 20
"""Bytes of a body that take a ms to read."""
_INT64: Final = range(-(1 << 63), 1 << 63)
_decode: Final = msgspec.json.Decoder(BatchRequest).decode
_decode_counter: Final = msgspec.json.Decoder(CounterRequest).decode


async def batch(request: Request, context: Context) -> PendingWrite:
    """`POST /v1/batch`: do operations in order, all or none."""
    codec.parameters(request.query, _NONE)
    # To put a long body together, to read it and to make writes of it take some ms each.
    await _let_others_go_first(request)
    asked = codec.read_json(request, _decode)
    await _let_others_go_first(request)
    write = tuple(
        _operation(request, index, one, context.limits)
        for index, one in enumerate(asked.operations)
    )
    seconds = context.limits.undo_default if asked.undo is UNSET else asked.undo
    if seconds and any(type(operation) is Delete for operation in write):
        write = _kept(write, keeping(sender_of(request), seconds, context))
    # What is remembered for a retry is kept in the store, values that were read included.
    kept = request.head.idempotency_key is not None
    await _bound_reads(write, context, _MOST_KEPT if kept else context.limits.max_body)

    def conclude(outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            return problems.answer(_batch_refused(outcome, asked.operations), request.path)
        pairs = zip(asked.operations, outcome, strict=True)
        answer = BatchAnswer([_result(one, result) for one, result in pairs])
        if seconds:
            _tell_undo(answer, write, outcome)
        return Answer(200, JSON_HEADERS, codec.encode(answer))

    return PendingWrite(write, conclude)


def _kept(write: Write, kept: Keeping) -> Write:
    """Return a write whose deletions can be undone, all of them together."""
    return tuple(
        Discard(operation.key, kept.until, kept.about, 0, operation.condition)
        if type(operation) is Delete
        else operation
        for operation in write
    )


def _tell_undo(answer: BatchAnswer, write: Write, outcome: tuple[Result, ...]) -> None:
    pairs = zip(write, outcome, strict=True)
    undo, until = number_of(result for operation, result in pairs if type(operation) is Discard)
    if undo:
        answer.undo, answer.until = str(undo), clock_text(until)


async def _let_others_go_first(request: Request) -> None:
    if len(request.body) >= _LONG_BODY:
        await asyncio.sleep(0)


def _operation(request: Request, index: int, asked: BatchOperation, limits: Limits) -> Operation:
    """Return an operation of a batch, once it is certain that it is allowed."""
    if isinstance(asked, BatchCheck):
        check = _check(asked)
        scope = Scope.LOCKS if check.space is Space.LOCKS else Scope.KEYS
        rights.require(request, scope, Verb.READ, check.key, operation=index)
        return check
    key = codec.checked_key(codec.utf8(asked.key))
    # Most often all of a thousand are sets, by somebody who may set every key.
    if type(asked) is not BatchSet or request.grant.sets is not None:
        for verb in _VERBS[type(asked)]:
            rights.require(request, Scope.KEYS, verb, key, operation=index)
    condition = _condition(asked)
    match asked:
        case BatchGet():
            return Get(key, condition)
        case BatchSet():
            value, media_type = _value(asked, request.body)
            check_size(value, limits)
            ttl = _ttl(asked.ttl)
            stale = codec.stale_ms(bytes(asked.stale), ttl)
            may_keep = caching.of_members(asked)
            return Set(
                key, value, media_type, ttl, condition, stale_ms=stale, cache_control=may_keep
            )
        case BatchDelete():
            return Delete(key, condition)
        case BatchAdd():
            delta, initial = number(asked.delta), number(asked.initial)
            ttl, new_ttl = _ttls(asked)
            return Add(key, delta, initial, ttl, condition, new_ttl)
        case BatchTouch():
            ttl, stale = _ttl(asked.ttl), KEEP_STALE
            if asked.stale is not UNSET:
                stale = codec.stale_ms(bytes(asked.stale), ttl)
            return Touch(key, ttl, condition, stale_ms=stale)


_VERBS: Final[dict[type, tuple[Verb, ...]]] = {
    BatchGet: (Verb.READ,),
    BatchSet: (Verb.SET,),
    BatchDelete: (Verb.DELETE,),
    BatchAdd: (Verb.SET, Verb.READ),
    BatchTouch: (Verb.SET,),
}
"""What an operation needs; the answer to an `add` tells the number."""


async def _bound_reads(write: tuple[Operation, ...], context: Context, limit: int) -> None:
    """Refuse a batch whose answer would hold more than a body may: a request is soon repeated."""
    sizes: dict[bytes, int] = {}
    reads: list[bytes] = []
    size = 0
    for operation in write:
        if isinstance(operation, Set):
            sizes[operation.key] = len(operation.value)
        elif isinstance(operation, Get) and operation.key in sizes:
            size += sizes[operation.key]
        elif isinstance(operation, Get):
            reads.append(operation.key)
    if reads:
        size += sum(await context.engine.sizes_of(reads))
    if size > limit:
        raise Problem("too-large", f"It reads more than {limit} bytes.", limit=limit)


def _condition(asked: Conditional | BatchCheck) -> Condition | None:
    if asked.if_match is UNSET and asked.if_none_match is UNSET:
        return None
    return Condition(_expected(asked.if_match), _expected(asked.if_none_match))


def _expected(given: str | msgspec.UnsetType) -> frozenset[int] | None:
    if isinstance(given, str):
        return ANY if given == "*" else frozenset((codec.integer(given),))
    return None


def _check(asked: BatchCheck) -> Check:
    if isinstance(asked.lock, str) and isinstance(asked.token, str) and asked.key is UNSET:
        name = codec.checked_key(codec.utf8(asked.lock))
        held = Condition(match=frozenset((codec.integer(asked.token),)))
        return Check(name, held, Space.LOCKS)
    condition = _condition(asked)
    if isinstance(asked.key, str) and condition is not None and asked.lock is UNSET:
        return Check(codec.checked_key(codec.utf8(asked.key)), condition)
    raise Problem(
        "bad-json", "A check names a key with if_match or if_none_match, or a lock with its token."
    )


def _value(asked: BatchSet, body: bytes) -> tuple[bytes, str]:
    raw = bytes(asked.value)
    value, media_type = codec.stored(raw, body)
    if asked.encoding is not UNSET:
        if raw[:1] != b'"':
            raise Problem("bad-json", "A value in base64 is a string.")
        value, media_type = codec.from_base64(value), "application/octet-stream"
    if isinstance(asked.type, str):
        media_type = codec.checked_media_type(asked.type)
    return value, media_type


def _ttls(asked: BatchAdd | CounterRequest) -> tuple[int, int]:
    """Return the TTL that a counter gets, and the one that it gets where it is made."""
    ttl, new_ttl = _ttl(asked.ttl), _ttl(asked.ttl_if_new)
    if ttl and new_ttl:
        raise Problem("bad-ttl", "A counter takes ttl or ttl_if_new, not both.")
    return ttl, new_ttl


def _ttl(given: msgspec.Raw) -> int:
    text = bytes(given)
    return 0 if text == b"null" else codec.ttl_ms(text)


def number(given: str | int) -> int:
    """Return a number of 64 bits that was given as a string, or as a JSON integer."""
    found = codec.integer(given) if isinstance(given, str) else given
    if found not in _INT64:
        raise Problem("bad-number", f"{given} is no signed number of 64 bits.")
    return found


def _result(asked: BatchOperation, result: Result) -> BatchResult:
    made = BatchResult(op=type(asked).__struct_config__.tag)  # type: ignore[arg-type]  # ours are strings
    if isinstance(asked.key, str):
        made.key = asked.key
    if result.revision:
        made.revision = str(result.revision)
    if not isinstance(asked, BatchCheck):
        made.existed = result.existed
    if result.record is not None:
        made.type = result.record.media_type
        made.value, made.encoding = codec.json_value(result.record)
    if result.number is not None and isinstance(asked, BatchAdd):
        made.value = msgspec.Raw(b'"%d"' % result.number)
    return made


_REASONS: Final = {
    Why.CONDITION: "the condition does not hold",
    Why.MISSING: "the key is missing",
    Why.NUMBER: "the value is no number of 64 bits",
    Why.OVERFLOW: "the sum has more than 64 bits",
}


def _batch_refused(refusal: Refusal, operations: list[BatchOperation]) -> Problem:
    if refusal.why not in _REASONS:
        return refused(refusal)
    reason = _REASONS[refusal.why]
    return Problem(
        "batch-refused",
        f"Operation {refusal.index} was refused: {reason}. Nothing was done.",
        operation=refusal.index,
        op=str(type(operations[refusal.index]).__struct_config__.tag),
        reason=refusal.why.value,
        revision=None if refusal.revision is None else str(refusal.revision),
    )


# Counters


async def count(request: Request, context: Context) -> PendingWrite:
    """`POST /v1/counters/{key}`: add to a number, and answer what it is now."""
    codec.parameters(request.query, _NONE)
    key = codec.key_of(request.path[len(b"/v1/counters/") :])
    asked = codec.read_json(request, _decode_counter) if request.body else CounterRequest()
    ttl, new_ttl = _ttls(asked)
    delta, initial = number(asked.delta), number(asked.initial)
    operation = Add(key, delta, initial, ttl, request.head.condition, new_ttl)

    def conclude(outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            return problems.answer(refused(outcome, request.head), request.path)
        (result,) = outcome
        answer = CounterAnswer(key.decode(), str(result.number), str(result.revision))
        headers = (*JSON_HEADERS, (b"ETag", etag(result.revision)))
        return Answer(200, headers, codec.encode(answer))

    return PendingWrite((operation,), conclude)
