"""Fences over HTTP: which keys need which lock to be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from keyrack.access.model import MOST_FENCES, FenceRule, checked_fence
from keyrack.access.rules import pattern_of
from keyrack.engines.contract import Refusal
from keyrack.http.answer import Answer
from keyrack.http.api import codec
from keyrack.http.api.keys import refused
from keyrack.http.api.models import FenceList, FenceRequest, FenceShown
from keyrack.http.api.token_model import Pending
from keyrack.http.problems import Problem
from keyrack.http.tick import JSON_HEADERS

if TYPE_CHECKING:
    from keyrack.engines.contract import Outcome
    from keyrack.http.fence_keeper import FenceKeeper, KnownFence
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

_NONE: Final[frozenset[bytes]] = frozenset()
_FENCES: Final = b"/v1/fences/"
_NO_STORE: Final = ((b"Cache-Control", b"no-store"),)
_decode: Final = msgspec.json.Decoder(FenceRequest).decode


async def list_fences(request: Request, context: Context) -> Answer:
    """`GET /v1/fences`: all fences, in the order of their names."""
    codec.parameters(request.query, _NONE)
    shown = FenceList([_shown(one) for one in _keeper(context).known])
    return Answer(200, JSON_HEADERS, codec.encode(shown))


async def show(request: Request, context: Context) -> Answer:
    """`GET /v1/fences/{name}`: one fence."""
    codec.parameters(request.query, _NONE)
    found = _found(_keeper(context), _name(request))
    return Answer(200, JSON_HEADERS, codec.encode(_shown(found)))


async def put(request: Request, context: Context) -> Answer:
    """`PUT /v1/fences/{name}`: when this is answered, no worker does a write that it forbids."""
    codec.parameters(request.query, _NONE)
    keeper, name = _keeper(context), _name(request)
    asked = codec.read_json(request, _decode)
    try:
        rule = checked_fence(name, FenceRule(asked.keys, asked.lock))
    except ValueError as error:
        raise Problem("bad-fence", str(error)) from None
    if not context.engine.capabilities.atomic_across_keys:
        _refuse_spread(rule)
    known = {one.name: one.source for one in keeper.known}
    if known.get(name) == "file":
        raise Problem("fence-in-file", f"The fence {name!r} is in the operator's file.")
    if name not in known and len(known) >= MOST_FENCES:
        raise Problem("bad-fence", f"There are {MOST_FENCES} fences, the most there may be.")
    return _done(await keeper.put(name, rule), 204 if name in known else 201)


async def drop(request: Request, context: Context) -> Answer:
    """`DELETE /v1/fences/{name}`: remove a fence that was made over HTTP."""
    codec.parameters(request.query, _NONE)
    keeper = _keeper(context)
    found = _found(keeper, _name(request))
    if found.source == "file":
        raise Problem("fence-in-file", f"The fence {found.name!r} is in the operator's file.")
    return _done(await keeper.drop(found.name), 204)


def _keeper(context: Context) -> FenceKeeper:
    if context.fences is None:
        raise Problem("not-found", "There are no fences here.")
    return context.fences


def _name(request: Request) -> str:
    return codec.key_of(request.path[len(_FENCES) :]).decode()


def _found(keeper: FenceKeeper, name: str) -> KnownFence:
    for one in keeper.known:
        if one.name == name:
            return one
    raise Problem("fence-not-found", f"There is no fence {name[:100]!r}.")


def _shown(known: KnownFence) -> FenceShown:
    return FenceShown(known.name, known.rule.keys, known.rule.lock, known.source)


def _done(made: tuple[Outcome, int], status: int) -> Answer:
    outcome, pending = made
    if isinstance(outcome, Refusal):
        raise refused(outcome)
    if pending:
        return Answer(202, JSON_HEADERS, codec.encode(Pending(pending)))
    return Answer(status, _NO_STORE)


def _refuse_spread(rule: FenceRule) -> None:
    """Refuse a fence whose lock may be in another shard than a key that needs it."""
    pattern, _ = pattern_of(rule.keys)
    lock = rule.lock.encode()
    tag = _tag(pattern)
    if tag is None or tag != (_tag(lock) or lock):
        raise Problem(
            "bad-fence",
            "This store is spread over shards, and a lock is checked together with a key only in "
            "the same one. Give both the same part in braces, like {jobs}/* and the lock {jobs}.",
        )


def _tag(text: bytes) -> bytes | None:
    """Return the part in braces that decides on a key's shard, None where there is none."""
    start = text.find(b"{")
    end = text.find(b"}", start + 1)
    return text[start + 1 : end] if start >= 0 and end > start + 1 else None
