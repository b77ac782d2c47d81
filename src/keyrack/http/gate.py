"""Who sent a request, and how it is told that it may not do what it asks for.

A header section is judged once, with everything else that it means (`head.py`); what its sender may
do stays with it. Whether that is enough for a request is judged by `api/rights.py`.
"""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Final

from keyrack.access.grant import OPEN, Grant, Identity, rights_of
from keyrack.access.rates import Failures
from keyrack.access.table import LoginFailed, Reason, Unmapped, is_web_token
from keyrack.http.problems import Problem
from keyrack.http.protocol.guard import is_from_browser

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.access.model import Network
    from keyrack.access.rules import Decision, Verb
    from keyrack.access.table import Table
    from keyrack.http.answer import Headers
    from keyrack.http.protocol.request import Head, Request

NOBODY: Final = Grant(Identity(None, "nobody", "anonymous"), rights_of((), (), {}))
"""What those may do who show nothing, where nothing is allowed to them."""
_BEARER: Final = b'Bearer realm="keyrack"'
_BASIC: Final = b'Basic realm="keyrack", charset="UTF-8"'
_WAIT: Final = ((b"Retry-After", b"1"),)


class Gate:
    """Access control of one worker. Without a table everybody may do everything.

    `failed` is called for each log-in that fails, with the public id of the token if there is one.
    """

    def __init__(
        self, table: Table | None = None, failed: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self.table = table
        self._failed = failed
        self._failures = Failures()

    @property
    def nobody(self) -> Grant:
        """What those may do who show nothing."""
        if self.table is None:
            return OPEN
        return self.table.anonymous or NOBODY

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
        except LoginFailed as error:
            if error.reason not in (Reason.MALFORMED, Reason.SCHEME):
                self._failures.note(address, now)
            self._failed(error.token)
            fields = challenge(head, b"invalid_token")
            # Good tokens go on to count: behind a proxy one client's mistake is not all others'.
            head.denial = (
                _too_many_failures() if guesses else Problem("invalid-token", error.detail, fields)
            )
        except Unmapped as error:
            head.denial = Problem(
                "forbidden", str(error), challenge(head, b"insufficient_scope"), token=None
            )

    def _authenticated(self, credentials: bytes) -> Grant:
        assert self.table is not None
        return self.table.authenticate(credentials, time.time())


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
    return Problem(
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
    return Problem("forbidden", sentence, fields, token=token, verb=verb, rule=rule, **members)


def _name(grant: Grant) -> str:
    identity = grant.identity
    if identity.id is None:
        return identity.name
    return f"The {'ticket of ' if identity.source == 'ticket' else ''}token {identity.id}"
