"""The wide lane: everything that is not a request for a single key, as an ASGI application.

The single-key operations are here too, through the very functions that the fast lane calls, so
that the application is complete in itself.
"""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route as WideRoute

from keyrack import __version__
from keyrack.console import assets as console
from keyrack.engines.contract import (
    BINARY,
    MAX_KEY_BYTES,
    MAX_MEDIA_TYPE_BYTES,
    MAX_TTL_MS,
    StoreAway,
)
from keyrack.http import pages, problems
from keyrack.http.access_log import Access
from keyrack.http.answer import Answer
from keyrack.http.api import (
    big,
    bulk,
    codec,
    deleting,
    dispatch,
    listing,
    reference,
    rights,
    undo,
)
from keyrack.http.api.counting import OTHER, WIDE_WORDS, denied_word, request_word
from keyrack.http.api.keeping import sender_of
from keyrack.http.api.models import MAX_BATCH_OPERATIONS
from keyrack.http.api.named_locks import NamedLocks
from keyrack.http.api.pace import Pace
from keyrack.http.api.routes import ROUTES
from keyrack.http.metrics import Metrics
from keyrack.http.problems import KINDS, Problem
from keyrack.http.protocol import cors
from keyrack.http.protocol.head import MAX_FIELDS, MAX_HEAD_BYTES, MAX_TARGET_BYTES
from keyrack.http.protocol.head import read as read_head
from keyrack.http.protocol.request import Request
from keyrack.http.reply import PendingWrite, Stream
from keyrack.http.streamed import StreamedResponse
from keyrack.http.trace_context import server_timing, trace_of, wants_timing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request as StarletteRequest
    from starlette.types import Message, Receive, Scope, Send

    from keyrack.http.api.routes import Route
    from keyrack.http.layer import Layer
    from keyrack.http.reply import Reply
    from keyrack.http.snapshots import Snapshots
    from keyrack.http.worker_context import WorkerContext
    from keyrack.shared.counters import Counters

_NO_STORE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Application:
    """The wide lane of one worker. `worker` is what it shares with the fast lane.

    `layers` are the APIs of others that are served beside Keyrack's own.
    """

    def __init__(
        self,
        worker: WorkerContext,
        counters: Counters,
        snapshots: Snapshots | None = None,
        layers: Sequence[Layer] = (),
    ) -> None:
        self.worker = worker
        self._snapshots = snapshots
        self._layers = layers
        self._counters = counters
        self._engine = worker.context.engine
        self._metrics = Metrics(
            counters,
            worker.client_memory,
            self._engine.capabilities,
            worker.context.access,
            snapshots,
        )
        self._context = worker.context
        endpoints = {
            "home": self._home,
            "readyz": self._readyz,
            "metrics": self._prometheus,
            "info": self._info,
            "limits": self._limits,
            "openapi": self._openapi,
            "docs": self._docs,
            "keys_list": self._count,
            "keys_delete": self._delete,
            "undo": self._undo,
            "key_events": self._key_events,
            "big": self._big,
            "export": self._export,
            "snapshot": self._snapshot,
            "import": self._import,
        }
        self._app = Starlette(
            routes=[
                *(self._route(ROUTES[name], endpoint) for name, endpoint in endpoints.items()),
                WideRoute(
                    "/console/{version}/{path:path}",
                    self._console_file,
                    methods=["GET"],
                    name="home",
                ),
                WideRoute("/docs/problems", self._problem_pages, methods=["GET"], name="docs"),
                WideRoute(
                    "/docs/problems/{slug}", self._problem_pages, methods=["GET"], name="docs"
                ),
            ],
            exception_handlers={
                HTTPException: self._http_exception,
                StoreAway: self._away,
                Problem: self._problem,
                Exception: self._defect,
            },
        )
        # A redirect to what the Host field says is nothing that anybody has asked for.
        self._app.router.redirect_slashes = False

    @staticmethod
    def _route(
        route: Route, endpoint: Callable[[StarletteRequest], Awaitable[Response]]
    ) -> WideRoute:
        path = route.path.replace("{key}", "{key:path}")
        return WideRoute(path, endpoint, methods=[route.method], name=route.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, count it, and log it where an access log is kept."""
        if scope["type"] != "http":
            return
        began = time.monotonic_ns()
        status, size = 500, 0

        async def watched(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                if wants_timing(request.head.prefer):
                    took = time.monotonic_ns() - began
                    message = {
                        **message, "headers": [*message["headers"], *server_timing(took)],
                    }  # fmt: skip
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            request = scope.get("keyrack.request") or await self._read(scope, receive)
        except Problem as problem:
            answer = problems.answer(problem, scope["raw_path"])
            await _respond(answer, scope["method"].encode(), send)
            return
        scope["keyrack.request"] = request
        try:
            await self._serve(request, scope, receive, watched)
        finally:
            self._account(scope, request, status, size, time.monotonic_ns() - began)

    async def _serve(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        # What routes see is the raw path, as everywhere: `%2F` is no slash, `%0A` no line break.
        scope["path"] = request.path.decode("latin-1")
        resource = dispatch.find(request.path)
        reply = resource and await dispatch.serve(request, resource, self._context)
        if reply is not None:
            answer = pages.for_people(await self._done(reply, request), request)
            await _respond(answer, request.method, send)
        elif request.head.shared and cors.is_preflight(request.method, request.head.fields):
            # The page gets to read that nothing is there, instead of that it may not ask.
            await _respond(Answer(204, cors.preflight(request.head.fields)), b"OPTIONS", send)
        elif resource is None and (layer := self._layer_of(request.path)) is not None:
            scope["keyrack.layer"] = layer.name
            await _respond(await layer.serve(request), request.method, send)
        elif resource is None and request.head.verdict.read is not None:
            answer = problems.answer(request.head.verdict.read, request.path)
            await _respond(pages.for_people(answer, request), request.method, send)
        else:
            await self._app(scope, receive, send)

    def _layer_of(self, path: bytes) -> Layer | None:
        for layer in self._layers:
            if layer.has(path):
                return layer
        return None

    async def _done(self, reply: Reply, request: Request) -> Answer:
        if isinstance(reply, PendingWrite):
            outcome = await self.worker.tick.write(reply.write)
            request.note_write(reply.write, outcome)
            answer = dispatch.conclude(reply, outcome, request.path)
            return answer if isinstance(answer, Answer) else await answer
        if isinstance(reply, Stream):
            raise TypeError("a stream is served by the connection itself")
        return reply

    async def _read(self, scope: Scope, receive: Receive) -> Request:
        """Make a request of an ASGI scope that does not come from the fast lane."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        head = read_head([tuple(field) for field in scope["headers"]], False, self.worker.guard)
        gate = self.worker.gate
        gate.admit(head, (scope.get("client") or ("",))[0])
        target = scope["raw_path"] + (
            b"?" + scope["query_string"] if scope["query_string"] else b""
        )
        grant = head.grant or gate.nobody
        return Request(scope["method"].encode(), target, head, body, grant, keep_alive=True)

    def _account(
        self, scope: Scope, request: Request, status: int, size: int, nanoseconds: int
    ) -> None:
        route = scope.get("route")
        name = route.name if isinstance(route, WideRoute) and route.name in ROUTES else OTHER
        layer: str | None = scope.get("keyrack.layer")
        name = layer or name
        tick = self.worker.tick
        tick.counters[request_word(name, status)] += 1
        if request.refusal is not None:
            tick.counters[denied_word(name)] += 1
        tick.observe(WIDE_WORDS[name], nanoseconds)
        client = scope.get("client")
        peer = f"{client[0]}:{client[1]}" if client else "unix"
        if self.worker.spans is not None:
            secure = scope.get("scheme") == "https"
            self.worker.spans.note(name, request, status, nanoseconds, peer, secure=secure)
        if nanoseconds >= tick.slow.slow_ns:
            tick.slow.request(name, request, status, nanoseconds, size)
        # A refusal of one command of several is told of, too, though the answer as a whole is none.
        outcome = 403 if layer is not None and status == 200 and request.refusal else status
        self.worker.note(request, outcome, peer, layer)
        if self.worker.access_log is not None:
            self.worker.access_log(
                Access(
                    peer,
                    request.method,
                    request.path,
                    request.query,
                    status,
                    0 if request.method == b"HEAD" else size,
                    nanoseconds,
                    request.head.fields,
                )
            )

    # Endpoints

    async def _home(self, request: StarletteRequest) -> Response:
        return _console(request, console.page(), "no-store")

    async def _console_file(self, request: StarletteRequest) -> Response:
        asset = console.assets().get(request.path_params["path"])
        if asset is None or request.path_params["version"] != console.version():
            raise HTTPException(404)
        return _console(request, asset, "public, max-age=31536000, immutable")

    async def _readyz(self, request: StarletteRequest) -> Response:
        if self._counters.draining:
            raise Problem(
                "ending", "Ask another one, or this one a moment later.", ((b"Retry-After", b"1"),)
            )
        await self._engine.usage()
        return Response("ready\n", media_type="text/plain", headers=_NO_STORE)

    async def _prometheus(self, request: StarletteRequest) -> Response:
        try:
            usage = await self._engine.usage()
        except StoreAway:
            usage = None  # the service's own figures are wanted then more than ever
        body, media_type = self._metrics.render(request.headers.get("accept", ""), usage)
        return Response(body, headers={"Content-Type": media_type, **_NO_STORE})

    async def _info(self, request: StarletteRequest) -> Response:
        usage = await self._engine.usage()
        counts = {
            "keys": usage.keys,
            "keys_with_ttl": usage.keys_with_ttl,
            "events": usage.events,
            "evicted": usage.evicted,
        }
        return _json(
            {
                "name": "keyrack",
                "version": __version__,
                "engine": msgspec.to_builtins(self._engine.capabilities),
                **(counts if rights.lists_everything(request.scope["keyrack.request"]) else {}),
                "revision": str(usage.revision),
                "memory": {
                    "limit": usage.limit,
                    "used": usage.used,
                    "free": usage.free,
                    "reclaimable": usage.reclaimable,
                    "kept_free": usage.kept_free,
                    "reserved": usage.reserved,
                },
                "client_memory": {
                    "limit": self.worker.client_memory.limit,
                    "used": self.worker.client_memory.used,
                },
                "workers": self._counters.ready_workers(),
                "auth": "none" if self.worker.gate.table is None else "tokens",
                "time_ms": self._engine.now(),
                "uptime_seconds": round(self._counters.age, 3),
            }
        )

    async def _limits(self, request: StarletteRequest) -> Response:
        limits, timeouts = self._context.limits, self.worker.timeouts
        usage = await self._engine.usage()
        return _json(
            {
                "key_bytes": MAX_KEY_BYTES,
                "value_bytes": limits.max_value,
                "body_bytes": limits.max_body,
                "media_type_bytes": MAX_MEDIA_TYPE_BYTES,
                "prefix_bytes": MAX_KEY_BYTES,
                "batch_operations": MAX_BATCH_OPERATIONS,
                "page_keys": listing.MOST,
                "wait_seconds": limits.max_wait,
                "idempotency_seconds": limits.idempotency_ttl,
                "target_bytes": MAX_TARGET_BYTES,
                "head_bytes": MAX_HEAD_BYTES,
                "head_fields": MAX_FIELDS,
                "ttl_seconds_least": 0.001,
                "ttl_seconds_most": MAX_TTL_MS // 1000,
                "store_bytes": usage.limit,
                "client_memory_bytes": self.worker.client_memory.limit,
                "head_timeout_seconds": timeouts.head,
                "body_timeout_seconds": timeouts.body,
                "send_timeout_seconds": timeouts.send,
                "keep_alive_seconds": timeouts.keep_alive,
            }
        )

    async def _openapi(self, request: StarletteRequest) -> Response:
        return Response(reference.openapi_bytes(), media_type="application/json", headers=_NO_STORE)

    async def _docs(self, request: StarletteRequest) -> Response:
        return _html(request, "Reference", reference.html_reference())

    # Work on many keys

    async def _count(self, request: StarletteRequest) -> Response:
        return _json(await bulk.count(_parameters(request, listing.PARAMETERS), self._context))

    async def _delete(self, request: StarletteRequest) -> Response:
        given = _parameters(request, deleting.PARAMETERS)
        asked = request.scope["keyrack.request"]
        done = await deleting.by_prefix(
            given, self._context, sender_of(asked), NamedLocks.of(asked)
        )
        asked.revision = int(done.revision)
        return _json(done)

    async def _undo(self, request: StarletteRequest) -> Response:
        _parameters(request, frozenset())
        asked = request.scope["keyrack.request"]
        done = await undo.Undoing(asked, self._context, NamedLocks.of(asked)).run(Pace())
        asked.revision = int(done.revision)
        return _json(done)

    async def _key_events(self, request: StarletteRequest) -> Response:
        given = _parameters(request, bulk.EVENT_PARAMETERS)
        limit = codec.whole(given, b"limit", listing.DEFAULT, 1, listing.MOST)
        key = codec.key_of(request.scope["raw_path"][len(b"/v1/events/") :])
        return _json(await bulk.key_events(key, limit, self._context))

    async def _export(self, request: StarletteRequest) -> Response:
        given = _parameters(request, bulk.EXPORT_PARAMETERS)
        prefix = codec.prefix_of(given.get(b"prefix", b""))
        lines = bulk.export(prefix, self._context)
        return StreamedResponse(lines, "application/x-ndjson", _NO_STORE)

    async def _big(self, request: StarletteRequest) -> Response:
        about = big.wanted(_parameters(request, big.PARAMETERS))
        return StreamedResponse(big.walk(about, self._context), "application/x-ndjson", _NO_STORE)

    async def _snapshot(self, request: StarletteRequest) -> Response:
        _parameters(request, frozenset())
        if self._snapshots is None:
            raise Problem("no-snapshots", "Start the service with --durability snapshot.")
        fetched = await self._snapshots.fetch()
        if fetched is None:
            detail = "No snapshot could be taken; the service's log says why."
            raise problems.away(detail)
        headers = {**_NO_STORE, "Content-Length": str(fetched.size)}
        return StreamedResponse(fetched.pieces(), BINARY, headers)

    async def _import(self, request: StarletteRequest) -> Response:
        stop = bulk.options(_parameters(request, bulk.IMPORT_PARAMETERS))
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in ("application/x-ndjson", "application/ndjson"):
            raise Problem("unsupported-media-type", "Send the lines as `application/x-ndjson`.")
        work = bulk.Import(request.scope["keyrack.request"], self._context, stop)
        try:
            async for data in request.stream():
                await work.take(data)
                if work.report.stopped:
                    break
        except ClientDisconnect:
            broken: Problem | None = request.scope.get("keyrack.broken", lambda: None)()
            if broken is None:
                return Response(status_code=400)  # nobody is there to get it
            raise await work.cut_off(broken) from None
        except Problem as problem:
            raise await work.cut_off(problem) from None
        return _json(await work.finish())

    async def _problem_pages(self, request: StarletteRequest) -> Response:
        slug = request.path_params.get("slug")
        if slug is not None and slug not in KINDS:
            raise Problem("not-found", "There is no such problem.")
        slugs = KINDS if slug is None else (slug,)
        entries = "".join(
            f'<h2 id="{one}">{KINDS[one].status} {html.escape(one)}</h2>'
            f"<p><b>{html.escape(KINDS[one].title)}.</b> {html.escape(KINDS[one].explanation)}</p>"
            for one in slugs
        )
        told = "<h1>Problems</h1><p>The <code>type</code> of an error leads to its entry here.</p>"
        return _html(request, "Problems", told + entries)

    # Failures

    async def _http_exception(self, request: StarletteRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allow = ", ".join(sorted((error.headers or {}).get("Allow", "GET, HEAD").split(", ")))
            problem = Problem(
                "method-not-allowed",
                f"{request.method} is not possible here; {allow} are.",
                headers=((b"Allow", allow.encode()),),
            )
            return self._answered(request, problem)
        return self._answered(request, Problem("not-found", "Nothing is here. Look at / for more."))

    async def _problem(self, request: StarletteRequest, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return self._answered(request, error)

    async def _away(self, request: StarletteRequest, error: Exception) -> Response:
        return self._answered(request, problems.away(str(error)))

    async def _defect(self, request: StarletteRequest, error: Exception) -> Response:
        return self._answered(request, problems.internal())

    @staticmethod
    def _answered(request: StarletteRequest, problem: Problem) -> Response:
        asked: Request = request.scope["keyrack.request"]
        answer = problems.answer(problem, asked.path)
        if (trace := trace_of(asked.head.fields)) is not None:
            answer = problems.in_trace(answer, trace.trace_id)
        answer = pages.for_people(answer, asked)
        headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
        return Response(answer.body, answer.status, headers)


def _parameters(request: StarletteRequest, known: frozenset[bytes]) -> dict[bytes, bytes]:
    return codec.parameters(request.scope["query_string"], known)


def _json(members: Any) -> Response:
    return Response(codec.encode(members), media_type="application/json", headers=_NO_STORE)


def _console(request: StarletteRequest, asset: console.Asset, caching: str) -> Response:
    headers = {
        "Cache-Control": caching,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": console.POLICY,
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "",
    }
    data = asset.data
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        data = asset.packed
        headers["Content-Encoding"] = "gzip"
    return Response(data, media_type=asset.media_type, headers=headers)


def _html(request: StarletteRequest, title: str, body: str) -> Response:
    text = pages.page(title, body, request.scope["path"])
    return Response(text, media_type="text/html", headers={**_NO_STORE, **pages.SECURITY})


async def _respond(answer: Answer, method: bytes, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in answer.headers]
    if answer.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(answer.body)))
    body = b"" if method == b"HEAD" or answer.status in (204, 304) else answer.body
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
