"""What a write with an Idempotency-Key is remembered by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.access.grant import OPEN
from keyrack.engines.contract import Remember
from keyrack.http.api import codec

if TYPE_CHECKING:
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Limits

_COUNTING: Final = (b"if-match", b"if-none-match", b"keyrack-recompute")


def remembering(request: Request, limits: Limits, *, only_done: bool = False) -> Remember:
    """Return the name under which the outcome of a request's write is kept.

    `only_done`: not where it was refused.
    """
    name = request.head.idempotency_key or b""
    # The name is one sender's: nobody else gets this answer, nor learns that there is one.
    sender = () if request.grant is OPEN else (request.grant.identity.key.encode(),)
    return Remember(
        codec.digest(b"answer", name, *sender),
        codec.digest(
            request.method, request.path, request.query, request.body, *_counting(request), *sender
        ),
        round(limits.idempotency_ttl * 1000),
        only_done,
    )


def _counting(request: Request) -> list[bytes]:
    """Return those header fields that change what a write does: a retry repeats them as well."""
    fields = dict(request.head.fields)
    counting = [fields.get(name, b"") for name in _COUNTING]
    if request.method == b"PUT":
        counting.append(request.head.content_type or b"")
    return counting
