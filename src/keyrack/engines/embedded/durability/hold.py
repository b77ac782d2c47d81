"""What the durable modes need of the database of an engine."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from keyrack.engines.contract import Space
from keyrack.engines.embedded.durability.journal import Position, read_position, write_position
from keyrack.engines.embedded.memory import PAGES_A_COMMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.embedded.memory import Memory


class Hold(NamedTuple):
    """An engine's database, memory and clock."""

    env: lmdb.Environment
    spaces: tuple[lmdb._Database, ...]
    expiry: lmdb._Database
    pieces: lmdb._Database
    log: lmdb._Database
    memory: Memory
    words: memoryview
    now: Callable[[], int]
    """The store's clock, in ms."""
    read_state: Callable[[lmdb.Transaction[bytes]], tuple[int, int, int]]
    write_state: Callable[[lmdb.Transaction[bytes], int, int, int], None]
    """Last revision, number and bytes of the events."""

    def position(self) -> Position:
        """Return the journal's position."""
        with self.env.begin() as txn:
            return read_position(txn)

    @contextlib.contextmanager
    def writing(self) -> Iterator[lmdb.Transaction[bytes]]:
        """Give a small write transaction, which has the memory that it needs."""
        with self.env.begin(write=True) as txn:
            if not self.memory.claim(PAGES_A_COMMIT, grows=False):
                raise lmdb.MapFullError("no room for the journal's position")
            yield txn

    def move(self, change: Callable[[Position], Position]) -> Position:
        """Change the journal's position in a transaction of its own, and return the new one."""
        with self.writing() as txn:
            position = change(read_position(txn))
            write_position(txn, position)
        return position

    def revision(self) -> int:
        """Return the last revision."""
        with self.env.begin() as txn:
            return self.read_state(txn)[0]

    def changed_since_snapshot(self) -> bool:
        """Tell whether anything was written since the last snapshot, or there was none."""
        saved = self.position().saved
        # The transaction that ends a snapshot is noted by the one after it.
        return saved == 0 or self.env.info()["last_txnid"] > saved + 1

    def keys(self) -> int:
        """Return the number of keys."""
        with self.env.begin() as txn:
            return txn.stat(self.spaces[Space.KEYS])["entries"]

    def is_empty(self) -> bool:
        """Tell whether there is nothing in the store, nor any event."""
        with self.env.begin() as txn:
            return not any(txn.stat(database)["entries"] for database in (*self.spaces, self.log))

    def clear(self) -> None:
        """Remove everything that users have put into the store."""
        if self.is_empty():
            return
        with self.writing() as txn:
            for database in (*self.spaces, self.expiry, self.pieces, self.log):
                txn.drop(database, delete=False)
            self.write_state(txn, self.read_state(txn)[0], 0, 0)
