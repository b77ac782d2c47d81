"""How all processes of a service know who may log in, and know of each other that they do.

The supervisor publishes what the operator's file says; tokens that are made over HTTP are in the
store. Whoever changes either raises the epoch and wakes the workers; see `epochs`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from typing import Final

from keyrack.access.last_use import LastUse
from keyrack.access.rates import Meters
from keyrack.shared.epochs import Epochs

_DIGEST_BYTES: Final = 32
_LENGTH_BYTES: Final = 8
_REGION: Final = 64 << 20
"""Where the second of the two places for a document begins: behind the longest one."""
_DOCUMENTS: Final = 0
_FAILED: Final = 1
_LAST_RELOAD: Final = 2
_KEYS_WANTED: Final = 3
_HEADER: Final = 8
_CACHE_LINE: Final = 8
"""Words of each worker, so that no two write to the same cache line."""
_FAILED_LOGINS: Final = 0
"""The first of as many words as there are reasons."""
_AUDIT_DROPPED: Final = 4
FAILURES: Final = ("malformed", "expired", "unknown", "scheme")
"""Why credentials do not count."""


class AccessBoard:
    """Made by the supervisor before it forks. A process writes only words of its own."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        words = _HEADER + workers * _CACHE_LINE
        self._words = memoryview(mmap.mmap(-1, words * 8)).cast("q")
        self.epochs = Epochs(workers + 1)
        """Those of file and tokens. The supervisor's words are behind those of the workers."""
        self.meters = Meters(workers)
        """How much tokens have used of their rates."""
        self.last_use = LastUse(workers)
        self._file = os.memfd_create("keyrack-access", os.MFD_CLOEXEC)

    # What the operator's file says

    def publish(self, document: bytes, now_ms: int) -> None:
        """Put a document in the place of the last one, and raise the epoch. The supervisor's.

        `now_ms` is when it was read, in ms since 1970.
        """
        if len(document) + _LENGTH_BYTES + _DIGEST_BYTES > _REGION:
            raise ValueError(f"a document has at most {_REGION} bytes")
        number = self._words[_DOCUMENTS] + 1
        whole = len(document).to_bytes(_LENGTH_BYTES, "little") + _digest(document) + document
        os.pwrite(self._file, whole, number % 2 * _REGION)
        self._words[_DOCUMENTS] = number
        self._words[_LAST_RELOAD] = now_ms
        self._words[_FAILED] = 0
        self.epochs.raise_epoch(self.workers)

    def document(self) -> bytes:
        """Return the document that was published last; empty before the first."""
        while (number := self._words[_DOCUMENTS]) > 0:
            start = number % 2 * _REGION
            head = os.pread(self._file, _LENGTH_BYTES + _DIGEST_BYTES, start)
            length = int.from_bytes(head[:_LENGTH_BYTES], "little")
            document = os.pread(self._file, length, start + len(head))
            if _digest(document) == head[_LENGTH_BYTES:]:
                return document
            # It was replaced twice meanwhile; the next one is whole.
        return b""

    def fail(self) -> None:
        """Say that the file was changed and cannot be used: what was published last counts on."""
        self._words[_FAILED] = 1

    @property
    def failed(self) -> bool:
        """Whether the file cannot be used as it is now."""
        return self._words[_FAILED] == 1

    @property
    def last_reload_ms(self) -> int:
        """When a file that can be used was last read, in ms since 1970; 0 before that."""
        return self._words[_LAST_RELOAD]

    # Keys of issuers, and counts

    def want_keys(self) -> None:
        """Say that a key of an issuer is not known: the supervisor may fetch them anew."""
        self._words[_KEYS_WANTED] = 1

    def keys_wanted(self) -> bool:
        """Tell whether a key is not known, and forget it."""
        wanted = self._words[_KEYS_WANTED] == 1
        self._words[_KEYS_WANTED] = 0
        return wanted

    def count_failed_login(self, worker: int, reason: str) -> None:
        """Count credentials that do not count, for a reason in `FAILURES`."""
        self._words[self._at(worker) + _FAILED_LOGINS + FAILURES.index(reason)] += 1

    @property
    def failed_logins(self) -> dict[str, int]:
        """How often somebody has sent credentials that do not count, by the reason."""
        first = _HEADER + _FAILED_LOGINS
        return {
            reason: sum(self._words[first + place :: _CACHE_LINE])
            for place, reason in enumerate(FAILURES)
        }

    def count_audit_dropped(self, worker: int, lines: int) -> None:
        """Count lines of the audit log that could not be written."""
        self._words[self._at(worker) + _AUDIT_DROPPED] += lines

    @property
    def audit_dropped(self) -> int:
        """How many lines of the audit log could not be written."""
        return sum(self._words[_HEADER + _AUDIT_DROPPED :: _CACHE_LINE])

    def _at(self, worker: int) -> int:
        return _HEADER + worker * _CACHE_LINE


def _digest(document: bytes) -> bytes:
    return hashlib.sha256(document).digest()
