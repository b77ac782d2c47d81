"""The bodies of requests and answers about who may log in."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from keyrack.http.api.models import Body, Key

Name = Annotated[str, Meta(min_length=1, max_length=100, description="What it is for.")]
RuleLine = Annotated[str, Meta(description="A rule like `read,list keys:app/*`.")]
Moment = Annotated[str, Meta(description="A moment like 2027-06-01T00:00:00Z.")]
RateText = Annotated[str, Meta(description="A rate like `200/s burst 400`.")]
Watches = Annotated[int, Meta(ge=0, le=1_000_000)]


class TokenRequest(Body):
    """Make a token."""

    name: Name
    policies: tuple[str, ...] = ()
    rules: tuple[RuleLine, ...] = ()
    ttl: Annotated[float, Meta(gt=0, le=315_360_000)] | None = None
    rate: RateText | None = None
    watches: Watches | None = None
    sources: list[str] = msgspec.field(default_factory=list, name="from")


class TokenChange(Body):
    """Change members of a token; those that are null go."""

    name: Name | UnsetType = UNSET
    policies: list[str] | UnsetType | None = UNSET
    rules: list[RuleLine] | UnsetType | None = UNSET
    expires: Moment | UnsetType | None = UNSET
    disabled: bool | UnsetType | None = UNSET
    rate: RateText | UnsetType | None = UNSET
    watches: Watches | UnsetType | None = UNSET
    sources: list[str] | UnsetType | None = msgspec.field(name="from", default=UNSET)


class TokenShown(Struct):
    """A token, without its secret."""

    id: str
    name: str
    source: Literal["file", "store"] | str
    policies: list[str]
    rules: list[str]
    expires: Moment | None
    disabled: bool
    rate: RateText | None
    watches: int | None
    sources: list[str] = msgspec.field(name="from")
    created: Moment | None
    created_by: str | None
    last_used: Moment | None
    """The minute of its last use since the service started, tickets of it included."""
    rotating_until: Moment | None
    """Until when the secret before the last one counts as well."""
    decides: list[str] | UnsetType = UNSET
    """All its rules, in the order of decision."""


class TokenMade(Struct):
    """A token that was just made, with the only copy of its text."""

    token: str
    id: str
    name: str
    source: str
    policies: list[str]
    rules: list[str]
    expires: Moment | None
    disabled: bool
    rate: RateText | None
    watches: int | None
    sources: list[str] = msgspec.field(name="from")
    created: Moment | None
    created_by: str | None
    last_used: Moment | None
    rotating_until: Moment | None
    decides: list[str] | UnsetType = UNSET


class TokenPage(Struct):
    """A page of tokens, in the order of their ids."""

    tokens: list[TokenShown]
    next: str | None


class RotateRequest(Body):
    """How long, in seconds, the present secret counts beside the new one."""

    overlap: Annotated[float, Meta(ge=0, le=31_536_000)] = 3600.0


class Pending(Struct):
    """How many workers have not said yet that they judge by a change."""

    pending: int


class PolicyRequest(Body):
    """Define a policy."""

    rules: list[RuleLine]
    rate: RateText | None = None
    watches: Watches | None = None


class PolicyShown(Struct):
    """A policy."""

    name: str
    rules: list[str]
    source: str
    rate: RateText | None = None
    watches: int | None = None


class PolicyList(Struct):
    """All policies, in the order of their names."""

    policies: list[PolicyShown]


class Self(Struct):
    """Who the sender is. The rules are in the order of decision."""

    id: str | None
    name: str
    source: str
    policies: list[str]
    rules: list[str]
    expires: Moment | None
    anonymous: bool


class OneCheck(Body):
    """What is asked about: a verb, and a key or a lock."""

    verb: Literal["read", "list", "watch", "set", "delete", "lock"]
    key: Key | UnsetType = UNSET
    lock: Key | UnsetType = UNSET


class CheckRequest(Body):
    """Ask what is allowed, to the sender or (with `admin`) to the token with an id."""

    checks: Annotated[list[OneCheck], Meta(min_length=1, max_length=100)]
    token: str | None = None


class CheckResult(Struct):
    """Whether it is allowed, by which rule, and which policy that came from."""

    allowed: bool
    rule: str | None
    policy: str | None


class CheckResults(Struct):
    """A result for each check, in order."""

    results: list[CheckResult]


class TicketRequest(Body):
    """Make a ticket."""

    rules: Annotated[list[RuleLine], Meta(min_length=1, max_length=32)]
    ttl: Annotated[float, Meta(ge=1, le=86_400)] = 60.0


class TicketMade(Struct):
    """A ticket, to be sent as a bearer's token."""

    ticket: str
    expires: Moment
