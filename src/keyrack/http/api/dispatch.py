"""From a path and a method to the function that serves it, and answers that are remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.http import problems
from keyrack.http.answer import Answer
from keyrack.http.api import codec, rights
from keyrack.http.api.named_locks import under_locks
from keyrack.http.api.remembering import remembering
from keyrack.http.api.routes import MAX_IDEMPOTENCY_KEY, ROUTES
from keyrack.http.problems import Problem
from keyrack.http.protocol import cors
from keyrack.http.reply import PendingWrite, Stream

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from keyrack.engines.contract import Outcome
    from keyrack.http.answer import Headers
    from keyrack.http.api.routes import Route
    from keyrack.http.gate import Gate
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context, Reply


class Resource(NamedTuple):
    """A path, or the beginning of one, and its routes by method."""

    routes: dict[bytes, Route]


class _Place(NamedTuple):
    """What the paths of a resource begin and end with."""

    beginning: bytes
    end: bytes


def _resources() -> tuple[dict[bytes, Resource], tuple[tuple[_Place, Resource], ...]]:
    exact: dict[bytes, Resource] = {}
    beginnings: dict[_Place, Resource] = {}
    for route in ROUTES.values():
        beginning, brace, end = route.path.encode().partition(b"{key}")
        if brace:
            resource = beginnings.setdefault(_Place(beginning, end), Resource({}))
        else:
            resource = exact.setdefault(beginning, Resource({}))
        resource.routes[route.method.encode()] = route
        if route.method == "GET":
            resource.routes[b"HEAD"] = route
        for method, path in route.also:
            place = _Place(*path.encode().split(b"{key}"))
            beginnings.setdefault(place, Resource({})).routes[method.encode()] = route
    # `OPTIONS *` asks about the server as a whole; no other method can have that target.
    everything = (*exact.values(), *beginnings.values())
    exact[b"*"] = Resource(
        {method: one for each in everything for method, one in each.routes.items()}
    )
    # Of those that begin alike, what says how its paths end comes first.
    order = list(dict.fromkeys(place.beginning for place in beginnings))
    rank = {place: (order.index(place.beginning), not place.end) for place in beginnings}
    return exact, tuple(sorted(beginnings.items(), key=lambda item: rank[item[0]]))


_EXACT, _BEGINNINGS = _resources()


def find(path: bytes) -> Resource | None:
    """Return what a raw path names, None for nothing."""
    found = _EXACT.get(path)
    if found is not None:
        return found
    for (beginning, end), resource in _BEGINNINGS:
        if path.startswith(beginning) and path.endswith(end):
            return resource
    return None


async def serve(request: Request, resource: Resource, context: Context) -> Reply | None:
    """Return what a request comes to, None where the wide lane has to serve it.

    Nothing escapes: a failure is an answer too.
    """
    try:
        return await serve_or_raise(request, resource, context)
    except Exception as error:
        return problems.answer_to(error, request.path)


async def serve_or_raise(request: Request, resource: Resource, context: Context) -> Reply | None:
    """Do what `serve` does, and let failures escape: `Problem` for what is refused."""
    if request.method == b"OPTIONS":
        return _options(request, resource)
    route = admitted(request, resource)
    fields = _ticketed(request, route, context.gate)
    rights.judge(route.name, request)
    fields += context.meter(request)
    if route.body is not None:
        _refuse_coded(request)
    if route.writes:
        _refuse_ignored(request, route)
    if route.serve is None:
        codec.parameters(request.query, _known_parameters(route))
        return None
    reply = await route.serve(request, context)
    if request.head.locks and route.writes and type(reply) is PendingWrite:
        reply = under_locks(request, reply)
    if fields and isinstance(reply, Answer | Stream):
        reply = reply._replace(headers=(*reply.headers, *fields))
    if request.head.idempotency_key is None or type(reply) is not PendingWrite:
        return reply
    return _remembered(request, reply, context)


def _options(request: Request, resource: Resource) -> Answer:
    fields: Headers = ((b"Allow", _allowed(resource)),)
    if request.head.shared and cors.is_preflight(request.method, request.head.fields):
        fields += cors.preflight(request.head.fields)
    return Answer(204, fields)


def route_of(request: Request) -> Route | None:
    """Return the route that a request takes, None where there is none."""
    return route_for(request.method, request.path)


def route_for(method: bytes, path: bytes) -> Route | None:
    """Return the route of a method and a raw path, None where there is none."""
    resource = find(path)
    return resource and resource.routes.get(method)


_TAKES_TICKETS: Final = frozenset(("watch", "key_get", "key_put"))
"""Routes whose addresses may have a ticket: what pages, links and plain uploads use."""
_NO_REFERRER: Final = ((b"Referrer-Policy", b"no-referrer"),)


def _ticketed(request: Request, route: Route, gate: Gate | None) -> Headers:
    """Let a request in by a ticket in its address; return the fields that its answer carries."""
    if gate is None or route.name not in _TAKES_TICKETS or b"ticket=" not in request.query:
        return ()
    gate.take_ticket(request)
    return () if request.ticket is None else _NO_REFERRER


def judge_head(request: Request, gate: Gate | None = None) -> None:
    """Raise `Problem` for a request that its head alone shows to be one of somebody who may not."""
    route = route_of(request)
    if route is not None:
        _ticketed(request, route, gate)
        rights.judge(route.name, request)
        if route.body is not None:
            _refuse_coded(request)


def conclude(
    pending: PendingWrite, outcome: Outcome, path: bytes
) -> Answer | Coroutine[Any, Any, Answer]:
    """Return the answer to a request for `path` whose write came out like this, or who finds it."""
    try:
        answer = pending.conclude(outcome)
    except Exception as error:
        return problems.answer_to(error, path)
    return answer if isinstance(answer, Answer) else _found(answer, path)


async def _found(answer: Coroutine[Any, Any, Answer], path: bytes) -> Answer:
    try:
        return await answer
    except Exception as error:
        return problems.answer_to(error, path)


def admitted(request: Request, resource: Resource) -> Route:
    """Return the route that a request takes, if its head and method allow it."""
    route = resource.routes.get(request.method)
    verdict = request.head.verdict
    if route is None or route.writes or route.has_effects:
        refusal = verdict.write
    else:
        refusal = verdict.probe if route.is_probe else verdict.read
    if refusal is not None:
        raise refusal
    if route is None:
        allowed = _allowed(resource)
        raise Problem(
            "method-not-allowed",
            f"{request.method.decode()} is not possible here; {allowed.decode()} are.",
            headers=((b"Allow", allowed),),
        )
    return route


def _refuse_coded(request: Request) -> None:
    if request.head.is_coded:
        raise Problem(
            "unsupported-media-type",
            "Bodies are taken without a content coding. Send it unencoded; a value that is encoded "
            "says so in its Content-Type, like `application/gzip`.",
        )


def _refuse_ignored(request: Request, route: Route) -> None:
    """Refuse what would be passed over, although the sender has made the write depend on it."""
    head = request.head
    honoured = _HONOURED[route.name]
    if head.condition is not None and "If-Match" not in honoured:
        raise Problem(
            "bad-condition",
            "If-Match and If-None-Match have no meaning here. Conditions of single keys go with "
            "those; a batch has `if_match` and `if_none_match` for each of its operations.",
        )
    if head.lease is not None and "Keyrack-Recompute" not in honoured:
        raise Problem("bad-parameter", "A lease is for the PUT of a key; nothing was done.")
    if head.locks and "Keyrack-Lock" not in honoured:
        raise Problem("bad-parameter", "Keyrack-Lock is for writes of keys; nothing was done.")
    if head.idempotency_key is None:
        return
    if "Idempotency-Key" not in honoured:
        raise Problem("bad-parameter", "An Idempotency-Key cannot be honoured here.")
    if not 1 <= len(head.idempotency_key) <= MAX_IDEMPOTENCY_KEY:
        raise Problem(
            "bad-parameter", f"An Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY} characters."
        )


_HONOURED: Final = {
    route.name: frozenset(one.name for one in route.parameters if one.where == "header")
    for route in ROUTES.values()
}


def _known_parameters(route: Route) -> frozenset[bytes]:
    return frozenset(p.name.encode() for p in route.parameters if p.where == "query")


def _allowed(resource: Resource) -> bytes:
    return b", ".join(sorted((*resource.routes, b"OPTIONS")))


def _remembered(request: Request, pending: PendingWrite, context: Context) -> PendingWrite:
    """Return a write that is done once, however often this request is sent."""
    name = remembering(request, context.limits)
    return PendingWrite((name, *pending.write), pending.conclude)
