"""What keeps a web page of another site from using a visitor's browser against the store.

A browser lets any page send requests to any address. Three rules:

- A page of another origin may not write, and may read only what the browser shows as a document of
  its own: a link works, an embedded image, script or frame does not. (Browsers keep what such a
  page reads from it, but it could probe for keys.) Listed origins may do both; see `cors`.
- A browser must name this server by a name that can only mean this server. Otherwise a page of
  `evil.example` may point that name at this address (DNS rebinding) and is of the same origin.
- Where the names are known (`demands_host`), everybody must use one of them. A page's script can
  take all marks of a browser away from its requests, but not the name that it calls.

Marks of a browser. `Sec-Fetch-Site` and `Origin` are not sent with every request: over plain HTTP
to a name that is not localhost, a same-origin GET carries neither. So `Referer` counts as well, and
a `User-Agent` that names a browser's engine: `Mozilla/` and `Gecko` (all engines say that they are
like it). `Mozilla/5.0` alone is what PowerShell and many monitors send, and `Accept-Language` is
sent by libraries too.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.http.problems import Problem
from keyrack.http.protocol.cors import Cors

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORT: Final = re.compile(rb":[0-9]+\Z")
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


class Judgement(NamedTuple):
    """Why a request may not read, write, or ask whether the service is well; None where it may."""

    read: Problem | None = None
    write: Problem | None = None
    probe: Problem | None = None


class Guard:
    """Judges requests by their fields. `allowed` are host names; `.example.org` means all below.

    `demands_host`: programs, too, must name this server as it is known. `cors` knows the pages of
    other origins that are meant to use the store.
    """

    def __init__(
        self, allowed: Iterable[str] = (), *, demands_host: bool = False, cors: Cors | None = None
    ) -> None:
        self.cors = cors or Cors()
        self._demands_host = demands_host
        names = {"localhost", socket.gethostname().lower()} | {name.lower() for name in allowed}
        self._any = "*" in names
        self._names = frozenset(name for name in names if not name.startswith("."))
        self._suffixes = (".localhost", *(name for name in names if name.startswith(".")))

    def judge(self, values: dict[bytes, list[bytes]], host: bytes) -> Judgement:
        """Return what a request with these fields may not do.

        `host` is empty where HTTP/1.0 names none, which no browser speaks.
        """
        from_browser = _from_browser(values)
        if (from_browser or self._demands_host) and host and not self.knows(host):
            refusal = _unknown(host)
            # That the service is well is no secret, and monitors call it by names of their own.
            return Judgement(refusal, refusal, refusal if from_browser else None)
        if not from_browser or not _is_cross_site(values, host) or self.cors.allows(values):
            return Judgement()
        read = _may_not_read(values)
        write = Problem(
            "cross-site",
            "Pages of other sites may not write to this store. --cors-origins names those that "
            "may.",
        )
        return Judgement(read, write, read)

    def knows(self, host: bytes) -> bool:
        """Tell whether a Host field can only mean this server."""
        name = _name(host).lower()
        if self._any or name in self._names or name.endswith(self._suffixes):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def _name(host: bytes) -> str:
    return _PORT.sub(b"", host).decode("latin-1").rstrip(":.")


def _unknown(host: bytes) -> Problem:
    name = _name(host)
    return Problem(
        "host-not-allowed",
        f"This server is not known as {name!r}. If it is meant to be, start it with "
        f"--allowed-hosts {name}",
    )


def is_from_browser(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a browser has sent a header section."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    return _from_browser(values)


def _from_browser(values: dict[bytes, list[bytes]]) -> bool:
    if not values.keys().isdisjoint((b"sec-fetch-site", b"origin", b"referer")):
        return True
    return any(
        agent.startswith(b"Mozilla/") and b"Gecko" in agent
        for agent in values.get(b"user-agent", ())
    )


def _is_cross_site(values: dict[bytes, list[bytes]], host: bytes) -> bool:
    site = values.get(b"sec-fetch-site", [b"none"])[0].lower()
    if site == b"same-origin":
        # No page can set this field. It is right also behind a proxy that puts another name into
        # Host, as nginx does unless told otherwise, where Origin and Host differ.
        return False
    origin = values.get(b"origin", [b""])[0].lower()
    return site != b"none" or (origin != b"" and not _is_own(origin, host.lower()))


def _is_own(origin: bytes, host: bytes) -> bool:
    """Tell whether an origin is this server, whose name and port the client gave as `host`."""
    scheme, _, rest = origin.partition(b"://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and _with_port(rest, port) == _with_port(host, port)


def _with_port(host: bytes, port: bytes) -> bytes:
    return host if _PORT.search(host) else host.removesuffix(b":") + port


def _may_not_read(values: dict[bytes, list[bytes]]) -> Problem | None:
    """Judge a read of another site: what a visitor follows a link to is shown, nothing else."""
    if values.get(b"sec-fetch-dest", [b""])[0].lower() == b"document":
        return None
    return Problem(
        "cross-site",
        "Pages of other sites may link to this, and not embed or fetch it. --cors-origins names "
        "those that may.",
    )
