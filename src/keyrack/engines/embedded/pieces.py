"""Long values, in pieces of one page each.

LMDB gives a value that is longer than a page a run of pages, and in a store that is nearly full
there may be enough free pages and no such run: what is free would depend on what was stored and
removed in which order, and making room for a long value could take evicting everything. Pieces of
one page fit into any free page. Reading one of 1 MiB costs about 40 us more for it.

The database `pieces`: the key is the part of its space (1 byte), the record's revision (8 bytes,
big-endian) and the number of the piece (4 bytes, big-endian). Revisions grow, so new pieces go to
the end of the tree, which fills its pages to the brim.
"""

from __future__ import annotations

from itertools import islice, repeat
from struct import Struct
from typing import TYPE_CHECKING, Final

from msgspec import structs

from keyrack.engines import record as wire
from keyrack.engines.contract import Part, Record, Space, bounds
from keyrack.engines.embedded.memory import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.contract import Span
    from keyrack.engines.embedded.database import Database, ReadTransaction, WriteTransaction

PIECE: Final = PAGE - 16
"""Bytes of a value that a page of its own holds."""
LONGEST_WHOLE: Final = PIECE - wire.MOST_HEAD
"""A value up to this length stands in its record, which then never takes two pages."""

_FEW: Final = 8
"""Pieces up to which handling each by itself is quicker than preparing for many."""

_KEY: Final = Struct(">BQI")
# Answers have a hash for a revision, and come first; the others can then be appended. What is put
# into the trash keeps its revision, and its pieces with it.
_PART: Final = {
    Space.ANSWERS: 0,
    Space.ADMIN: 0,
    Space.KEYS: 1,
    Space.LOCKS: 1,
    Space.TRASH: 1,
    Space.UNDOS: 1,
}


def piece_owner(space: Space, number: int) -> tuple[int, int]:
    """Return what `Pieces.numbers` calls a value of this space and number."""
    return _PART[space], number


def pages_of(size: int) -> int:
    """Return how many pages a long value takes, those of the tree of pieces included."""
    return size // PIECE + (size >> 18) + 4


def record_of_key(database: Database, head: Record, size: int) -> Record | None:
    """Return a key's record with its value of pieces; None where they have gone meanwhile."""
    first = _KEY.pack(_PART[Space.KEYS], head.revision, 0)
    value = database.join(first, -(-size // PIECE), database.pieces)
    return _with_value(head, value) if len(value) == size else None


class Pieces:
    """The pieces, as one transaction sees them."""

    __slots__ = ("_tree", "_txn")

    def __init__(self, txn: ReadTransaction) -> None:
        self._txn = txn
        self._tree = txn.database.pieces

    def read(self, space: Space, number: int, size: int) -> bytes:
        """Return the value whose pieces these are."""
        with self._txn.cursor(self._tree) as cursor:
            if not cursor.set_range(_KEY.pack(_PART[space], number, 0)):
                return b""
            return b"".join(islice(cursor.iternext(False), -(-size // PIECE)))

    def part(self, space: Space, raw: bytes, span: Span) -> Part:
        """Return a part of a record's value; of a long one only the pieces that it touches."""
        if not wire.is_long(raw):
            record = wire.unpack(raw)
            start, end = bounds(span, len(record.value))
            return Part(_with_value(record, record.value[start:end]), start, len(record.value))
        head, size = wire.unpack_long(raw)
        start, end = bounds(span, size)
        first = start // PIECE
        with self._txn.cursor(self._tree) as cursor:
            if not cursor.set_range(_KEY.pack(_PART[space], head.revision, first)):
                return Part(head, start, size)
            held = b"".join(islice(cursor.iternext(False), max(0, -(-end // PIECE) - first)))
        offset = first * PIECE
        return Part(_with_value(head, held[start - offset : end - offset]), start, size)

    def record(self, space: Space, raw: bytes) -> Record:
        """Return a record with its value."""
        try:
            return wire.unpack(raw)
        except wire.Elsewhere:
            head, size = wire.unpack_long(raw)
            value = self.read(space, head.revision, size)
            return _with_value(head, value)

    def whole(self, space: Space, raw: bytes) -> bytes:
        """Return the bytes of a record as they are with the value in it, however long that is."""
        if not wire.is_long(raw):
            return raw
        return wire.with_value(raw, self.record(space, raw).value)

    def numbers(self) -> Iterator[tuple[int, int, int]]:
        """Yield part, number and length of each value that has pieces, in order."""
        present, length = (0, 0), 0
        for key, piece in self._txn.cursor(self._tree):
            part, number, _ = _KEY.unpack(key)
            if (part, number) != present:
                if length:
                    yield *present, length
                present, length = (part, number), 0
            length += len(piece)
        if length:
            yield *present, length


def _with_value(record: Record, value: bytes) -> Record:
    return structs.replace(record, value=value)


class PieceWriter(Pieces):
    """The pieces, where a transaction may change them."""

    __slots__ = ("_writing",)

    def __init__(self, txn: WriteTransaction) -> None:
        self._txn = self._writing = txn
        self._tree = txn.database.pieces

    def store(self, space: Space, number: int, value: bytes, newest: bool = True) -> None:
        """Store a value in pieces. A `newest` number is greater than any, except for answers."""
        part, view, size = _PART[space], memoryview(value), len(value)
        append = newest and part == 1
        if size <= _FEW * PIECE:
            for index, start in enumerate(range(0, size, PIECE)):
                piece = view[start : start + PIECE]
                self._writing.put_part(_KEY.pack(part, number, index), piece, self._tree, append)
            return
        # All of it runs inside C: a loop here would take longer than the copying.
        keys = map(_KEY.pack, repeat(part), repeat(number), range(-(-size // PIECE)))
        spans = map(slice, range(0, size, PIECE), range(PIECE, size + PIECE, PIECE))
        pieces = map(view.__getitem__, spans)
        self._writing.put_parts(zip(keys, pieces, strict=True), self._tree, append)

    def drop(self, space: Space, number: int, size: int) -> None:
        """Remove the pieces of a value of this size, if they are there."""
        part, count = _PART[space], -(-size // PIECE)
        if count <= _FEW:
            for index in range(count):
                self._writing.drop_part(_KEY.pack(part, number, index), self._tree)
            return
        with self._writing.deleting(self._tree) as cursor:
            # Where the first and the last one are, those between are, too, and nothing else.
            whole = cursor.set_key(_KEY.pack(part, number, count - 1))
            if whole and cursor.set_key(_KEY.pack(part, number, 0)):
                cursor.delete_some(count)

    def clear(self, space: Space, number: int) -> None:
        """Remove whatever pieces there are of this number, of a value of any size."""
        first = _KEY.pack(_PART[space], number, 0)
        with self._writing.deleting(self._tree) as cursor:
            found = cursor.set_range(first)
            while found and cursor.key().startswith(first[:9]):
                cursor.delete()
                found = bool(cursor.key())
