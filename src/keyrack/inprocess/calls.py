"""Requests that are answered in the thread that asks: a function call, no connection, no loop.

They are the requests that a client would send, read and served by the very functions that serve
them in a service, so they mean the same. What waits for something, or works on many keys in steps,
is not answered here.
"""

from __future__ import annotations

import itertools
import logging
import re
from typing import TYPE_CHECKING, Final

import lmdb

from keyrack.access.grant import OPEN
from keyrack.client.wire import Response
from keyrack.engines.contract import Refusal, StoreAway, StoreError, Why
from keyrack.http import eager, problems
from keyrack.http.answer import Answer
from keyrack.http.api import dispatch
from keyrack.http.api.statuses import STATUS_LINES
from keyrack.http.problems import Problem
from keyrack.http.protocol import head as heads
from keyrack.http.protocol.request import Request
from keyrack.http.reply import PendingWrite

if TYPE_CHECKING:
    from keyrack.engines.contract import Outcome, Write
    from keyrack.http.protocol.guard import Guard
    from keyrack.http.protocol.request import Head
    from keyrack.http.reply import Context
    from keyrack.inprocess.engine import ThreadedEngine

_AT_ONCE: Final = frozenset(
    (
        "key_get",
        "key_put",
        "key_delete",
        "keys_list",
        "batch",
        "counter",
        "lock_release",
        "lock_show",
        "locks_list",
    )
)
"""Routes whose functions await nothing but an engine at hand."""
_MAX_HEADS: Final = 256
_repeated: Final = re.compile(rb"\r\nIdempotency-Key: [^\r]*").sub
"""Takes away what makes a request one that can be sent again: none of these is ever lost."""

_log = logging.getLogger("keyrack.engine")


class CallsAtOnce:
    """Answers requests on one store, from any thread."""

    def __init__(self, engine: ThreadedEngine, context: Context, guard: Guard) -> None:
        self._engine = engine
        self._context = context
        self._guard = guard
        self._heads: dict[bytes, Head] = {}
        """Header sections by their bytes: a client repeats a few of them."""

    def answer(self, data: bytes) -> Response | None:
        """Return the answer to a request of a client of ours, None where it takes a loop."""
        line, _, rest = data.partition(b"\r\n")
        method, target, _ = line.split(b" ")
        resource = dispatch.find(target.partition(b"?")[0])
        route = resource and resource.routes.get(method)
        if resource is None or route is None or route.name not in _AT_ONCE:
            return None
        section, _, body = rest.partition(b"\r\n\r\n")
        section = _repeated(b"", section)
        try:
            head = self._heads.get(section) or self._read(section)
            if head.prefer:
                return None
            request = Request(method, target, head, body, OPEN, keep_alive=True)
            answer = self._served(request, resource)
        except (Problem, StoreAway) as error:
            answer = problems.answer_to(error, target)
        return None if answer is None else _response(answer, method)

    def _read(self, section: bytes) -> Head:
        fields = [line.split(b": ", 1) for line in section.split(b"\r\n")]
        head = heads.read([(name.lower(), value) for name, value in fields], False, self._guard)
        if len(self._heads) >= _MAX_HEADS:
            for first in list(itertools.islice(self._heads, _MAX_HEADS // 4)):
                self._heads.pop(first, None)
        if head.plain:
            self._heads[section] = head
        return head

    def _served(self, request: Request, resource: dispatch.Resource) -> Answer | None:
        reply = eager.at_once(dispatch.serve_or_raise(request, resource, self._context))
        if isinstance(reply, PendingWrite):
            made = reply.conclude(self._written(reply.write))
            return made if isinstance(made, Answer) else eager.at_once(made)
        return reply if isinstance(reply, Answer) else None

    def _written(self, write: Write) -> Outcome:
        try:
            return self._engine.write_here((write,))[0]
        except (lmdb.Error, StoreError):
            _log.exception("the engine failed with a write to do")
            return Refusal(Why.BROKEN)


def _response(answer: Answer, method: bytes) -> Response:
    fields = b"".join([b"%b: %b\r\n" % field for field in answer.headers])
    head = b"%b%b\r\n" % (STATUS_LINES[answer.status], fields)
    return Response(answer.status, head, b"" if method == b"HEAD" else answer.body, False)
