"""What people ask of a service at night: what was slow, which keys are hot, who is connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.http.answer import Answer
from keyrack.http.api import codec
from keyrack.http.api.models import ClientList, HotKey, HotKeyList, SlowRequests
from keyrack.http.problems import Problem
from keyrack.http.tick import JSON_HEADERS, NEVER

if TYPE_CHECKING:
    from keyrack.http.observer import ServiceObserver
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

MOST_SECONDS: Final = 30
MOST_KEYS: Final = 100
MOST_DEPTH: Final = 8
MOST_ENTRIES: Final = 1000
DEFAULT_KEYS: Final = 20
DEFAULT_ENTRIES: Final = 100
DEFAULT_SECONDS: Final = 5
_LIMIT: Final = frozenset((b"limit",))
_HOT: Final = frozenset((b"limit", b"seconds"))
_NONE: Final[frozenset[bytes]] = frozenset()
_CLIENTS: Final = b"/v1/clients/"
_DONE: Final = Answer(204, ((b"Cache-Control", b"no-store"),))


async def slow(request: Request, context: Context) -> Answer:
    """`GET /v1/slow`: the last slow requests."""
    limit = _limit(request, DEFAULT_ENTRIES, MOST_ENTRIES)
    log = _observer(context).slow_log
    limit_ms = 0.0 if log.slow_ns == NEVER else log.slow_ns / 1e6
    return _json(SlowRequests(limit_ms, log.entries(limit)))


async def clear_slow(request: Request, context: Context) -> Answer:
    """`DELETE /v1/slow`: forget them."""
    codec.parameters(request.query, _NONE)
    _observer(context).slow_log.clear()
    return _DONE


async def hot(request: Request, context: Context) -> Answer:
    """`GET /v1/hot`: look for some seconds which keys are asked for most."""
    given = codec.parameters(request.query, _HOT)
    seconds = codec.whole(given, b"seconds", DEFAULT_SECONDS, 1, MOST_SECONDS)
    limit = codec.whole(given, b"limit", DEFAULT_KEYS, 1, MOST_KEYS)
    weights, total, error, missing = await _observer(context).hot_keys(seconds, limit)
    keys = [
        HotKey(codec.text_of(key), weight / seconds) for key, weight in weights.most_common(limit)
    ]
    return _json(HotKeyList(seconds, total, error / seconds, keys, missing))


async def clients(request: Request, context: Context) -> Answer:
    """`GET /v1/clients`: who is connected."""
    limit = _limit(request, DEFAULT_ENTRIES, MOST_ENTRIES)
    return _json(ClientList(*await _observer(context).clients(limit)))


async def end_client(request: Request, context: Context) -> Answer:
    """`DELETE /v1/clients/{id}`: end a connection."""
    codec.parameters(request.query, _NONE)
    name = request.path[len(_CLIENTS) :].decode("latin-1")
    if not await _observer(context).end_client(name):
        raise Problem("client-not-found", f"There is no connection {name!r} (any more).")
    return _DONE


def _limit(request: Request, default: int, most: int) -> int:
    given = codec.parameters(request.query, _LIMIT)
    return codec.whole(given, b"limit", default, 1, most)


def _observer(context: Context) -> ServiceObserver:
    assert context.observer is not None, "a worker has one"
    return context.observer


def _json(body: SlowRequests | HotKeyList | ClientList) -> Answer:
    return Answer(200, JSON_HEADERS, codec.encode(body))
