"""The store's database: an LMDB environment, its trees, and the only ways to read and change it.

The trees, which LMDB calls databases: one of records for each space (`records`, `locks`,
`answers`, `tokens` for `Space.ADMIN`, `trash`, `undos`), `expiry` (end and revision of a record to
its key), `pieces` (long values, see `pieces`), `events` (see `eventlog`), and the unnamed one,
which holds notes: the format, the clock's anchor, the state (last revision, number and bytes of the
events), how many keys were evicted, how many stale copies there are, quotas and what is counted for
them, where the journal is.

LMDB's own transactions do not leave this module. There are four kinds of transaction, and which one
is right follows from what is to be done:

    read      looks; as of one moment
    write     changes records. Where there is a journal each change is written down in it before the
              commit, in whatever way it was made, and refused where that cannot be done
    maintain  changes what is no user's: notes, the state, events that are too many. It cannot
              change a record, and works while the journal does not
    load      fills an empty store from what was written down

Those that change something have the memory for it: they are not begun where it cannot be had.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from itertools import islice, repeat, starmap
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

import lmdb

from keyrack.engines import record
from keyrack.engines.contract import (
    SHORT_WAIT_NS,
    Measures,
    Space,
    StoreAway,
    StoreFormatUnknown,
    Usage,
)
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.clock import Anchor, steady_ns
from keyrack.engines.embedded.durability.changes import EVENTS, place_of
from keyrack.engines.embedded.memory import PAGE, PAGES_A_COMMIT, RESERVE, Memory
from keyrack.engines.embedded.position import Position
from keyrack.engines.embedded.quotas import QuotaLimits, Tally, go_by, gone_by, uses
from keyrack.engines.embedded.shared_words import claim_readers, open_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Literal, Self

    from keyrack.engines.contract import Why

FORMAT: Final = b"keyrack 4"
_EARLIER_FORMATS: Final = (b"keyrack 1", b"keyrack 2", b"keyrack 3")
"""In the first one long values stood in their records. Those are read; new ones are made in pieces.
Up to the second there were no stale copies, and up to the third nothing that caches may
keep, and no trash."""

_FORMAT_NOTE: Final = b"keyrack:format"
_ANCHOR_NOTE: Final = b"keyrack:anchor"
_STATE_NOTE: Final = b"keyrack:state"
_STATE: Final = Struct(">QQQ")
_EVICTED_NOTE: Final = b"keyrack:evicted"
_COPIES_NOTE: Final = b"keyrack:copies"
_POSITION_NOTE: Final = b"keyrack:journal"
_TAKEN_NOTE: Final = b"keyrack:taken"
_TAKEN: Final = Struct(">QQQ")
"""Bytes of the locks, of the answers and of the trash, with what belongs to them."""
_SHARE_PART: Final = 8
"""Locks may take this part of the memory, and so may answers."""
_BYTES_BESIDE: Final = 64
"""What a record takes besides itself and twice its key: its end, the heads of both entries."""

_SPACES: Final = (b"records", b"locks", b"answers", b"tokens", b"trash", b"undos")
_COUNTED: Final = {Space.LOCKS: 0, Space.ANSWERS: 1, Space.TRASH: 2}
"""The places of the bytes that are counted: `_TAKEN`."""
_NAMES: Final = frozenset((*_SPACES, b"expiry", b"pieces", b"events"))
_MOST_READERS: Final = 1022
_SMALL_FILES_BYTES: Final = (1 << 16) + (1 << 14)
"""The table of readers, the words, the lock."""

Changes: TypeAlias = "Mapping[tuple[int, bytes], bytes | None]"
"""Place and key of what was changed, and the record that is there now; None when it is gone."""


class NoRoom(lmdb.MapFullError):
    """Raised where memory cannot be had: the store is full, whoever reads it."""


class JournalFailed(StoreAway):
    """Raised in a write transaction, which is then given up: its changes cannot be kept."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why = why


class Tree(NamedTuple):
    """A tree of the database."""

    handle: lmdb._Database
    place: int = -1
    """What a journal calls it; -1 for what it leaves out, because it follows from the records."""
    counted: int = -1
    """The place of its bytes among those that are counted, -1 where they are not."""


class Cursor(Protocol):
    """A place in a tree, in the order of the keys' bytes; moving says whether there is an entry.

    A new one stands nowhere. See `lmdb.Cursor`, whose methods these are.
    """

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def __iter__(self) -> Iterator[tuple[bytes, bytes]]: ...
    def key(self) -> bytes: ...
    def value(self) -> bytes: ...
    def item(self) -> tuple[bytes, bytes]: ...
    def first(self) -> bool: ...
    def last(self) -> bool: ...
    def next(self) -> bool: ...
    def prev(self) -> bool: ...
    def set_key(self, key: bytes, /) -> bool: ...
    def set_range(self, key: bytes, /) -> bool: ...
    def iternext(self, keys: Literal[False], /) -> Iterator[bytes]: ...
    def iterprev(self) -> Iterator[tuple[bytes, bytes]]: ...


class DeletingCursor:
    """A cursor that can remove the entry that it stands at, and goes on to the next then."""

    __slots__ = (
        "_changes", "_cursor", "_place", "_tally", "first", "key", "next", "set_key", "set_range",
        "value",
    )  # fmt: skip

    def __init__(
        self,
        cursor: lmdb.Cursor[bytes],
        place: int,
        changes: dict[tuple[int, bytes], bytes | None] | None,
        tally: Tally | None = None,
    ) -> None:
        self._cursor = cursor
        self._place = place
        self._changes = changes
        self._tally = tally
        self.key = cursor.key
        self.value = cursor.value
        self.first = cursor.first
        self.next = cursor.next
        self.set_key = cursor.set_key
        self.set_range = cursor.set_range

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._cursor.close()

    def delete(self) -> None:
        """Remove the entry."""
        if self._changes is not None:
            self._changes[self._place, self._cursor.key()] = None
        if self._tally is not None:
            self._tally.change(self._cursor.key(), self._cursor.value(), None)
        self._cursor.delete()

    def delete_some(self, count: int) -> None:
        """Remove so many entries, from the one that it stands at. Not for what a journal keeps."""
        assert self._changes is None, "a journal is told of each"
        # Without a turn of the interpreter for each: a long value has hundreds of pieces.
        deque(starmap(self._cursor.delete, repeat((), count)), maxlen=0)


class Lookup(Protocol):
    """A look at the records of keys. End it with `abort`, at once."""

    def get(self, key: bytes, /) -> bytes | None: ...
    def abort(self) -> None: ...


class ReadTransaction:
    """One look at the database; a context manager."""

    __slots__ = ("_raw", "database")

    def __init__(self, database: Database, raw: lmdb.Transaction[bytes]) -> None:
        self.database = database
        self._raw = raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._raw.abort()

    def abort(self) -> None:
        """End it, and give up what was changed."""
        self._raw.abort()

    @property
    def number(self) -> int:
        """The number of the last write transaction that is seen; a write's own, in one."""
        return self._raw.id()

    def get(self, key: bytes, tree: Tree) -> bytes | None:
        """Return what is stored under a key."""
        return self._raw.get(key, None, tree.handle)

    def cursor(self, tree: Tree) -> Cursor:
        """Return a cursor that only looks."""
        return self._raw.cursor(tree.handle)

    def entries(self, tree: Tree) -> int:
        """Return how many entries a tree has."""
        return self._raw.stat(tree.handle)["entries"]

    def pages(self, tree: Tree) -> int:
        """Return how many pages a tree takes."""
        stat = self._raw.stat(tree.handle)
        return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]

    def note(self, name: bytes) -> bytes | None:
        """Return a note."""
        return self._raw.get(name, None, self.database.notes.handle)

    def shape(self, tree: Tree) -> tuple[int, int]:
        """Return how many leaves a tree has, and how many branches."""
        stat = self._raw.stat(tree.handle)
        return stat["leaf_pages"], stat["branch_pages"]

    def state(self) -> tuple[int, int, int]:
        """Return the last revision, and the number and the bytes of the events."""
        raw = self._raw.get(_STATE_NOTE, b"", self.database.notes.handle)
        revision, events, size = _STATE.unpack(raw)
        return revision, events, size

    def evicted(self) -> int:
        """Return how many keys were evicted; a note of its own, for stores that began without."""
        return int.from_bytes(self.note(_EVICTED_NOTE) or b"", "big")

    def stale_copies(self) -> int:
        """Return how many of the keys' records are stale copies."""
        return int.from_bytes(self.note(_COPIES_NOTE) or b"", "big")

    def taken(self, tree: Tree) -> int:
        """Return how many bytes the records of a tree that is counted take."""
        return self._read_taken()[tree.counted]

    def _read_taken(self) -> list[int]:
        raw = self.note(_TAKEN_NOTE)
        # In what an earlier version has written there is no trash.
        return list(_TAKEN.unpack((raw or b"").ljust(_TAKEN.size, b"\0")))

    def position(self) -> Position:
        """Return where the journal is."""
        return Position.unpack(self.note(_POSITION_NOTE))


class Maintenance(ReadTransaction):
    """Changes what is no user's. Committed at the end of its block, given up where that raises."""

    __slots__ = ()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self._raw.abort()

    def commit(self) -> None:
        """End it, and have what was changed."""
        self._raw.commit()

    def put_note(self, name: bytes, value: bytes) -> None:
        """Write a note."""
        self._raw.put(name, value, db=self.database.notes.handle)

    def drop_note(self, name: bytes) -> None:
        """Remove a note."""
        self._raw.delete(name, db=self.database.notes.handle)

    def put_state(self, revision: int, events: int, size: int) -> None:
        """Write the last revision, and the number and the bytes of the events."""
        state = _STATE.pack(revision, events, size)
        self._raw.put(_STATE_NOTE, state, db=self.database.notes.handle)

    def count_evicted(self, keys: int) -> None:
        """Add to the number of keys that were evicted."""
        self.put_note(_EVICTED_NOTE, (self.evicted() + keys).to_bytes(8, "big"))

    def put_stale_copies(self, number: int) -> None:
        """Write how many of the keys' records are stale copies."""
        self.put_note(_COPIES_NOTE, number.to_bytes(8, "big"))

    def put_taken(self, taken: list[int]) -> None:
        """Write how many bytes locks, answers and trash take."""
        self.put_note(_TAKEN_NOTE, _TAKEN.pack(*taken))

    def put_position(self, position: Position) -> None:
        """Write where the journal is."""
        self.put_note(_POSITION_NOTE, position.pack())

    def put_beginning(self, revision: int, now: int) -> int:
        """Say in the log of events that a life begins at a revision; return the bytes that takes.

        No journal is told. An event of that revision says as much, and stays.
        """
        key, entry = eventlog.encode_revision(revision), eventlog.beginning(now)
        added = self._raw.put(key, entry, overwrite=False, db=self.database.events.handle)
        return len(entry) + eventlog.ENTRY_BYTES if added else 0

    def drop(self, trees: Iterable[Tree]) -> None:
        """Remove everything from trees."""
        for tree in trees:
            self._raw.drop(tree.handle, delete=False)

    def trimming(self) -> DeletingCursor:
        """Return a cursor that removes events. Every life trims them itself: no journal is told."""
        return DeletingCursor(self._raw.cursor(self.database.events.handle), EVENTS, None)


class WriteTransaction(Maintenance):
    """Changes records and what belongs to them, and has the journal told of all of it.

    It also counts the bytes of locks, answers and trash, whatever way they come and go.
    """

    __slots__ = ("_change_log", "_changes", "_taken", "copies", "tally")

    def __init__(
        self, database: Database, raw: lmdb.Transaction[bytes], change_log: ChangeLog | None
    ) -> None:
        self.database = database
        self._raw = raw
        self._change_log = change_log
        self._changes: dict[tuple[int, bytes], bytes | None] | None
        self._changes = None if change_log is None else {}
        self._taken: list[int] | None = None
        self.copies = 0
        """How many stale copies there are more by it: whoever makes or removes one counts."""
        self.tally: Tally | None = None
        """What is counted for quotas; None where there are none."""

    def commit(self) -> None:
        """End it, and have what was changed. Raises `JournalFailed`, and nothing is changed then.

        `lmdb.MapFullError` is raised before as well as here.
        """
        if self.copies:
            self.put_stale_copies(max(0, self.stale_copies() + self.copies))
        if self._taken is not None:
            self.put_taken(self._taken)
        if self._change_log is None or self._changes is None:
            self._raw.commit()
        else:
            self._commit_recorded(self._change_log, self._changes)

    def _commit_recorded(self, change_log: ChangeLog, changes: Changes) -> None:
        try:
            change_log.write_down(self, changes)
        except BaseException:
            self._raw.abort()
            raise
        try:
            self._raw.commit()
        except BaseException:
            change_log.take_back(self.database)
            raise

    def put(self, key: bytes, value: bytes, tree: Tree, append: bool = False) -> None:
        """Store an entry; with `append` its key is greater than all that are there."""
        if tree.counted >= 0:
            self.replace(key, value, tree)
            return
        if self._changes is not None and tree.place >= 0:
            self._changes[tree.place, key] = value
        self._raw.put(key, value, append=append, db=tree.handle)

    def put_part(self, key: bytes, value: memoryview, tree: Tree, append: bool) -> None:
        """Store one part as `put_parts` does."""
        assert tree.place < 0, "a journal keeps whole records"
        self._raw.put(key, value, append=append, db=tree.handle)

    def drop_part(self, key: bytes, tree: Tree) -> None:
        """Remove a part, if it is there."""
        assert tree.place < 0, "a journal keeps whole records"
        self._raw.delete(key, b"", tree.handle)

    def put_parts(
        self, parts: Iterable[tuple[bytes, bytes | memoryview]], tree: Tree, append: bool
    ) -> None:
        """Store keys and what belongs to each; parts of some bytes are not copied before.

        Not for what a journal keeps. With `append` the keys are greater than all that are there.
        """
        assert tree.place < 0, "a journal keeps whole records"
        with self._raw.cursor(tree.handle) as cursor:
            cursor.putmulti(parts, append=append)

    def replace(self, key: bytes, value: bytes, tree: Tree) -> bytes | None:
        """Store an entry and return the one before."""
        if self._changes is not None and tree.place >= 0:
            self._changes[tree.place, key] = value
        old = self._raw.replace(key, value, tree.handle)
        if tree.counted >= 0:
            self._count(tree, bytes_taken(key, value) - bytes_taken(key, old))
        return old

    def _count(self, tree: Tree, more: int) -> None:
        if self._taken is None:
            self._taken = self._read_taken()
        # Never below nothing, whatever a version that did not count has left.
        self._taken[tree.counted] = max(0, self._taken[tree.counted] + more)

    def taken(self, tree: Tree) -> int:
        """Return how many bytes the records of a tree that is counted take."""
        return (self._taken or self._read_taken())[tree.counted]

    def replacing_keys(self) -> Callable[[bytes, bytes], bytes | None]:
        """Return `replace` for the records of keys, to be called many times: the quickest there is.

        Not after the end of the transaction.
        """
        if self._changes is None:
            return self._raw.replace
        changes, replace = self._changes, self._raw.replace

        def record_and_replace(key: bytes, value: bytes) -> bytes | None:
            changes[Space.KEYS, key] = value
            return replace(key, value)

        return record_and_replace

    def pop(self, key: bytes, tree: Tree) -> bytes | None:
        """Remove an entry and return it."""
        old = self._raw.pop(key, tree.handle)
        if self._changes is not None and old is not None and tree.place >= 0:
            self._changes[tree.place, key] = None
        if tree.counted >= 0 and old is not None:
            self._count(tree, -bytes_taken(key, old))
        return old

    def deleting(self, tree: Tree) -> DeletingCursor:
        """Return a cursor that can remove entries. Not for what is counted."""
        assert tree.counted < 0, "what is counted is removed by `pop`"
        changes = self._changes if tree.place >= 0 else None
        return DeletingCursor(self._raw.cursor(tree.handle), tree.place, changes)


class TalliedTransaction(WriteTransaction):
    """A write transaction where there are quotas: it counts keys, whatever way they come and go."""

    __slots__ = ()

    def __init__(
        self,
        database: Database,
        raw: lmdb.Transaction[bytes],
        change_log: ChangeLog | None,
        limits: QuotaLimits,
    ) -> None:
        super().__init__(database, raw, change_log)
        self.tally: Tally = Tally(limits, self)

    def commit(self) -> None:
        """End it, and have what was changed."""
        self.tally.write_down()
        super().commit()

    def put(self, key: bytes, value: bytes, tree: Tree, append: bool = False) -> None:
        """Store an entry; with `append` its key is greater than all that are there."""
        if tree.place == Space.KEYS:
            self.replace(key, value, tree)
        else:
            super().put(key, value, tree, append)

    def replace(self, key: bytes, value: bytes, tree: Tree) -> bytes | None:
        """Store an entry and return the one before."""
        old = super().replace(key, value, tree)
        if tree.place == Space.KEYS:
            self.tally.change(key, old, value)
        return old

    def replacing_keys(self) -> Callable[[bytes, bytes], bytes | None]:
        """Return `replace` for the records of keys."""
        return partial(self.replace, tree=self.database.spaces[Space.KEYS])

    def pop(self, key: bytes, tree: Tree) -> bytes | None:
        """Remove an entry and return it."""
        old = super().pop(key, tree)
        if old is not None and tree.place == Space.KEYS:
            self.tally.change(key, old, None)
        return old

    def deleting(self, tree: Tree) -> DeletingCursor:
        """Return a cursor that can remove entries. Not for what is counted in bytes."""
        assert tree.counted < 0, "what is counted is removed by `pop`"
        changes = self._changes if tree.place >= 0 else None
        tally = self.tally if tree.place == Space.KEYS else None
        return DeletingCursor(self._raw.cursor(tree.handle), tree.place, changes, tally)


def bytes_taken(key: bytes, raw: bytes | None) -> int:
    """Return about how many bytes a record takes, with what belongs to it; 0 where it is none."""
    return 0 if raw is None else 2 * len(key) + record.size(raw) + _BYTES_BESIDE


def count_taken(txn: ReadTransaction, tree: Tree) -> int:
    """Return what `taken` should be, by looking at every record of a tree."""
    with txn.cursor(tree) as cursor:
        return sum(bytes_taken(key, raw) for key, raw in cursor)


class ChangeLog(Protocol):
    """Where the changes of write transactions are written down before they are committed."""

    def is_on(self, txn: ReadTransaction) -> bool:
        """Tell whether a write transaction that has begun is to be written down.

        Raises `JournalFailed` where it has to be and cannot be.
        """

    def write_down(self, txn: Maintenance, changes: Changes) -> None:
        """Write down what a transaction has changed that is about to be committed.

        Raises `JournalFailed`.
        """

    def take_back(self, database: Database) -> None:
        """Undo what `write_down` did last: the commit failed."""


class Database:
    """One process's hold on the database in `directory`. Open it after the process was forked.

    `limit` is the memory in bytes that all files of the directory may take, `beside` what files
    take that are none of the database's, `log_pages` what is kept for the events. `steady` is the
    steady clock in ns.
    """

    def __init__(
        self,
        directory: str,
        limit: int,
        beside: int,
        log_pages: int,
        steady: Callable[[], int] = steady_ns,
        change_log: ChangeLog | None = None,
    ) -> None:
        self.path = directory
        self._limit = limit
        self._beside = beside + _SMALL_FILES_BYTES
        self.log_pages = log_pages
        self._steady = steady
        self._change_log = change_log
        self.measures = Measures()
        self._known_limits: tuple[int, QuotaLimits] | None = None
        """The quotas, and the word that they are those of."""
        self._env = _open(directory, (limit - self._beside) // PAGE * PAGE)
        self._refuse_others()
        self.notes = Tree(self._env.open_db())
        self.spaces = tuple(
            Tree(self._env.open_db(name), place_of(space), _COUNTED.get(space, -1))
            for space, name in zip(Space, _SPACES, strict=True)
        )
        """The records of each space."""
        self.expiry = Tree(self._env.open_db(b"expiry"))
        self.pieces = Tree(self._env.open_db(b"pieces"))
        self.events = Tree(self._env.open_db(b"events"), EVENTS)
        self.words = open_words(directory)
        self.memory = Memory(self._env, self.words, self.live_pages, log_pages)
        self.now = self._start().clock(steady)
        """The store's clock, in ms."""
        self.lookup: Callable[[], Lookup] = partial(self._env.begin, self.spaces[0].handle)
        """Begins to look for one record of a key; the quickest way there is."""
        self._env.reader_check()

    def close(self) -> None:
        """Let go of the database."""
        self._env.close()

    # Life

    def _refuse_others(self) -> None:
        """Raise `StoreFormatUnknown` for another program's database, before it is written to."""
        with self._env.begin() as txn, txn.cursor() as cursor:
            ours = txn.get(_FORMAT_NOTE) is not None
            ours = ours or _NAMES.issuperset(cursor.iternext(values=False))
        if not ours:
            self._env.close()
            raise StoreFormatUnknown(
                f"{self.path} holds the database of another program. "
                "Name an empty directory or a new one."
            )

    def _start(self) -> Anchor:
        """Make the store if it is new, refuse it if it is another's, and return its anchor."""
        with self._maintain() as txn:
            found = txn.note(_FORMAT_NOTE)
            if found is None:
                return _make(txn, self._steady)
            if found in _EARLIER_FORMATS:
                txn.put_note(_FORMAT_NOTE, FORMAT)
            elif found != FORMAT:
                raise StoreFormatUnknown(
                    f"the store in {self.path} has the format {found!r}, and this version "
                    f"of Keyrack reads {FORMAT!r}. Use the one that made it, or another --store."
                )
            _count_anew(txn)
            if gone_by(txn):
                self.words.quotas += 1
            anchor = Anchor.unpack(txn.note(_ANCHOR_NOTE) or b"")
            if anchor.boot == Anchor.here_and_now(self._steady).boot:
                return anchor
            anchor = Anchor.here_and_now(self._steady, not_before=_last_time(txn))
            txn.put_note(_ANCHOR_NOTE, anchor.pack())
            return anchor

    def begin_life(self, above: int = 0) -> None:
        """Raise the revision to the wall clock's microseconds, or to `above`, if it is behind.

        Called once whenever a service starts on the store, so that a revision of a life whose end
        was lost (a restored copy, a store made anew) is never handed out again. The log of events
        says so, for those who knew the store before.
        """
        self.memory.claim_again()
        with self._maintain() as txn:
            revision, events, size = txn.state()
            revision = max(revision, _microseconds(), above)
            txn.put_state(revision, events, size + txn.put_beginning(revision, self.now()))

    def set_clock(self, not_before: int) -> None:
        """Let the clock go on from `not_before` (ms) if it is behind: time does not go back."""
        if self.now() >= not_before:
            return
        anchor = Anchor.here_and_now(self._steady, not_before)
        with self._maintain() as txn:
            txn.put_note(_ANCHOR_NOTE, anchor.pack())
        self.now = anchor.clock(self._steady)

    # Transactions

    def read(self) -> ReadTransaction:
        """Begin to look. Not for long: pages that are replaced meanwhile cannot be used again."""
        return ReadTransaction(self, self._env.begin())

    def join(self, first: bytes, count: int, tree: Tree) -> bytes:
        """Return the values of so many entries from one key on, joined; none where it is missing.

        As of a moment of its own. They are copied once, out of the database's own memory.
        """
        txn = self._env.begin(tree.handle, buffers=True)
        try:
            with txn.cursor() as cursor:
                found = cursor.set_key(first)
                return b"".join(islice(cursor.iternext(False), count)) if found else b""
        finally:
            txn.abort()

    def write(
        self, pages: int, grows: bool, likely: Callable[[ReadTransaction], int] | None = None
    ) -> WriteTransaction:
        """Begin to change records, which takes `pages` pages at most, or what `likely` tells.

        `grows`: the store will be larger by it, and must leave the reserve alone. Raises `NoRoom`
        where there is none, and `JournalFailed`.
        """
        began = time.monotonic_ns()
        raw = self._env.begin(self.spaces[0].handle, None, True)
        waited = time.monotonic_ns() - began
        if waited < SHORT_WAIT_NS:
            self.measures.short_waits += 1
        elif self.measures.lock_waited is not None:
            self.measures.lock_waited(waited)
        try:
            change_log = self._change_log
            if change_log is not None and not change_log.is_on(ReadTransaction(self, raw)):
                change_log = None
            if likely is not None:
                pages = min(pages, likely(ReadTransaction(self, raw)))
            if not self.memory.claim(pages, grows):
                self._claim_fewer(pages, grows)
        except BaseException:
            raw.abort()
            raise
        if self.words.quotas and (limits := self._limits(ReadTransaction(self, raw))).quotas:
            return TalliedTransaction(self, raw, change_log, limits)
        return WriteTransaction(self, raw, change_log)

    def _limits(self, txn: ReadTransaction) -> QuotaLimits:
        """Return the quotas as they are in a transaction that changes something."""
        version = self.words.quotas
        if self._known_limits is None or self._known_limits[0] != version:
            self._known_limits = version, QuotaLimits(gone_by(txn))
        return self._known_limits[1]

    def room(self) -> int:
        """Return how many pages there are for what makes the store larger."""
        return max(0, self.most_live_pages - self.live_pages())

    def _claim_fewer(self, pages: int, grows: bool) -> None:
        """Claim what a commit can take that touches every page there is: it copies none twice."""
        fewer = self.live_pages() + pages // 4
        if fewer >= pages or not self.memory.claim(fewer, grows):
            raise NoRoom("no room")

    def maintain(self, pages: int = PAGES_A_COMMIT) -> Maintenance:
        """Begin to change what is no user's. Raises `NoRoom`."""
        txn = self._maintain()
        if not self.memory.claim(pages, grows=False):
            txn.abort()
            raise NoRoom("no room")
        return txn

    def _maintain(self) -> Maintenance:
        return Maintenance(self, self._env.begin(write=True))

    def load(self, pages: int) -> WriteTransaction:
        """Begin to put into a store that nobody else uses what was written down before.

        Raises `NoRoom`.
        """
        raw = self._env.begin(self.spaces[0].handle, None, True)
        if not self.memory.claim(pages, grows=False):
            raw.abort()
            raise NoRoom("no room")
        return WriteTransaction(self, raw, None)

    def reclaim(self) -> None:
        """Have what the last transaction freed ready for the next one, if it is seen by nobody.

        What a transaction frees can be used by the one after the next.
        """
        for _ in range(2):
            with self._maintain() as txn:
                txn.put_state(*txn.state())

    def clear_readers(self) -> bool:
        """Clear away the readers that were killed; say whether there were any."""
        return self._env.reader_check() > 0

    @property
    def last_transaction(self) -> int:
        """The number of the last write transaction."""
        return self._env.info()["last_txnid"]

    # The journal's position

    def position(self) -> Position:
        """Return where the journal is."""
        with self.read() as txn:
            return txn.position()

    def move(self, change: Callable[[Position], Position]) -> Position:
        """Change where the journal is in a transaction of its own, and return the new position."""
        with self.maintain() as txn:
            position = change(txn.position())
            txn.put_position(position)
        return position

    def changed_since_snapshot(self) -> bool:
        """Tell whether anything was written since the last snapshot, or there was none."""
        saved = self.position().saved
        # The transaction that ends a snapshot is noted by the one after it.
        return saved == 0 or self.last_transaction > saved + 1

    # Contents

    def revision(self) -> int:
        """Return the last revision."""
        with self.read() as txn:
            return txn.state()[0]

    def keys(self) -> int:
        """Return the number of keys."""
        with self.read() as txn:
            return txn.entries(self.spaces[Space.KEYS])

    def is_empty(self) -> bool:
        """Tell whether there is nothing in the store, nor any event."""
        with self.read() as txn:
            return not (any(map(txn.entries, self.spaces)) or txn.state()[1])

    def clear(self) -> None:
        """Remove everything that users have put into the store. No journal is told."""
        with self.maintain() as txn:
            txn.drop((*self.spaces, self.expiry, self.pieces, self.events))
            txn.put_state(txn.state()[0], 0, 0)
            txn.put_taken([0] * len(_COUNTED))
            txn.put_stale_copies(0)
            self.words.quotas += go_by(txn, ())

    @property
    def share(self) -> int:
        """How many bytes locks may take; and answers as many."""
        return self._limit // _SHARE_PART

    @property
    def most_live_pages(self) -> int:
        """How many pages may be in use and still leave the reserve alone."""
        return self.memory.limit - RESERVE

    def live_pages(self, txn: ReadTransaction | None = None) -> int:
        """Return the pages in use, with what the log may still grow to."""
        if txn is None:
            with self.read() as txn:
                return self.live_pages(txn)
        return self.pages(txn) + max(0, self.log_pages - txn.pages(self.events))

    def pages(self, txn: ReadTransaction) -> int:
        """Return the pages in use. The free list's own are not counted: they are few."""
        trees = (self.notes, *self.spaces, self.expiry, self.pieces, self.events)
        return 2 + sum(txn.pages(tree) for tree in trees)

    def usage(self) -> Usage:
        """Return counts and sizes. Costs a few microseconds, whatever the number of keys."""
        with self.read() as txn:
            revision, events, _ = txn.state()
            live = self.pages(txn)
            copies = txn.stale_copies()
            keys = txn.entries(self.spaces[Space.KEYS]) - copies
            # Locks, answers and what is in the trash have a TTL, every one of them.
            locks = txn.entries(self.spaces[Space.LOCKS])
            others = locks + txn.entries(self.spaces[Space.ANSWERS])
            trash = txn.entries(self.spaces[Space.TRASH])
            others += trash + txn.entries(self.spaces[Space.UNDOS])
            trash_bytes = txn.taken(self.spaces[Space.TRASH])
            keys_with_ttl = txn.entries(self.expiry) - others - copies
            taken = self._env.info()["last_pgno"] + 1
            evicted = txn.evicted()
            quotas = uses(txn) if self.words.quotas else ()
            kept = RESERVE + max(0, self.log_pages - txn.pages(self.events))
        used = live * PAGE + self._beside
        free = max(0, self._limit - used)
        return Usage(
            keys=keys,
            keys_with_ttl=keys_with_ttl,
            events=events,
            revision=revision,
            limit=self._limit,
            used=used,
            free=free,
            reclaimable=max(0, taken - live) * PAGE,
            kept_free=min(free, kept * PAGE),
            reserved=self.words.pages_claimed * PAGE + self._beside,
            evicted=evicted,
            locks=locks,
            disk_failed=self.words.broken == 1,
            stale_copies=copies,
            trash=trash,
            trash_bytes=trash_bytes,
            quotas=quotas,
        )


def _make(txn: Maintenance, steady: Callable[[], int]) -> Anchor:
    anchor = Anchor.here_and_now(steady)
    txn.put_note(_FORMAT_NOTE, FORMAT)
    txn.put_note(_ANCHOR_NOTE, anchor.pack())
    txn.put_state(_microseconds(), 0, 0)
    txn.put_taken([0] * len(_COUNTED))
    return anchor


def _count_anew(txn: Maintenance) -> None:
    """Count the bytes of locks and answers of a store whose earlier versions did not."""
    if txn.note(_TAKEN_NOTE) is None:
        counted = (txn.database.spaces[space] for space in _COUNTED)
        txn.put_taken([count_taken(txn, tree) for tree in counted])


def _last_time(txn: ReadTransaction) -> int:
    with txn.cursor(txn.database.events) as cursor:
        return eventlog.time_of(cursor.value()) if cursor.last() else 0


def _microseconds() -> int:
    return time.time_ns() // 1000


def _open(directory: str, map_size: int) -> lmdb.Environment:
    claim_readers(directory)
    try:
        return _opened(directory, map_size)
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise StoreFormatUnknown(
            f"the store in {directory} cannot be read ({error}). "
            "Name another --store, or remove its files to begin anew."
        ) from None


def _opened(directory: str, map_size: int) -> lmdb.Environment:
    return lmdb.open(
        directory,
        map_size=map_size,
        max_dbs=len(_NAMES),
        max_readers=_MOST_READERS,
        mode=0o600,
        writemap=True,
        # Durability is not this mode's promise; shared memory survives the death of any process.
        sync=False,
        metasync=False,
        map_async=True,
        readahead=False,
        meminit=False,
        # Keeps the reader's slot: without it every read takes a lock that all processes share.
        max_spare_txns=2,
        # The 0.9 library, over a decade in production, not the 1.0 that py-lmdb also carries.
        lib_version=0,
    )
