"""Walking over the records in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.engines import record as wire
from keyrack.engines.contract import Space

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.contract import Record
    from keyrack.engines.embedded.database import Cursor
    from keyrack.engines.embedded.pieces import Pieces

_MOST_STEPS: Final = 5_000
"""Records that a page may pass over (ended ones, not yet removed) before it ends early."""


class Scan:
    """A walk over the records, with a cursor of theirs."""

    def __init__(
        self,
        cursor: Cursor,
        pieces: Pieces,
        prefix: bytes,
        after: bytes | None,
        reverse: bool,
        delimiter: bytes,
        now: int,
        space: Space = Space.KEYS,
    ) -> None:
        self._cursor = cursor
        self._pieces = pieces
        self._prefix = prefix
        self._reverse = reverse
        self._delimiter = delimiter
        self._now = now
        self._space = space
        self._stopped_at: bytes | None = None
        self._found = self._seek_before(after) if reverse else self._seek_after(after)

    def _seek_after(self, after: bytes | None) -> bool:
        if after is None or after < self._prefix:
            return self._cursor.set_range(self._prefix) if self._prefix else self._cursor.first()
        if self._folder(after) == after:
            # It may be a folder, all of whose keys have been told with it.
            behind = successor(after)
            return behind is not None and self._cursor.set_range(behind)
        return self._cursor.set_range(after + b"\0") if len(after) < 511 else self._step_over(after)

    def _step_over(self, key: bytes) -> bool:
        found = self._cursor.set_range(key)
        return self._cursor.next() if found and self._cursor.key() == key else found

    def _seek_before(self, after: bytes | None) -> bool:
        end = successor(self._prefix)
        bound = after if after is not None and (end is None or after < end) else end
        if bound is None:
            return self._cursor.last()
        if self._cursor.set_range(bound):
            return self._cursor.prev()
        return self._cursor.last()

    def page(
        self, limit: int, most_bytes: int
    ) -> tuple[list[tuple[bytes, Record]], list[bytes], bytes | None]:
        """Return entries, folders, and the key or folder to go on after, None at the end.

        The values have `most_bytes` together, and those of one more.
        """
        entries: list[tuple[bytes, Record]] = []
        folders: list[bytes] = []
        size = steps = 0
        last: bytes | None = None
        while self._found:
            key = self._cursor.key()
            if not key.startswith(self._prefix):
                return entries, folders, None
            if len(entries) + len(folders) >= limit or size > most_bytes or steps > _MOST_STEPS:
                return entries, folders, last
            steps += 1
            raw = self._cursor.value()
            if wire.has_ttl(raw) and wire.expires_at(raw) <= self._now:
                last = key
                self._found = self._next()
                continue
            folder = self._folder(key)
            if folder is not None:
                folders.append(folder)
                last = folder
                self._found = self._leave(folder)
                continue
            record = self._pieces.record(self._space, raw)
            entries.append((key, record))
            size += len(record.value)
            last = key
            self._found = self._next()
        return entries, folders, None

    def count(self, steps: int) -> tuple[int, bytes | None]:
        """Return the number of keys found in so many steps, and the key to go on after, if any."""
        now = self._now
        number = 0
        for _, raw in self._walk(steps):
            number += not (wire.has_ttl(raw) and wire.expires_at(raw) <= now)
        return number, self._stopped_at

    def sizes(self, steps: int) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return the keys found in so many steps, with the bytes of each and its record."""
        found = [
            (key, len(key) + wire.size(raw))
            for key, raw in self._walk(steps)
            if not (wire.has_ttl(raw) and wire.expires_at(raw) <= self._now)
        ]
        return found, self._stopped_at

    def stale_copies(self, limit: int) -> tuple[list[bytes], bytes | None]:
        """Return keys of which only a stale copy is left, and the one to go on after, if any."""
        found: list[bytes] = []
        for key, raw in self._walk(_MOST_STEPS):
            if wire.keeps_copy(raw) and wire.expires_at(raw) <= self._now:
                found.append(key)
                if len(found) == limit:
                    return found, key
        return found, self._stopped_at

    def _walk(self, steps: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and records, ended ones too; note where it stopped, None at the end of all."""
        key = b""
        self._stopped_at = None
        for _ in range(steps):
            if not self._found:
                return
            key = self._cursor.key()
            if not key.startswith(self._prefix):
                return
            yield key, self._cursor.value()
            self._found = self._next()
        self._stopped_at = key

    def _next(self) -> bool:
        return self._cursor.prev() if self._reverse else self._cursor.next()

    def _folder(self, key: bytes) -> bytes | None:
        if not self._delimiter:
            return None
        at = key.find(self._delimiter, len(self._prefix))
        return None if at < 0 else key[: at + len(self._delimiter)]

    def _leave(self, folder: bytes) -> bool:
        """Go to the first key that is not in a folder: one step, however much is in it."""
        if self._reverse:
            self._cursor.set_range(folder)
            return self._cursor.prev()
        behind = successor(folder)
        return behind is not None and self._cursor.set_range(behind)


def successor(prefix: bytes) -> bytes | None:
    """Return the least key that is greater than all that begin with `prefix`, None if none is."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))
