"""The audit trail in a file of its own: lines of JSON, appended by every worker.

The file may be renamed at any time, as logrotate does: each worker looks twice a second whether its
path names another file, or none, and then goes on in a new one. Nothing waits for the file: a line
that it does not take is dropped, counted, and told of in the file when there is room again.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Final

from keyrack.server import logs

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MODE: Final = 0o600
"""It names keys and who has asked for them."""
_LOST: Final = "%d lines were dropped because the audit log could not be written"

_log = logging.getLogger("keyrack.logs")


class AuditLogError(Exception):
    """Raised at the start for a file that cannot be written. The message is a sentence."""


def demand(path: str) -> None:
    """Make sure that the file can be written. Raises `AuditLogError`."""
    try:
        os.close(_open(path))
    except OSError as error:
        raise AuditLogError(
            f"The audit log {path} cannot be written: {error.strerror}. Create its directory, or "
            "name another file with --audit-log."
        ) from None


def begin(path: str, count_dropped: Callable[[int], None]) -> Callable[[], None]:
    """Send the audit trail of this process to a file; return what is to be called twice a second.

    `count_dropped` is called with how many lines more could not be written.
    """
    file = AuditFile(path)
    handler = logs.LineHandler(file, _LOST)
    handler.setFormatter(logs.JsonLines())
    audit = logging.getLogger(logs.AUDIT)
    audit.handlers[:] = [handler]
    audit.propagate = False
    drops = logs.Drops(count_dropped, handler)

    def look() -> None:
        file.look()
        drops.look()

    return look


class AuditFile:
    """A file that is appended to, wherever its path leads at present."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._in_trouble = False
        """Whether it has been told that the file cannot be written."""
        self.look()

    def look(self) -> None:
        """Go on in another file, if the path names another one, or none."""
        if self._descriptor is not None and _names(self._path, self._descriptor):
            return
        try:
            opened = _open(self._path)
        except OSError as error:
            # What was opened before goes on to be written, wherever it is now.
            self._tell(error)
            return
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = opened

    def write(self, data: memoryview) -> int:
        """Write what there is room for, and return how many bytes that was."""
        if self._descriptor is None:
            return 0
        try:
            written = os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._tell(error)
            return 0
        self._in_trouble = False
        return written

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _tell(self, error: OSError) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            _log.error(
                "the audit log %s cannot be written: %s", self._path, error.strerror,
                extra={"event": "audit_lost"},
            )  # fmt: skip


def _open(path: str) -> int:
    return os.open(path, _FLAGS, _MODE)


def _names(path: str, descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False
