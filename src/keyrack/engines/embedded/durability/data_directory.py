"""The data directory: which files are in it, what they are called, and that one service has it.

keyrack                     the format, and 16 random bytes that name this directory
lock                        locked for as long as any process of the service lives
snapshot-0000000000000042   a snapshot; it is called so only when it is whole and on the disk
journal-0000000000000042    what was changed since that snapshot was begun, and up to the next
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import StoreError, StoreFormatUnknown, StoreInUse
from keyrack.engines.embedded.clock import boot_id
from keyrack.engines.embedded.directory import try_lock
from keyrack.engines.embedded.durability.files import FILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyrack.engines.embedded.durability.files import Files

FORMAT: Final = "keyrack data 1"
_MARK: Final = "keyrack"
_LOCK: Final = "lock"
_NAME: Final = re.compile(r"(snapshot|journal)-([0-9]{16})(\.part|\.damaged)?")
_PART: Final = ".part"
_DAMAGED: Final = ".damaged"
_PATIENCE_SECONDS: Final = 3.0


class DataDirectory:
    """A data directory. `name` is the 16 bytes that it is known by."""

    def __init__(self, path: str, name: bytes, files: Files = FILES) -> None:
        self.path = path
        self.name = name
        self.boot = boot_id()
        self.files = files

    def snapshot(self, number: int) -> str:
        """Return the path of a snapshot."""
        return os.path.join(self.path, f"snapshot-{number:016d}")

    def journal(self, number: int) -> str:
        """Return the path of a journal."""
        return os.path.join(self.path, f"journal-{number:016d}")

    def part(self, number: int) -> str:
        """Return the path of a snapshot that is being made."""
        return self.snapshot(number) + _PART

    def snapshots(self) -> list[int]:
        """Return the numbers of the snapshots, the oldest first."""
        return self._numbers("snapshot")

    def journals(self) -> list[int]:
        """Return the numbers of the journals, the oldest first."""
        return self._numbers("journal")

    def next_number(self) -> int:
        """Return a number that no file of this directory has had."""
        return max((number for _, number, _ in self._names()), default=0) + 1

    def set_aside(self, number: int) -> None:
        """Rename a damaged snapshot, so that it is neither read nor counted again."""
        self.files.rename(self.snapshot(number), self.snapshot(number) + _DAMAGED)

    def prune(self, keep: int, journals: bool) -> None:
        """Remove all but the last `keep` snapshots, and the journals that none of those needs.

        Without `journals` none is needed.
        """
        kept = self.snapshots()[-keep:]
        oldest = kept[0] if journals and kept else self.next_number()
        self._remove(self.snapshot(number) for number in self.snapshots() if number not in kept)
        self._remove(self.journal(number) for number in self.journals() if number < oldest)
        self.remove_parts()

    def remove_parts(self) -> None:
        """Remove what snapshots that were broken off have left."""
        names = (name for name in os.listdir(self.path) if name.endswith(_PART))
        self._remove(os.path.join(self.path, name) for name in names)

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self.files.remove(path)

    def _numbers(self, kind: str) -> list[int]:
        return sorted(number for what, number, more in self._names() if what == kind and not more)

    def _names(self) -> Iterator[tuple[str, int, str | None]]:
        """Yield kind, number and suffix of each file that has such a name."""
        for name in os.listdir(self.path):
            if match := _NAME.fullmatch(name):
                yield match[1], int(match[2]), match[3]


def take(path: str, files: Files = FILES) -> tuple[DataDirectory, int]:
    """Take a data directory for this service, making it if it is missing; return it and its lock.

    Raises `StoreInUse`, `StoreFormatUnknown`, or `StoreError` where it cannot be used.
    """
    path = os.path.abspath(path)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        lock = _lock_patiently(path)
    except OSError as error:
        raise StoreError(
            f"--data-dir {path} cannot be used: {error.strerror}. Name a directory that is yours."
        ) from None
    if lock is None:
        raise StoreInUse(
            f"the data directory {path} is in use by another service. Stop that one first, or name "
            "another --data-dir."
        )
    try:
        return _marked(path, files), lock
    except BaseException:
        os.close(lock)
        raise


def _lock_patiently(path: str) -> int | None:
    """Lock the directory; the last processes of an earlier service may still be ending."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (lock := try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return lock


def look(path: str) -> DataDirectory:
    """Return a data directory that is only read. Raises `StoreFormatUnknown`."""
    name = _name_in(path)
    if name is None:
        raise StoreFormatUnknown(f"{path} is no data directory of Keyrack.")
    return DataDirectory(path, name)


def _marked(path: str, files: Files) -> DataDirectory:
    name = _name_in(path)
    if name is None:
        others = set(os.listdir(path)) - {_LOCK, _MARK + _PART, "lost+found"}
        if others:
            raise StoreFormatUnknown(
                f"--data-dir {path} holds other files ({min(others)}, ...) and is no data "
                "directory. Name an empty directory or a new one."
            )
        name = secrets.token_bytes(16)
        _mark(path, name, files)
    return DataDirectory(path, name, files)


def _mark(path: str, name: bytes, files: Files) -> None:
    mark = os.path.join(path, _MARK)
    with contextlib.suppress(FileNotFoundError):
        files.remove(mark + _PART)
    descriptor = files.create(mark + _PART)
    try:
        files.write(descriptor, f"{FORMAT}\n{name.hex()}\n".encode(), 0)
        files.sync(descriptor)
    finally:
        os.close(descriptor)
    files.rename(mark + _PART, mark)
    files.sync_directory(path)


def _name_in(path: str) -> bytes | None:
    """Return the name of a data directory, None where there is none yet."""
    try:
        with open(os.path.join(path, _MARK), encoding="ascii", errors="replace") as file:
            text, name, *_ = (file.read(200) + "\n\n").split("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from None
    if text != FORMAT or re.fullmatch("[0-9a-f]{32}", name) is None:
        raise StoreFormatUnknown(
            f"{path} has the format {text!r}, and this version of Keyrack reads {FORMAT!r}. "
            "Use the one that made it, or another --data-dir."
        )
    return bytes.fromhex(name)
