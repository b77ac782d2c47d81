"""The journal, a write-ahead log: the changes of each transaction, one entry for each, in a file.

    header   magic 16, version 4, kind 4, number 8, first sequence 8, salt 8, digest 16
    entry    length 4, CRC-32 4, sequence 8, unsynced 4, then packed changes of that length

Numbers are big-endian. An entry is written under the database's write lock, just before the
transaction is committed, at an offset that is kept in the database by the same transaction: one
that is given up, or whose process is killed, leaves bytes that the next one writes over. So the
committed entries stand one behind the other, and what follows them means nothing. It cannot be
mistaken for an entry either: the CRC begins with the file's salt, which nobody knows who could have
had bytes like it stored, and sequence numbers follow one another without a gap.

`unsynced` says how many of the entries before this one were not known to be on the disk when it was
written. So each entry tells how far the journal was synced: if one that can be read says that one
that cannot was on the disk, that is damage. Without it, a loss of power would look the same: it may
leave the later of two entries and not the earlier.

A journal ends where the next one begins, and each life of a service begins a new one. In journals
of version 1 there is neither a kind nor `unsynced`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from keyrack.engines import record as wire
from keyrack.engines.contract import StoreFormatUnknown, Why
from keyrack.engines.embedded.database import JournalFailed
from keyrack.engines.embedded.durability import changes
from keyrack.engines.embedded.durability.changes import EVENTS
from keyrack.engines.embedded.pieces import Pieces
from keyrack.engines.embedded.position import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.embedded.database import Changes, Database, Maintenance, ReadTransaction
    from keyrack.engines.embedded.durability.changes import Change
    from keyrack.engines.embedded.durability.data_directory import DataDirectory

VERSION: Final = 5
_WITHOUT_CACHING: Final = 4
_WITHOUT_COPIES: Final = 3
_WITHOUT_TOKENS: Final = 2
_EARLIER_VERSION: Final = 1
_EARLIER: Final = (_WITHOUT_CACHING, _WITHOUT_COPIES, _WITHOUT_TOKENS, _EARLIER_VERSION)
_MAGIC: Final = b"keyrack journal\n"
_HEADER: Final = Struct(">16sIIQQ8s")
_DIGEST: Final = 16
START: Final = _HEADER.size + _DIGEST
"""Where the entries of a journal begin."""
_ENTRY: Final = Struct(">IIQI")
_CHECKED: Final = Struct(">IQI")
_EARLIER_ENTRY: Final = Struct(">IIQ")
_EARLIER_CHECKED: Final = Struct(">IQ")
_GONE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ESTALE))
"""Errors of a journal that is not where it was: it takes another one, and a snapshot, to go on."""
_MOST_UNSYNCED: Final = (1 << 32) - 1
_GAP: Final = 1 << 20
"""What a journal's sequence leaves out where changes before it were not written down."""

WRITE_AHEAD: Final = 1
"""The kind of a journal whose entries are promised: the mode `commit`."""
SCRATCH: Final = 2
"""The kind of a journal that is there for a snapshot only, and promises nothing."""

_BYTES_BEFORE_SEQUENCE: Final = 8
"""Length and checksum, in an entry."""
_SEARCH_BYTES: Final = 4 << 20
_SEARCH_BITS: Final = 16
"""Behind damage, entries are looked for whose sequences differ from the last one's in these."""


class Journal:
    """One process's hold on the journal. `strict`: a change that cannot be written is not made.

    Otherwise the journal is given up instead, and so is the snapshot that it is kept for, when it
    gets longer than `most_bytes` or cannot be written.
    """

    def __init__(self, data: DataDirectory, strict: bool, most_bytes: int = 0) -> None:
        self.data = data
        self.strict = strict
        self._most_bytes = most_bytes
        self._number = 0
        self._descriptor = -1
        self._header = JournalHeader(0, 0, b"")
        self.sequence = 0
        """The last entry when this process's last transaction was committed."""

    def is_on(self, txn: ReadTransaction) -> bool:
        """Tell whether a write transaction that has begun is to be written down.

        Raises `JournalFailed` where it has to be, and the disk has failed since the last snapshot.
        """
        on = txn.position().on
        if self.strict and (not on or txn.database.words.broken):
            raise JournalFailed(Why.DISK, "the disk has failed, and no snapshot was taken since")
        return on

    def write_down(self, txn: Maintenance, made: Changes) -> None:
        """Write the changes of a transaction that is about to be committed."""
        position, words = txn.position(), txn.database.words
        if made:
            payload = changes.pack(_with_values(txn, made))
            try:
                position = self._append(position, words.synced_sequence, payload)
            except OSError as error:
                if self.strict:
                    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                    if error.errno in _GONE:
                        words.broken = 1
                    why = Why.DISK_FULL if full else Why.DISK
                    raise JournalFailed(why, error.strerror or "") from error
                position = position._replace(on=False)
            txn.put_position(position)
        self.sequence = position.sequence

    def _append(self, position: Position, synced: int, payload: bytes) -> Position:
        if self._number != position.number:
            self._open(position.number)
        if not self.strict and position.offset > self._most_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        sequence = position.sequence + 1
        entry = pack_entry(self._header, sequence, synced, payload)
        self.data.files.write(self._descriptor, entry, position.offset)
        return position._replace(offset=position.offset + len(entry), sequence=sequence)

    def take_back(self, database: Database) -> None:
        """Make an entry unreadable that was written and not committed: the write was refused."""
        with database.maintain(pages=0) as txn:
            position = txn.position()
            if position.on and self._number == position.number:
                with contextlib.suppress(OSError):
                    self.data.files.write(self._descriptor, bytes(_ENTRY.size), position.offset)

    def _open(self, number: int) -> None:
        self.close()
        self._descriptor = self.data.files.open(self.data.journal(number))
        self._header = read_header(os.pread(self._descriptor, START, 0), number)
        self._number = number

    def close(self) -> None:
        """Let go of the file."""
        if self._number:
            os.close(self._descriptor)
            self._number = 0


def _with_values(txn: ReadTransaction, made: Changes) -> Iterator[Change]:
    """Yield changes, the whole values in them."""
    pieces = Pieces(txn)
    for (place, key), raw in made.items():
        if raw is None or place == EVENTS or not wire.is_long(raw):
            yield place, key, raw
        else:
            yield place, key, pieces.whole(changes.space_of(place), raw)


# The file


class JournalHeader(NamedTuple):
    """What the beginning of a journal says about it."""

    number: int
    first: int
    """The sequence number that its first entry has."""
    salt: bytes
    kind: int = WRITE_AHEAD
    version: int = VERSION


class JournalDamaged(Exception):
    """Raised for a header that is cut off or changed."""


def create(data: DataDirectory, number: int) -> None:
    """Make the file of a journal, and have its name on the disk before anything is in it."""
    os.close(data.files.create(data.journal(number)))
    data.files.sync_directory(data.path)


def _write_header(data: DataDirectory, number: int, first: int, kind: int) -> None:
    """Begin a journal that was created. Call under the write lock, when `first` is certain."""
    descriptor = data.files.open(data.journal(number))
    try:
        header = _HEADER.pack(_MAGIC, VERSION, kind, number, first, secrets.token_bytes(8))
        data.files.write(descriptor, header + _digest(header), 0)
    finally:
        os.close(descriptor)


def begin(txn: Maintenance, data: DataDirectory, number: int, kind: int) -> Position:
    """Go over to a journal that was created, in a write transaction; return the position.

    Where changes were not written down before, the sequence gets a gap, so that nobody takes this
    journal for what follows on the one before it.
    """
    before = txn.position()
    sequence = before.sequence if before.on else before.sequence + _GAP
    _write_header(data, number, sequence + 1, kind)
    position = Position(data.name, data.boot, number, START, sequence, saved=before.saved, on=True)
    txn.put_position(position)
    return position


def _digest(header: bytes) -> bytes:
    return blake2b(header, digest_size=_DIGEST).digest()


def read_header(data: bytes, number: int) -> JournalHeader:
    """Return what a journal's first bytes say. Raises `JournalDamaged` or `StoreFormatUnknown`."""
    if len(data) < START:
        raise JournalDamaged(f"journal {number} has no header")
    magic, version, kind, found, first, salt = _HEADER.unpack_from(data)
    if magic != _MAGIC or data[_HEADER.size : START] != _digest(data[: _HEADER.size]):
        raise JournalDamaged(f"the header of journal {number} is damaged")
    if version not in (VERSION, *_EARLIER):
        raise StoreFormatUnknown(
            f"journal {number} has the format {version}, and this version of Keyrack reads "
            f"{VERSION}. Use the one that made it."
        )
    if found != number:
        raise JournalDamaged(f"journal {number} says that it is {found}")
    return JournalHeader(found, first, salt, kind or WRITE_AHEAD, version)


def is_scratch(data: DataDirectory, number: int) -> bool:
    """Tell whether a journal is there for a snapshot only."""
    with open(data.journal(number), "rb") as file:
        try:
            return read_header(file.read(START), number).kind == SCRATCH
        except JournalDamaged:
            return False


def pack_entry(header: JournalHeader, sequence: int, synced: int, payload: bytes) -> bytes:
    """Return the bytes of an entry; `synced` is the last entry that is known to be on the disk."""
    length = len(payload)
    unsynced = min(max(0, sequence - 1 - synced), _MOST_UNSYNCED)
    check = _check(header, sequence, unsynced, payload)
    if header.version == _EARLIER_VERSION:
        return b"%b%b" % (_EARLIER_ENTRY.pack(length, check, sequence), payload)
    return b"%b%b" % (_ENTRY.pack(length, check, sequence, unsynced), payload)


def _check(header: JournalHeader, sequence: int, unsynced: int, payload: bytes) -> int:
    """Return the checksum of an entry."""
    if header.version == _EARLIER_VERSION:
        head = _EARLIER_CHECKED.pack(len(payload), sequence)
    else:
        head = _CHECKED.pack(len(payload), sequence, unsynced)
    return crc32(payload, crc32(header.salt + head))


class JournalEntry(NamedTuple):
    """An entry that was read."""

    end: int
    """The offset behind it."""
    sequence: int
    synced: int
    """The last entry that was known to be on the disk when this one was written."""
    payload: bytes


class JournalReader:
    """Reads the entries of a journal. Raises `JournalDamaged` for one without a good header."""

    def __init__(self, data: DataDirectory, number: int) -> None:
        self._descriptor = os.open(data.journal(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(self._descriptor).st_size
            self.header = read_header(os.pread(self._descriptor, START, 0), number)
        except BaseException:
            self.close()
            raise
        self._entry = _EARLIER_ENTRY if self.header.version == _EARLIER_VERSION else _ENTRY

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def entries(self, offset: int, sequence: int) -> Iterator[JournalEntry]:
        """Yield the entries behind `sequence`, which ends at `offset`.

        Stops at the first bytes that are not the next entry.
        """
        while entry := self.entry_at(offset):
            sequence += 1
            if entry.sequence != sequence:
                return
            yield entry
            offset = entry.end

    def entry_at(self, offset: int) -> JournalEntry | None:
        """Return the entry that begins at an offset, or None where there is none that is whole."""
        head = os.pread(self._descriptor, self._entry.size, offset)
        if len(head) < self._entry.size:
            return None
        # Entries of version 1 do not say what was synced: all before them counts as that.
        length, check, sequence, unsynced = (*self._entry.unpack(head), 0)[:4]
        end = offset + self._entry.size + length
        if end > self.size or unsynced >= sequence:
            return None
        payload = os.pread(self._descriptor, length, offset + self._entry.size)
        if check != _check(self.header, sequence, unsynced, payload):
            return None
        return JournalEntry(end, sequence, sequence - 1 - unsynced, payload)

    def search(self, offset: int, sequence: int) -> JournalEntry | None:
        """Return the next whole entry that begins at `offset` or behind it, or None.

        For a journal that is damaged: looks for entries whose sequence is above the given one. By
        their numbers, of which the first bytes are known, so that this goes at the speed of a
        search for text.
        """
        wanted = _sequences_above(sequence)
        # A piece begins again with what may have been the beginning of an entry.
        overlap = self._entry.size
        while offset < self.size:
            piece = os.pread(self._descriptor, _SEARCH_BYTES + overlap, offset)
            if not piece:
                return None
            for match in wanted.finditer(piece):
                start = offset + match.start() - _BYTES_BEFORE_SEQUENCE
                entry = self.entry_at(start) if start >= START else None
                if entry is not None and entry.sequence > sequence:
                    return entry
            offset += _SEARCH_BYTES
        return None


def _sequences_above(sequence: int) -> re.Pattern[bytes]:
    """Return a pattern for the first bytes of the next 65 536 sequences, or some more.

    It matches nothing in a run of zeros, of which values may be full.
    """
    first = sequence + 1
    beginnings = {(first + more).to_bytes(8, "big")[:6] for more in (0, (1 << _SEARCH_BITS) - 1)}
    starts = b"|".join(re.escape(beginning) for beginning in sorted(beginnings))
    return re.compile(b"(?=(?:%b)(?!\0\0))" % starts)
