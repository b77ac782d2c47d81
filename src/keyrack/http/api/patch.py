"""`PATCH` of a key: another end, with `?ttl=`; and JSON Merge Patch (RFC 7396), which changes
members of a JSON value where it is.

A patch reads, merges, and writes if the key is still as it was read; else it begins again. Patches
of one key that a worker has at the same time go one after the other: all at once, each commit would
let one of them win and send the others back.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.engines.contract import (
    ANY,
    JSON,
    KEEP_END,
    KEEP_STALE,
    Check,
    Condition,
    Refusal,
    Set,
    Touch,
    Why,
)
from keyrack.http import problems
from keyrack.http.answer import Answer
from keyrack.http.api import codec
from keyrack.http.api.codec import etag
from keyrack.http.api.keys import check_size, refused
from keyrack.http.api.named_locks import NamedLocks
from keyrack.http.api.remembering import remembering
from keyrack.http.problems import Problem
from keyrack.http.reply import PendingWrite

if TYPE_CHECKING:
    from keyrack.engines.contract import Outcome, Record, Write
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

_PARAMETERS: Final = frozenset((b"ttl", b"stale"))
_MERGE_PATCH: Final = b"application/merge-patch+json"
_ATTEMPTS: Final = 100
_NEVER: Final = Condition(match=ANY, none_match=ANY)
"""A condition that no key fulfils: what depends on it only tells what was remembered."""


class _Literal(str):
    """A JSON number as it was written, so that it is written the same again."""

    __slots__ = ()


class _Ends(NamedTuple):
    """Which end a patch gives a key, and for how long it is kept stale after it (ms)."""

    ttl_ms: int
    stale_ms: int


async def patch(request: Request, context: Context) -> Answer | PendingWrite:
    """`PATCH /v1/keys/{key}`: merge the body into the value, or give the key another end."""
    given = codec.parameters(request.query, _PARAMETERS)
    key = codec.key_of(request.path[len(b"/v1/keys/") :])
    ends = _ends_of(given)
    if ends is not None and not request.body:
        operation = Touch(key, ends.ttl_ms, request.head.condition, stale_ms=ends.stale_ms)
        return PendingWrite((operation,), partial(_answer, request))
    if ends is not None:
        raise Problem(
            "bad-parameter", "A patch changes the value or, without a body, the TTL: send two."
        )
    kind = request.head.content_type or b""
    if kind.split(b";")[0].strip().lower() != _MERGE_PATCH:
        raise Problem("unsupported-media-type", "Send the patch as `application/merge-patch+json`.")
    change = _parsed(request.body)
    async with context.patches.held(key):
        return await _patched(request, context, key, change)


def _ends_of(given: dict[bytes, bytes]) -> _Ends | None:
    """Return which end a patch gives a key, None where it leaves that alone."""
    if b"ttl" not in given:
        if b"stale" in given:
            raise Problem("bad-ttl", "A stale copy is kept of a key that ends: give a TTL as well.")
        return None
    ttl = 0 if given[b"ttl"] == b"none" else codec.ttl_ms(given[b"ttl"])
    return _Ends(ttl, codec.stale_ms(given[b"stale"], ttl) if b"stale" in given else KEEP_STALE)


def _answer(request: Request, outcome: Outcome) -> Answer:
    if isinstance(outcome, Refusal):
        return problems.answer(refused(outcome, request.head), request.path)
    tag = (b"ETag", etag(outcome[0].revision))
    return Answer(204, (tag, (b"Cache-Control", b"no-store")))


async def _patched(request: Request, context: Context, key: bytes, change: Any) -> Answer:
    """Read, merge, write if nothing else was written meanwhile, or begin again.

    With an Idempotency-Key that was done already it is not done again, nor looked at the key.
    """
    name: Write = ()
    locks = NamedLocks.of(request)
    if request.head.idempotency_key is not None:
        name = (remembering(request, context.limits, only_done=True),)
        outcome = await context.tick.write((*name, Check(key, _NEVER)))
        if not isinstance(outcome, Refusal) or outcome.why is not Why.CONDITION:
            return _answer(request, outcome)
    for _ in range(_ATTEMPTS):
        operation = await _operation(request, context, key, change)
        write = locks.over((*name, operation))
        outcome = locks.outcome(await context.tick.write(write))
        if not isinstance(outcome, Refusal) or outcome.why is not Why.CONDITION:
            request.note_write(write, outcome)
            return _answer(request, outcome)
    later = ((b"Retry-After", b"1"),)
    raise Problem("unavailable", "Others change this key all the time.", later)


async def _operation(request: Request, context: Context, key: bytes, change: Any) -> Set:
    record = await context.engine.get(key)
    if record is None:
        raise Problem("key-not-found", "There is no such key, or its time is over.")
    condition = request.head.condition
    if condition is not None and not condition.holds(record.revision):
        raise refused(Refusal(Why.CONDITION, revision=record.revision), request.head)
    try:
        value = _merged(record, change)
    except (RecursionError, UnicodeEncodeError):
        why = "It is nested too deeply, or has half of a surrogate pair."
        raise Problem("bad-json", why) from None
    check_size(value, context.limits)
    same = Condition(match=frozenset((record.revision,)))
    caching = record.cache_control
    return Set(key, value, record.media_type, KEEP_END, same, cache_control=caching)


def _merged(record: Record, change: Any) -> bytes:
    if record.media_type.split(";")[0].strip().lower() != JSON:
        raise Problem(
            "not-json", f"The value is {record.media_type}; only application/json is patched."
        )
    try:
        value = _parsed(record.value)
    except Problem as problem:
        raise Problem("not-json", f"The value cannot be patched. {problem.detail}") from None
    return _written(merge(value, change))


def merge(value: Any, change: Any) -> Any:
    """Return a value with a merge patch applied (RFC 7396, section 2)."""
    if not isinstance(change, dict):
        return change
    merged = dict(value) if isinstance(value, dict) else {}
    for name, part in change.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), part)
    return merged


def _parsed(text: bytes) -> Any:
    """Return JSON as Python values, with numbers as the text that they were."""
    try:
        codec.check_json(text)
        return json.loads(
            text, parse_int=_Literal, parse_float=_Literal, object_pairs_hook=codec.unique_dict
        )
    except (ValueError, RecursionError) as error:
        raise Problem("bad-json", f"It cannot be read as JSON: {error}.") from None


def _written(value: Any) -> bytes:
    """Return JSON text; numbers are written as they were, never rounded."""
    if isinstance(value, _Literal):
        return value.encode()
    if isinstance(value, dict):
        members = (codec.encode(name) + b":" + _written(part) for name, part in value.items())
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(_written, value)) + b"]"
    return codec.encode(value)
