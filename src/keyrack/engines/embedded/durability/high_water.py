"""The high-water mark: what is certainly on the disk, written beside the files that hold it.

A journal alone cannot tell a torn end, which every crash may leave, from an end that was lost
later: both are bytes that are no entry. So the mark says how far the journals were synced, and
which snapshot was the last. It only ever lags behind: it is written after the sync that it tells
of. A recovery that does not reach it has lost what was promised.

    slot 0, at byte 0      the journal that was synced last, and the last entry that was
    slot 1, at byte 512    the last snapshot, and a revision that was never reached
    each slot              two numbers of 8 bytes, big-endian, and a checksum of 16

The slots are in sectors of their own, so that a torn write of one leaves the other. The checksum is
keyed with the directory's name: a mark that was copied from elsewhere says nothing.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from keyrack.engines.embedded.durability.data_directory import DataDirectory

REVISIONS_AHEAD: Final = 1 << 36
"""How far the ceiling is above the revision when it is written down, at each snapshot at least."""

_SLOT: Final = Struct(">QQ")
_CHECKSUM: Final = 16
_SECTOR: Final = 512
_FILE_BYTES: Final = 2 * _SECTOR


class Mark(NamedTuple):
    """What is known to be on the disk at least. All zero where nothing was written yet."""

    journal: int = 0
    """The journal that was synced last. Its header is on the disk, and all journals before it."""
    sequence: int = 0
    """The last entry that was synced."""
    snapshot: int = 0
    """The last snapshot that was taken here. One that was restored has a greater number."""
    ceiling: int = 0
    """No revision above this was handed out."""


class MarkDamaged(Exception):
    """Raised for a mark that is missing or was changed. It says what is wrong, in a sentence."""


def read_mark(data: DataDirectory) -> Mark:
    """Return the mark of a data directory. Raises `MarkDamaged`, and `OSError` but for ENOENT."""
    path = data.mark()
    try:
        with open(path, "rb") as file:
            raw = file.read(_FILE_BYTES)
    except FileNotFoundError:
        raise MarkDamaged(f"{path} is missing.") from None
    try:
        return Mark(*_unpack(raw, 0, data.name), *_unpack(raw, 1, data.name))
    except ValueError:
        raise MarkDamaged(f"{path} is damaged.") from None


def _unpack(raw: bytes, slot: int, name: bytes) -> tuple[int, int]:
    packed = raw[slot * _SECTOR :][: _SLOT.size + _CHECKSUM]
    body = packed[: _SLOT.size]
    if len(packed) < _SLOT.size + _CHECKSUM or packed[_SLOT.size :] != _checksum(body, slot, name):
        raise ValueError
    first, second = _SLOT.unpack(body)
    return first, second


def _pack(slot: int, name: bytes, *numbers: int) -> bytes:
    body = _SLOT.pack(*numbers)
    return body + _checksum(body, slot, name)


def _checksum(body: bytes, slot: int, name: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECKSUM, key=name + bytes((slot,))).digest()


class HighWaterMark:
    """One process's hold on the mark's file. Every method raises `OSError`."""

    def __init__(self, data: DataDirectory) -> None:
        self._data = data
        self._descriptor = -1
        self._journal = 0
        """The journal that this process has last written down, and synced."""

    def replace(self, mark: Mark) -> None:
        """Write the whole mark to a file that replaces the old one, whatever that holds."""
        self.close()
        files, path = self._data.files, self._data.mark()
        part = f"{path}.part"
        with contextlib.suppress(FileNotFoundError):
            files.remove(part)
        descriptor = files.create(part)
        try:
            content = bytearray(_FILE_BYTES)
            for slot, numbers in ((0, mark[:2]), (1, mark[2:])):
                packed = _pack(slot, self._data.name, *numbers)
                content[slot * _SECTOR : slot * _SECTOR + len(packed)] = packed
            files.write(descriptor, bytes(content), 0)
            files.sync(descriptor)
        finally:
            os.close(descriptor)
        files.rename(part, path)
        files.sync_directory(self._data.path)

    def note_synced(self, journal: int, sequence: int) -> None:
        """Write down that the entries up to one are on the disk, in journals up to one.

        The first of a journal waits for the disk: nothing may be acknowledged that is in a journal
        of which nobody knows. The others may come to the disk whenever the system likes.
        """
        if self._journal == journal:
            self._write(0, journal, sequence)
            return
        self.close()
        try:
            self._write(0, journal, sequence)
        except FileNotFoundError:
            # Somebody has removed it, or an earlier version, which knew none, was taken over.
            self.replace(Mark(journal, sequence))
            return
        self._data.files.sync(self._descriptor)
        self._journal = journal

    def note_snapshot(self, number: int, ceiling: int) -> None:
        """Write down the last snapshot and the ceiling; return when they are on the disk."""
        try:
            self._write(1, number, ceiling)
        except FileNotFoundError:
            self.replace(Mark(snapshot=number, ceiling=ceiling))
        else:
            self._data.files.sync(self._descriptor)

    def note_ceiling(self, ceiling: int) -> None:
        """Write down the revisions' ceiling alone; return when it is on the disk."""
        try:
            snapshot = read_mark(self._data).snapshot
        except MarkDamaged:
            snapshot = 0
        self.note_snapshot(snapshot, ceiling)

    def _write(self, slot: int, *numbers: int) -> None:
        if self._descriptor < 0:
            self._descriptor = self._data.files.open(self._data.mark())
        packed = _pack(slot, self._data.name, *numbers)
        self._data.files.write(self._descriptor, packed, slot * _SECTOR)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._journal = 0
