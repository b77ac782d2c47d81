"""Pages of other origins that are meant to use the store (CORS, https://fetch.spec.whatwg.org).

A browser keeps an answer from a page of another origin unless the answer names that origin, and
asks first (a preflight) whether the page may send what no form could. Only origins that
`--cors-origins` lists are named; without it nothing of this is sent.

Cookies and other credentials that a browser adds by itself never count: a page sends its token in
`Authorization`, as any program does. So there is no `Access-Control-Allow-Credentials`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from keyrack.http.answer import Headers

ANY: Final = "*"
"""Stands for every origin."""
EXPOSED: Final = (
    "Accept-Ranges",
    "Age",
    "Allow",
    "Cache-Status",
    "Content-Range",
    "Date",
    "ETag",
    "Keyrack-Filtered",
    "Keyrack-Recompute",
    "Keyrack-TTL",
    "Keyrack-Undo",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
)
"""Fields of answers that a page may read, besides those that it always may."""
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_MAX_AGE: Final = b"7200"
"""Seconds that a browser may remember a preflight for; Chromium's most."""
_FIELD_NAMES: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, -]{1,4096}").fullmatch
_ORIGIN: Final = re.compile(rb"\r\norigin:[ \t]*([!-~]+)[ \t]*\r\n", re.IGNORECASE).search


class Cors:
    """Judges pages by their origin. `origins` are written as browsers do, or are `ANY`."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        listed = frozenset(origins)
        self._any = ANY in listed
        self._listed = frozenset(origin.encode() for origin in listed)
        exposed = ", ".join(EXPOSED).encode()
        self._shared = (
            b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Expose-Headers: "
            + exposed
            + b"\r\n"
        )
        self.common = b"Vary: Origin\r\n" if listed else b""
        """What every answer has, whoever asks: one that is kept is not for every origin."""

    def allows(self, values: Mapping[bytes, Sequence[bytes]]) -> bool:
        """Tell whether a request with these fields comes from a page that may use the store."""
        return bool(self._listed) and self._knows(values.get(b"origin", ()))

    def shared(self, values: Mapping[bytes, Sequence[bytes]]) -> bytes:
        """Return the lines by which a browser lets a page read the answer to these fields.

        Empty where no page of another origin asks, or one that is not meant to.
        """
        if not self._listed:
            return b""
        origins = values.get(b"origin", ())
        return self._lines(origins[0]) if self._knows(origins) else b""

    def shared_unread(self, data: bytes) -> bytes:
        """Return the same for a message whose header section is only known as bytes."""
        if not self._listed:
            return b""
        found = _ORIGIN(data, 0, data.find(b"\r\n\r\n") + 2)
        return self._lines(found[1]) if found is not None and self._knows((found[1],)) else b""

    def _knows(self, origins: Sequence[bytes]) -> bool:
        return len(origins) == 1 and (self._any or origins[0] in self._listed)

    def _lines(self, origin: bytes) -> bytes:
        return self._shared % (b"*" if self._any else origin)


def is_preflight(method: bytes, fields: Headers) -> bool:
    """Tell whether a browser asks what a page may send."""
    return method == b"OPTIONS" and any(
        name == b"access-control-request-method" for name, _ in fields
    )


def preflight(fields: Headers) -> Headers:
    """Return the fields of the answer to a preflight with these, besides the shared ones.

    All methods are allowed, so that a page is told of a mistake by the request's own answer. So are
    all fields: those that mean nothing here do nothing.
    """
    asked = b", ".join(value for name, value in fields if name == b"access-control-request-headers")
    answer: Headers = (
        (b"Access-Control-Allow-Methods", _METHODS),
        (b"Access-Control-Max-Age", _MAX_AGE),
        (b"Vary", b"Access-Control-Request-Method, Access-Control-Request-Headers"),
    )
    if _FIELD_NAMES(asked):
        answer += ((b"Access-Control-Allow-Headers", asked),)
    if any(name == b"access-control-request-private-network" for name, _ in fields):
        answer += ((b"Access-Control-Allow-Private-Network", b"true"),)
    return answer
