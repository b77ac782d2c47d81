"""What one identity may do, ready to be asked on every request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.access import rules as lines
from keyrack.access.compiled import Permission
from keyrack.access.model import BUILT_IN
from keyrack.access.rules import Power, RuleSet, Scope, Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from keyrack.access.model import Network, Policy, Rate


class Identity(NamedTuple):
    """Who somebody is, as logs and answers may say it."""

    id: str | None
    """A token's id; None for everybody who has none."""
    name: str
    source: str
    """`file`, `store`, `ticket`, `jwt`, `certificate`, `peer`, `anonymous`, or `open`."""
    policies: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return what tells this identity from every other one."""
        return f"{self.source}:{self.id or self.name}"

    @property
    def meter(self) -> str:
        """Return whose rate and watches are counted: a ticket's requests are its token's."""
        return self.id or self.key


class Rights:
    """What some rules come to. Shared by everybody who has the same policies and rules."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.admin = Power.ADMIN in rules.powers
        self.metrics = Power.METRICS in rules.powers or self.admin
        self._permissions: dict[tuple[Scope, Verb], Permission] = {}

    def permission(self, scope: Scope, verb: Verb) -> Permission:
        """Return where a verb is allowed. Worked out when it is first asked for."""
        found = self._permissions.get((scope, verb))
        if found is None:
            found = Permission(self.rules.naming(scope, verb))
            self._permissions[scope, verb] = found
        return found

    def covers(self, line: lines.Line) -> bool:
        """Tell whether all that a rule allows is allowed here, too. A denial allows nothing."""
        if isinstance(line, Power):
            return self.admin if line is Power.ADMIN else self.metrics
        if line.deny:
            return True
        return all(self._covers(line, verb) for verb in line.verbs)

    def _covers(self, rule: lines.Rule, verb: Verb) -> bool:
        permission = self.permission(rule.scope, verb)
        if rule.beginning:
            return permission.allows_whole(rule.pattern)
        return permission.allows(rule.pattern)


def rights_of(
    policies: Iterable[str], rules: Iterable[str], defined: Mapping[str, Policy]
) -> Rights:
    """Return what policies and rules together come to. A policy that is not defined gives nothing.

    Raises `RuleError`.
    """
    given: list[tuple[lines.Line, str | None]] = []
    for name in policies:
        policy = defined.get(name)
        texts = BUILT_IN.get(name, ()) if policy is None else policy.rules
        given += [(lines.parse(text), name) for text in texts]
    given += [(lines.parse(text), None) for text in rules]
    return Rights(RuleSet(given))


class Grant:
    """What whoever sent some credentials may do, until `expires`.

    `reads` and `sets` are the tests for single keys, None where every key is allowed: the most
    frequent requests ask these two and nothing else.
    """

    __slots__ = (
        "expires",
        "identity",
        "plain",
        "rate",
        "reads",
        "rights",
        "secret",
        "sets",
        "sources",
        "watches",
    )

    def __init__(
        self,
        identity: Identity,
        rights: Rights,
        *,
        expires: float | None = None,
        rate: Rate | None = None,
        watches: int | None = None,
        sources: tuple[Network, ...] = (),
        secret: str = "",
    ) -> None:
        self.identity = identity
        self.rights = rights
        self.reads: Callable[[bytes], object] | None = rights.permission(Scope.KEYS, Verb.READ).test
        self.sets: Callable[[bytes], object] | None = rights.permission(Scope.KEYS, Verb.SET).test
        self.expires = expires
        self.rate = rate
        self.watches = watches
        self.sources = sources
        self.secret = secret
        """The beginning of the hash of the token's text: what its tickets are bound to."""
        self.plain = rate is None and not sources
        """Nothing is to be counted or looked at for each request."""

    def is_over(self, now: float) -> bool:
        """Tell whether its time has ended; `now` in seconds since 1970."""
        return self.expires is not None and self.expires <= now


def _everything() -> Grant:
    return Grant(Identity(None, "everybody", "open", ("admin",)), rights_of(("admin",), (), {}))


OPEN: Final = _everything()
"""What everybody may do where there is no access control."""
