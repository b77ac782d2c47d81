"""What a request for a single key means. Both lanes call this, so a request means one thing.

An operation takes a request and the engine, and returns the answer, or the write that has to be
done first together with the function that makes the answer from its outcome. It raises `Problem`
for what is refused; `serve` is the one place that turns one into an answer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from keyrack.engines.contract import Delete, Refusal, Set, Why
from keyrack.http import contract, problems
from keyrack.http.contract import etag
from keyrack.http.message import Answer
from keyrack.http.problems import Problem
from keyrack.http.turn import JSON_HEADERS, SET_OK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keyrack.engines.contract import Engine, Outcome, Record, Write
    from keyrack.http.message import Head, Request

_log = logging.getLogger("keyrack.http")

_NO_PARAMETERS: Final[frozenset[bytes]] = frozenset()
_PUT_PARAMETERS: Final = frozenset((b"ttl",))
_NO_STORE: Final = (b"Cache-Control", b"no-store")
_TEXT: Final = (b"Content-Type", b"text/plain; charset=utf-8")
_VALUE_HEADERS: Final = (
    _NO_STORE,
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Content-Security-Policy", b"sandbox"),
)


class PendingWrite(NamedTuple):
    """A write that an operation needs, and how its outcome becomes the answer."""

    write: Write
    conclude: Callable[[Outcome], Answer]


Reply: TypeAlias = Answer | PendingWrite


class Limits(NamedTuple):
    """Limits in bytes that the operations enforce."""

    max_value: int
    max_body: int


class Resource(NamedTuple):
    """A path or the beginning of one, and its methods: the operation's name and function."""

    methods: Mapping[bytes, tuple[str, Callable[[Request, Engine, Limits], Reply]]]
    writes: frozenset[bytes]
    name: str


def serve(request: Request, resource: Resource, engine: Engine, limits: Limits) -> Reply:
    """Return what a request is answered with. Nothing escapes: a failure is an answer too."""
    try:
        refuse_by_head(request.head, writes=request.method in resource.writes)
        if request.method not in resource.methods:
            return _without_operation(request, resource)
        operation = resource.methods[request.method][1]
        return operation(request, engine, limits)
    except Problem as problem:
        return problems.answer(problem, request.path)
    except Exception:
        _log.exception("serving failed", extra={"path": request.path.decode("latin-1")})
        return problems.answer(internal(), request.path)


def internal() -> Problem:
    """Return the problem of a defect of ours."""
    return Problem("internal", "The server's log says more.")


def refuse_by_head(head: Head, *, writes: bool) -> None:
    """Raise the problem that a request's header section has for a read or a write, if any."""
    refusal = head.write_refusal if writes else head.read_refusal
    if refusal is not None:
        raise refusal


def _without_operation(request: Request, resource: Resource) -> Answer:
    allowed = b", ".join(sorted((*resource.methods, b"OPTIONS")))
    if request.method == b"OPTIONS":
        return Answer(204, ((b"Allow", allowed),))
    raise Problem(
        "method-not-allowed",
        f"{request.method.decode()} is not possible here; {allowed.decode()} are.",
        headers=((b"Allow", allowed),),
    )


# The seed API


def seed_get(request: Request, engine: Engine, limits: Limits) -> Answer:
    """`GET /get/<key>`: the key and its value as JSON."""
    contract.parameters(request.query, _NO_PARAMETERS)
    key = contract.key_of(request.path[len(b"/get/") :])
    record = engine.get(key)
    if record is None:
        raise Problem("key-not-found", "Key not found")
    return Answer(200, JSON_HEADERS, contract.shown(key, record))


def seed_set(request: Request, engine: Engine, limits: Limits) -> PendingWrite:
    """`POST /set`: store a value that was sent as JSON."""
    contract.parameters(request.query, _NO_PARAMETERS)
    key, value, media_type, ttl = contract.set_request(request)
    _check_size(value, limits)
    return PendingWrite((Set(key, value, media_type, ttl),), seed_set_answer)


def seed_set_answer(outcome: Outcome) -> Answer:
    """Return the answer to a `POST /set` with this outcome."""
    if isinstance(outcome, Refusal):
        return problems.answer(_refused(outcome), b"/set")
    return SET_OK


# The resource API


def key_get(request: Request, engine: Engine, limits: Limits) -> Answer:
    """`GET /v1/keys/{key}`: the value as it was stored."""
    contract.parameters(request.query, _NO_PARAMETERS)
    record = engine.get(_key(request))
    if record is None:
        raise Problem("key-not-found", "There is no such key, or its time is over.")
    condition = request.head.condition
    if condition is not None and not condition.holds(record.revision):
        return _read_refused(request, record)
    return Answer(200, _record_headers(record, engine), record.value)


def key_put(request: Request, engine: Engine, limits: Limits) -> PendingWrite:
    """`PUT /v1/keys/{key}`: store the body."""
    given = contract.parameters(request.query, _PUT_PARAMETERS)
    _refuse_encoded(request)
    _check_size(request.body, limits)
    ttl = contract.ttl_ms(given[b"ttl"]) if b"ttl" in given else 0
    media_type = contract.media_type_of(request)
    operation = Set(_key(request), request.body, media_type, ttl, request.head.condition)
    return PendingWrite((operation,), key_put_answer)


def key_put_answer(outcome: Outcome) -> Answer:
    """Return the answer to a `PUT` with this outcome."""
    if isinstance(outcome, Refusal):
        return problems.answer(_refused(outcome), b"/v1/keys/")
    (result,) = outcome
    return Answer(204 if result.existed else 201, ((b"ETag", etag(result.revision)), _NO_STORE))


def key_delete(request: Request, engine: Engine, limits: Limits) -> Answer | PendingWrite:
    """`DELETE /v1/keys/{key}`: remove the key."""
    contract.parameters(request.query, _NO_PARAMETERS)
    key = _key(request)
    condition = request.head.condition
    # RFC 9110 13.2.1: preconditions do not count where the answer without them is no success.
    if condition is not None and engine.get(key) is None:
        raise Problem("key-not-found", "There is no such key, or its time is over.")
    return PendingWrite((Delete(key, condition),), key_delete_answer)


def key_delete_answer(outcome: Outcome) -> Answer:
    """Return the answer to a `DELETE` with this outcome."""
    if isinstance(outcome, Refusal):
        return problems.answer(_refused(outcome), b"/v1/keys/")
    if not outcome[0].existed:
        missing = Problem("key-not-found", "There is no such key, or its time is over.")
        return problems.answer(missing, b"/v1/keys/")
    return Answer(204, (_NO_STORE,))


def healthz(request: Request, engine: Engine, limits: Limits) -> Answer:
    """`GET /healthz`: this process answers."""
    contract.parameters(request.query, _NO_PARAMETERS)
    return Answer(200, (_TEXT, _NO_STORE), b"ok\n")


def _key(request: Request) -> bytes:
    return contract.key_of(request.path[len(b"/v1/keys/") :])


def _record_headers(record: Record, engine: Engine) -> tuple[tuple[bytes, bytes], ...]:
    headers: tuple[tuple[bytes, bytes], ...] = (
        (b"Content-Type", record.media_type.encode("ascii")),
        (b"ETag", etag(record.revision)),
        *_VALUE_HEADERS,
    )
    if record.expires_at:
        left = contract.seconds(max(0, record.expires_at - engine.now()))
        headers += ((b"Keyrack-TTL", left),)
    return headers


def _read_refused(request: Request, record: Record) -> Answer:
    """RFC 9110 13.2.2: a failed If-Match is 412, a matched If-None-Match of a read is 304."""
    condition = request.head.condition
    tag = (b"ETag", etag(record.revision))
    if condition is not None and condition.match is not None:
        only = type(condition)(match=condition.match)
        if not only.holds(record.revision):
            raise Problem("precondition-failed", "The key is at another ETag.", headers=(tag,))
    return Answer(304, (tag, _NO_STORE))


def _refuse_encoded(request: Request) -> None:
    fields = dict(request.head.fields)
    if fields.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Problem(
            "unsupported-media-type",
            "A value's content encoding would be lost. Send it unencoded, or name the encoding "
            "in the Content-Type, like `application/gzip`.",
        )
    if b"content-range" in fields:
        raise Problem("malformed-message", "A part of a value cannot be stored (Content-Range).")


def _check_size(value: bytes, limits: Limits) -> None:
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


def _refused(refusal: Refusal) -> Problem:
    if refusal.why is Why.FULL:
        return Problem(
            "store-full", "There is no room for this. Delete keys, or start with more --memory."
        )
    if refusal.why is Why.BROKEN:
        return Problem(
            "internal", "The write failed, and may or may not be done. The server's log says more."
        )
    if refusal.revision is None:
        return Problem("precondition-failed", "The key is missing.")
    return Problem(
        "precondition-failed",
        "The key is at another ETag; this answer carries it.",
        headers=((b"ETag", etag(refusal.revision)),),
    )


# Where each is found

_GET: Final = Resource({b"GET": ("get", seed_get), b"HEAD": ("get", seed_get)}, frozenset(), "get")
_SET: Final = Resource({b"POST": ("set", seed_set)}, frozenset((b"POST",)), "set")
_KEY: Final = Resource(
    {
        b"GET": ("key_get", key_get),
        b"HEAD": ("key_get", key_get),
        b"PUT": ("key_put", key_put),
        b"DELETE": ("key_delete", key_delete),
    },
    frozenset((b"PUT", b"DELETE")),
    "key",
)
_HEALTH: Final = Resource(
    {b"GET": ("healthz", healthz), b"HEAD": ("healthz", healthz)}, frozenset(), "healthz"
)


def find(path: bytes) -> Resource | None:
    """Return the single-key resource that a raw path names, None for anything else."""
    if path.startswith(b"/v1/keys/"):
        return _KEY
    if path.startswith(b"/get/"):
        return _GET
    if path == b"/set":
        return _SET
    return _HEALTH if path == b"/healthz" else None


def operation_name(method: bytes, resource: Resource | None) -> str:
    """Return the name under which a request is counted."""
    if resource is None or method not in resource.methods:
        return "other"
    return resource.methods[method][0]
