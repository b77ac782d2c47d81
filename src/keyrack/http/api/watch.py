"""Reads that wait, and streams of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.access.rules import Scope, Verb
from keyrack.engines.contract import ANY, Condition
from keyrack.http.answer import Answer
from keyrack.http.api import codec, keys, ranges, recompute, rights
from keyrack.http.problems import Problem
from keyrack.http.reply import Stream
from keyrack.http.watch import messages
from keyrack.http.watch.subscribers import Filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context
    from keyrack.http.watch.sink import Sink, Subscription

_NONE: Final[frozenset[bytes]] = frozenset()
_HEADERS: Final = (
    (b"Content-Type", b"text/event-stream"),
    # Proxies that compress would collect events until there is enough to compress.
    (b"Cache-Control", b"no-store, no-transform"),
    # Asks nginx not to collect the stream before it passes it on.
    (b"X-Accel-Buffering", b"no"),
)
_MOST_PREFIXES: Final = 100


async def read(request: Request, context: Context) -> Answer:
    """`GET /v1/keys/{key}`, at once or, with `Prefer: wait=`, when it differs."""
    offer = None if request.head.plain else recompute.offer_of(request)
    if offer is not None:
        return await recompute.read(request, context, offer)
    span = None if request.head.prefer else ranges.span_of(request)
    if span is not None:
        return await ranges.part(request, context, span)
    condition = request.head.condition
    if not request.head.prefer or condition is None or condition.none_match is None:
        return await keys.key_get(request, context)
    seconds = codec.wait_seconds(request, context.limits.max_wait)
    codec.parameters(request.query, _NONE)
    key = codec.key_of(request.path[len(b"/v1/keys/") :])
    if not seconds:
        return await keys.key_get(request, context)
    # Whoever names a revision has seen the key; to find it missing is news.
    knows_missing = condition.none_match == ANY or not any(condition.none_match)
    missing = knows_missing and await context.engine.get(key) is None
    with context.hub.keys.waiting(key, seconds) as waiter:
        while True:
            last = not await waiter.change()
            answer = await _news(request, context, key, missing, last)
            if answer is not None:
                return answer


async def _news(
    request: Request, context: Context, key: bytes, missing: bool, last: bool
) -> Answer | None:
    """Return the answer if the key differs from what the client knows, or this is the last look."""
    record = await context.engine.get(key)
    condition = request.head.condition
    assert condition is not None
    revision = None if record is None else record.revision
    if condition.match is not None and not Condition(match=condition.match).holds(revision):
        # No change will make it hold that is not to be told at once.
        return await keys.key_get(request, context)
    if missing:
        if record is not None:
            return keys.value_answer(request, record, context)
        return Answer(304, ((b"Cache-Control", b"no-store"),)) if last else None
    unchanged = record is not None and not condition.holds(record.revision)
    return await keys.key_get(request, context) if last or not unchanged else None


async def watch(request: Request, context: Context) -> Stream:
    """`GET /v1/watch`: changes of keys under some prefixes, as server-sent events."""
    prefixes, given = codec.watch_parameters(request.query)
    if len(prefixes) > _MOST_PREFIXES:
        raise Problem("bad-parameter", f"At most {_MOST_PREFIXES} prefixes can be watched at once.")
    values = codec.switch(given, b"values")
    since, resumes = _since(request, given)
    oldest, newest = await context.engine.history(since)
    first = b""
    if since is not None and not oldest <= since <= newest and resumes:
        # A browser that goes on by itself takes any status but 200 as the end, without a reason.
        since, first = newest, messages.reset(newest)
    elif since is not None and not oldest <= since <= newest:
        raise Problem(
            "history-gone",
            f"The history reaches from {oldest} to {newest}. List the keys, then watch from there.",
            oldest=str(oldest),
            newest=str(newest),
        )
    filter_ = Filter(prefixes, values) if prefixes else _all_that_is_allowed(request, values)

    ended = None if request.method == b"HEAD" else context.begin_watch(request)

    def start(sink: Sink) -> Subscription:
        subscription = context.hub.watch(filter_, since, sink, first)
        return subscription if ended is None else _Counted(subscription, ended)

    return Stream(_HEADERS, start)


class _Counted:
    """A subscription of somebody who may hold so many at once."""

    __slots__ = ("_ended", "_subscription")

    def __init__(self, subscription: Subscription, ended: Callable[[], None]) -> None:
        self._subscription = subscription
        self._ended: Callable[[], None] | None = ended

    def resume(self) -> None:
        """Go on."""
        self._subscription.resume()

    def close(self) -> None:
        """End."""
        self._subscription.close()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


def _all_that_is_allowed(request: Request, values: bool) -> Filter:
    """Return what the sender may watch, who has named no prefix."""
    verbs = [Verb.WATCH, Verb.READ] if values else [Verb.WATCH]
    permissions = [request.grant.rights.permission(Scope.KEYS, verb) for verb in verbs]
    if all(permission.allows_whole(b"") for permission in permissions):
        return Filter((b"",), values)
    some = {prefix for permission in permissions for prefix in permission.beginnings}
    whole = sorted(
        prefix
        for prefix in some
        if all(permission.allows_whole(prefix) for permission in permissions)
    )
    outermost = [one for one in whole if not any(one.startswith(p) for p in whole if p != one)]
    if not outermost:
        raise rights.none_allowed(request, verbs[-1], b"")
    return Filter(tuple(outermost), values, chosen=True)


def _since(request: Request, given: dict[bytes, bytes]) -> tuple[int | None, bool]:
    """Return where a watcher goes on, and whether that is a reconnection that it makes by itself.

    What its browser says wins over what its address says. An empty identifier is none.
    """
    fields = dict(request.head.fields)
    for value in (fields.get(b"last-event-id", b"").strip(), given.get(b"lastEventId", b"")):
        if value:
            return codec.revision_of(value, "Last-Event-ID"), True
    return codec.revision_of(given[b"since"], "since") if b"since" in given else None, False
