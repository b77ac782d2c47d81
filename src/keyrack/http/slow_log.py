"""The slow log: requests that took long, and what they have waited for.

No request is timed for it. The turns of the event loop and the commits are measured in any case,
and each is compared with the limit once; only what is over it comes here. A turn that was slow is
told of as such where nothing in it was found to be the cause.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import msgspec

from keyrack.engines.contract import Refusal, Remember, Set
from keyrack.http.api.codec import pairs
from keyrack.http.api.models import SlowRequest
from keyrack.http.tick import NEVER
from keyrack.shared.counters import SLOW
from keyrack.shared.slow_ring import ENTRIES, TEXT_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyrack.engines.contract import Operation, Outcome, Write
    from keyrack.http.protocol.request import Request
    from keyrack.shared.counters import Counters

_MOST_OF_A_COMMIT: Final = 8
"""Writes of one commit that are told of: all have waited for the same."""
_LONGEST_KEY: Final = 160
"""Characters of a key that are kept: longer ones are cut, and end with an ellipsis."""
_WORTH_TELLING_NS: Final = 500_000


class _Entry(SlowRequest, omit_defaults=True):
    """The same, as short as can be."""


class SlowLog:
    """A worker's part in it. `slow_ns` is how long a request may take, `large` how many bytes an
    answer may have, before it is told of. `paths` are those of the operations, with `{key}`.
    """

    def __init__(
        self,
        counters: Counters,
        slot: int,
        slow_ns: int = NEVER,
        large: int = NEVER,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        self._paths = paths or {}
        self._ring = counters.slow_ring
        self._words = counters.slot(slot)
        self._slot = slot
        self._number = self._words[SLOW]
        """That of the next entry."""
        self.slow_ns = slow_ns
        self.large = large
        self._told = 0
        """When something was last told of, in ns of the monotonic clock."""
        self._lock_waits: list[tuple[int, int]] = []
        """When a wait for the write lock ended (monotonic, ns), and how long it took."""
        self._syncs: list[tuple[int, int]] = []

    # What is waited for

    def lock_waited(self, nanoseconds: int) -> None:
        """Learn how long a commit has waited for the write lock."""
        if nanoseconds > _WORTH_TELLING_NS:
            _note(self._lock_waits, nanoseconds)

    def synced(self, nanoseconds: int) -> None:
        """Learn how long a sync of the disk took. Any thread may call it."""
        if nanoseconds > _WORTH_TELLING_NS:
            _note(self._syncs, nanoseconds)

    # What was slow

    def turn(self, began: int, took: int, reads: int, writes: int) -> None:
        """Tell of a slow turn, unless what made it slow was told of."""
        if self._told < began:
            self._add(_Entry(operation="turn", ms=took / 1e6, reads=reads, writes=writes))

    def commit(
        self, writes: Sequence[Write], outcomes: Sequence[Outcome], began: int, took: int
    ) -> None:
        """Tell of writes that shared a slow commit."""
        lock, disk = _within(self._lock_waits, began), _within(self._syncs, began)
        # A line of an import that could not be read is a write of nothing.
        done = [pair for pair in zip(writes, outcomes, strict=False) if pair[0]]
        told = done[:_MOST_OF_A_COMMIT]
        self._words[SLOW] += len(done) - len(told)
        for write, outcome in told:
            # What an Idempotency-Key is remembered by means nothing to people.
            asked = [one for one in write if not isinstance(one, Remember)] or write
            first = asked[0]
            self._add(
                _Entry(
                    operation=type(first).__name__.lower() if len(asked) == 1 else "batch",
                    key=_shown(first.key),
                    refusal=outcome.why.value if isinstance(outcome, Refusal) else None,
                    ms=took / 1e6,
                    lock_ms=lock / 1e6,
                    disk_ms=disk / 1e6,
                    bytes=sum(map(_size, write)),
                    together=len(writes),
                )
            )

    def request(self, name: str, request: Request, status: int, took: int, size: int) -> None:
        """Tell of a request whose answer took long, or is large."""
        self._add(
            _Entry(
                operation=name,
                key=_subject(self._paths.get(name, ""), request),
                status=status,
                ms=took / 1e6,
                token=request.grant.identity.id,
                bytes=size,
            )
        )

    def read(self, name: str, key: bytes, took: int, size: int | None) -> None:
        """Tell of a read of the most frequent kind, of which no more than its key is known."""
        self._add(_Entry(operation=name, key=_shown(key), ms=took / 1e6, bytes=size))

    def _add(self, entry: _Entry) -> None:
        entry.time = time.time_ns()
        entry.worker = self._slot
        self._told = time.monotonic_ns()
        self._words[SLOW] += 1
        text = msgspec.json.encode(entry)
        if len(text) > TEXT_BYTES:
            entry.key = None
            text = msgspec.json.encode(entry)
        self._ring.add(self._slot, self._number, text)
        self._number += 1

    # What is told

    def entries(self, limit: int) -> list[SlowRequest]:
        """Return the last entries of all workers, the newest first."""
        cleared = self._ring.cleared
        found = [msgspec.json.decode(text, type=SlowRequest) for text in self._ring.texts()]
        found = [one for one in found if one.time > cleared]
        return sorted(found, key=lambda one: -one.time)[:limit]

    def clear(self) -> None:
        """Remove all entries."""
        self._ring.clear(time.time_ns())


def _note(waits: list[tuple[int, int]], nanoseconds: int) -> None:
    waits.append((time.monotonic_ns(), nanoseconds))
    if len(waits) > ENTRIES:
        del waits[:-1]


def _within(waits: list[tuple[int, int]], began: int) -> int:
    """Return how long was waited since `began`, and forget it and all before."""
    found = sum(took for ended, took in waits if ended >= began)
    waits.clear()
    return found


def _subject(template: str, request: Request) -> str | None:
    """Return the key that a request is about, or the prefix; None where it is about neither."""
    beginning, brace, end = template.partition("{key}")
    if brace:
        path = request.path[len(beginning) : len(request.path) - len(end)]
        return _shown(unquote_to_bytes(path))
    prefix = dict(pairs(request.query)).get(b"prefix")
    return None if prefix is None else _shown(prefix)


def _size(operation: Operation) -> int:
    return len(operation.value) if isinstance(operation, Set) else 0


def _shown(key: bytes) -> str:
    return _cut(key.decode("utf-8", "backslashreplace"))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_KEY else text[:_LONGEST_KEY] + "\u2026"
