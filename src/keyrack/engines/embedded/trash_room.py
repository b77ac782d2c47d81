"""Making room: the trash is dropped before any write is refused and before any key is evicted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import lmdb

from keyrack.engines.embedded.commit import Commit
from keyrack.engines.embedded.database import JournalFailed
from keyrack.engines.embedded.memory import PAGE, pages_of_removals
from keyrack.engines.embedded.trash import Trash, is_empty

if TYPE_CHECKING:
    from keyrack.engines.embedded.database import Database
    from keyrack.engines.embedded.events import EventLog

_MOST_A_COMMIT: Final = 32
"""Records that one commit drops: what it may take of the pages that are kept for deletes."""


class TrashRoom:
    """What drops the trash in one process, where room is needed."""

    def __init__(self, database: Database, log: EventLog) -> None:
        self._database = database
        self._log = log

    def make(self, pages: int) -> bool:
        """Drop the trash, the oldest first, until so many pages are free or it is empty.

        Return whether anything was dropped.
        """
        dropped, most = False, _MOST_A_COMMIT
        while most and not self._is_empty():
            try:
                with Commit(self._database, self._log, pages_of_removals(most), False) as commit:
                    wanted = max(PAGE, (pages - self._database.room()) * PAGE)
                    dropped = Trash(commit).drop_oldest(wanted, most) > 0 or dropped
            except lmdb.MapFullError:
                most //= 2
                continue
            except JournalFailed:
                return False
            with contextlib.suppress(lmdb.MapFullError):
                self._database.reclaim()
            if self._database.room() >= pages:
                break
        return dropped

    def _is_empty(self) -> bool:
        with self._database.read() as txn:
            return is_empty(txn)
