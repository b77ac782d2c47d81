"""Rules: one line each, and what many of them together mean.

    read,list keys:app/*      deny all keys:app/secret/*      lock locks:app/*      admin

Of the rules that name a verb, the one with the longest pattern decides; an exact pattern goes
before a beginning of the same length, `deny` before an allowance of the same pattern, and where no
rule fits, the answer is no. The order of rules means nothing.

This module has the definition, plain enough to be read beside that sentence, and tells which rule
decided. `keyrack.access.compiled` has the form that requests are judged by.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_RULES: Final = 200
"""Rules that one token may have, those of its policies included."""
MOST_PATTERN_BYTES: Final = 511
"""As long as the longest key."""


class RuleError(ValueError):
    """Raised for a text that is no rule. The message is a sentence for whoever wrote it."""


class Scope(enum.Enum):
    """What a pattern is about."""

    KEYS = "keys"
    LOCKS = "locks"


class Verb(enum.Enum):
    """What may be done. `READ` is known for locks as well, `LOCK` for locks alone."""

    READ = "read"
    LIST = "list"
    WATCH = "watch"
    SET = "set"
    DELETE = "delete"
    LOCK = "lock"


class Power(enum.Enum):
    """A right that is about no key."""

    ADMIN = "admin"
    METRICS = "metrics"


_OF_KEYS: Final = frozenset((Verb.READ, Verb.LIST, Verb.WATCH, Verb.SET, Verb.DELETE))
_OF_LOCKS: Final = frozenset((Verb.LOCK, Verb.READ))
_VERBS: Final[dict[Scope, dict[str, frozenset[Verb]]]] = {
    Scope.KEYS: {
        **{verb.value: frozenset((verb,)) for verb in Verb if verb in _OF_KEYS},
        "write": frozenset((Verb.SET, Verb.DELETE)),
        "all": _OF_KEYS,
    },
    Scope.LOCKS: {
        **{verb.value: frozenset((verb,)) for verb in Verb if verb in _OF_LOCKS},
        "all": _OF_LOCKS,
    },
}
"""What a word stands for, by the scope that it is used with."""
DECISIONS: Final = tuple(
    (scope, verb)
    for scope, verbs in ((Scope.KEYS, _OF_KEYS), (Scope.LOCKS, _OF_LOCKS))
    for verb in Verb
    if verb in verbs
)
"""Every pair of a scope and a verb that can be asked about."""


class Rule(NamedTuple):
    """What one line says. `pattern` is a whole key, or with `beginning` what keys begin with."""

    verbs: frozenset[Verb]
    scope: Scope
    pattern: bytes
    beginning: bool
    deny: bool = False

    def fits(self, key: bytes) -> bool:
        """Tell whether the pattern fits a key."""
        return key.startswith(self.pattern) if self.beginning else key == self.pattern

    def __str__(self) -> str:
        """Return the rule as text that means the same."""
        words = ",".join(_words(self.scope, self.verbs))
        star = "*" if self.beginning else ""
        line = f"{words} {self.scope.value}:{_escaped(self.pattern)}{star}"
        return f"deny {line}" if self.deny else line


Line = Rule | Power


def parse(text: str) -> Line:
    """Return what a line says. Raises `RuleError`."""
    for power in Power:
        if text == power.value:
            return power
    words = text.split(" ")
    deny = words[0] == "deny"
    if deny:
        words = words[1:]
    if len(words) == 1 and words[0] in {power.value for power in Power}:
        raise RuleError(
            f"{text!r}: {words[0]!r} cannot be denied; leave the rule away that gives it."
        )
    if len(words) != 2 or not all(words):
        raise RuleError(
            f"{text!r} is no rule. A rule is like 'read,list keys:app/*', 'deny all keys:app/x/*', "
            "'lock locks:app/*', 'admin' or 'metrics', with single spaces (in a pattern: %20)."
        )
    verbs, (word, colon, pattern) = words[0], words[1].partition(":")
    if not colon or word not in {one.value for one in Scope}:
        raise RuleError(f"{text!r}: a pattern begins with 'keys:' or 'locks:'.")
    scope = Scope(word)
    return Rule(_verbs(text, scope, verbs), scope, *_pattern(text, pattern), deny)


def _verbs(text: str, scope: Scope, words: str) -> frozenset[Verb]:
    known = _VERBS[scope]
    for word in words.split(","):
        if word not in known:
            raise RuleError(
                f"{text!r}: {word!r} is nothing that is done with {scope.value}; "
                f"{', '.join(known)} are."
            )
    return frozenset().union(*(known[word] for word in words.split(",")))


_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _pattern(text: str, pattern: str) -> tuple[bytes, bool]:
    beginning = pattern.endswith("*")
    written = pattern[:-1] if beginning else pattern
    if "*" in written:
        raise RuleError(f"{text!r}: '*' may only end a pattern; as a part of a key it is '%2A'.")
    if _PERCENT.search(written):
        raise RuleError(f"{text!r}: '%' begins two hexadecimal digits; by itself it is '%25'.")
    if not written and not beginning:
        raise RuleError(f"{text!r}: the pattern is empty; '*' is every key.")
    decoded = unquote_to_bytes(written)
    if len(decoded) > MOST_PATTERN_BYTES:
        raise RuleError(
            f"The pattern of {text[:40]!r}... has more than {MOST_PATTERN_BYTES} bytes."
        )
    return decoded, beginning


def pattern_of(text: str) -> tuple[bytes, bool]:
    """Return what a pattern says, and if it is a beginning of keys. Raises `RuleError`."""
    return _pattern(text, text)


def _words(scope: Scope, verbs: frozenset[Verb]) -> list[str]:
    """Return the fewest words for some verbs, in the order of `Verb`."""
    known = _VERBS[scope]
    if verbs == known["all"]:
        return ["all"]
    words = [verb.value for verb in Verb if verb in verbs]
    if "write" in known and known["write"] <= verbs:
        words = [word for word in words if word not in ("set", "delete")] + ["write"]
    return words


_UNESCAPED: Final = frozenset("!\"#$&'()+,-./:;<=>?@[\\]^_`{|}~")


def _escaped(pattern: bytes) -> str:
    """Return a pattern's bytes as text: what is printable as it is, the rest percent-encoded."""
    shown = []
    for character in pattern.decode("utf-8", "surrogateescape"):
        plain = character.isalnum() or character in _UNESCAPED
        raw = character.encode("utf-8", "surrogateescape")
        shown.append(character if plain else "".join(f"%{byte:02X}" for byte in raw))
    return "".join(shown)


class Sourced(NamedTuple):
    """A rule, and the policy that it came from; None for one of the token's own."""

    rule: Rule
    policy: str | None


class Decision(NamedTuple):
    """A yes or no, and the rule that it came from; None where no rule fitted."""

    allowed: bool
    by: Sourced | None


class RuleSet:
    """The rules of one token, merged. Which policy a rule came from matters for telling alone.

    Raises `RuleError` for more than `MOST_RULES`.
    """

    def __init__(self, lines: Iterable[tuple[Line, str | None]]) -> None:
        given = list(dict.fromkeys(lines))
        if len(given) > MOST_RULES:
            raise RuleError(f"A token has at most {MOST_RULES} rules; these are {len(given)}.")
        self.powers = frozenset(line for line, _ in given if isinstance(line, Power))
        rules = [Sourced(line, policy) for line, policy in given if isinstance(line, Rule)]
        self.in_order: Sequence[Sourced] = sorted(rules, key=_rank)
        """In the order of decision: the first that fits a verb and a key decides."""

    def naming(self, scope: Scope, verb: Verb) -> list[Sourced]:
        """Return the rules that name a verb, in the order of decision."""
        return [one for one in self.in_order if one.rule.scope is scope and verb in one.rule.verbs]

    def decide(self, scope: Scope, verb: Verb, key: bytes) -> Decision:
        """Tell whether a verb is allowed on a key, and by which rule. O(rules)."""
        for one in self.in_order:
            if one.rule.scope is scope and verb in one.rule.verbs and one.rule.fits(key):
                return Decision(not one.rule.deny, one)
        return Decision(False, None)

    def decide_whole(self, scope: Scope, verb: Verb, prefix: bytes) -> Decision:
        """Tell whether a verb is allowed on every key that begins with a prefix. O(rules).

        The rule is the one that covers the prefix, or a denial below it.
        """
        naming = self.naming(scope, verb)
        for one in naming:
            if one.rule.deny and one.rule.pattern.startswith(prefix):
                return Decision(False, one)
        for one in naming:
            if one.rule.beginning and prefix.startswith(one.rule.pattern):
                return Decision(not one.rule.deny, one)
        return Decision(False, None)

    def lines(self) -> list[str]:
        """Return the rules as text, in the order of decision."""
        return [
            *sorted(power.value for power in self.powers),
            *(str(o.rule) for o in self.in_order),
        ]


def _rank(one: Sourced) -> tuple[int, bool, bool, bytes, str, str]:
    rule = one.rule
    return (
        -len(rule.pattern), rule.beginning, not rule.deny,
        # What follows decides nothing; it makes the order the same everywhere.
        rule.pattern, str(rule), one.policy or "",
    )  # fmt: skip
