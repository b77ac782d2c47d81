"""The locks that a write depends on: `Keyrack-Lock: "jobs"; token=1795474670195050`.

Each is checked in the same commit as the write, whether a fence demands it or not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from keyrack.access.rules import Scope, Verb
from keyrack.engines.contract import Check, Condition, Refusal, Remember, Space, Why
from keyrack.http.api import codec, rights
from keyrack.http.problems import Problem
from keyrack.http.reply import PendingWrite

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from keyrack.engines.contract import Outcome, Write
    from keyrack.http.answer import Answer
    from keyrack.http.protocol.request import Request

_LOCK: Final = re.compile(
    rb'[ \t]*"([!#-\[\]-~]{1,2000})"[ \t]*;[ \t]*'
    rb'token=(?:"([0-9]{1,19})"|([0-9]{1,19}))[ \t]*(?:,|\Z)'
)
_MOST: Final = 16
"""Locks that one write may name."""


class NamedLocks:
    """What a request says in Keyrack-Lock."""

    __slots__ = ("_checks",)

    def __init__(self, checks: tuple[Check, ...] = ()) -> None:
        self._checks = checks

    @classmethod
    def of(cls, request: Request) -> NamedLocks:
        """Read it. Raises `Problem` where it is malformed, or the sender may not know of a lock."""
        return cls(tuple(_checks(request))) if request.head.locks else NO_LOCKS

    def __bool__(self) -> bool:
        """Tell whether any lock is named."""
        return bool(self._checks)

    @property
    def names(self) -> frozenset[bytes]:
        """The names of the locks."""
        return frozenset(one.key for one in self._checks)

    def over(self, write: Write) -> Write:
        """Return a write that is done only while the locks are held."""
        if not self._checks:
            return write
        if isinstance(write[0], Remember):
            return (write[0], *self._checks, *write[1:])
        return (*self._checks, *write)

    def outcome(self, outcome: Outcome) -> Outcome:
        """Return the outcome of the write alone. Raises `Problem` where a lock was not held."""
        if not isinstance(outcome, Refusal):
            return outcome[len(self._checks) :]
        return self.refusal(outcome)

    def refusal(self, outcome: Refusal) -> Refusal:
        """Return the refusal of the write alone. Raises `Problem` where a lock was not held."""
        number = len(self._checks)
        if outcome.why is Why.CONDITION and outcome.index < number:
            raise lost(self._checks[outcome.index].key)
        return msgspec.structs.replace(outcome, index=max(0, outcome.index - number))


NO_LOCKS: Final = NamedLocks()
"""Of a request that names none."""


def under_locks(request: Request, pending: PendingWrite) -> PendingWrite:
    """Return a pending write that is done only while the locks are held that a request names."""
    locks = NamedLocks.of(request)

    def conclude(outcome: Outcome) -> Answer | Coroutine[Any, Any, Answer]:
        return pending.conclude(locks.outcome(outcome))

    return PendingWrite(locks.over(pending.write), conclude)


def lost(lock: bytes) -> Problem:
    """Return the problem of a lock that is not held with the token that was named."""
    name = lock.decode("utf-8", "replace")
    return Problem(
        "lock-lost",
        f"The lock {name!r} is not held with this token any more. Nothing was done.",
        lock=name,
    )


def _checks(request: Request) -> list[Check]:
    text, position = request.head.locks, 0
    checks: dict[bytes, Check] = {}
    while position < len(text):
        found = _LOCK.match(text, position)
        if found is None or len(checks) == _MOST:
            raise Problem(
                "bad-parameter",
                f"Keyrack-Lock names up to {_MOST} locks, separated by commas, each like "
                '"jobs"; token=1795474670195050. Names are percent-encoded as in a path.',
            )
        name = codec.key_of(found[1])
        rights.require(request, Scope.LOCKS, Verb.READ, name)
        token = int(found[2] or found[3])
        checks[name] = Check(name, Condition(match=frozenset((token,))), Space.LOCKS)
        position = found.end()
    return list(checks.values())
