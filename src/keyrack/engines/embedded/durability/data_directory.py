"""The data directory: which files are in it, what they are called, and that one service has it.

keyrack                     the format, 16 random bytes that name this directory, a checksum
lock                        locked for as long as any process of the service lives
high-water                  what is known to be on the disk at least, see `high_water`
snapshot-0000000000000042   a snapshot; it is called so only when it is whole and on the disk
journal-0000000000000042    what was changed since that snapshot was begun, and up to the next
*.part                      a file that is being made
*.set-aside                 a file that nothing could be read from, or that was not used; it is left
                            to the operator, and nobody reads or removes it
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import StoreError, StoreFormatUnknown, StoreInUse
from keyrack.engines.embedded.clock import boot_id
from keyrack.engines.embedded.durability.files import FILES
from keyrack.engines.embedded.locking import lock_patiently
from keyrack.system import missing_parent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyrack.engines.embedded.durability.files import Files

FORMAT: Final = "keyrack data 1"
_HEAD: Final = "keyrack"
_LOCK: Final = "lock"
_MARK: Final = "high-water"
_NAME: Final = re.compile(
    r"(snapshot|journal)-([0-9]{16})(\.part|\.damaged|\.set-aside(?:-[0-9]+)?)?"
)
_PART: Final = ".part"
_ASIDE: Final = ".set-aside"
_ASIDE_NAMES: Final = (_ASIDE, ".damaged")
"""What the names of files begin to end with that were set aside, by earlier versions too."""


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

    def mark(self) -> str:
        """Return the path of the high-water mark."""
        return os.path.join(self.path, _MARK)

    def has_set_aside_snapshots(self) -> bool:
        """Tell whether any snapshot was set aside."""
        return any(
            kind == "snapshot" and suffix.startswith(_ASIDE_NAMES)
            for kind, _, suffix in self._names()
        )

    def has_trace_of_snapshot(self, number: int) -> bool:
        """Tell whether a snapshot is there, or was set aside."""
        return any(
            (kind, found) == ("snapshot", number) and suffix != _PART
            for kind, found, suffix in self._names()
        )

    def set_aside(self, path: str) -> str:
        """Rename a file, so that it is neither read nor removed; return its new path."""
        target, number = path + _ASIDE, 1
        while os.path.lexists(target):
            number += 1
            target = f"{path}{_ASIDE}-{number}"
        self.files.rename(path, target)
        return target

    def prune(self, keep: int) -> None:
        """Remove all but the last `keep` snapshots, and the journals that none of those needs."""
        snapshots = self.snapshots()
        kept = snapshots[-keep:]
        self._remove(self.snapshot(number) for number in snapshots if number not in kept)
        if kept:
            self._remove(self.journal(number) for number in self.journals() if number < kept[0])
        self.remove_parts()

    def remove_journal(self, number: int) -> None:
        """Remove a journal that was there for a snapshot only."""
        self._remove((self.journal(number),))

    def check_present(self) -> None:
        """Raise `StoreError` when this directory is not there, or another is in its place."""
        try:
            name = _name_in(self.path)
        except StoreError as error:
            raise StoreError(f"the data directory {self.path} is gone: {error}") from None
        if name != self.name:
            raise StoreError(
                f"the data directory {self.path} is gone, or another is in its place. "
                "Is its file system mounted?"
            )

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

    def _names(self) -> Iterator[tuple[str, int, str]]:
        """Yield kind, number and suffix of each file that has such a name."""
        for name in os.listdir(self.path):
            if match := _NAME.fullmatch(name):
                yield match[1], int(match[2]), match[3] or ""


def take(path: str, files: Files = FILES) -> tuple[DataDirectory, int]:
    """Take a data directory for this service, making it if it is missing; return it and its lock.

    Raises `StoreInUse`, `StoreFormatUnknown`, or `StoreError` where it cannot be used.
    """
    path = os.path.abspath(path)
    if (missing := missing_parent(path)) is not None:
        raise StoreError(
            f"--data-dir {path} cannot be made: {missing} does not exist. Make it, or mend the "
            "path."
        )
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        lock = lock_patiently(path)
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


def has_files(path: str) -> bool:
    """Tell whether files of a data directory are in a directory, which may lack its head."""
    try:
        return any(name == _MARK or _NAME.fullmatch(name) for name in os.listdir(path))
    except OSError:
        return False


def look(path: str) -> DataDirectory:
    """Return a data directory that is only read. Raises `StoreFormatUnknown`."""
    name = _name_in(path)
    if name is None:
        if has_files(path):
            raise _head_missing(path)
        raise StoreFormatUnknown(f"{path} is no data directory of Keyrack.")
    return DataDirectory(path, name)


def _marked(path: str, files: Files) -> DataDirectory:
    name = _name_in(path)
    if name is None:
        others = set(os.listdir(path)) - {_LOCK, _HEAD + _PART, "lost+found"}
        if has_files(path):
            raise _head_missing(path)
        if others:
            raise StoreFormatUnknown(
                f"--data-dir {path} holds other files ({min(others)}, ...) and is no data "
                "directory. Name an empty directory or a new one."
            )
        name = secrets.token_bytes(16)
        write_head(path, name, files)
    return DataDirectory(path, name, files)


def write_head(path: str, name: bytes, files: Files = FILES) -> None:
    """Write the file that names a data directory; one that is there already is set aside."""
    head = os.path.join(path, _HEAD)
    with contextlib.suppress(FileNotFoundError):
        files.remove(head + _PART)
    descriptor = files.create(head + _PART)
    try:
        content = f"{FORMAT}\n{name.hex()}\n"
        files.write(descriptor, f"{content}{_checksum(content)}\n".encode(), 0)
        files.sync(descriptor)
    finally:
        os.close(descriptor)
    if os.path.lexists(head):
        DataDirectory(path, name, files).set_aside(head)
    files.rename(head + _PART, head)
    files.sync_directory(path)


def _checksum(content: str) -> str:
    return blake2b(content.encode(), digest_size=8).hexdigest()


def _name_in(path: str) -> bytes | None:
    """Return the name of a data directory, None where there is none yet."""
    head = os.path.join(path, _HEAD)
    try:
        with open(head, encoding="ascii", errors="replace") as file:
            content = file.read(200)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{head} cannot be read: {error.strerror}.") from None
    text, name, checksum, *_ = f"{content}\n\n\n".split("\n")
    if _is_whole(content, text, name, checksum):
        if text == FORMAT:
            return bytes.fromhex(name)
        raise StoreFormatUnknown(
            f"{path} has the format {text!r}, and this version of Keyrack reads {FORMAT!r}. "
            "Use the one that made it, or another --data-dir."
        )
    raise StoreFormatUnknown(
        f"{head} is damaged: it should be {FORMAT!r}, a name of 32 hexadecimal digits, and a "
        f"checksum, a line each. {_ways_out(path)}"
    )


def _head_missing(path: str) -> StoreFormatUnknown:
    return StoreFormatUnknown(
        f"{path} holds files of a data directory, but its file {_HEAD!r} is missing. "
        f"{_ways_out(path)}"
    )


def _ways_out(path: str) -> str:
    return (
        "Nothing was changed. Put that file back from a backup, or have it made anew by `keyrack "
        f"data salvage --data-dir {path}`."
    )


def _is_whole(content: str, text: str, name: str, checksum: str) -> bool:
    """Tell whether a head is as it was written: earlier versions wrote no checksum."""
    if re.fullmatch(r"keyrack data [0-9]+", text) is None:
        return False
    lines = f"{text}\n{name}\n"
    if content == lines:
        return re.fullmatch("[0-9a-f]{32}", name) is not None
    return content == f"{lines}{checksum}\n" and checksum == _checksum(lines)
