"""Stale copies for those who take them, and leases to recompute a key, so that nobody stampedes.

A lease is a lock whose name is the key's behind a byte that no text begins with. One that is older
than the key's revision is void: the key was written since. Only whoever gets the lease writes for
it; everybody else reads, and then waits or takes what there is.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.access.rules import Scope, Verb
from keyrack.engines.contract import (
    ANY,
    LEASE,
    MAX_LEASED_KEY_BYTES,
    MAX_TTL_MS,
    TEXT,
    Check,
    Condition,
    Delete,
    Refusal,
    Set,
    Space,
    Why,
)
from keyrack.http import problems
from keyrack.http.answer import Answer
from keyrack.http.api import codec, keys
from keyrack.http.problems import Problem
from keyrack.http.reply import PendingWrite
from keyrack.shared.counters import LEASES, STALE_SERVED

if TYPE_CHECKING:
    from keyrack.engines.contract import Outcome, Record, Write
    from keyrack.http.answer import Headers
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

MAX_LEASE_SECONDS: Final = 300
_NO_PARAMETERS: Final[frozenset[bytes]] = frozenset()
_RELEASE: Final = frozenset((b"token",))
_KEYS: Final = b"/v1/keys/"
_LEASES: Final = b"/v1/leases/"
_TOKEN: Final = re.compile(rb'"([0-9]{1,19})"|([0-9]{1,19})')
_FREE: Final = Condition(none_match=ANY)
_TRIES: Final = 20
"""So often a lease is tried that was free, and was not when it was to be taken."""
_MISSING: Final = "There is no such key, or its time is over."


class RecomputeOffer(NamedTuple):
    """What the sender of a read takes, and what it would do."""

    max_stale: int
    """For how many ms a value may be over."""
    lease_ms: int = 0
    """For how long it wants the lease to recompute the key; 0 where it does not offer to."""
    early_ms: int = 0
    """How long before the key's end it would recompute it already."""
    may: bool = True
    """Whether it may have the lease."""


class _Look(NamedTuple):
    """What a read of a key has found."""

    record: Record | None
    """The value that can be served, be it stale."""
    left: int | None = None
    """For how many ms it is fresh yet, None for ever."""
    token: int = 0
    """The lease that the sender was given; 0 for none."""
    held_ms: int = 0
    """For how long somebody else has the lease, at most; 0 where nobody has."""

    @property
    def is_stale(self) -> bool:
        return self.left is not None and self.left <= 0


def offer_of(request: Request) -> RecomputeOffer | None:
    """Return what a read takes beside what is fresh, None where that is nothing."""
    head = request.head
    seconds = codec.preference(head.prefer, b"recompute") if head.prefer else 0
    if not seconds:
        return None if head.max_stale is None else RecomputeOffer(head.max_stale)
    most = MAX_TTL_MS if head.max_stale is None else head.max_stale
    early = codec.preference(head.prefer, b"early")
    return RecomputeOffer(most, min(seconds, MAX_LEASE_SECONDS) * 1000, early * 1000)


async def read(request: Request, context: Context, offer: RecomputeOffer) -> Answer:
    """`GET /v1/keys/{key}` of somebody who takes stale values, or offers to recompute the key."""
    codec.parameters(request.query, _NO_PARAMETERS)
    key = codec.key_of(request.path[len(_KEYS) :])
    if not _may_recompute(request, key):
        offer = offer._replace(may=False)
    found = await _look(request, key, context, offer)
    if found.held_ms:
        _count(context, "collapsed")
    seconds = codec.wait_seconds(request, context.limits.max_wait)
    if _has_news(found) or not seconds:
        return _answer(request, found, context)
    with context.hub.keys.waiting(key, seconds) as waiter:
        while True:
            last = not await waiter.change()
            found = await _look(request, key, context, offer)
            if last or _has_news(found):
                return _answer(request, found, context)
            if found.held_ms:
                waiter.call_in(found.held_ms / 1000)


def _may_recompute(request: Request, key: bytes) -> bool:
    """Tell whether the lease of a key would be of use to the sender, who has to store the key."""
    if request.method != b"GET" or len(key) > MAX_LEASED_KEY_BYTES:
        return False
    test = request.grant.rights.permission(Scope.KEYS, Verb.SET).test
    return test is None or bool(test(key))


def _has_news(found: _Look) -> bool:
    return found.record is not None or found.token != 0


async def _look(request: Request, key: bytes, context: Context, offer: RecomputeOffer) -> _Look:
    """Return what there is of a key, and the lease with it if it is due and free."""
    for _ in range(_TRIES):
        record = await context.engine.get_stale(key)
        left = None
        if record is not None and record.expires_at:
            left = record.expires_at - context.engine.now()
        _refuse_unmatched(request, record, context)
        if record is not None and (left is None or left > offer.early_ms):
            return _Look(record, left)
        shown = None if left is not None and -left > offer.max_stale else record
        if not offer.lease_ms:
            return _Look(shown, left)
        held = await context.engine.lock_of(LEASE + key)
        if held is not None and (record is None or held.revision > record.revision):
            return _Look(shown, left, 0, max(0, held.expires_at - context.engine.now()) + 1)
        if not offer.may:
            return _Look(shown, left)
        void = None if held is None else held.revision
        state = _FREE if record is None or left is None or left <= 0 else _at(record.revision)
        free = _FREE if void is None else _at(void)
        outcome = await _take(key, state, free, offer.lease_ms, context)
        if not isinstance(outcome, Refusal):
            _count(context, "granted")
            return _Look(shown, left, outcome[1].revision)
        if outcome.why is not Why.CONDITION:
            return _Look(shown, left)  # there is no room for a lease: it goes on without
    return _Look(shown, left)


def _at(revision: int) -> Condition:
    return Condition(match=frozenset((revision,)))


def _refuse_unmatched(request: Request, record: Record | None, context: Context) -> None:
    """Refuse a read whose If-Match does not hold, before anything is given to its sender."""
    condition = request.head.condition
    if condition is not None and record is not None and not condition.holds(record.revision):
        keys.read_refused(request, record, context)


async def _take(
    key: bytes, state: Condition, free: Condition, lease_ms: int, context: Context
) -> Outcome:
    """Take the lease of a key that is as it was. A client that leaves meanwhile gives it back."""
    lease = Set(LEASE + key, b"recompute", TEXT, lease_ms, free, Space.LOCKS)
    coming = context.tick.write((Check(key, state), lease))
    try:
        return await asyncio.shield(coming)
    except asyncio.CancelledError:
        coming.add_done_callback(partial(_give_back, key, context))
        raise


def _give_back(key: bytes, context: Context, taken: asyncio.Future[Outcome]) -> None:
    outcome = taken.result()
    if not isinstance(outcome, Refusal):
        context.tick.write((_release(key, outcome[1].revision),))


def _release(key: bytes, token: int) -> Delete:
    return Delete(LEASE + key, _at(token), Space.LOCKS)


# Answers


def _answer(request: Request, found: _Look, context: Context) -> Answer:
    fields: Headers = ((b"Cache-Status", _status(found)),)
    if found.token:
        lease = b'"%d"; ttl=%d' % (found.token, _lease_seconds(request))
        fields += ((b"Keyrack-Recompute", lease),)
    if found.record is None:
        if found.held_ms:
            fields += ((b"Retry-After", b"1"),)
        raise Problem("key-not-found", _MISSING, fields)
    if found.is_stale:
        context.tick.counters[STALE_SERVED] += 1
    if found.record.stored_at:
        age = max(0, context.engine.now() - found.record.stored_at) // 1000
        fields += ((b"Age", b"%d" % age),)
    condition = request.head.condition
    if condition is not None and not condition.holds(found.record.revision):
        answer = keys.read_refused(request, found.record, context)
    else:
        answer = keys.value_answer(request, found.record, context)
    return answer._replace(headers=(*answer.headers, *fields))


def _lease_seconds(request: Request) -> int:
    return min(codec.preference(request.head.prefer, b"recompute"), MAX_LEASE_SECONDS)


def _status(found: _Look) -> bytes:
    """Return what RFC 9211 has to say of an answer: `keyrack; hit; ttl=-12; collapsed`."""
    collapsed = b"; collapsed" if found.held_ms else b""
    if found.record is None:
        return b"keyrack; fwd=miss" + collapsed
    if found.left is None:
        return b"keyrack; hit" + collapsed
    seconds = min(-1, found.left // 1000) if found.is_stale else found.left // 1000
    return b"keyrack; hit; ttl=%d%b" % (seconds, collapsed)


# What the holder of a lease does


async def key_put(request: Request, context: Context) -> PendingWrite:
    """`PUT /v1/keys/{key}`: store the body, with the lease that it was computed under, if any."""
    operation = keys.stored(request, context)
    conclude = partial(keys.key_put_answer, head=request.head)
    if request.head.lease is None:
        return PendingWrite((operation,), conclude)
    write = fill(operation, token_of(request))
    return PendingWrite(write, lambda outcome: conclude(filled(outcome, context)))


def token_of(request: Request) -> int:
    """Return the token that a write names in `Keyrack-Recompute`. Raises `Problem`."""
    match = _TOKEN.fullmatch(request.head.lease or b"")
    if match is None:
        raise Problem(
            "bad-parameter", 'Keyrack-Recompute is the token of a lease, like "1795474670195050".'
        )
    return int(match[1] or match[2])


def fill(operation: Set, token: int) -> Write:
    """Return the write that stores a key with its lease: it is still held, and nothing newer."""
    return _release(operation.key, token), Check(operation.key, Condition(newest=token)), operation


def filled(outcome: Outcome, context: Context) -> Outcome:
    """Return the outcome of the `Set` of a `fill`. Raises `Problem` where the lease was lost."""
    if not isinstance(outcome, Refusal):
        _count(context, "filled")
        return outcome[2:]
    if outcome.why is Why.CONDITION and outcome.index < 2:
        _count(context, "lost")
        raise _lost()
    return outcome


def _lost() -> Problem:
    return Problem(
        "lease-lost",
        "The lease is over, or the key was written or deleted since it was given. "
        "Nothing was stored.",
    )


async def release(request: Request, context: Context) -> PendingWrite:
    """`DELETE /v1/leases/{key}?token=`: give a lease back, so that somebody else gets it."""
    given = codec.parameters(request.query, _RELEASE)
    key = codec.key_of(request.path[len(_LEASES) :])
    if b"token" not in given:
        raise Problem("bad-parameter", "Name the token that you got with the lease, ?token=...")
    token = codec.revision_of(given[b"token"], "token")

    def conclude(outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            problem = _lost() if outcome.why is Why.CONDITION else keys.refused(outcome)
            return problems.answer(problem, request.path)
        _count(context, "returned")
        return Answer(204, ((b"Cache-Control", b"no-store"),))

    return PendingWrite((_release(key, token),), conclude)


def _count(context: Context, outcome: str) -> None:
    context.tick.counters[LEASES[outcome]] += 1
