"""Everything that a request can raise, grouped by what is known of the request.

Each message is one sentence or two, for people.
"""

from __future__ import annotations

from typing import Any


class KeyrackError(Exception):
    """What this client raises when a request did not succeed."""


ClientError = KeyrackError
"""The name that it had before."""


# The request has no answer


class Unreachable(KeyrackError):
    """Raised when the request was not sent as a whole, so that nothing was done."""


class Ambiguous(KeyrackError):
    """Raised when the request was sent and no whole answer came: a write may be done or not.

    `retry_safe` tells whether sending it again means the same as sending it once.
    """

    def __init__(self, detail: str, *, retry_safe: bool = False) -> None:
        super().__init__(detail)
        self.retry_safe = retry_safe


class Timeout(KeyrackError, TimeoutError):
    """Raised when the time for a call was over. It may be an `Unreachable` or `Ambiguous` too."""


class UnreachableTimeout(Unreachable, Timeout):
    """Raised when the time was over before the request was sent."""


class AmbiguousTimeout(Ambiguous, Timeout):
    """Raised when the time was over before the answer came."""


class ProtocolError(KeyrackError):
    """Raised when what came is not an answer of a Keyrack server."""


class LockLost(KeyrackError):
    """Raised when a lock was not held any more for as long as it was needed."""


# The request was refused


class Refused(KeyrackError):
    """Raised when the server refused the request, so that nothing was done.

    `status` is HTTP's; `kind` is the last part of the problem's type, empty if it has none;
    `members` are the problem's other members.
    """

    def __init__(
        self, status: int, detail: str, kind: str = "", members: dict[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.members = members or {}


class NotFound(Refused):
    """Raised when there is nothing of that name, where that is no ordinary answer."""


class Conflict(Refused):
    """Raised when a condition does not hold. `etag` is the key's present one, None: missing."""

    etag: str | None = None


class BatchRefused(Refused):
    """Raised when an operation of a batch was refused, so that none was done.

    `index` counts from 0; `reason` is `condition`, `missing`, `number` or `overflow`.
    """

    @property
    def index(self) -> int:
        """Which operation it was."""
        return int(self.members.get("operation", -1))

    @property
    def reason(self) -> str:
        """Why it was refused."""
        return str(self.members.get("reason", ""))


class LockHeld(Refused):
    """Raised when somebody else holds a lock: `owner`, for another `ttl` seconds."""

    @property
    def owner(self) -> str:
        """Who holds it."""
        return str(self.members.get("owner", ""))

    @property
    def ttl(self) -> float:
        """For how many seconds yet."""
        return float(self.members.get("ttl", 0.0))


class LockRequired(Refused):
    """Raised when a fence lets only who holds a `lock` write a key: give `lock=` with the write."""

    @property
    def lock(self) -> str:
        """The name of the lock."""
        return str(self.members.get("lock", ""))


class Unauthenticated(Refused):
    """Raised when the server wants a token, or does not take this one."""


class Forbidden(Refused):
    """Raised when the token does not allow it."""

    @property
    def verb(self) -> str:
        """The right that is missing."""
        return str(self.members.get("verb", ""))

    @property
    def rule(self) -> str | None:
        """The rule that decided, None when no rule allows it."""
        rule = self.members.get("rule")
        return None if rule is None else str(rule)


class TooLarge(Refused):
    """Raised when a body or value is beyond the server's limit."""

    @property
    def limit(self) -> int | None:
        """The limit in bytes, None when it was not told."""
        limit = self.members.get("limit")
        return limit if isinstance(limit, int) else None


class StoreFull(Refused):
    """Raised when there is no room for a write."""


class HistoryGone(Refused):
    """Raised when events are not kept back to a position: list the keys, then watch from there."""

    @property
    def oldest(self) -> str:
        """The oldest position that is still known, empty when it was not told."""
        return str(self.members.get("oldest", ""))

    @property
    def newest(self) -> str:
        """The newest position, empty when it was not told."""
        return str(self.members.get("newest", ""))


class RetryLater(Refused):
    """What `RateLimited` and `Unavailable` have in common: `retry_after` seconds."""

    retry_after: float | None = None


class RateLimited(RetryLater):
    """Raised when requests come too fast for their token. Nothing was done."""


class Unavailable(RetryLater):
    """Raised when the server cannot serve now. A write may have been done."""
