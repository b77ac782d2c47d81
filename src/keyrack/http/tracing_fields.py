"""Fields that differ in each request and mean nothing to this server.

Proxies and tracing libraries put another `X-Request-Id`, `traceparent` or `X-Forwarded-For` into
each request. A header section with one would never be recognised: behind an ingress each request
would be parsed, which costs three times as much as answering it. So a section that is not known is
looked up once more without the lines of a fixed list.

Nothing on the list may ever mean anything to `head.read`, to the guard or to access control: a
section is judged once, with whatever these fields said then.
"""

from __future__ import annotations

import re
from typing import Final

NAMES: Final = (
    "x-request-id",
    "x-correlation-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "x-forwarded-for",
    "x-real-ip",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
)
MOST: Final = 16
"""So many lines are left out of a section at most."""
_LONGEST: Final = 8192
"""Bytes of a section that is looked at."""


def _pattern() -> bytes:
    # One branch for all that begin with `x-`: a line that does not is passed over at once.
    extra = b"|".join(name[2:].encode() for name in NAMES if name.startswith("x-"))
    other = b"|".join(name.encode() for name in NAMES if not name.startswith("x-"))
    return rb"\r\n(?i:x-(?:" + extra + rb")|" + other + rb"):[ -~\t]*+(?=\r\n)"


_cut: Final = re.compile(_pattern()).subn


def without(section: bytes) -> bytes | None:
    """Return a header section without its tracing fields, None where it has none.

    What is returned begins with an empty line, so that it is equal to no section as it was sent.
    None also where the section is too long, has too many of these fields, or is followed by other
    bytes: those could be cut as well, and the next message would be taken for a part of this one.
    """
    if len(section) > _LONGEST or section.find(b"\r\n\r\n") != len(section) - 4:
        return None
    rest, lines = _cut(b"", b"\r\n" + section)
    return rest if 0 < lines <= MOST else None
