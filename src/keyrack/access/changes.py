"""Noticing that files were changed, by looking.

Looking once a second notices what a notification on the file would miss: Kubernetes swaps a
symbolic link some directories up, and editors put another file in the place of the old one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

_Mark: TypeAlias = tuple[int, int, int] | None


class FileWatch:
    """Tells when any of some files was changed, replaced or removed.

    A change counts when nothing has changed between two looks, so that a file which is being
    written is not read before it is whole.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._known = {path: _mark(path) for path in paths}
        self._seen = self._known

    def changed(self) -> bool:
        """Look, and tell whether the files are others than those that are known. Tells it once."""
        before, self._seen = self._seen, {path: _mark(path) for path in self._known}
        if self._seen != before or self._seen == self._known:
            return False
        self._known = self._seen
        return True

    def follow(self, paths: Iterable[str]) -> None:
        """Look at these files from now on. None of them counts as changed by that."""
        self._known = {path: _mark(path) for path in paths}
        self._seen = self._known


def _mark(path: str) -> _Mark:
    """Return what changes with a file's contents; None while it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
