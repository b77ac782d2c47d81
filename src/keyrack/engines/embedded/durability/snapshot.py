"""The file of a snapshot: everything that a store held at one moment.

    header   magic 16, version 4, zeros 4, number 8, data directory 16, digest 16
    blocks   kind 1, zeros 3, length 4, that many bytes, digest 16
    end      a block of kind 3 whose bytes say what the file holds

All numbers are big-endian. Records come first (kind 1, in the order of their keys), then the
changes that were made while those were being read (kind 2, in the order of time); read in the
file's order, the last word on a key is the right one. Each digest is a BLAKE2b of its block, keyed
with the digest before it, so that no block can be changed, moved, left out or taken from another
file; and the last block says where the file ends. A file that was cut off or changed is refused as
a whole.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from keyrack.engines.contract import StoreError, StoreFormatUnknown
from keyrack.engines.embedded.durability import changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyrack.engines.embedded.durability.changes import Change
    from keyrack.engines.embedded.durability.files import Files

VERSION: Final = 4
_EARLIER_VERSIONS: Final = (1, 2, 3)
"""There were no tokens in the first one, no stale copies up to the second, and nothing that caches
may keep up to the third. Else they are the same."""
RECORDS: Final = 1
CHANGES: Final = 2
_END: Final = 3

_MAGIC: Final = b"keyrack snapshot"
_HEADER: Final = Struct(">16sIIQ16s")
_BLOCK: Final = Struct(">BxxxI")
_DIGEST: Final = 16
_SUMMARY: Final = Struct(">QQQQQQQ")
_BLOCK_BYTES: Final = 256 << 10
"""A block is written when it has as many bytes."""
_SYNC_BYTES: Final = 4 << 20
"""What was written is brought to the disk in such pieces: others wait for the disk as well."""


class SnapshotDamaged(StoreError):
    """A snapshot cannot be used. The message says where and why."""


class Summary(NamedTuple):
    """What the end of a snapshot says about it."""

    revision: int
    """The store's last revision."""
    store_ms: int
    """When it was complete, in ms of the store's clock."""
    wall_ms: int
    """The same, in ms since 1970."""
    sequence: int
    """The number of the last journal entry that is in it."""
    offset: int
    """Where that entry ends, in the journal that has the snapshot's number; 0 without a journal."""
    keys: int
    """How many keys were there, those whose time was over included."""
    changes: int
    """How many records and changes the file holds."""


class SnapshotHeader(NamedTuple):
    """What the beginning of a snapshot says about it."""

    number: int
    directory: bytes
    """The 16 bytes that name the data directory that it was made in."""


def _digest(data: bytes, key: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST, key=key).digest()


class Writer:
    """Writes a snapshot to a new file. Nobody may use the file before `finish` has returned."""

    def __init__(self, files: Files, path: str, header: SnapshotHeader) -> None:
        self._files = files
        self._descriptor = files.create(path)
        data = _HEADER.pack(_MAGIC, VERSION, 0, *header)
        self._last = _digest(data, b"")
        self._offset = self._synced = 0
        self._changes = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._kind = RECORDS
        self._write(data + self._last)

    def add(self, kind: int, packed: bytes, number: int) -> None:
        """Add packed records or changes, so many of them."""
        if kind != self._kind:
            self._flush()
            self._kind = kind
        self._waiting.append(packed)
        self._waiting_bytes += len(packed)
        self._changes += number
        if self._waiting_bytes >= _BLOCK_BYTES:
            self._flush()

    def finish(self, summary: Summary) -> None:
        """Write the end, and return when all is on the disk."""
        self._flush()
        self._block(_END, _SUMMARY.pack(*summary._replace(changes=self._changes)))
        self._files.sync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _flush(self) -> None:
        if self._waiting:
            self._block(self._kind, b"".join(self._waiting))
            self._waiting.clear()
            self._waiting_bytes = 0

    def _block(self, kind: int, payload: bytes) -> None:
        data = _BLOCK.pack(kind, len(payload)) + payload
        self._last = _digest(data, self._last)
        self._write(data + self._last)

    def _write(self, data: bytes) -> None:
        self._files.write(self._descriptor, data, self._offset)
        self._offset += len(data)
        if self._offset - self._synced >= _SYNC_BYTES:
            self._files.sync(self._descriptor)
            self._synced = self._offset


def read(path: str) -> Iterator[tuple[int, Iterable[Change]]]:
    """Yield a snapshot's blocks, each as its kind and its changes. Raises as `verify` does.

    What was yielded is certain only when the end was reached: see `verify`.
    """
    with open(path, "rb") as file:
        for kind, payload in _Reader(path, file).blocks():
            yield kind, _changes(path, payload)


def verify(path: str) -> tuple[SnapshotHeader, Summary]:
    """Read a whole snapshot and return what it says about itself.

    Raises `SnapshotDamaged`, `StoreFormatUnknown` for one of another version, or `OSError`.
    """
    with open(path, "rb") as file:
        reader = _Reader(path, file)
        number = 0
        for _, payload in reader.blocks():
            number += sum(1 for _ in _changes(path, payload))
        if number != reader.summary.changes:
            raise SnapshotDamaged(f"{path} holds {number} changes and says otherwise.")
        return reader.header, reader.summary


def glance(path: str) -> tuple[SnapshotHeader, Summary]:
    """Return what a snapshot says about itself, without reading what lies between.

    For one that nothing depends on now. Raises as `verify` does.
    """
    with open(path, "rb") as file:
        reader = _Reader(path, file)
        length = _BLOCK.size + _SUMMARY.size
        file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - length - _DIGEST))
        end = file.read(length)
        if len(end) < length or _BLOCK.unpack_from(end) != (_END, _SUMMARY.size):
            raise SnapshotDamaged(f"{path} is cut off, or damaged.")
        return reader.header, Summary(*_SUMMARY.unpack_from(end, _BLOCK.size))


def header_of(path: str) -> SnapshotHeader:
    """Return what the beginning of a snapshot says about it. Raises as `verify` does."""
    with open(path, "rb") as file:
        return _Reader(path, file).header


def good_blocks(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield kind and packed bytes of the blocks up to the first that is not as it was written."""
    with open(path, "rb") as file:
        try:
            yield from _Reader(path, file).blocks()
        except SnapshotDamaged:
            return


def _changes(path: str, payload: bytes) -> Iterator[Change]:
    try:
        yield from changes.unpack(payload)
    except ValueError as error:
        raise SnapshotDamaged(f"{path} is damaged: {error}.") from None


class _Reader:
    """Reads a snapshot from its beginning, and checks all that it reads."""

    summary: Summary
    """Known when the blocks have been read."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._left = os.fstat(file.fileno()).st_size
        self.header = self._read_header()

    def _read_header(self) -> SnapshotHeader:
        data = self._take(_HEADER.size)
        magic, version, _, number, directory = _HEADER.unpack(data)
        if magic != _MAGIC:
            raise SnapshotDamaged(
                f"{self._path} is no snapshot of Keyrack, or its first bytes are damaged."
            )
        self._last = _digest(data, b"")
        if self._take(_DIGEST) != self._last:
            raise SnapshotDamaged(f"The header of {self._path} is damaged.")
        if version not in (VERSION, *_EARLIER_VERSIONS):
            raise StoreFormatUnknown(
                f"{self._path} has the format {version}, and this version of Keyrack reads "
                f"{VERSION}. Use the one that made it."
            )
        return SnapshotHeader(number, directory)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield kind and bytes of each block up to the end, which must be the file's."""
        while True:
            head = self._take(_BLOCK.size)
            kind, length = _BLOCK.unpack(head)
            payload = self._take(length)
            self._last = _digest(head + payload, self._last)
            if self._take(_DIGEST) != self._last:
                raise SnapshotDamaged(f"{self._path} is damaged before byte {self._file.tell()}.")
            if kind == _END:
                break
            yield kind, payload
        if self._left:
            raise SnapshotDamaged(f"{self._path} goes on behind its end.")
        self.summary = Summary(*_SUMMARY.unpack(payload))

    def _take(self, length: int) -> bytes:
        self._left -= length
        if self._left < 0:
            raise SnapshotDamaged(f"{self._path} is cut off, or damaged.")
        return self._file.read(length)
