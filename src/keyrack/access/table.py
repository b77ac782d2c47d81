"""Everybody who may log in, at one moment. A change makes a new table that replaces the old one."""

from __future__ import annotations

import base64
import binascii
import enum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from keyrack.access import rules as lines
from keyrack.access import tickets, tokens
from keyrack.access.grant import Grant, Identity, Rights, rights_of
from keyrack.access.model import BUILT_IN, AccessFile, Policy, Rate, Token, network_of
from keyrack.access.tokens import MalformedToken

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from keyrack.access.model import Issuer

_SECRET_LENGTH: Final = 12
"""Characters of a hash, behind `sha256:`, that tell which text of a token made a ticket."""
_MOST_SHARED_RIGHTS: Final = 4096
_MOST_CREDENTIALS: Final = 16_384
"""Characters of an Authorization field that are looked at."""


class Reason(enum.Enum):
    """Why credentials do not count, as far as whoever sent them is told."""

    MALFORMED = "This is no complete token."
    EXPIRED = "The token's time is over."
    UNKNOWN = "The token is not known, or was revoked."
    SCHEME = "Send `Authorization: Bearer` with a token, or Basic with a token as the password."


class LoginFailed(Exception):
    """Raised for credentials that do not count. `token` is the public id, where there is one."""

    def __init__(self, reason: Reason, detail: str = "", token: str | None = None) -> None:
        super().__init__(detail or reason.value)
        self.reason = reason
        self.detail = detail or reason.value
        self.token = token


class Unmapped(Exception):
    """Raised for good credentials that nothing is allowed for. The message says whose they are."""


class Verified(NamedTuple):
    """Whose a JSON Web Token is, what it may do, and until when."""

    name: str
    policies: tuple[str, ...]
    rules: tuple[str, ...]
    expires: float


class Verify(Protocol):
    """Checks JSON Web Tokens; see `keyrack.access.jwt`."""

    def __call__(self, text: str, issuers: Sequence[Issuer], now: float) -> Verified:
        """Return whose a token is. Raises `LoginFailed`, `Unmapped`."""


class Known(NamedTuple):
    """A token, and where it is kept: `file` or `store`."""

    token: Token
    source: str


class Table:
    """Who may log in, by what they show.

    `access` is the operator's; `stored` are tokens and `policies` that were made over HTTP. Where
    both have a token's id or a policy's name, the operator's counts. Without a `ticket_key` there
    are no tickets, and without `verify` no JSON Web Tokens.
    """

    def __init__(
        self,
        access: AccessFile,
        stored: Iterable[Token] = (),
        policies: Mapping[str, Policy] | None = None,
        *,
        ticket_key: bytes | None = None,
        verify: Verify | None = None,
    ) -> None:
        self.access = access
        self.stored_policies = dict(policies or {})
        self.policies = {**self.stored_policies, **access.policies}
        self.ticket_key = ticket_key
        self._verify = verify
        self._by_id = {one.id: Known(one, "store") for one in stored}
        self._by_id |= {one.id: Known(one, "file") for one in access.tokens}
        self._by_digest = {
            digest: known
            for known in self._by_id.values()
            for digest in (known.token.hash, known.token.hash_next)
            if digest is not None
        }
        self._grants: dict[str, Grant] = {}
        self._rights: dict[tuple[tuple[str, ...], tuple[str, ...]], Rights] = {}
        self.anonymous = self._anonymous()
        """What those may do who show nothing; None where that is nothing at all."""

    def _anonymous(self) -> Grant | None:
        if not self.access.anonymous:
            return None
        identity = Identity(None, "anonymous", "anonymous", self.access.anonymous)
        return Grant(identity, self.rights(self.access.anonymous, ()))

    # Looking up

    @property
    def tokens(self) -> list[Known]:
        """All tokens, in the order of their ids."""
        return [self._by_id[one] for one in sorted(self._by_id)]

    def token(self, token_id: str) -> Known | None:
        """Return the token with this id."""
        return self._by_id.get(token_id)

    def rights(self, policies: tuple[str, ...], rules: tuple[str, ...]) -> Rights:
        """Return what policies and rules come to; the same object for the same ones."""
        found = self._rights.get((policies, rules))
        if found is None:
            found = rights_of(policies, rules, self.policies)
            if len(self._rights) >= _MOST_SHARED_RIGHTS:
                self._rights.clear()
            self._rights[policies, rules] = found
        return found

    def rights_of(self, token: Token) -> Rights:
        """Return what a token may do, whether it counts at present or not."""
        return self.rights(token.policies, token.rules)

    def users_of(self, policy: str) -> list[str]:
        """Return the ids of the tokens that have a policy."""
        return [known.token.id for known in self.tokens if policy in known.token.policies]

    def other_admin(self, token_id: str, now: float) -> bool:
        """Tell whether somebody else than this token administers, so that it may go."""
        access = self.access
        given = [
            *((one.policies, one.rules) for one in access.certificates),
            *((one.policies, one.rules) for one in access.peers),
            *(
                (known.token.policies, known.token.rules)
                for known in self.tokens
                if known.token.id != token_id and _counts(known.token, now)
            ),
        ]
        return any(self.rights(*one).admin for one in dict.fromkeys(given))

    # Logging in

    def authenticate(self, credentials: bytes, now: float) -> Grant:
        """Return what an Authorization field's value stands for.

        Raises `LoginFailed`, `Unmapped`.
        """
        text = _credential(credentials)
        if text.startswith(tickets.PREFIX):
            return self.ticket(text, now)
        if _is_web_token(text):
            return self._web_token(text, now)
        try:
            token_id = tokens.id_of(text)
        except MalformedToken:
            raise LoginFailed(Reason.MALFORMED) from None
        return self._token_grant(tokens.digest(text), token_id, now)

    def _token_grant(self, digest: str, token_id: str, now: float) -> Grant:
        known = self._by_digest.get(digest)
        if known is None or known.token.disabled:
            raise LoginFailed(Reason.UNKNOWN, token=token_id)
        until = _until(known.token, digest)
        if until is not None and until <= now:
            raise LoginFailed(Reason.EXPIRED, token=token_id)
        grant = self._grants.get(digest)
        if grant is None:
            grant = self._grants[digest] = self._made(known, digest, until)
        return grant

    def _made(self, known: Known, digest: str, until: float | None) -> Grant:
        token = known.token
        rates = [self.policies[name].rate for name in token.policies if name in self.policies]
        watches = [self.policies[name].watches for name in token.policies if name in self.policies]
        return Grant(
            Identity(token.id, token.name, known.source, token.policies),
            self.rights_of(token),
            expires=until,
            rate=token.rate or _strictest(rates),
            watches=_fewest((token.watches, *watches)),
            sources=tuple(network_of(text) for text in token.sources),
            secret=_secret(digest),
        )

    def _web_token(self, text: str, now: float) -> Grant:
        if self._verify is None or not self.access.issuers:
            raise LoginFailed(Reason.UNKNOWN)
        verified = self._verify(text, self.access.issuers, now)
        identity = Identity(None, verified.name, "jwt", verified.policies)
        rights = self.rights(verified.policies, verified.rules)
        return Grant(identity, rights, expires=verified.expires)

    def certificate(self, names: Iterable[str]) -> Grant | None:
        """Return what a client certificate with these names may do; None if none is known."""
        shown = frozenset(names)
        found = [one for one in self.access.certificates if one.san in shown]
        if not found:
            return None
        return self._merged(found[0].san, "certificate", found)

    def peer(self, uid: int, gid: int) -> Grant | None:
        """Return what a process on the Unix socket may do; None if it is not known."""
        found = [
            one
            for one in self.access.peers
            if (one.uid is None or one.uid == uid) and (one.gid is None or one.gid == gid)
        ]
        return self._merged(f"uid {uid}", "peer", found) if found else None

    def _merged(self, name: str, source: str, found: Sequence[_HasRules]) -> Grant:
        policies = tuple(dict.fromkeys(policy for one in found for policy in one.policies))
        rules = tuple(dict.fromkeys(rule for one in found for rule in one.rules))
        return Grant(Identity(None, name, source, policies), self.rights(policies, rules))

    # Tickets

    def ticket(self, text: str, now: float) -> Grant:
        """Return what a ticket stands for. Raises `LoginFailed`."""
        if self.ticket_key is None:
            raise LoginFailed(Reason.UNKNOWN)
        try:
            ticket = tickets.read(self.ticket_key, text)
        except MalformedToken:
            raise LoginFailed(Reason.MALFORMED, "This is no complete ticket.") from None
        except tickets.WrongTicket:
            raise LoginFailed(Reason.UNKNOWN) from None
        if ticket.expires <= now:
            raise LoginFailed(Reason.EXPIRED, "The ticket's time is over.", ticket.parent)
        return self._ticket_grant(ticket, now)

    def _ticket_grant(self, ticket: tickets.Ticket, now: float) -> Grant:
        parent = self._parent(ticket, now)
        if not all(parent.rights.covers(lines.parse(rule)) for rule in ticket.rules):
            raise LoginFailed(
                Reason.UNKNOWN, "Its maker may no longer do what the ticket says.", ticket.parent
            )
        ends = [float(ticket.expires), *([] if parent.expires is None else [parent.expires])]
        return Grant(
            Identity(ticket.parent, parent.identity.name, "ticket"),
            self.rights((), ticket.rules),
            expires=min(ends),
            rate=parent.rate,
            watches=parent.watches,
            sources=parent.sources,
        )

    def _parent(self, ticket: tickets.Ticket, now: float) -> Grant:
        known = self._by_id.get(ticket.parent)
        hashes = (known.token.hash, known.token.hash_next) if known is not None else ()
        for digest in hashes:
            # The ticket was authenticated before it was read: nobody can try secrets here.
            # nosemgrep: secret-compared-with-equals
            if digest is not None and _secret(digest) == ticket.secret:
                return self._token_grant(digest, ticket.parent, now)
        raise LoginFailed(Reason.UNKNOWN, token=ticket.parent)

    def defined(self, policy: str) -> bool:
        """Tell whether there is a policy of this name."""
        return policy in self.policies or policy in BUILT_IN


class _HasRules(Protocol):
    @property
    def policies(self) -> tuple[str, ...]: ...
    @property
    def rules(self) -> tuple[str, ...]: ...


def is_web_token(field: bytes) -> bool:
    """Tell whether an Authorization field holds what may be a JSON Web Token."""
    try:
        return _is_web_token(_credential(field))
    except LoginFailed:
        return False


def _is_web_token(text: str) -> bool:
    return text.startswith("eyJ") and text.count(".") == 2


def _credential(field: bytes) -> str:
    """Return the token in an Authorization field: a bearer's, or the password of Basic."""
    scheme, _, rest = field[:_MOST_CREDENTIALS].partition(b" ")
    given = rest.strip(b" ")
    match scheme.lower():
        case b"bearer":
            text = given
        case b"basic":
            text = _password(given)
        case _:
            raise LoginFailed(Reason.SCHEME)
    try:
        return text.decode("ascii")
    except UnicodeDecodeError:
        raise LoginFailed(Reason.MALFORMED) from None


def _password(given: bytes) -> bytes:
    try:
        pair = base64.b64decode(given, validate=True)
    except binascii.Error:
        raise LoginFailed(Reason.MALFORMED, "What follows Basic is no base64.") from None
    return pair.partition(b":")[2]


def _until(token: Token, digest: str) -> float | None:
    """Return when a text of a token ends to count."""
    if digest == token.hash and token.hash_next is not None and token.not_after is not None:
        return token.not_after if token.expires is None else min(token.not_after, token.expires)
    return token.expires


def _counts(token: Token, now: float) -> bool:
    return not token.disabled and (token.expires is None or token.expires > now)


def _secret(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SECRET_LENGTH]


def _strictest(rates: Iterable[Rate | None]) -> Rate | None:
    given = [rate for rate in rates if rate is not None]
    return min(given, key=lambda rate: (rate.per_second, rate.burst)) if given else None


def _fewest(numbers: Iterable[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)
