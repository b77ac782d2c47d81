"""Reads of records: of one, of many, of parts, and in pages, each as of one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.engines import record as wire
from keyrack.engines.contract import Page, Space
from keyrack.engines.embedded.pieces import Pieces, record_of_key
from keyrack.engines.embedded.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.engines.contract import Part, Record, Span
    from keyrack.engines.embedded.database import Database, ReadTransaction
    from keyrack.engines.embedded.eviction.frequency import AccessFrequency


class StoreReads:
    """What reads records in one process. Where keys are evicted `frequency` counts what is read."""

    def __init__(self, database: Database, frequency: AccessFrequency | None) -> None:
        self._database = database
        self._frequency = frequency
        self._lookup = database.lookup
        self.get: Callable[[bytes], Record | None] = self._get
        """Returns a key's record, None when it is missing or its time is over."""
        if frequency is not None:
            # A function around the other, so that who rejects pays nothing for it.
            self.get = frequency.counting(self._get)

    def _get(self, key: bytes) -> Record | None:
        txn = self._lookup()
        raw = txn.get(key)
        txn.abort()
        if raw is None:
            return None
        try:
            record = wire.unpack(raw)
        except wire.Elsewhere:
            return self._long(key, raw)
        if record.expires_at and record.expires_at <= self._database.now():
            return None
        return record

    def _long(self, key: bytes, raw: bytes) -> Record | None:
        """Return a key's record, whose value is in pieces; `raw` is what was found of it."""
        head, size = wire.unpack_long(raw)
        if head.expires_at and head.expires_at <= self._database.now():
            return None
        # In a transaction of their own: the pieces of a revision never change, they only go.
        return record_of_key(self._database, head, size) or self.record_of(key, Space.KEYS)

    def record_of(self, key: bytes, space: Space) -> Record | None:
        """Return a record of a space, whose value may be in pieces."""
        with self._database.read() as txn:
            raw = self._live(txn, key, space)
            return None if raw is None else Pieces(txn).record(space, raw)

    def get_stale(self, key: bytes) -> Record | None:
        """Return a record, be it over, as long as a stale copy of it is kept."""
        now = self._database.now()
        with self._database.read() as txn:
            raw = txn.get(key, self._database.spaces[Space.KEYS])
            if raw is None or 0 < max(wire.ends(raw)[:2]) <= now:
                return None
            record = Pieces(txn).record(Space.KEYS, raw)
        if self._frequency is not None:
            self._frequency.record_access(key)
        return record

    def stale_copies(
        self, prefix: bytes, after: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return keys under a prefix of which there is only a stale copy, and where to go on."""
        database = self._database
        with database.read() as txn, txn.cursor(database.spaces[Space.KEYS]) as cursor:
            scan = Scan(cursor, Pieces(txn), prefix, after, False, b"", database.now())
            return scan.stale_copies(limit)

    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return what `get` returns for each key."""
        with self._database.read() as txn:
            pieces = Pieces(txn)
            raws = [self._live(txn, key) for key in keys]
            found = [None if raw is None else pieces.record(Space.KEYS, raw) for raw in raws]
        if self._frequency is not None:
            for key in keys:
                self._frequency.record_access(key)
        return found

    def get_part(self, key: bytes, span: Span) -> Part | None:
        """Return a part of a value, None when the key is missing. Costs what the part costs."""
        with self._database.read() as txn:
            raw = self._live(txn, key)
            found = None if raw is None else Pieces(txn).part(Space.KEYS, raw, span)
        if found is not None and self._frequency is not None:
            self._frequency.record_access(key)
        return found

    def sizes_of(self, keys: Sequence[bytes]) -> list[int]:
        """Return about how many bytes the record of each key has, 0 where there is none."""
        with self._database.read() as txn:
            raws = [self._live(txn, key) for key in keys]
        return [0 if raw is None else wire.size(raw) for raw in raws]

    def _live(self, txn: ReadTransaction, key: bytes, space: Space = Space.KEYS) -> bytes | None:
        raw = txn.get(key, self._database.spaces[space])
        return None if raw is None or 0 < wire.expires_at(raw) <= self._database.now() else raw

    def all_of(self, space: Space) -> dict[bytes, bytes]:
        """Return the values of a space of short ones, by their keys."""
        with self._database.read() as txn, txn.cursor(self._database.spaces[space]) as cursor:
            return {key: wire.unpack(raw).value for key, raw in cursor}

    def page(
        self,
        space: Space,
        prefix: bytes,
        after: bytes | None,
        limit: int,
        reverse: bool,
        delimiter: bytes,
        most_bytes: int,
    ) -> Page:
        """Return a page of a space, in order of the keys' bytes."""
        database = self._database
        with database.read() as txn, txn.cursor(database.spaces[space]) as cursor:
            now = database.now()
            scan = Scan(cursor, Pieces(txn), prefix, after, reverse, delimiter, now, space)
            entries, folders, following = scan.page(limit, most_bytes)
            return Page(entries, folders, following, txn.state()[0])

    def count(self, prefix: bytes, after: bytes | None, steps: int) -> tuple[int, bytes | None]:
        """Count keys in at most `steps` steps; return the number and where to go on, if at all."""
        database = self._database
        with database.read() as txn, txn.cursor(database.spaces[Space.KEYS]) as cursor:
            return Scan(cursor, Pieces(txn), prefix, after, False, b"", database.now()).count(steps)

    def sizes(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return keys in order with about how many bytes each takes, and where to go on."""
        database = self._database
        with database.read() as txn, txn.cursor(database.spaces[Space.KEYS]) as cursor:
            return Scan(cursor, Pieces(txn), prefix, after, False, b"", database.now()).sizes(steps)
