"""The access log: a line for each request, whose members say what was asked and answered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from keyrack.http.access_log import shown_query
from keyrack.http.trace_context import trace_of
from keyrack.server.logs import ACCESS

if TYPE_CHECKING:
    from keyrack.http.access_log import Access

_FIELDS: Final = {b"user-agent": "user_agent", b"x-request-id": "request_id"}
"""Header fields that are told, and under which name."""
_LONGEST_FIELD: Final = 256

_log = logging.getLogger(ACCESS)


def log_access(access: Access) -> None:
    """Log one request. What a client sent is shown as it came, byte for byte."""
    method, path = (part.decode("latin-1") for part in (access.method, access.path))
    query = shown_query(access.query)
    members: dict[str, Any] = {
        "peer": access.peer,
        "method": method,
        "path": path,
        "status": access.status,
        "bytes": access.size,
        "microseconds": access.nanoseconds // 1000,
    }
    if query:
        members["query"] = query
    for name, value in access.fields:
        if (member := _FIELDS.get(name)) is not None:
            members[member] = value[:_LONGEST_FIELD].decode("latin-1")
    if (trace := trace_of(access.fields)) is not None:
        members["trace_id"] = trace.trace_id
    target = f"{path}?{query}" if query else path
    _log.info("%s %s %d", method, target, access.status, extra=members)
