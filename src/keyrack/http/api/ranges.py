"""Parts of a value: RFC 9110 section 14, for one range of bytes.

Several ranges, other units and what is malformed are answered with the whole value, as section 14.2
allows. Only `GET` has ranges.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from keyrack.http.answer import Answer
from keyrack.http.api import codec, keys
from keyrack.http.api.codec import etag
from keyrack.http.problems import Problem

if TYPE_CHECKING:
    from keyrack.engines.contract import Span
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

_ONE_RANGE: Final = re.compile(
    rb"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*", re.I
)
_NO_PARAMETERS: Final[frozenset[bytes]] = frozenset()


def span_of(request: Request) -> Span | None:
    """Return which bytes a request asks for, None for all of them.

    A span is the first and the last byte; without a first one it is so many bytes of the end.
    """
    if request.head.plain or request.method != b"GET":
        return None
    given = [value for name, value in request.head.fields if name == b"range"]
    found = _ONE_RANGE.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        return None
    first, last, suffix = (None if not text else int(text) for text in found.groups())
    if first is None:
        return None, suffix
    return None if last is not None and last < first else (first, last)


async def part(request: Request, context: Context, span: Span) -> Answer:
    """`GET /v1/keys/{key}` with a range: 206 with the part, 416 where the value is too short."""
    codec.parameters(request.query, _NO_PARAMETERS)
    key = codec.key_of(request.path[len(b"/v1/keys/") :])
    found = await context.engine.get_part(key, span)
    if found is None:
        raise Problem("key-not-found", "There is no such key, or its time is over.")
    record = found.record
    condition = request.head.condition
    if condition is not None and not condition.holds(record.revision):
        return keys.read_refused(request, record, context)
    if not _is_wanted(request, record.revision):
        return await keys.key_get(request, context)
    size = b"%d" % found.size
    if not record.value:
        raise Problem(
            "range-not-satisfiable",
            f"The value has {found.size} bytes, and none of those that were asked for.",
            headers=((b"Content-Range", b"bytes */%b" % size), (b"ETag", etag(record.revision))),
            limit=found.size,
        )
    shown = b"bytes %d-%d/%b" % (found.start, found.start + len(record.value) - 1, size)
    whole = keys.value_answer(request, record, context)
    return Answer(206, (*whole.headers, (b"Content-Range", shown)), record.value)


def _is_wanted(request: Request, revision: int) -> bool:
    """Tell whether a part is wanted of what the key is at now (If-Range)."""
    given = [value for name, value in request.head.fields if name == b"if-range"]
    return not given or given == [etag(revision)]
