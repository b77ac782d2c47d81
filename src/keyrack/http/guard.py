"""What keeps a web page of another site from using a visitor's browser against the store.

A browser lets any page send requests to any address. Two rules, both judged by fields that only
browsers send, so that programs are never bothered:

- A page of another origin may not write. (Reading its answer is what browsers themselves forbid.)
- A browser must name this server by a name that can only mean this server. Otherwise a page of
  `evil.example` may point that name at this address (DNS rebinding) and is of the same origin.

Marks of a browser. `Sec-Fetch-Site` and `Origin` are not sent with every request: over plain HTTP
to a name that is not localhost, a same-origin GET carries neither. So `Referer`, a `User-Agent`
that begins with `Mozilla/`, and an `Accept-Language` that names a language (fetch in Node.js and
Deno sends `*`) count as well. A page's own script cannot take all of them away.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING, Final

from keyrack.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORT: Final = re.compile(rb":[0-9]*\Z")
_OWN_SITE: Final = frozenset((b"same-origin", b"none"))


class Guard:
    """Judges requests by their fields. `allowed` are host names; `.example.org` means all below."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        names = {"localhost", socket.gethostname().lower()} | {name.lower() for name in allowed}
        self._any = "*" in names
        self._names = frozenset(name for name in names if not name.startswith("."))
        self._suffixes = (".localhost", *(name for name in names if name.startswith(".")))

    def judge(
        self, values: dict[bytes, list[bytes]], host: bytes
    ) -> tuple[Problem | None, Problem | None]:
        """Return why a request may not read, and why it may not write; None where it may."""
        if not _from_browser(values):
            return None, None
        if not self.knows(host):
            refusal = Problem(
                "host-not-allowed",
                f"This server is not known as {host.decode('latin-1')!r}. If it is meant to be, "
                "start it with --allowed-hosts and that name.",
            )
            return refusal, refusal
        return None, _cross_site(values, host)

    def knows(self, host: bytes) -> bool:
        """Tell whether a Host field can only mean this server."""
        name = _PORT.sub(b"", host).decode("latin-1").lower().rstrip(".")
        if self._any or name in self._names or name.endswith(self._suffixes):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def _from_browser(values: dict[bytes, list[bytes]]) -> bool:
    if not values.keys().isdisjoint((b"sec-fetch-site", b"origin", b"referer")):
        return True
    if any(agent.startswith(b"Mozilla/") for agent in values.get(b"user-agent", ())):
        return True
    return any(language.strip() != b"*" for language in values.get(b"accept-language", ()))


def _cross_site(values: dict[bytes, list[bytes]], host: bytes) -> Problem | None:
    site = values.get(b"sec-fetch-site", [b"none"])[0].lower()
    origin = values.get(b"origin", [b""])[0].lower()
    own = (b"", b"http://" + host.lower(), b"https://" + host.lower())
    if site in _OWN_SITE and origin in own:
        return None
    return Problem("cross-site", "Pages of other sites may not write to this store.")
