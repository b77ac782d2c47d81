"""What a request for a single key means. Both lanes call this, so a request means one thing.

An operation takes a request and what it may use, and returns the answer, or the write that has to
be done first together with the function that makes the answer from its outcome. It raises
`Problem` for what is refused; `dispatch.serve` is the one place that turns one into an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes

from keyrack.access.rules import Scope, Verb
from keyrack.engines.contract import ANY, Refusal, Set, Why
from keyrack.http import problems
from keyrack.http.answer import Answer
from keyrack.http.api import caching, codec, rights
from keyrack.http.api.codec import etag
from keyrack.http.problems import Problem
from keyrack.http.reply import PendingWrite
from keyrack.http.tick import JSON_HEADERS, NOT_FOUND, SET_OK

if TYPE_CHECKING:
    from keyrack.engines.contract import Exceeded, Outcome, Record
    from keyrack.http.answer import Headers
    from keyrack.http.protocol.request import Head, Request
    from keyrack.http.reply import Context, Limits

_NO_PARAMETERS: Final[frozenset[bytes]] = frozenset()
PUT_PARAMETERS: Final = frozenset((b"ttl", b"stale")) | caching.PARAMETERS
_NO_STORE: Final = (b"Cache-Control", b"no-store")
_TEXT: Final = (b"Content-Type", b"text/plain; charset=utf-8")
REMOVED: Final = Answer(204, (_NO_STORE,))
_SOON: Final = ((b"Retry-After", b"1"),)
_VALUE_HEADERS: Final = (
    (b"Accept-Ranges", b"bytes"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Content-Security-Policy", b"sandbox"),
)
VALUE_HEADERS: Final = (_NO_STORE, *_VALUE_HEADERS)
"""Fields of each answer with a value that caches may not keep."""


# The seed API


async def seed_get(request: Request, context: Context) -> Answer:
    """`GET /get/<key>`: the key and its value as JSON."""
    codec.parameters(request.query, _NO_PARAMETERS)
    key = codec.key_of(request.path[len(b"/get/") :])
    return seed_get_answer(key, await context.engine.get(key))


def seed_get_answer(key: bytes, record: Record | None) -> Answer:
    """Return the answer to `GET /get/<key>` of what is stored there."""
    if record is None:
        return NOT_FOUND
    return Answer(200, JSON_HEADERS, codec.shown(key, record))


async def seed_set(request: Request, context: Context) -> PendingWrite:
    """`POST /set`: store a value that was sent as JSON."""
    codec.parameters(request.query, _NO_PARAMETERS)
    asked, (key, value, media_type, ttl, stale) = codec.set_request(request)
    rights.require(request, Scope.KEYS, Verb.SET, key)
    check_size(value, context.limits)
    may_keep = caching.of_members(asked)
    operation = Set(key, value, media_type, ttl, stale_ms=stale, cache_control=may_keep)
    return PendingWrite((operation,), seed_set_answer)


def seed_set_answer(outcome: Outcome) -> Answer:
    """Return the answer to a `POST /set` with this outcome."""
    if isinstance(outcome, Refusal):
        return problems.answer(refused(outcome), b"/set")
    return SET_OK


# The resource API


async def key_get(request: Request, context: Context) -> Answer:
    """`GET /v1/keys/{key}`: the value as it was stored."""
    codec.parameters(request.query, _NO_PARAMETERS)
    record = await context.engine.get(key_in_path(request))
    if record is None:
        raise Problem("key-not-found", "There is no such key, or its time is over.")
    condition = request.head.condition
    if condition is not None and not condition.holds(record.revision):
        return read_refused(request, record, context)
    return value_answer(request, record, context)


def value_answer(request: Request, record: Record, context: Context) -> Answer:
    """Return the value as it was stored."""
    return Answer(200, _record_headers(request, record, context), record.value)


def stored(request: Request, context: Context) -> Set:
    """Return how the body of a `PUT` is stored."""
    given = codec.parameters(request.query, PUT_PARAMETERS)
    _refuse_part(request)
    check_size(request.body, context.limits)
    ttl = codec.ttl_ms(given[b"ttl"]) if b"ttl" in given else 0
    media_type = codec.media_type_of(request.head.content_type, request.body)
    stale = codec.stale_ms(given.get(b"stale"), ttl)
    condition = request.head.condition
    key, may_keep = key_in_path(request), caching.of_query(given)
    return Set(
        key, request.body, media_type, ttl, condition, stale_ms=stale, cache_control=may_keep
    )


def key_put_answer(outcome: Outcome, head: Head | None = None) -> Answer:
    """Return the answer to a `PUT` with this outcome."""
    if isinstance(outcome, Refusal):
        return problems.answer(refused(outcome, head), b"/v1/keys/")
    (result,) = outcome
    return Answer(204 if result.existed else 201, ((b"ETag", etag(result.revision)), _NO_STORE))


def key_delete_answer(outcome: Outcome, head: Head) -> Answer:
    """Return the answer to a `DELETE` with this outcome."""
    # RFC 9110 13.2.1: preconditions do not count where the answer without them is no success.
    if _was_missing(outcome):
        missing = Problem("key-not-found", "There is no such key, or its time is over.")
        return problems.answer(missing, b"/v1/keys/")
    if isinstance(outcome, Refusal):
        return problems.answer(refused(outcome, head), b"/v1/keys/")
    return REMOVED


def _was_missing(outcome: Outcome) -> bool:
    if isinstance(outcome, Refusal):
        return outcome.why is Why.CONDITION and outcome.revision is None
    return not outcome[0].existed


async def healthz(request: Request, context: Context) -> Answer:
    """`GET /healthz`: this process answers, and knows of none that is stuck and not replaced."""
    codec.parameters(request.query, _NO_PARAMETERS)
    if trouble := context.trouble():
        raise Problem("not-well", f"Something is wrong: {trouble}. Restart the service.", _SOON)
    return Answer(200, (_TEXT, _NO_STORE), b"ok\n")


def key_in_path(request: Request) -> bytes:
    """Return the key that the path names."""
    return codec.key_of(request.path[len(b"/v1/keys/") :])


def _record_headers(request: Request, record: Record, context: Context) -> Headers:
    headers: Headers = (
        (b"Content-Type", record.media_type.encode("ascii")),
        (b"ETag", etag(record.revision)),
        *caching.fields(request, record, context),
        *_VALUE_HEADERS,
    )
    if record.expires_at:
        left = codec.seconds(max(0, record.expires_at - context.engine.now()))
        headers += ((b"Keyrack-TTL", left),)
    return headers


def read_refused(request: Request, record: Record, context: Context) -> Answer:
    """RFC 9110 13.2.2: a failed If-Match is 412, a matched If-None-Match of a read is 304."""
    condition = request.head.condition
    tag = (b"ETag", etag(record.revision))
    if condition is not None and condition.match is not None:
        only = type(condition)(match=condition.match)
        if not only.holds(record.revision):
            raise _condition_failed(record.revision, request.head)
    return Answer(304, (tag, *caching.fields(request, record, context)))


def _refuse_part(request: Request) -> None:
    if any(name == b"content-range" for name, _ in request.head.fields):
        raise Problem("malformed-message", "A part of a value cannot be stored (Content-Range).")


def check_size(value: bytes, limits: Limits) -> None:
    """Refuse a value beyond the limit."""
    if len(value) > limits.max_value:
        raise too_large("value", len(value), limits.max_value, "--max-value")


def too_large(what: str, actual: int | None, limit: int, setting: str) -> Problem:
    """Return the problem of a body or value beyond its limit (bytes)."""
    size = "more" if actual is None else f"{actual} bytes"
    return Problem(
        "too-large",
        f"The {what} has {size}; the limit is {limit} bytes ({setting}).",
        limit=limit,
        actual=actual,
    )


_FULL: Final = {
    Why.FULL: "There is no room for this{}. Delete keys, or start with more --memory.",
    Why.LOCKS_FULL: "There is no room for another lock{}. Give locks back, or let them end.",
    Why.ANSWERS_FULL: "There is no room to remember another answer{}. Use Idempotency-Key for "
    "fewer requests, a shorter --idempotency-ttl, or start with more --memory.",
}


def _full(refusal: Refusal) -> Problem:
    """Return the problem of a write that there is no room for."""
    detail, needed, available = _FULL[refusal.why], refusal.needed, refusal.available
    if not needed:
        return Problem("store-full", detail.format(""))
    sizes = f": {needed} bytes are needed for it, and there are {available}"
    if refusal.why is not Why.FULL:
        sizes = f": together they would take {needed} bytes, and may take {available}"
    return Problem("store-full", detail.format(sizes), limit=available, actual=needed)


def refused(refusal: Refusal, head: Head | None = None) -> Problem:
    """Return the problem of a write that the engine refused.

    `head` is that of the request, where its condition is that of the write.
    """
    if refusal.why is Why.CONDITION:
        return _condition_failed(refusal.revision, head)
    if refusal.why in _FULL:
        return _full(refusal)
    if refusal.why is Why.FENCED:
        return _fenced(refusal.lock)
    if refusal.exceeded is not None:
        return _beyond(refusal.exceeded)
    slug, detail = _REFUSED[refusal.why]
    return problems.away(detail) if slug == "unavailable" else Problem(slug, detail)


def _beyond(exceeded: Exceeded) -> Problem:
    """Return the problem of a write that a quota does not allow."""
    quota, limit, actual = exceeded.quota, exceeded.limit, exceeded.actual
    return Problem(
        "quota-full",
        f"The quota {quota.name!r} allows {limit} {exceeded.of} below {quota.prefix!r}, and there "
        f"would be {actual}. Delete keys there, or raise the quota.",
        limit=limit,
        actual=actual,
        prefix=quota.prefix,
        of=exceeded.of,
    )


def _fenced(lock: bytes) -> Problem:
    name = lock.decode("utf-8", "replace")
    written = quote_from_bytes(lock, safe="/:{}@")
    return Problem(
        "lock-required",
        f"A write of this key needs the lock {name!r}: take it, and send its token with the write, "
        f'as `Keyrack-Lock: "{written}"; token=...`.',
        lock=name,
    )


def _condition_failed(revision: int | None, head: Head | None) -> Problem:
    if revision is None:
        return Problem("precondition-failed", "The key is missing.")
    detail = "The key is at another ETag; this answer carries it."
    if head is not None and head.weak_match:
        detail = 'If-Match names a weak tag (W/"..."), which never matches. Send it without W/.'
    elif head is not None and head.condition is not None and head.condition.none_match == ANY:
        detail = "The key exists; this answer carries its ETag."
    return Problem("precondition-failed", detail, headers=((b"ETag", etag(revision)),))


_REFUSED: Final = {
    Why.SERVER_FULL: (
        "store-full",
        "Valkey has no room for this: maxmemory is reached. Delete keys, or raise it there.",
    ),
    Why.DISK_FULL: (
        "store-full",
        "The disk that the store is kept on is full. Nothing was done.",
    ),
    Why.UNSAFE: (
        "unavailable",
        "Valkey's maxmemory-policy is not noeviction. Nothing was done.",
    ),
    Why.DISK: (
        "unavailable",
        "The disk that the store is kept on failed; the write may get lost.",
    ),
    Why.AWAY: (
        "unavailable",
        "The store did not answer in time; the write may or may not be done.",
    ),
    Why.MOVING: (
        "unavailable",
        "The key is being moved to another server. Nothing was done.",
    ),
    Why.BROKEN: (
        "internal",
        "The write failed, and may or may not be done. The server's log says more.",
    ),
    Why.MISSING: ("key-not-found", "There is no such key, or its time is over."),
    Why.NUMBER: ("not-a-number", "The key's value is no decimal number of 64 bits."),
    Why.SPREAD: (
        "keys-in-several-shards",
        "These keys are in different shards of the store, which nothing changes together. Give "
        "them a part in braces in common, like {order:17}/state and {order:17}/lines: only that "
        "part decides on a key's shard.",
    ),
    Why.OVERFLOW: ("overflow", "The sum has more than 64 bits; nothing was changed."),
    Why.REUSED: (
        "idempotency-key-reused",
        "This Idempotency-Key was used for another request. Use a new one for each request.",
    ),
}
