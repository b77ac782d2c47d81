"""How many pages a write of many operations takes, which are done all or none.

What one operation can take at most (`PAGES_A_WRITE`) times a thousand is a bound far above what a
thousand take: they share leaves, and a tree copies no page twice. A store would refuse what fits,
and claim memory that nobody needs. So there are two figures here, for the trees as they are now:

- what the write is likely to take. A tree with fewer leaves than the write has operations is copied
  as a whole at most; and new pages are made for the bytes that are added, in leaves that are half
  full after a split;
- what it may grow by. That is not certain, but seen while it is done: it is looked at every few
  operations (`check`), and given up where it is exceeded. The next few may exceed it before they
  are looked at, which is why it is claimed with some pages more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import Check, Delete, Discard, Get, Remember, Set, Space
from keyrack.engines.embedded.database import NoRoom
from keyrack.engines.embedded.memory import PAGE, PAGES_A_COMMIT
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, PIECE

if TYPE_CHECKING:
    from keyrack.engines.contract import Write
    from keyrack.engines.embedded.database import ReadTransaction

CHECK_EVERY: Final = 16
"""Operations between two looks at how much the store has grown."""
_SLACK: Final = 6 * CHECK_EVERY
"""Pages by which so many operations may exceed it: two trees, a leaf and two branches each."""
_LONGEST_IN_A_LEAF: Final = PAGE // 2 - 64
"""A record that is longer has a page of its own."""
_ENTRY_BYTES: Final = 28
"""What an entry of a tree takes besides key and value: its head, its pointer, a record's head."""
_INDEX_ENTRY_BYTES: Final = 17 + 10
_EVENT_BYTES: Final = 3
_DELETE_TOUCHES: Final = 3
"""A leaf that has become too empty is joined with its neighbour, and that may be repeated."""
_SPLITS_PART: Final = 8
"""One in so many leaves that are changed is likely to be split, besides what is added in bytes."""


PAGES_AN_OUTCOME: Final = 48
"""An outcome that is remembered: 64 KiB of values that were read, and a thousand results."""


class Demand:
    """What a write is likely to need."""

    __slots__ = ("_bytes", "_events", "_index", "_operations", "_own_pages")

    def __init__(self, write: Write) -> None:
        self._operations = 0
        self._bytes = self._index = self._events = self._own_pages = 0
        for operation in write:
            if type(operation) is Get or type(operation) is Check:
                continue
            key = len(operation.key)
            self._operations += _DELETE_TOUCHES if type(operation) is Delete else 1
            self._events += key + _EVENT_BYTES
            if type(operation) is Set:
                self._add(key, len(operation.value))
                self._index += bool(operation.ttl_ms) * (key + _INDEX_ENTRY_BYTES)
            elif type(operation) is Remember:
                self._own_pages += PAGES_AN_OUTCOME
            elif type(operation) is Discard:
                # Its record moves from one tree to another: how long it is, is seen then.
                self._operations += _DELETE_TOUCHES + 1
                self._add(key, 0)
                self._index += key + _INDEX_ENTRY_BYTES
            elif type(operation) is not Delete:
                self._add(key, 0)
                self._index += key + _INDEX_ENTRY_BYTES

    def _add(self, key: int, value: int) -> None:
        self._bytes += key + _ENTRY_BYTES
        if value > LONGEST_WHOLE:
            pieces = -(-value // PIECE)
            self._own_pages += pieces
            self._bytes += pieces * _ENTRY_BYTES
        elif key + value > _LONGEST_IN_A_LEAF:
            self._own_pages += 1
        else:
            self._bytes += value

    def growth(self, txn: ReadTransaction) -> int:
        """Return by how many pages the trees are likely to grow."""
        added = 2 * (self._bytes + self._index) // PAGE + self._events // PAGE
        splits = self._touched(txn) // _SPLITS_PART
        return self._own_pages + added + splits + 4

    def pages(self, txn: ReadTransaction) -> int:
        """Return how many pages the write is likely to take."""
        return PAGES_A_COMMIT + self._touched(txn) + self.growth(txn) + _SLACK

    def _touched(self, txn: ReadTransaction) -> int:
        """Return how many pages that are there now may have to be copied."""
        pages = 0
        for tree in (*txn.database.spaces, txn.database.expiry, txn.database.pieces):
            leaves, branches = txn.shape(tree)
            pages += min(self._operations, leaves) + branches
        return pages


class Growth:
    """By how much the trees have grown in a transaction, against what was expected."""

    __slots__ = ("_claimed", "_expected", "_most", "_trees", "_txn")

    def __init__(self, txn: ReadTransaction, demand: Demand) -> None:
        self._txn = txn
        self._expected = demand.growth(txn)
        self._claimed = demand.pages(txn)
        database = txn.database
        # Others grow by a few pages only, however many operations there are.
        spaces = database.spaces
        self._trees = (spaces[Space.KEYS], database.expiry, database.pieces, spaces[Space.TRASH])
        self._most = self._pages() + self._expected

    def _pages(self) -> int:
        return sum(map(self._txn.pages, self._trees))

    def check(self) -> None:
        """Claim more where it was exceeded. Raises `NoRoom` where that cannot be had."""
        if self._pages() <= self._most:
            return
        self._claimed += self._expected
        if not self._txn.database.memory.claim(self._claimed, grows=True):
            raise NoRoom("no room")
        self._most += self._expected
