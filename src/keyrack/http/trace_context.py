"""The trace that a request belongs to (W3C Trace Context), as its sender names it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from keyrack.http.answer import Headers

_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED_PARENT: Final = re.compile(
    rb"\r\n(?i:traceparent):[ \t]*[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf]"
).search
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_FORBIDDEN: Final = b"ff"
"""A version that never will be."""


class TraceContext(NamedTuple):
    """Where a request comes from: ids in hexadecimal, and whether its sender records the trace."""

    trace_id: str
    span_id: str
    sampled: bool


def trace_of(fields: Headers) -> TraceContext | None:
    """Return what `traceparent` says; None without one, and for one that is malformed or twice.

    Later versions are read as far as the first one reaches, as the standard says.
    """
    found = [value for name, value in fields if name == b"traceparent"]
    match = _PARENT.fullmatch(found[0]) if len(found) == 1 else None
    if match is None or match[1] == _FORBIDDEN or (match[1] == b"00" and match[5]):
        return None
    if match[2] == _NO_TRACE or match[3] == _NO_SPAN:
        return None
    return TraceContext(match[2].decode(), match[3].decode(), bool(int(match[4], 16) & 1))


def is_sampled(section: bytes) -> bool:
    """Tell whether a header section, line breaks included, seems to belong to a recorded trace."""
    return _SAMPLED_PARENT(b"\r\n" + section) is not None


def wants_timing(prefer: bytes) -> bool:
    """Tell whether preferences (RFC 7240) ask how long it took: `Prefer: timing`."""
    return any(one.partition(b";")[0].strip().lower() == b"timing" for one in prefer.split(b","))


def server_timing(nanoseconds: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields that say how long it took (W3C Server Timing, in ms)."""
    return (
        (b"Server-Timing", b"turn;dur=%.3f" % (nanoseconds / 1e6)),
        (b"Preference-Applied", b"timing"),
    )
