"""The audit trail: who has done what, and who was refused what, and by which rule.

Lines go to the log under `keyrack.audit`. They name keys, and never values or secrets. Refusals of
one sender are bounded: ten lines a second, and then the next one says how many were left out.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from keyrack.engines.contract import Add, Delete, Discard, Set, Space, Touch
from keyrack.http.access_log import shown_query
from keyrack.http.trace_context import trace_of

if TYPE_CHECKING:
    from keyrack.http.protocol.request import Request

LEVELS: Final = ("none", "admin", "denied", "writes", "all")
"""Each has what those before it have."""
_ADMIN: Final = LEVELS.index("admin")
_DENIED: Final = LEVELS.index("denied")
_WRITES: Final = LEVELS.index("writes")
_ALL: Final = LEVELS.index("all")
_REFUSED: Final = frozenset((401, 403))
_OF_ADMIN: Final = frozenset(
    ("snapshot", "auth_tokens_list", "auth_token_show", "slow_clear", "clients_list", "client_end")
)
"""What only an administrator may do and is told of, besides changes of who may do what."""
_KEYS_IN_BODY: Final = frozenset(("set", "batch", "upstash"))
"""Routes whose paths do not name the keys."""
_MOST_KEYS: Final = 100
"""Keys of a batch that are named; of more their number is told."""
_MOST_REFUSALS: Final = 10
_MOST_SENDERS: Final = 10_000

_log = logging.getLogger("keyrack.audit")


class AuditTrail:
    """Writes lines about requests, at a level of `LEVELS`."""

    def __init__(self, level: str) -> None:
        self._level = LEVELS.index(level)
        self._refusals: dict[str, tuple[int, int]] = {}
        """For each sender the second of the last refusal, and how many there were in it."""

    @property
    def sees_all_requests(self) -> bool:
        """Whether the most frequent requests are told of, too, which they pay for."""
        return self._level >= _WRITES

    def note(self, request: Request, name: str, writes: bool, status: int, peer: str) -> None:
        """Tell of a request that was answered, if its kind is told of."""
        suppressed = 0
        if status in _REFUSED:
            if self._level < _DENIED:
                return
            bounded = self._bounded(request.grant.identity.key)
            if bounded is None:
                return
            suppressed = bounded
        elif not self._wants(name, writes):
            return
        _log.info(
            "%s %d", name, status,
            extra=_members(request, name, writes, status, peer, suppressed),
        )  # fmt: skip

    def _wants(self, name: str, writes: bool) -> bool:
        if self._level >= _ALL or (self._level >= _WRITES and writes):
            return True
        administers = name in _OF_ADMIN or (name.startswith("auth_") and writes)
        return self._level >= _ADMIN and administers and name != "auth_check"

    def _bounded(self, sender: str) -> int | None:
        """Return how many refusals were left out before this one; None to leave it out, too."""
        now = int(time.monotonic())
        second, count = self._refusals.pop(sender, (now, 0))
        if len(self._refusals) >= _MOST_SENDERS:
            del self._refusals[next(iter(self._refusals))]
        if second != now:
            self._refusals[sender] = (now, 1)
            return max(0, count - _MOST_REFUSALS)
        self._refusals[sender] = (second, count + 1)
        return 0 if count < _MOST_REFUSALS else None


def _members(
    request: Request, name: str, writes: bool, status: int, peer: str, suppressed: int
) -> dict[str, Any]:
    identity, refusal = request.grant.identity, request.refusal
    # Of a token that does not count, the id that was shown is told all the same.
    shown = None if refusal is None else refusal.members.get("token")
    members: dict[str, Any] = {
        "event": "audit",
        "operation": name,
        "outcome": status,
        "token": identity.id or shown,
        "identity": f"{identity.source} {identity.name}",
        "peer": peer,
        "path": request.path.decode("latin-1"),
    }
    if request.query:
        members["query"] = shown_query(request.query)
    if name in _KEYS_IN_BODY:
        members |= _keys(request)
    if request.made is not None:
        members["made"] = request.made
    if writes and request.revision:
        members["revision"] = str(request.revision)
    if refusal is not None:
        members["rule"] = refusal.members.get("rule")
        members["detail"] = refusal.detail
    for field, value in request.head.fields:
        if field == b"x-request-id":
            members["request"] = value[:256].decode("latin-1")
    if (trace := trace_of(request.head.fields)) is not None:
        members["trace_id"] = trace.trace_id
    if suppressed:
        members["suppressed"] = suppressed
    return members


def _keys(request: Request) -> dict[str, Any]:
    """Return the keys and locks that a write was to change, as far as they can all be named."""
    keys: list[str] = []
    locks: list[str] = []
    for operation in request.write:
        if isinstance(operation, Set | Delete | Add | Touch | Discard):
            is_lock = not isinstance(operation, Add | Discard) and operation.space is Space.LOCKS
            (locks if is_lock else keys).append(operation.key.decode("utf-8", "backslashreplace"))
    members: dict[str, Any] = {}
    for name, found in (("keys", keys), ("locks", locks)):
        if found:
            members[name] = found[:_MOST_KEYS]
        if len(found) > _MOST_KEYS:
            members[f"{name}_more"] = len(found) - _MOST_KEYS
    return members
