"""The journal: the changes of each transaction, one entry for each, in a file.

    header   magic 16, version 4, zeros 4, number 8, first sequence 8, salt 8, digest 16
    entry    length 4, CRC-32 4, sequence 8, then packed changes of that length

Numbers are big-endian. An entry is written under the database's write lock, just before the
transaction is committed, at an offset that is kept in the database by the same transaction: one
that is given up, or whose process is killed, leaves bytes that the next one writes over. So the
committed entries stand one behind the other, and what follows them means nothing. It cannot be
mistaken for an entry either: the CRC begins with the file's salt, which nobody knows who could have
had bytes like it stored, and sequence numbers follow one another without a gap.

A journal ends where the next one begins, and each life of a service begins a new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from zlib import crc32

from keyrack.engines import record as wire
from keyrack.engines.contract import Space, StoreAway, StoreFormatUnknown, Why
from keyrack.engines.embedded.durability import changes
from keyrack.engines.embedded.durability.changes import EVENTS
from keyrack.engines.embedded.pieces import Pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    import lmdb

    from keyrack.engines.embedded.durability.data_directory import DataDirectory

VERSION: Final = 1
_MAGIC: Final = b"keyrack journal\n"
_HEADER: Final = Struct(">16sIIQQ8s")
_DIGEST: Final = 16
START: Final = _HEADER.size + _DIGEST
"""Where the entries of a journal begin."""
_ENTRY: Final = Struct(">IIQ")
_CHECKED: Final = Struct(">IQ")

POSITION_KEY: Final = b"keyrack:journal"
_POSITION: Final = Struct(">16s36sQQQQ?")


class Position(NamedTuple):
    """Where the journal is, as the database knows it."""

    directory: bytes
    """The name of the data directory; zeros before there was one."""
    boot: bytes
    """The start of the machine in which this was written."""
    number: int
    """The journal's number."""
    offset: int
    """Where its committed entries end."""
    sequence: int
    """The number of the last committed entry; it goes on from journal to journal."""
    saved: int
    """The database's transaction that the last snapshot was taken at."""
    on: bool
    """Whether changes are written down."""


NOWHERE: Final = Position(bytes(16), bytes(36), 0, 0, 0, 0, False)


def read_position(txn: lmdb.Transaction[bytes]) -> Position:
    """Return the journal's position as a transaction sees it."""
    raw = txn.get(POSITION_KEY)
    return NOWHERE if raw is None else Position(*_POSITION.unpack(raw))


def write_position(txn: lmdb.Transaction[bytes], position: Position) -> None:
    """Put the journal's position into the database."""
    txn.put(POSITION_KEY, _POSITION.pack(*position))


class JournalFailed(StoreAway):
    """Raised in a write transaction, which is then given up: its changes cannot be kept."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why = why


Begin: TypeAlias = "Callable[..., lmdb.Transaction[bytes]]"
"""Begins a transaction of the database."""


class Watched(NamedTuple):
    """What of the database is written down."""

    places: Mapping[lmdb._Database, int]
    """Which databases, and as what place."""
    pieces: lmdb._Database
    """Where long values are."""


class Journal:
    """One process's hold on the journal. `strict`: a change that cannot be written is not made.

    Otherwise the journal is given up instead, and so is the snapshot that it is kept for, when it
    gets longer than `most_bytes` or cannot be written. `refuses` tells whether the disk has failed
    and no new snapshot was taken since.
    """

    def __init__(
        self,
        data: DataDirectory,
        strict: bool,
        most_bytes: int = 0,
        refuses: Callable[[], bool] = lambda: False,
    ) -> None:
        self.data = data
        self.strict = strict
        self._most_bytes = most_bytes
        self._refuses = refuses
        self._number = 0
        self._descriptor = -1
        self._salt = b""
        self.sequence = 0
        """The last entry when this process's last transaction was committed."""

    def transaction(self, begin: Begin, watched: Watched) -> Recorded | lmdb.Transaction[bytes]:
        """Begin a write transaction that is written down, where changes are."""
        txn = begin(write=True)
        on = read_position(txn).on
        if self.strict and (not on or self._refuses()):
            txn.abort()
            raise JournalFailed(Why.DISK, "the disk has failed, and no snapshot was taken since")
        return Recorded(self, txn, watched, begin) if on else txn

    def write_down(self, txn: lmdb.Transaction[bytes], made: list[changes.Change]) -> None:
        """Write the changes of a transaction that is about to be committed."""
        position = read_position(txn)
        if made:
            try:
                position = self._append(position, changes.pack(made))
            except OSError as error:
                if self.strict:
                    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                    why = Why.DISK_FULL if full else Why.DISK
                    raise JournalFailed(why, error.strerror or "") from error
                position = position._replace(on=False)
            write_position(txn, position)
        self.sequence = position.sequence

    def _append(self, position: Position, payload: bytes) -> Position:
        if self._number != position.number:
            self._open(position.number)
        if not self.strict and position.offset > self._most_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        sequence = position.sequence + 1
        entry = pack_entry(self._salt, sequence, payload)
        self.data.files.write(self._descriptor, entry, position.offset)
        return position._replace(offset=position.offset + len(entry), sequence=sequence)

    def take_back(self, begin: Begin) -> None:
        """Make an entry unreadable that was written and not committed: the write was refused."""
        with begin(write=True) as txn:
            position = read_position(txn)
            if position.on and self._number == position.number:
                with contextlib.suppress(OSError):
                    self.data.files.write(self._descriptor, bytes(_ENTRY.size), position.offset)

    def _open(self, number: int) -> None:
        self.close()
        self._descriptor = self.data.files.open(self.data.journal(number))
        self._salt = read_header(os.pread(self._descriptor, START, 0), number).salt
        self._number = number

    def close(self) -> None:
        """Let go of the file."""
        if self._number:
            os.close(self._descriptor)
            self._number = 0


class Recorded:
    """A write transaction that remembers what it changes, and writes that down at its end.

    It stands where a transaction of the database is expected, with the methods that are used there.
    """

    __slots__ = (
        "_begin",
        "_changes",
        "_journal",
        "_pieces",
        "_places",
        "_txn",
        "cursor",
        "get",
        "stat",
    )

    def __init__(
        self, journal: Journal, txn: lmdb.Transaction[bytes], watched: Watched, begin: Begin
    ) -> None:
        self._journal = journal
        self._txn = txn
        self._places, self._pieces = watched
        self._begin = begin
        self._changes: dict[tuple[int, bytes], bytes | None] = {}
        self.get = txn.get
        self.stat = txn.stat
        self.cursor = txn.cursor

    def __enter__(self) -> Recorded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._txn.abort()
            return
        try:
            self._journal.write_down(self._txn, self._made())
        except BaseException:
            self._txn.abort()
            raise
        try:
            self._txn.commit()
        except BaseException:
            self._journal.take_back(self._begin)
            raise

    def _made(self) -> list[changes.Change]:
        pieces = Pieces(self._txn, self._pieces)
        return [
            (place, key, raw)
            if raw is None or place == EVENTS or not wire.is_long(raw)
            else (place, key, pieces.whole(Space(place), raw))
            for (place, key), raw in self._changes.items()
        ]

    def put(
        self,
        key: bytes,
        value: bytes,
        dupdata: bool = True,
        overwrite: bool = True,
        append: bool = False,
        db: lmdb._Database | None = None,
    ) -> bool:
        """Store a record."""
        if db is not None and db in self._places:
            self._changes[self._places[db], key] = value
        return self._txn.put(key, value, dupdata, overwrite, append, db)

    def replace(self, key: bytes, value: bytes, db: lmdb._Database | None = None) -> bytes | None:
        """Store a record and return the one before."""
        if db is not None and db in self._places:
            self._changes[self._places[db], key] = value
        return self._txn.replace(key, value, db)

    def pop(self, key: bytes, db: lmdb._Database | None = None) -> bytes | None:
        """Remove a record and return it."""
        old = self._txn.pop(key, db)
        if old is not None and db is not None and db in self._places:
            self._changes[self._places[db], key] = None
        return old

    def delete(self, key: bytes, value: bytes = b"", db: lmdb._Database | None = None) -> bool:
        """Remove a record."""
        if db is not None and db in self._places:
            self._changes[self._places[db], key] = None
        return self._txn.delete(key, value, db)

    def removed(self, key: bytes, db: lmdb._Database) -> None:
        """Take note of a record that was removed by way of a cursor."""
        self._changes[self._places[db], key] = None


# The file


class Header(NamedTuple):
    """What the beginning of a journal says about it."""

    number: int
    first: int
    """The sequence number that its first entry has."""
    salt: bytes


class Damaged(Exception):
    """Raised for a header that is cut off or changed."""


def create(data: DataDirectory, number: int) -> None:
    """Make the file of a journal, and have its name on the disk before anything is in it."""
    os.close(data.files.create(data.journal(number)))
    data.files.sync_directory(data.path)


def _write_header(data: DataDirectory, number: int, first: int) -> None:
    """Begin a journal that was created. Call under the write lock, when `first` is certain."""
    descriptor = data.files.open(data.journal(number))
    try:
        header = _HEADER.pack(_MAGIC, VERSION, 0, number, first, secrets.token_bytes(8))
        data.files.write(descriptor, header + _digest(header), 0)
    finally:
        os.close(descriptor)


def begin(txn: lmdb.Transaction[bytes], data: DataDirectory, number: int) -> Position:
    """Go over to a journal that was created, in a write transaction; return the position.

    Where changes were not written down before, the sequence gets a gap, so that nobody takes this
    journal for what follows on the one before it.
    """
    before = read_position(txn)
    sequence = before.sequence if before.on else before.sequence + 1
    _write_header(data, number, sequence + 1)
    position = Position(data.name, data.boot, number, START, sequence, saved=before.saved, on=True)
    write_position(txn, position)
    return position


def _digest(header: bytes) -> bytes:
    return blake2b(header, digest_size=_DIGEST).digest()


def read_header(data: bytes, number: int) -> Header:
    """Return what a journal's first bytes say. Raises `Damaged` or `StoreFormatUnknown`."""
    if len(data) < START:
        raise Damaged(f"journal {number} has no header")
    magic, version, _, found, first, salt = _HEADER.unpack_from(data)
    if magic != _MAGIC or data[_HEADER.size : START] != _digest(data[: _HEADER.size]):
        raise Damaged(f"the header of journal {number} is damaged")
    if version != VERSION:
        raise StoreFormatUnknown(
            f"journal {number} has the format {version}, and this version of Keyrack reads "
            f"{VERSION}. Use the one that made it."
        )
    if found != number:
        raise Damaged(f"journal {number} says that it is {found}")
    return Header(found, first, salt)


def pack_entry(salt: bytes, sequence: int, payload: bytes) -> bytes:
    """Return the bytes of an entry."""
    length = len(payload)
    return b"%b%b" % (_ENTRY.pack(length, _check(salt, sequence, payload), sequence), payload)


def _check(salt: bytes, sequence: int, payload: bytes) -> int:
    return crc32(payload, crc32(salt + _CHECKED.pack(len(payload), sequence)))


class Reader:
    """Reads the entries of a journal from an offset on."""

    def __init__(self, data: DataDirectory, number: int) -> None:
        self._descriptor = os.open(data.journal(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._size = os.fstat(self._descriptor).st_size
            self.header = read_header(os.pread(self._descriptor, START, 0), number)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def entries(self, offset: int, sequence: int) -> Iterator[tuple[int, bytes]]:
        """Yield the entries behind `sequence`, which ends at `offset`: their ends and payloads.

        Stops at the first bytes that are not the next entry.
        """
        while True:
            head = os.pread(self._descriptor, _ENTRY.size, offset)
            if len(head) < _ENTRY.size:
                return
            length, check, found = _ENTRY.unpack(head)
            sequence += 1
            if found != sequence or length > self._size - offset:
                return
            payload = os.pread(self._descriptor, length, offset + _ENTRY.size)
            if check != _check(self.header.salt, sequence, payload):
                return
            offset += _ENTRY.size + length
            yield offset, payload
