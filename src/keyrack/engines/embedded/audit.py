"""The store's audit of itself: what must hold between records, expiry index and event log."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from keyrack.engines import record as wire
from keyrack.engines.contract import MAX_KEY_BYTES, Change, Space
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.commit import due_entry, due_number, read_due
from keyrack.engines.embedded.database import count_taken
from keyrack.engines.embedded.pieces import Pieces, piece_owner
from keyrack.engines.embedded.quotas import bytes_of, uses
from keyrack.engines.embedded.trash import all_undos, undo_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.contract import Record
    from keyrack.engines.embedded.database import ReadTransaction

_ENOUGH: Final = 20
_UNREADABLE: Final = (struct.error, IndexError, ValueError)
_MAKES: Final = {Space.KEYS: Change.SET, Space.LOCKS: Change.LOCK}
_SPACE_OF: Final = {
    change: Space.LOCKS if change in (Change.LOCK, Change.UNLOCK) else Space.KEYS
    for change in Change
}


class EmbeddedAudit:
    """One look at the whole store, as one transaction sees it."""

    def __init__(self, txn: ReadTransaction) -> None:
        database = txn.database
        self._txn = txn
        self._spaces = database.spaces
        self._expiry = database.expiry
        self._log = database.events
        self._pieces = Pieces(txn)
        self._long: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._revision, self._events, _ = txn.state()
        self._oldest = self._revision + 1
        self._latest: dict[tuple[Space, bytes], tuple[int, Change]] = {}
        self._seen: set[int] = set()
        self._copies = 0
        self._trashed: Counter[int] = Counter()

    def problems(self) -> list[str]:
        """Return what is wrong, the first twenty things at most."""
        return list(islice(self._problems(), _ENOUGH))

    def _problems(self) -> Iterator[str]:
        yield from self._log_problems()
        for space in Space:
            for key, raw in self._txn.cursor(self._spaces[space]):
                yield from self._record_problems(space, key, raw)
        for (_, key), (revision, change) in self._latest.items():
            if change in _MAKES.values():
                yield f"event {revision} set {key!r}, and there is no such record"
        yield from self._share_problems()
        yield from self._quota_problems()
        yield from self._trash_problems()
        yield from self._index_problems()
        yield from self._piece_problems()

    def _log_problems(self) -> Iterator[str]:
        counted = previous = 0
        for last, entry in self._txn.cursor(self._log):
            try:
                events = list(eventlog.unpack(last, entry))
            except _UNREADABLE:
                yield f"the entry {last!r} of the log cannot be read"
                continue
            for event in events:
                if event.revision <= previous:
                    yield f"event {event.revision} comes after event {previous}"
                previous = event.revision
                self._oldest = min(self._oldest, event.revision)
                made = event.revision, event.change
                self._latest[_SPACE_OF[event.change], event.key] = made
                counted += 1
        if counted != self._events:
            yield f"the log holds {counted} events and says {self._events}"
        if previous > self._revision:
            yield f"event {previous} is newer than the store's revision {self._revision}"

    def _record_problems(self, space: Space, key: bytes, raw: bytes) -> Iterator[str]:
        try:
            record = self._record(space, key, raw)
        except _UNREADABLE:
            yield f"the record of {key!r} cannot be read"
            return
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            yield f"the key {key!r} has {len(key)} bytes"
        if record.expires_at:
            number = due_number(key, record.revision, space)
            due = wire.due_at(raw)
            if self._txn.get(due_entry(due, number, space), self._expiry) != key:
                yield f"{key!r} ends at {due}, and the expiry index does not know"
        if space is Space.TRASH:
            self._trashed[undo_number(key)] += 1
        if space not in _MAKES:
            return
        if record.revision > self._revision:
            yield f"{key!r} has revision {record.revision}, newer than the store"
        if record.revision in self._seen:
            yield f"revision {record.revision} was given twice"
        self._seen.add(record.revision)
        if wire.is_copy(raw):
            yield from self._copy_problems(key)
            return
        event = self._latest.pop((space, key), None)
        if record.revision >= self._oldest and event != (record.revision, _MAKES[space]):
            yield f"{key!r} has revision {record.revision}, and its last event is {event}"

    def _copy_problems(self, key: bytes) -> Iterator[str]:
        self._copies += 1
        event = self._latest.pop((Space.KEYS, key), None)
        if event is not None and event[1] is not Change.EXPIRE:
            yield f"{key!r} is a stale copy, and its last event is {event}"

    def _record(self, space: Space, key: bytes, raw: bytes) -> Record:
        if not wire.is_long(raw):
            return wire.unpack(raw)
        record, size = wire.unpack_long(raw)
        self._long[piece_owner(space, record.revision)] = size, key
        return record

    def _piece_problems(self) -> Iterator[str]:
        for part, number, length in self._pieces.numbers():
            size, key = self._long.pop((part, number), (0, b""))
            if size != length:
                yield f"the pieces of {number} have {length} bytes, and {key!r} says {size}"
        for (_, number), (size, key) in self._long.items():
            yield f"{key!r} says that {size} bytes are in the pieces of {number}; there are none"

    def _trash_problems(self) -> Iterator[str]:
        for undo in all_undos(self._txn):
            found = self._trashed.pop(undo.number, 0)
            if found != undo.left:
                yield f"{found} records of the undo {undo.number} are kept, and it says {undo.left}"
        for number, found in self._trashed.items():
            yield f"{found} records are kept for the undo {number}, and there is no such undo"

    def _share_problems(self) -> Iterator[str]:
        for space in (Space.LOCKS, Space.ANSWERS, Space.TRASH):
            tree = self._spaces[space]
            found, said = count_taken(self._txn, tree), self._txn.taken(tree)
            if found != said:
                yield f"records of {space.name} take {found} bytes, and the store says {said}"

        if self._copies != self._txn.stale_copies():
            said = self._txn.stale_copies()
            yield f"{self._copies} records are stale copies, and the store says {said}"

    def _quota_problems(self) -> Iterator[str]:
        for use in uses(self._txn):
            prefix = use.quota.prefix.encode()
            records = self._txn.cursor(self._spaces[Space.KEYS])
            sizes = [bytes_of(key, raw) for key, raw in records if key.startswith(prefix)]
            if use.counted and (use.keys, use.bytes) != (len(sizes), sum(sizes)):
                yield (
                    f"{len(sizes)} keys below {prefix!r} have {sum(sizes)} bytes, and the quota "
                    f"{use.quota.name} says {use.keys} and {use.bytes}"
                )

    def _index_problems(self) -> Iterator[str]:
        for entry, key in self._txn.cursor(self._expiry):
            try:
                ends, number, space = read_due(entry)
                raw = self._txn.get(key, self._spaces[space])
                agrees = (
                    raw is not None
                    and due_number(key, wire.revision(raw), space) == number
                    and wire.due_at(raw) == ends
                )
            except _UNREADABLE:
                yield f"the entry {entry!r} of the expiry index cannot be read"
                continue
            if not agrees:
                yield f"the expiry index names {key!r} at {ends}, and no record agrees"
