"""The trash: records of keys that were deleted and can be put back, and the undos that name them.

A record in the trash (`Space.TRASH`) is under the number of its undo and its own revision (8 bytes
each, big-endian), so that the oldest deletions come first. Its bytes are those that it had, with
the key in front; a long value stays in the pieces where it is. It ends when the undo does or when
the key would have ended, whichever is first: the expiry index knows, and the sweep removes it.

An undo (`Space.UNDOS`) is a record under its number that ends when the undo does. Its value counts
what became of the keys:

    since, deleted, restored, ended, gone      8 bytes each, big-endian
    about                                      the rest: what was given by whoever deleted

What is in the trash counts as memory. It goes, the oldest first, before any key is evicted or any
write is refused for want of room; the undo says how many are gone.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from keyrack.engines import record as wire
from keyrack.engines.contract import BINARY, Change, Delete, Result, Space, Trashed, Undo
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, PIECE, Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.contract import Condition, Discard, Outcome, Refusal, Restore, Write
    from keyrack.engines.embedded.database import Database, ReadTransaction, WriteTransaction
    from keyrack.engines.embedded.eventlog import Draft

_NUMBER: Final = Struct(">Q")
_NAME: Final = Struct(">QQ")
_COUNTS: Final = Struct(">QQQQQ")
_BYTES_A_RECORD: Final = 150
"""What a record in the trash takes besides itself: names, index, heads of nodes."""


class Changing(Protocol):
    """What the trash needs of a commit."""

    txn: WriteTransaction
    now: int
    draft: Draft
    undo: int
    """The number of the undo that was made in the present write; 0: none."""

    def apply(self, write: Write) -> Outcome: ...
    def take_out(self, key: bytes, condition: Condition | None) -> Result | Refusal | bytes: ...
    def change(self, key: bytes, raw: bytes | None, space: Space) -> None: ...
    def is_present(self, key: bytes) -> bool: ...
    def store_long(self, space: Space, number: int, value: bytes) -> None: ...
    def drop_pieces(self, number: int, size: int) -> None: ...


class Trash:
    """The trash, where a commit changes it."""

    __slots__ = ("_commit",)

    def __init__(self, commit: Changing) -> None:
        self._commit = commit

    def discard(self, operation: Discard) -> Result | Refusal:
        """Do what `Discard` says."""
        commit, key = self._commit, operation.key
        raw = commit.take_out(key, operation.condition)
        if not isinstance(raw, bytes):
            return raw
        revision = commit.draft.note(Change.DELETE, key)
        joined = operation.undo or commit.undo
        number = joined or revision
        keeps = operation.keep and operation.until > commit.now
        undo = self._undo_to_join(number, operation)
        if undo is not None and (keeps or joined):
            gone = undo.gone + (not keeps)
            self._put(replace(undo, deleted=undo.deleted + 1, gone=gone))
            commit.undo = number
        if not keeps or undo is None:
            if wire.is_long(raw):
                commit.drop_pieces(wire.revision(raw), wire.size(raw))
            return Result(revision, existed=True, number=0)
        self._keep(number, key, raw, undo.until)
        return Result(revision, existed=True, number=undo.until)

    def _undo_to_join(self, number: int, operation: Discard) -> Undo | None:
        present = undo_of(self._commit.txn, number)
        if present is None and operation.until > self._commit.now:
            return Undo(number, self._commit.now, operation.until, 0, about=operation.about)
        return present

    def _keep(self, number: int, key: bytes, raw: bytes, until: int) -> None:
        """Put a record into the trash."""
        ends = wire.expires_at(raw)
        kept = wire.as_trash(raw, key, min(ends, until) if ends else until)
        if len(kept) > PIECE and not wire.is_long(raw):
            self._commit.store_long(Space.TRASH, wire.revision(raw), wire.unpack(raw).value)
            kept = wire.without_value(kept)
        self._commit.change(_NAME.pack(number, wire.revision(raw)), kept, Space.TRASH)

    def restore(self, operation: Restore) -> Result | Refusal:
        """Do what `Restore` says."""
        commit, name = self._commit, _NAME.pack(operation.undo, operation.revision)
        kept = commit.txn.get(name, commit.txn.database.spaces[Space.TRASH])
        if kept is None or wire.expires_at(kept) <= commit.now:
            return Result(0, existed=False)  # what has ended is counted when it is swept
        key, raw = wire.from_trash(kept)
        if commit.is_present(key):
            return Result(0, existed=True)
        commit.apply((Delete(key),))  # what has ended there, with its event, or a stale copy
        commit.change(name, None, Space.TRASH)
        revision = commit.draft.set(key)
        if wire.is_long(raw):
            raw = self._with_value_of(raw, revision)
        commit.change(key, wire.with_revision(raw, revision), Space.KEYS)
        undo = undo_of(commit.txn, operation.undo)
        if undo is not None:
            self._put(replace(undo, restored=undo.restored + 1))
        return Result(revision, existed=False)

    def _with_value_of(self, raw: bytes, revision: int) -> bytes:
        """Move the value of a record to its new revision, or into it where it is short enough."""
        old, size = wire.revision(raw), wire.size(raw)
        value = Pieces(self._commit.txn).read(Space.TRASH, old, size)
        self._commit.drop_pieces(old, size)
        if size <= LONGEST_WHOLE:
            return wire.with_value(raw, value)
        self._commit.store_long(Space.KEYS, revision, value)
        return raw

    def note_end(self, name: bytes, kept: bytes) -> None:
        """Note that a record has ended in the trash. That of an undo that ends is not counted."""
        number = _NAME.unpack(name)[0]
        undo = undo_of(self._commit.txn, number)
        if undo is not None and wire.expires_at(kept) < undo.until:
            self._put(replace(undo, ended=undo.ended + 1))

    def drop_oldest(self, wanted: int, most: int) -> int:
        """Drop records for about so many bytes, `most` of them; return how many bytes they had.

        Where there is none left undos go, of which nothing can be put back.
        """
        commit, spaces = self._commit, self._commit.txn.database.spaces
        with commit.txn.cursor(spaces[Space.TRASH]) as cursor:
            found = list(islice(cursor, most)) if cursor.first() else []
        gone: Counter[int] = Counter()
        freed = 0
        for name, kept in found:
            if freed >= wanted:
                break
            if wire.is_long(kept):
                commit.drop_pieces(wire.revision(kept), wire.size(kept))
            commit.change(name, None, Space.TRASH)
            gone[_NAME.unpack(name)[0]] += 1
            freed += wire.size(kept) + _BYTES_A_RECORD
        for number, count in gone.items():
            undo = undo_of(commit.txn, number)
            if undo is not None:
                self._put(replace(undo, gone=undo.gone + count))
        return freed if found else self._drop_undos(wanted, most)

    def _drop_undos(self, wanted: int, most: int) -> int:
        commit, spaces = self._commit, self._commit.txn.database.spaces
        with commit.txn.cursor(spaces[Space.UNDOS]) as cursor:
            found = list(islice(cursor, most)) if cursor.first() else []
        freed = 0
        for name, raw in found:
            if freed >= wanted:
                break
            commit.change(name, None, Space.UNDOS)
            freed += len(raw) + _BYTES_A_RECORD
        return freed

    def _put(self, undo: Undo) -> None:
        """Write an undo down."""
        counts = _COUNTS.pack(undo.since, undo.deleted, undo.restored, undo.ended, undo.gone)
        raw = wire.pack(undo.number, counts + undo.about, BINARY, undo.until)
        self._commit.change(_NUMBER.pack(undo.number), raw, Space.UNDOS)


def _read(raw: bytes) -> Undo:
    record = wire.unpack(raw)
    counts, about = record.value[: _COUNTS.size], record.value[_COUNTS.size :]
    since, deleted, restored, ended, gone = _COUNTS.unpack(counts)
    until = record.expires_at
    return Undo(record.revision, since, until, deleted, restored, ended, gone, about)


def undo_of(txn: ReadTransaction, number: int) -> Undo | None:
    """Return an undo, be it over, None where there is none."""
    raw = txn.get(_NUMBER.pack(number), txn.database.spaces[Space.UNDOS])
    return None if raw is None else _read(raw)


def undo_number(name: bytes) -> int:
    """Return the number of the undo that a record in the trash belongs to."""
    return int(_NAME.unpack(name)[0])


def all_undos(txn: ReadTransaction) -> Iterator[Undo]:
    """Yield all undos, those that are over and not swept yet included."""
    with txn.cursor(txn.database.spaces[Space.UNDOS]) as cursor:
        for _, raw in cursor:
            yield _read(raw)


def is_empty(txn: ReadTransaction) -> bool:
    """Tell whether there is no trash that could be dropped."""
    spaces = txn.database.spaces
    return not (txn.entries(spaces[Space.TRASH]) or txn.entries(spaces[Space.UNDOS]))


class TrashReads:
    """What reads the trash in one process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def undo_of(self, number: int) -> Undo | None:
        """Return an undo, None where there is none or it has ended."""
        with self._database.read() as txn:
            undo = undo_of(txn, number)
        return None if undo is None or undo.until <= self._database.now() else undo

    def undos(self, below: int | None, limit: int) -> list[Undo]:
        """Return at most `limit` undos with a number below one, those of the newest first."""
        found: list[Undo] = []
        now, database = self._database.now(), self._database
        with database.read() as txn, txn.cursor(database.spaces[Space.UNDOS]) as cursor:
            there = below is not None and cursor.set_range(_NUMBER.pack(below))
            there = cursor.prev() if there else cursor.last()
            while there and len(found) < limit:
                undo = _read(cursor.value())
                if undo.until > now and (below is None or undo.number < below):
                    found.append(undo)
                there = cursor.prev()
        return found

    def trashed(self, undo: int, after: bytes, limit: int) -> tuple[list[Trashed], bytes | None]:
        """Return records of an undo that are in the trash, and where to go on, if at all."""
        found: list[Trashed] = []
        database, begin = self._database, _NUMBER.pack(undo)
        with database.read() as txn, txn.cursor(database.spaces[Space.TRASH]) as cursor:
            # The newest first: of a key that was deleted twice that one comes back.
            there = cursor.set_range(after or _NUMBER.pack(undo + 1))
            there = cursor.prev() if there else cursor.last()
            while there and cursor.key().startswith(begin):
                if len(found) == limit:
                    return found, _NAME.pack(undo, found[-1].revision)
                kept = cursor.value()
                key, _ = wire.from_trash(kept)
                found.append(Trashed(key, wire.revision(kept), wire.size(kept)))
                there = cursor.prev()
        return found, None
