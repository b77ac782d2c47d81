"""What the access log gets to know of a request and its answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from keyrack.http.answer import Headers


class Access(NamedTuple):
    """One request that was answered, as it was sent: nothing is decoded."""

    peer: str
    method: bytes
    path: bytes
    query: bytes
    status: int
    size: int
    """Bytes of the answer's body; 0 for a stream, which has only begun."""
    nanoseconds: int
    """How long the client has waited for it, as far as the server knows."""
    fields: Headers
    """The request's header section; names are lower case."""


_TICKET: Final = re.compile(rb"(^|&)ticket=[^&]*")


def shown_query(query: bytes) -> str:
    """Return a query as logs may show it: without a ticket."""
    return _TICKET.sub(rb"\1ticket=-", query).decode("latin-1")


AccessLog: TypeAlias = Callable[[Access], None]
