"""When a request is sent again, and after how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from keyrack.client import chance
from keyrack.client.errors import Ambiguous, KeyrackError, RateLimited, Unavailable, Unreachable

if TYPE_CHECKING:
    from keyrack.client.calls import ApiCall

_FIRST_DELAY_SECONDS: Final = 0.05
_LONGEST_DELAY_SECONDS: Final = 5.0

TRY_AGAIN: Final = frozenset((429, 503))
"""Statuses of answers that ask for another try."""


class Retry:
    """The tries of one call. `deadline` is on the monotonic clock."""

    __slots__ = ("_call", "_left", "deadline", "made")

    def __init__(self, call: ApiCall[object], retries: int, deadline: float) -> None:
        self._call = call
        self._left = retries
        self.deadline = deadline
        self.made = 0

    @property
    def seconds(self) -> float:
        """What is left until the deadline."""
        return self.deadline - time.monotonic()

    def delay(self, failure: KeyrackError) -> float:
        """Return after how many seconds to try again; raise the failure when it is the last one."""
        if not self._may_repeat(failure) or self.made >= self._left:
            raise failure
        # Full jitter: clients that failed together do not come back together.
        longest = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2**self.made)
        delay = chance.uniform(0, longest)
        if isinstance(failure, RateLimited | Unavailable):
            delay += failure.retry_after or 0.0
        if time.monotonic() + delay >= self.deadline:
            raise failure
        self.made += 1
        return delay

    def _may_repeat(self, failure: KeyrackError) -> bool:
        if isinstance(failure, Unreachable | RateLimited):
            return True
        # A 503 can mean that the store did not answer in time, and did the write after all.
        return self._call.repeatable and isinstance(failure, Ambiguous | Unavailable)
