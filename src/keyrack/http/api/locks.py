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

from keyrack.engines.contract import (
    ANY,
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
from keyrack.http.api import codec
from keyrack.http.api.keys import refused
from keyrack.http.api.models import LockRequest, LockState
from keyrack.http.problems import Problem
from keyrack.http.reply import PendingWrite
from keyrack.http.tick import JSON_HEADERS

if TYPE_CHECKING:
    from keyrack.engines.contract import Outcome, Record, Write
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

_NONE: Final[frozenset[bytes]] = frozenset()
_RELEASE: Final = frozenset((b"token",))
_PREFIX: Final = b"/v1/locks/"
_FREE: Final = Condition(none_match=ANY)
_AWAY_PAUSE: Final = 0.5
"""Seconds until a lock is tried again that nobody can be asked about now."""
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
        return _renew(request, name, asked, ttl, context)
    write = (Set(name, codec.utf8(asked.owner), TEXT, ttl, _FREE, Space.LOCKS),)
    seconds = codec.wait_seconds(request, context.limits.max_wait)

    async def conclude(outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            problem = await _refused(outcome, name, context)
            if problem.slug == "lock-not-held":
                # It was held when this was tried, and is free by now.
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


def _renew(
    request: Request, name: bytes, asked: LockRequest, ttl: int, context: Context
) -> PendingWrite:
    token = codec.integer(str(asked.token))
    held = Condition(match=frozenset((token,)))

    async def conclude(outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            return problems.answer(await _refused(outcome, name, context), request.path)
        record = await context.engine.lock_of(name)
        owner = asked.owner if record is None else record.value.decode()
        state = LockState(name.decode(), owner, str(token), ttl / 1000)
        return Answer(200, JSON_HEADERS, codec.encode(state))

    return PendingWrite((Touch(name, ttl, held, Space.LOCKS),), conclude)


async def release(request: Request, context: Context) -> PendingWrite:
    """`DELETE /v1/locks/{name}?token=`: give a lock back."""
    given = codec.parameters(request.query, _RELEASE)
    name = codec.key_of(request.path[len(_PREFIX) :])
    if b"token" not in given:
        raise Problem("bad-parameter", "Name the token that you got with the lock: ?token=...")
    token = codec.revision_of(given[b"token"], "token")
    held = Condition(match=frozenset((token,)))

    async def conclude(outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            return problems.answer(await _refused(outcome, name, context), request.path)
        return Answer(204, ((b"Cache-Control", b"no-store"),))

    return PendingWrite((Delete(name, held, Space.LOCKS),), conclude)


async def show(request: Request, context: Context) -> Answer:
    """`GET /v1/locks/{name}`: who holds a lock, and how long yet."""
    codec.parameters(request.query, _NONE)
    name = codec.key_of(request.path[len(_PREFIX) :])
    record = await context.engine.lock_of(name)
    if record is None:
        raise Problem("lock-not-held", "Nobody holds this lock.")
    state = LockState(
        name.decode(), record.value.decode(), str(record.revision), _left(record, context)
    )
    return Answer(200, JSON_HEADERS, codec.encode(state))


def _left(record: Record, context: Context) -> float:
    return max(0, record.expires_at - context.engine.now()) / 1000


async def _refused(refusal: Refusal, name: bytes, context: Context) -> Problem:
    if refusal.why is not Why.CONDITION:
        return refused(refusal)
    record = refusal.holder or await context.engine.lock_of(name)
    if record is None:
        return Problem("lock-not-held", "Nobody holds this lock any more; its time was over.")
    left = _left(record, context)
    return Problem(
        "lock-held",
        f"{record.value.decode()!r} holds the lock for another {left:.3f} s.",
        headers=((b"Retry-After", b"%d" % max(1, math.ceil(left))),),
        owner=record.value.decode(),
        token=str(record.revision),
        ttl=left,
    )
