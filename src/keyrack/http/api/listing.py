"""Pages of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes

from keyrack.access.compiled import successor
from keyrack.access.rules import Scope, Verb
from keyrack.http import allowed
from keyrack.http.answer import Answer
from keyrack.http.api import caching, codec, rights
from keyrack.http.api.models import Entry, KeyPage
from keyrack.http.problems import Problem
from keyrack.http.tick import JSON_HEADERS

if TYPE_CHECKING:
    from keyrack.engines.contract import Record
    from keyrack.http.answer import Headers
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

MOST: Final = 1000
DEFAULT: Final = 100
PARAMETERS: Final = frozenset(
    (b"prefix", b"after", b"limit", b"reverse", b"delimiter", b"values", b"count_only")
)


async def page(request: Request, context: Context) -> Answer | None:
    """`GET /v1/keys`: an ordered page, and where the next one begins; None when it is to count."""
    given = codec.parameters(request.query, PARAMETERS)
    if codec.switch(given, b"count_only"):
        return None
    prefix = codec.prefix_of(given.get(b"prefix", b""))
    after = codec.prefix_of(given[b"after"]) if b"after" in given else None
    reverse = codec.switch(given, b"reverse")
    delimiter = codec.delimiter_of(given.get(b"delimiter", b""))
    limit = codec.whole(given, b"limit", DEFAULT, 1, MOST)
    with_values = codec.switch(given, b"values")
    ranges = _allowed_ranges(request, prefix, with_values)
    if ranges is None:
        found = await context.engine.scan(prefix, after, limit, reverse, delimiter)
    else:
        scan = context.engine.scan
        found = await allowed.page(scan, ranges, prefix, after, limit, reverse, delimiter)
    now = context.engine.now()
    answer = KeyPage(
        keys=[_entry(key, record, now, with_values) for key, record in found.entries],
        next=None if found.next is None else codec.text_of(found.next),
        revision=str(found.revision),
    )
    if delimiter:
        answer.folders = [codec.text_of(folder) for folder in found.folders]
    headers: Headers = JSON_HEADERS
    if ranges is not None:
        answer.filtered = True
        headers += ((b"Keyrack-Filtered", b"true"),)
    if found.next is not None:
        headers += ((b"Link", _next_link(given, found.next)),)
    return Answer(200, headers, codec.encode(answer))


def _allowed_ranges(
    request: Request, prefix: bytes, with_values: bool
) -> list[tuple[bytes, bytes | None]] | None:
    """Return where below a prefix the sender may list keys; None where that is everywhere."""
    rights_of = request.grant.rights.permission
    ranges = rights_of(Scope.KEYS, Verb.LIST).ranges(prefix)
    if with_values:
        ranges = allowed.both(ranges, rights_of(Scope.KEYS, Verb.READ).ranges(prefix))
        if not ranges:
            raise rights.none_allowed(request, Verb.READ, prefix)
    return None if ranges == [(prefix, successor(prefix))] else ranges


def _entry(key: bytes, record: Record, now: int, with_value: bool) -> Entry:
    entry = Entry(
        key=key.decode(),
        revision=str(record.revision),
        type=record.media_type,
        size=len(record.value),
        ttl=max(0, record.expires_at - now) / 1000 if record.expires_at else None,
    )
    caching.show(entry, record)
    if with_value:
        entry.value, entry.encoding = codec.json_value(record)
    return entry


def _next_link(given: dict[bytes, bytes], after: bytes) -> bytes:
    given = {**given, b"after": after}
    query = "&".join(
        f"{name.decode()}={quote_from_bytes(value, safe='')}" for name, value in given.items()
    )
    return b'</v1/keys?%b>; rel="next"' % query.encode()


def refuse_contradiction(given: dict[bytes, bytes]) -> None:
    """Refuse parameters that say nothing together with `count_only`."""
    others = given.keys() & {b"after", b"limit", b"reverse", b"delimiter", b"values"}
    if others:
        raise Problem(
            "bad-parameter", f"count_only counts a prefix; {min(others).decode()} means nothing."
        )
