"""The store's time and revisions, as far as this process knows them.

Time is Valkey's: its functions read its clock. What is known here is an estimate, for telling and
not for judging, and no setting of this machine's clock moves it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Record

Clock: TypeAlias = "Callable[[], int]"

_LONGEST_CERTAIN: Final = 3000
"""For how long (ms) what a server's clock showed is counted on: it is asked every second."""


class StoreClock:
    """The server's clock, and the highest revision that was seen in any shard.

    `given` (ms) is for tests, which move time themselves: it is sent along with each call then.
    """

    def __init__(self, given: Clock | None = None) -> None:
        self._given = given
        self._offset = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000
        """The server's clock minus our steady one (ms): a guess until the first reply."""
        self._most_offset: int | None = None
        """What it is at most, by a question that was timed; None where that is not known."""
        self._timed_at = 0
        self.highest = 0

    def now(self) -> int:
        """Return the store's clock in ms."""
        if self._given is not None:
            return self._given()
        return self.steady() + self._offset

    def steady(self) -> int:
        """Return this machine's steady clock in ms."""
        return time.monotonic_ns() // 1_000_000

    def learn(self, server_ms: int, asked: int | None = None) -> None:
        """Take note of what the server's clock shows; `asked` is when, on the steady clock."""
        now = self.steady()
        self._offset = server_ms - now
        if asked is not None:
            self._most_offset, self._timed_at = server_ms + 1 - asked, now

    def forget_bounds(self) -> None:
        """Forget what is known for certain: it may be another server's clock from now on."""
        self._most_offset = None

    def is_over(self, end: int) -> bool | None:
        """Tell whether a time (ms) is over on the server, None where only that one knows."""
        if self._given is not None:
            return end <= self._given()
        now = self.steady()
        if self._most_offset is None or now - self._timed_at > _LONGEST_CERTAIN:
            return None
        if now + self._most_offset + 1 < end:
            return False
        return True if now + self._offset - 1 >= end else None

    def saw(self, revision: int) -> None:
        """Take note of a revision: what is done from now on is to have a greater one."""
        if revision > self.highest:
            self.highest = revision

    def argument(self) -> bytes:
        """Return the time as functions take it; empty for the server's own."""
        return b"" if self._given is None else b"%d" % self._given()

    def about_now(self) -> int:
        """Return a revision of about now that is no less than any that was seen."""
        return max(self.highest, self.now() * 1000 if self._given is None else 0)

    def unless_gone(self, record: Record) -> Record | None:
        """Return a record that is not gone; a server with its own clock sends no other."""
        end = record.stale_until or record.expires_at
        return None if self._given is not None and 0 < end <= self._given() else record
