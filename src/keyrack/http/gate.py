"""Who sent a request, and how it is told that it may not do what it asks for.

A header section is judged once, with everything else that it means (`head.py`); what its sender may
do stays with it. Whether that is enough for a request is judged by `api/rights.py`.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import time
from struct import Struct
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from keyrack.access.grant import OPEN, Grant, Identity, rights_of
from keyrack.access.rates import Failures, slot_of
from keyrack.access.table import LoginFailed, Reason, Unmapped, is_web_token
from keyrack.http.problems import Problem
from keyrack.http.protocol.guard import is_from_browser

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from keyrack.access.model import Network, Rate
    from keyrack.access.rates import Allowance, Meters
    from keyrack.access.rules import Decision, Verb
    from keyrack.access.table import Table
    from keyrack.http.answer import Headers
    from keyrack.http.protocol.request import Head, Request

NOBODY: Final = Grant(Identity(None, "nobody", "anonymous"), rights_of((), (), {}))
"""What those may do who show nothing, where nothing is allowed to them."""
DENIALS: Final = frozenset(("unauthenticated", "invalid-token", "forbidden"))
"""Problems of requests that their senders had no right to."""
_BEARER: Final = b'Bearer realm="keyrack"'
_BASIC: Final = b'Basic realm="keyrack", charset="UTF-8"'
_TICKET: Final = b"ticket="
_PEER: Final = Struct("iII")
"""What SO_PEERCRED says: process, user, group."""
_WAIT: Final = ((b"Retry-After", b"1"),)


class Gate:
    """Access control of one worker. Without a table everybody may do everything.

    `failed` is called for each log-in that fails, `used` with the id of a token that lets in.
    """

    def __init__(
        self,
        table: Table | None = None,
        failed: Callable[[LoginFailed], None] = lambda _: None,
        meters: Meters | None = None,
        worker: int = 0,
        used: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.table = table
        self._meters = meters
        self._worker = worker
        self._failed = failed
        self._used = used
        self._failures = Failures()

    @property
    def nobody(self) -> Grant:
        """What those may do who show nothing."""
        if self.table is None:
            return OPEN
        return self.table.anonymous or NOBODY

    def take_ticket(self, request: Request) -> None:
        """Let a request in by the ticket in its query, if there is one, and take it out of there.

        What is left is what logs and operations see. Raises `Problem`.
        """
        parts = request.query.split(b"&")
        found = [part[len(_TICKET) :] for part in parts if part.startswith(_TICKET)]
        if not found:
            return
        request.query = b"&".join(part for part in parts if not part.startswith(_TICKET))
        if len(found) > 1 or request.head.credentials is not None:
            raise Problem("bad-parameter", "Send one ticket, or a token in Authorization.")
        request.ticket = unquote_to_bytes(found[0]).decode("ascii", "replace")
        self.admit_ticket(request)

    def admit_ticket(self, request: Request) -> None:
        """Find out what the ticket of a request stands for now. Raises `Problem`."""
        if self.table is None or request.ticket is None:
            return
        try:
            request.grant = self.table.ticket(request.ticket, time.time())
        except LoginFailed as error:
            self._failed(error)
            fields = challenge(request.head, b"invalid_token")
            raise Problem("invalid-token", error.detail, fields, token=error.token) from None
        if request.grant.sources:
            raise Problem("invalid-token", "This ticket may not be used in an address.")
        self._note_use(request.grant)

    def meter(self, grant: Grant) -> Headers:
        """Count a request of a token with a rate; raise `Problem` where that is used up.

        Returns the fields that its answer carries.
        """
        if grant.rate is None or self._meters is None:
            return ()
        slot = slot_of(grant.identity.meter)
        found = self._meters.take(slot, grant.rate, time.monotonic_ns())
        fields = _rate_fields(grant.rate, found)
        if not found.allowed:
            wait = max(1, math.ceil(found.wait))
            raise Problem(
                "rate-limited",
                f"{_name(grant)} may make {grant.rate.per_second:g} requests a second.",
                ((b"Retry-After", b"%d" % wait), *fields),
            )
        return fields

    def begin_watch(self, grant: Grant) -> Callable[[], None] | None:
        """Count a watch that begins; raise `Problem` for one too many. Returns what ends it."""
        if grant.watches is None or self._meters is None:
            return None
        meters, worker, slot = self._meters, self._worker, slot_of(grant.identity.meter)
        if meters.held(slot) >= grant.watches:
            raise Problem(
                "rate-limited",
                f"{_name(grant)} may hold {grant.watches} watches at once.",
                _WAIT,
            )
        meters.hold(slot, worker, 1)
        return lambda: meters.hold(slot, worker, -1)

    def of_connection(self, transport: asyncio.Transport) -> Grant:
        """Return what those may do on a connection who send no credentials.

        A client certificate or the process on a Unix socket may stand for somebody. Others are
        nobody.
        """
        table = self.table
        if table is None:
            return OPEN
        found = None
        if table.access.certificates:
            found = table.certificate(_names(transport.get_extra_info("peercert")))
        if found is None and table.access.peers:
            peer = _process_of(transport.get_extra_info("socket"))
            found = None if peer is None else table.peer(*peer)
        return found or self.nobody

    def admit(self, head: Head, address: str) -> None:
        """Find out who sent a header section: set its `grant`, or its `denial`.

        Who sends no credentials has what the connection has; `address` is where it comes from. May
        be called again, when the table is another one.
        """
        head.grant = head.denial = None
        if self.table is None or head.credentials is None:
            return
        now = time.monotonic()
        guesses = self._failures.too_many(address, now)
        if guesses and is_web_token(head.credentials):
            # A signature costs a hundred times what a look-up does.
            head.denial = _too_many_failures()
            return
        try:
            head.grant = _from_here(self._authenticated(head.credentials), address)
            self._note_use(head.grant)
        except LoginFailed as error:
            if error.reason not in (Reason.MALFORMED, Reason.SCHEME):
                self._failures.note(address, now)
            self._failed(error)
            fields = challenge(head, b"invalid_token")
            # Good tokens go on to count: behind a proxy one client's mistake is not all others'.
            head.denial = (
                _too_many_failures()
                if guesses
                else Problem("invalid-token", error.detail, fields, token=error.token)
            )
        except Unmapped as error:
            head.denial = Problem(
                "forbidden", str(error), challenge(head, b"insufficient_scope"), token=None
            )

    def _note_use(self, grant: Grant) -> None:
        if grant.identity.id is not None:
            self._used(grant.identity.id)

    def _authenticated(self, credentials: bytes) -> Grant:
        assert self.table is not None
        return self.table.authenticate(credentials, time.time())


def _rate_fields(rate: Rate, found: Allowance) -> Headers:
    """Return the fields of draft-ietf-httpapi-ratelimit-headers."""
    quota, window = rate.burst, rate.burst / rate.per_second
    policy = b'"token";q=%d;w=%d' % (quota, max(1, round(window)))
    left = b'"token";r=%d;t=%d' % (found.left, max(1, math.ceil(found.wait)))
    return ((b"RateLimit-Policy", policy), (b"RateLimit", left))


def _names(certificate: dict[str, Any] | None) -> list[str]:
    """Return the names that a client certificate shows: URIs, DNS names, the common name."""
    if not certificate:
        return []
    names = [
        value for kind, value in certificate.get("subjectAltName", ()) if kind in ("URI", "DNS")
    ]
    for part in certificate.get("subject", ()):
        names += [value for name, value in part if name == "commonName"]
    return names


def _process_of(found: Any) -> tuple[int, int] | None:
    """Return user and group of the process at the other end of a Unix socket."""
    if found is None or found.family != socket.AF_UNIX:
        return None
    raw = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, uid, gid = _PEER.unpack(raw)
    return uid, gid


def _too_many_failures() -> Problem:
    return Problem("rate-limited", "Too many log-ins from here have failed. Wait.", _WAIT)


def _from_here(grant: Grant, address: str) -> Grant:
    if grant.sources and not _within(address, grant.sources):
        raise LoginFailed(
            Reason.UNKNOWN, "This token may not be used from here.", grant.identity.id
        )
    return grant


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        here = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False  # a Unix socket is in no network
    if isinstance(here, ipaddress.IPv6Address) and here.ipv4_mapped is not None:
        here = here.ipv4_mapped
    return any(here in network for network in networks)


# How a request is told that it may not


def challenge(head: Head, error: bytes | None = None) -> Headers:
    """Return the fields that tell how to log in (RFC 6750, RFC 7617).

    A browser is not told of Basic: it would ask its user for a password.
    """
    bearer = _BEARER if error is None else _BEARER + b', error="%b"' % error
    fields: Headers = ((b"WWW-Authenticate", bearer),)
    return fields if is_from_browser(head.fields) else (*fields, (b"WWW-Authenticate", _BASIC))


def unauthenticated(request: Request) -> Problem:
    """Return what is told to those who show nothing and may not do what they ask for."""
    return _noted(
        request,
        "unauthenticated",
        "Send a token: `Authorization: Bearer krk_...`, or as the password of Basic.",
        challenge(request.head),
    )


def refused(request: Request, what: str, verb: Verb, decision: Decision, **members: int) -> Problem:
    """Return what is told to those who may not do something; `what` says with what.

    Only the caller's own rules are told of. Whether the key exists is not.
    """
    grant = request.grant
    if grant.identity.source == "anonymous":
        return unauthenticated(request)
    rule = None if decision.by is None else str(decision.by.rule)
    by = "no rule allows it" if rule is None else f"`{rule}` decides"
    return _forbidden(request, f"{_name(grant)} may not {verb.value} {what}: {by}.", verb.value,
                      rule, **members)  # fmt: skip


def powerless(request: Request, power: str) -> Problem:
    """Return what is told to those who need a right that is about no key."""
    if request.grant.identity.source == "anonymous":
        return unauthenticated(request)
    sentence = f"{_name(request.grant)} may not do this: it needs the rule `{power}`."
    return _forbidden(request, sentence, power, None)


def _forbidden(
    request: Request, sentence: str, verb: str, rule: str | None, **members: int
) -> Problem:
    fields = challenge(request.head, b"insufficient_scope")
    token = request.grant.identity.id
    more = {"token": token, "verb": verb, "rule": rule, **members}
    return _noted(request, "forbidden", sentence, fields, **more)


def _noted(
    request: Request, slug: str, detail: str, fields: Headers, **members: str | int | None
) -> Problem:
    request.refusal = Problem(slug, detail, fields, **members)
    return request.refusal


def _name(grant: Grant) -> str:
    identity = grant.identity
    if identity.id is None:
        return identity.name
    return f"The {'ticket of ' if identity.source == 'ticket' else ''}token {identity.id}"
