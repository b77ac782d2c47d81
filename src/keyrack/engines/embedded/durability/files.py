"""What the durable modes do to files, in one place: tests record it there, and make it fail."""

from __future__ import annotations

import errno
import os
from typing import Final


class Files:
    """The system's files. Each method raises `OSError`, and has no state of its own."""

    def create(self, path: str) -> int:
        """Make a new, empty file and return its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: str) -> int:
        """Open a file for reading and writing, and return its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` at an offset, or raise; a part may have been written then."""
        written = os.pwrite(descriptor, data, offset)
        while written < len(data):
            more = os.pwrite(descriptor, memoryview(data)[written:], offset + written)
            if more == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            written += more

    def sync(self, descriptor: int) -> None:
        """Return when what was written to a file is on the disk."""
        os.fdatasync(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of whatever had it."""
        os.rename(old, new)

    def remove(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        """Return when the names of a directory's files are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


FILES: Final = Files()
