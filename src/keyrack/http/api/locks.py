"""Locks: taken for a time, with a fencing token that every holder's grows beyond the last one's.

A lock is a record of its own space; its revision is the token. Taking one is a `Set` that asks for
none to be there, so two never hold it, and its time ends it to the millisecond. Who waits for one
waits in this worker's queue for that lock, in order of arrival: the first tries again whenever the
lock is given back or its time is over.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from keyrack.access.rules import Scope, Verb
from keyrack.engines.contract import (
    ANY,
    LEASE,
    TEXT,
    Condition,
    Delete,
    Refusal,
    Set,
    Space,
    StoreAway,
    Touch,
    Why,
)
from keyrack.http import problems
from keyrack.http.answer import Answer
from keyrack.http.api import codec, rights
from keyrack.http.api.keys import refused
from keyrack.http.api.listing import DEFAULT, MOST
from keyrack.http.api.models import LockHolder, LockPage, LockRequest, LockState
from keyrack.http.problems import Problem
from keyrack.http.reply import PendingWrite
from keyrack.http.tick import JSON_HEADERS

if TYPE_CHECKING:
    from keyrack.engines.contract import Outcome, Record, Write
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

_NONE: Final[frozenset[bytes]] = frozenset()
_RELEASE: Final = frozenset((b"token", b"force"))
PAGE_PARAMETERS: Final = frozenset((b"prefix", b"after", b"limit"))
_PREFIX: Final = b"/v1/locks/"
_FREE: Final = Condition(none_match=ANY)
_AWAY_PAUSE: Final = 0.5
"""Seconds until a lock is tried again that nobody can be asked about now."""
_TRIES: Final = 20
"""So often a lock is tried that was held, and was free when its holder was looked for."""
_decode: Final = msgspec.json.Decoder(LockRequest).decode


async def acquire(request: Request, context: Context) -> Answer | PendingWrite:
    """`POST /v1/locks/{name}`: take a lock, wait for it, or renew it with its token."""
    codec.parameters(request.query, _NONE)
    name = codec.key_of(request.path[len(_PREFIX) :])
    asked = codec.read_json(request, _decode)
    text = bytes(asked.ttl)
    if text == b"null":
        raise Problem("bad-ttl", "A lock needs a TTL, so that it ends when its holder does.")
    ttl = codec.ttl_ms(text)
    if isinstance(asked.token, str):
        return await _renew(request, name, asked, ttl, context)
    write = (Set(name, codec.utf8(asked.owner), TEXT, ttl, _FREE, Space.LOCKS),)
    seconds = codec.wait_seconds(request, context.limits.max_wait)

    async def conclude(outcome: Outcome) -> Answer:
        tries = 1 if request.head.idempotency_key is not None else _TRIES
        while isinstance(outcome, Refusal):
            problem = await _refused(outcome, name, context, asked.owner)
            tries -= 1
            if problem.slug == "lock-not-held" and tries:
                # It was held when this was tried, and is free by now.
                outcome = await context.tick.write(write)
                continue
            if problem.slug == "lock-not-held":
                now = ((b"Retry-After", b"1"),)
                problem = Problem("lock-held", "Somebody held the lock; try again.", now)
            return problems.answer(problem, request.path)
        state = LockState(name.decode(), asked.owner, str(outcome[0].revision), ttl / 1000)
        return Answer(201, JSON_HEADERS, codec.encode(state))

    if seconds:
        if request.head.idempotency_key is not None:
            raise Problem("bad-parameter", "Idempotency-Key and Prefer: wait= do not go together.")
        return await conclude(await take_in_turn(name, write, seconds, context))
    return PendingWrite(write, conclude)


async def take_in_turn(name: bytes, write: Write, seconds: float, context: Context) -> Outcome:
    """Take a lock when it is this client's turn; when its time is over a refusal is the answer."""
    locks = context.hub.locks
    try:
        with locks.waiting(name, seconds) as waiter:
            while True:
                last = not await waiter.change()
                if not last and not locks.is_first(name, waiter):
                    continue
                outcome = await _tried(name, write, context)
                held = isinstance(outcome, Refusal) and outcome.why is Why.CONDITION
                if last or not held:
                    return outcome
                waiter.call_in(await _seconds_held(name, context))
    finally:
        # Whoever is the first now has not been told of a release that this one was told of.
        locks.call_first(name)


async def _tried(name: bytes, write: Write, context: Context) -> Outcome:
    """Try to take a lock. A client that leaves meanwhile gives it back, or nobody ever would."""
    coming = context.tick.write(write)
    try:
        return await asyncio.shield(coming)
    except asyncio.CancelledError:
        coming.add_done_callback(partial(_give_back, name, context))
        raise


def _give_back(name: bytes, context: Context, taken: asyncio.Future[Outcome]) -> None:
    outcome = taken.result()
    if not isinstance(outcome, Refusal):
        held = Condition(match=frozenset((outcome[0].revision,)))
        context.tick.write((Delete(name, held, Space.LOCKS),))


async def _seconds_held(name: bytes, context: Context) -> float:
    """Return when to try again if the holder does not give the lock back before."""
    try:
        record = await context.engine.lock_of(name)
    except StoreAway:
        return _AWAY_PAUSE
    return 0.001 + (0.0 if record is None else _left(record, context))


async def _renew(
    request: Request, name: bytes, asked: LockRequest, ttl: int, context: Context
) -> PendingWrite:
    token = codec.integer(str(asked.token))
    held = Condition(match=frozenset((token,)))
    # Before the write: an answer that is given again is not about whoever holds the lock by then.
    record = await context.engine.lock_of(name)
    same = record is not None and record.revision == token
    owner = record.value.decode() if record is not None and same else asked.owner

    async def conclude(outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            return problems.answer(await _refused(outcome, name, context), request.path)
        state = LockState(name.decode(), owner, str(token), ttl / 1000)
        return Answer(200, JSON_HEADERS, codec.encode(state))

    return PendingWrite((Touch(name, ttl, held, Space.LOCKS),), conclude)


async def release(request: Request, context: Context) -> PendingWrite:
    """`DELETE /v1/locks/{name}?token=`: give a lock back; `?force=true`: take it away."""
    given = codec.parameters(request.query, _RELEASE)
    name = codec.key_of(request.path[len(_PREFIX) :])
    forced = codec.switch(given, b"force")
    if forced == (b"token" in given):
        raise Problem(
            "bad-parameter",
            "Name the token that you got with the lock, ?token=..., or take it from whoever has it "
            "with ?force=true.",
        )
    held = None
    if forced:
        rights.require_admin(request)
    else:
        held = Condition(match=frozenset((codec.revision_of(given[b"token"], "token"),)))

    async def conclude(outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            return problems.answer(await _refused(outcome, name, context), request.path)
        if not outcome[0].existed:
            return problems.answer(_not_held(), request.path)
        return Answer(204, ((b"Cache-Control", b"no-store"),))

    return PendingWrite((Delete(name, held, Space.LOCKS),), conclude)


async def show(request: Request, context: Context) -> Answer:
    """`GET /v1/locks/{name}`: who holds a lock, and how long yet."""
    codec.parameters(request.query, _NONE)
    name = codec.key_of(request.path[len(_PREFIX) :])
    record = await context.engine.lock_of(name)
    if record is None:
        raise _not_held()
    return Answer(200, JSON_HEADERS, codec.encode(_shown(name, record, context)))


async def page(request: Request, context: Context) -> Answer:
    """`GET /v1/locks`: the locks that are held, in order of their names, a page of them."""
    given = codec.parameters(request.query, PAGE_PARAMETERS)
    prefix = codec.prefix_of(given.get(b"prefix", b""))
    after = codec.prefix_of(given[b"after"]) if b"after" in given else None
    limit = codec.whole(given, b"limit", DEFAULT, 1, MOST)
    found = await context.engine.scan_locks(prefix, after, limit)
    allowed = request.grant.rights.permission(Scope.LOCKS, Verb.READ).test
    held = [
        _shown(name, record, context)
        for name, record in found.entries
        if not name.startswith(LEASE) and (allowed is None or allowed(name))
    ]
    # Leases are the last of the locks, and nobody's to see.
    last = found.next is None or found.next.startswith(LEASE)
    following = None if found.next is None or last else codec.text_of(found.next)
    return Answer(200, JSON_HEADERS, codec.encode(LockPage(held, following)))


def _shown(name: bytes, record: Record, context: Context) -> LockHolder:
    """Return what others may know of a lock: the token, which gives it back, is its holder's."""
    return LockHolder(name.decode(), record.value.decode(), _left(record, context))


def _left(record: Record, context: Context) -> float:
    return max(0, record.expires_at - context.engine.now()) / 1000


def _not_held() -> Problem:
    return Problem("lock-not-held", "Nobody holds this lock: it was given back, or has ended.")


async def _refused(
    refusal: Refusal, name: bytes, context: Context, asker: str | None = None
) -> Problem:
    """Return the problem of a lock that is not the sender's; `asker` is who wanted to take it."""
    if refusal.why is not Why.CONDITION:
        return refused(refusal)
    record = refusal.holder or await context.engine.lock_of(name)
    if record is None:
        return _not_held()
    # As of the refusal: an answer that is given again tells what the first one told.
    left = max(0, record.expires_at - (refusal.at or context.engine.now())) / 1000
    owner = record.value.decode()
    detail = f"{owner!r} holds the lock for another {left:.3f} s."
    if owner == asker:
        detail = f"{owner!r} holds it already, for another {left:.3f} s; a token renews it."
    retry = (b"Retry-After", b"%d" % max(1, math.ceil(left)))
    return Problem("lock-held", detail, headers=(retry,), owner=owner, ttl=left)
