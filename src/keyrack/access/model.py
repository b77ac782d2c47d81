"""What is known about tokens, policies and everybody else who may log in. Without any secret.

Times are seconds since 1970, as `time.time()` has them. All of this is made of plain values, so
that it can be handed from process to process and kept in a store.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec

from keyrack.access.rules import MOST_PATTERN_BYTES, pattern_of

MOST_POLICIES: Final = 64
"""Policies that one token may have."""
MOST_TOKENS: Final = 10_000
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

BUILT_IN: Final[dict[str, tuple[str, ...]]] = {
    "admin": ("admin", "metrics", "all keys:*", "all locks:*"),
    "read-write": ("read,list,watch keys:*", "write keys:*", "lock locks:*", "read locks:*"),
    "read-only": ("read,list,watch keys:*", "read locks:*"),
    "metrics": ("metrics",),
    "none": (),
}
"""The policies that every service has, and what their rules are."""


class Rate(msgspec.Struct, frozen=True):
    """How many requests a second are allowed in the long run, and how many at once."""

    per_second: float
    burst: float

    def __str__(self) -> str:
        return f"{self.per_second:g}/s burst {self.burst:g}"


class Policy(msgspec.Struct, frozen=True):
    """Rules under a name. `rate` and `watches` hold for each token that has the policy."""

    rules: tuple[str, ...] = ()
    rate: Rate | None = None
    watches: int | None = None


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token as it is kept. `hash` is what `tokens.digest` makes of its text."""

    id: str
    hash: str
    name: str = ""
    policies: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    expires: float | None = None
    disabled: bool = False
    rate: Rate | None = None
    watches: int | None = None
    sources: tuple[str, ...] = ()
    """Networks that it may be used from; everywhere when there is none."""
    created: float | None = None
    created_by: str | None = None
    hash_next: str | None = None
    """The hash of its next text, while both of them count."""
    not_after: float | None = None
    """When the text of `hash` ends to count, where there is a next one."""
    serial: int = 0
    """How often it was changed."""


class Certificate(msgspec.Struct, frozen=True):
    """Who shows a client certificate with this name: a URI or DNS name, or the common name."""

    san: str
    policies: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class Peer(msgspec.Struct, frozen=True):
    """A process that connects to the Unix socket, by its user or group."""

    uid: int | None = None
    gid: int | None = None
    policies: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class Claims(msgspec.Struct, frozen=True):
    """What a JSON Web Token with these claims may do."""

    claims: dict[str, str]
    policies: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class Issuer(msgspec.Struct, frozen=True):
    """Whose JSON Web Tokens count. `jwks` is a file or a URL; `keys` what it holds, once read."""

    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...]
    map: tuple[Claims, ...] = ()
    ca: str | None = None
    bearer_token_file: str | None = None
    keys: str = ""


class FenceRule(msgspec.Struct, frozen=True):
    """Writes of these keys need this lock. `keys` is written as the pattern of a rule."""

    keys: str
    lock: str


MOST_FENCES: Final = 100


class AccessFile(msgspec.Struct, frozen=True):
    """Everybody that an operator lets in."""

    anonymous: tuple[str, ...] = ()
    policies: dict[str, Policy] = {}
    tokens: tuple[Token, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    peers: tuple[Peer, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    fences: dict[str, FenceRule] = {}


_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)/([smh])(?: burst ([0-9]{1,9}))?")
_SECONDS_OF: Final = {"s": 1, "m": 60, "h": 3600}


def rate_of(text: str) -> Rate:
    """Return the rate that a text like `200/s burst 400` names. Raises `ValueError`.

    Without a burst, it is what comes in a second, at least one request.
    """
    match = _RATE.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is no rate like '200/s burst 400' or '30/m'.")
    per_second = float(match[1]) / _SECONDS_OF[match[2]]
    burst = float(match[3]) if match[3] else max(1.0, per_second)
    if burst < 1:
        raise ValueError(f"{text!r}: a burst is at least 1.")
    return Rate(per_second, burst)


def network_of(text: str) -> Network:
    """Return the network that a text like `10.0.0.0/8` names. Raises `ValueError`."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network like '10.0.0.0/8': {error}.") from None


_POLICY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def checked_policy_name(name: str) -> str:
    """Return the name of a policy that somebody wants to define. Raises `ValueError`."""
    if name in BUILT_IN:
        raise ValueError(f"{name!r} is a policy that every service has; take another name.")
    if not _POLICY_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a policy: 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'."
        )
    return name


def checked_fence(name: str, rule: FenceRule) -> FenceRule:
    """Return a fence that somebody wants to define. Raises `ValueError`."""
    if not _POLICY_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a fence: 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'."
        )
    pattern_of(rule.keys)
    if not 1 <= len(rule.lock.encode("utf-8", "surrogatepass")) <= MOST_PATTERN_BYTES:
        raise ValueError(f"The name of a lock has 1 to {MOST_PATTERN_BYTES} bytes.")
    return rule


def checked_token_name(name: str) -> str:
    """Return the name of a token. Raises `ValueError`."""
    if not (1 <= len(name) <= 100 and name.isprintable()):
        raise ValueError(f"{name!r} is no name for a token: 1 to 100 printable characters.")
    return name


def moment_of(text: str) -> float:
    """Return the moment that an RFC 3339 text names. Raises `ValueError`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text!r} is no moment like '2027-06-01T00:00:00Z'.")
    return moment.timestamp()


def shown_moment(moment: float) -> str:
    """Return a moment as RFC 3339, to the second."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rotated(token: Token, digest: str, overlap: float, now: float) -> Token:
    """Return a token whose next text has this hash; the one that counts now counts on for a while.

    A next text that had been made before takes the present one's place.
    """
    present = token.hash_next or token.hash
    if not overlap:
        return msgspec.structs.replace(token, hash=digest, hash_next=None, not_after=None)
    return msgspec.structs.replace(
        token, hash=present, hash_next=digest, not_after=float(round(now + overlap))
    )
