"""The store's time and revisions, as far as this process knows them.

Time is Valkey's: its functions read its clock. What is known here is an estimate, for telling and
not for judging, and no setting of this machine's clock moves it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Record

Clock: TypeAlias = "Callable[[], int]"


class StoreClock:
    """The server's clock, and the highest revision that was seen in any shard.

    `given` (ms) is for tests, which move time themselves: it is sent along with each call then.
    """

    def __init__(self, given: Clock | None = None) -> None:
        self._given = given
        self._offset = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000
        """The server's clock minus our steady one (ms): a guess until the first reply."""
        self.highest = 0

    def now(self) -> int:
        """Return the store's clock in ms."""
        if self._given is not None:
            return self._given()
        return time.monotonic_ns() // 1_000_000 + self._offset

    def learn(self, server_ms: int) -> None:
        """Take note of what the server's clock shows."""
        self._offset = server_ms - time.monotonic_ns() // 1_000_000

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

    def unless_over(self, record: Record) -> Record | None:
        """Return a record if its time is not over; a server with its own clock sends no other."""
        if self._given is not None and 0 < record.expires_at <= self._given():
            return None
        return record
