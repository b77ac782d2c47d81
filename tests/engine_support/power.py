"""A disk that loses power: what is done to files is recorded, and any end of it can be made.

The model is harsher than a real file system. What was written to a file and not synced may be
there, or not, or in part, each write on its own; names that were made, changed or removed and
not synced with their directory may be there or not, each on its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from keyrack.engines.embedded.durability.files import Files

if TYPE_CHECKING:
    import random
    from pathlib import Path


class Done(NamedTuple):
    """One thing that was done: `what`, to the file that was made as the `file`-th, and how."""

    what: str
    file: int = 0
    name: str = ""
    other: str = ""
    offset: int = 0
    data: bytes = b""


class RecordingFiles(Files):
    """The system's files, and a record of all that was done to them."""

    def __init__(self) -> None:
        self.done: list[Done] = []
        self._files: dict[tuple[int, int], int] = {}

    def _file(self, descriptor: int) -> int:
        found = os.fstat(descriptor)
        return self._files.setdefault((found.st_dev, found.st_ino), len(self._files))

    def create(self, path: str) -> int:
        descriptor = super().create(path)
        found = os.fstat(descriptor)
        self._files.pop((found.st_dev, found.st_ino), None)  # an inode's number comes again
        self._files[found.st_dev, found.st_ino] = number = len(self.done)
        self.done.append(Done("create", number, os.path.basename(path)))
        return descriptor

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        super().write(descriptor, data, offset)
        self.done.append(Done("write", self._file(descriptor), offset=offset, data=data))

    def sync(self, descriptor: int) -> None:
        self.done.append(Done("sync", self._file(descriptor)))

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        self.done.append(Done("rename", 0, os.path.basename(old), os.path.basename(new)))

    def remove(self, path: str) -> None:
        super().remove(path)
        self.done.append(Done("remove", 0, os.path.basename(path)))

    def sync_directory(self, path: str) -> None:
        self.done.append(Done("sync directory"))


def after_power_loss(done: list[Done], directory: Path, survives: Any) -> None:
    """Make what may be on the disk when the power goes after `done`.

    `survives` tells of each thing that was not synced whether it is there: a number of its bytes,
    or False or True.
    """
    last_sync = {one.file: index for index, one in enumerate(done) if one.what == "sync"}
    named = max((i for i, one in enumerate(done) if one.what == "sync directory"), default=-1)
    contents: dict[int, bytearray] = {}
    names: dict[str, int] = {}
    for index, one in enumerate(done):
        if one.what == "write":
            safe = index < last_sync.get(one.file, -1)
            length = len(one.data) if safe else survives(len(one.data))
            _write(contents.setdefault(one.file, bytearray()), one.offset, one.data[:length])
        elif index < named or survives(1):
            _name(names, one)
    directory.mkdir()
    for name, file in names.items():
        (directory / name).write_bytes(contents.get(file, b""))


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if not data:
        return
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def _name(names: dict[str, int], one: Done) -> None:
    if one.what == "create":
        names[one.name] = one.file
    elif one.what == "remove":
        names.pop(one.name, None)
    elif one.what == "rename" and one.name in names:
        names[one.other] = names.pop(one.name)


def nothing(length: int) -> int:
    """Nothing survives that was not synced."""
    return 0


def everything(length: int) -> int:
    """Everything survives, as after a kill."""
    return length


def by_chance(chance: random.Random) -> Any:
    """Any part of any of it survives."""

    def survives(length: int) -> int:
        return chance.choice((0, length, chance.randint(0, length)))

    return survives
