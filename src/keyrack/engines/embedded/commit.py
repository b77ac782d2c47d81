"""One write transaction: what each operation does to records, expiry index and event log."""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from keyrack.engines import record as wire
from keyrack.engines.contract import (
    KEEP_END,
    KEEP_STALE,
    LEASE,
    MAX_LEASED_KEY_BYTES,
    TEXT,
    Add,
    Change,
    Check,
    Delete,
    Discard,
    Get,
    Outcome,
    Refusal,
    Remember,
    Restore,
    Result,
    Set,
    Space,
    Touch,
    Why,
    Write,
)
from keyrack.engines.embedded.database import bytes_taken
from keyrack.engines.embedded.demand import CHECK_EVERY, Growth
from keyrack.engines.embedded.eventlog import Draft
from keyrack.engines.embedded.memory import PAGES_A_COMMIT, PAGES_A_TTL, PAGES_A_WRITE
from keyrack.engines.embedded.pieces import LONGEST_WHOLE, PieceWriter
from keyrack.engines.embedded.trash import Trash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from keyrack.engines.contract import Condition, Exceeded, Operation
    from keyrack.engines.embedded.database import Database, WriteTransaction
    from keyrack.engines.embedded.demand import Demand
    from keyrack.engines.embedded.events import EventLog

Step: TypeAlias = Result | Refusal
_Ends: TypeAlias = tuple[int, int, int]
"""When a record ends, when its stale copy goes, when it was stored; see `record.Ends`."""

_NEVER: Final = (0, 0, 0)
_NOTHING: Final = [Result(0, existed=False)]
_KEYS: Final = Space.KEYS
_EVICT: Final = Change.EVICT
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]{0,18})").fullmatch
_SET_IN_THIS_WRITE: Final = -2
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 63) - 1
_DUE: Final = Struct(">QQ")
_DUE_ELSEWHERE: Final = Struct(">QQB")

_encode_outcome: Final = msgspec.msgpack.Encoder().encode
_Kept: TypeAlias = tuple[bytes, tuple[Result, ...] | None, Refusal | None]
_decode_outcome: Final[Callable[[bytes], _Kept]] = msgspec.msgpack.Decoder(_Kept).decode

# What setting and removing is called in each space; answers have no events.
_SET_CHANGE: Final = {Space.KEYS: Change.SET, Space.LOCKS: Change.LOCK}
_DELETE_CHANGE: Final = {Space.KEYS: Change.DELETE, Space.LOCKS: Change.UNLOCK}
_EXPIRE_CHANGE: Final = {Space.KEYS: Change.EXPIRE, Space.LOCKS: Change.UNLOCK}


def due_entry(ends: int, revision: int, space: Space = _KEYS) -> bytes:
    """Return the key of the expiry index for a record; a seventeenth byte names another space."""
    if space is _KEYS:
        return _DUE.pack(ends, revision)
    return _DUE_ELSEWHERE.pack(ends, revision, space)


def due_number(key: bytes, revision: int, space: Space) -> int:
    """Return what tells records that end together apart: the revision, where a space has them.

    Answers have no events and so no revisions; eight bytes of their name, a hash, do as well.
    What administrators make has no end.
    """
    return int.from_bytes(key[:8], "big") if space is Space.ANSWERS else revision


def read_due(entry: bytes) -> tuple[int, int, Space]:
    """Return end, revision and space of an entry of the expiry index."""
    ends, revision = _DUE.unpack_from(entry)
    return ends, revision, Space(entry[16]) if len(entry) > 16 else _KEYS


class _Undo:
    """What a write of several operations has done so far."""

    __slots__ = ("changes", "left", "made")

    def __init__(self) -> None:
        self.changes: list[tuple[bytes, Space, bytes | None]] = []
        """Key, space and the record that was there before."""
        self.made: list[tuple[Space, int, int]] = []
        """Long values (space, number and size) that it has stored."""
        self.left: list[tuple[Space, int, int]] = []
        """Long values that no record names any more."""


class Commit:  # structure: each operation is a method, and shares its transaction
    """The operations on one transaction, at one time, that share its events.

    A context manager: at the end of its block the events are written down and all of it is
    committed; where the block raises, nothing was done. Takes at most `pages` pages; with `grows`
    the store will be larger by it. Raises what `Database.write` raises.
    """

    __slots__ = (
        "_before",
        "_events",
        "_log",
        "_size",
        "_undo",
        "copied",
        "draft",
        "evicted",
        "growth",
        "now",
        "txn",
        "undo",
    )  # fmt: skip

    def __init__(
        self,
        database: Database,
        log: EventLog,
        pages: int,
        grows: bool,
        demand: Demand | None = None,
    ) -> None:
        self.txn = database.write(pages, grows, None if demand is None else demand.pages)
        self.growth = None if demand is None else Growth(self.txn, demand)
        self._log = log
        self._undo: _Undo | None = None
        last, self._events, self._size = self.txn.state()
        self.evicted = 0
        self.copied: list[bytes] = []
        """Keys that have ended, and of which there is a stale copy now."""
        self.undo = 0
        """The number of the undo that was made in the present write; 0: none."""
        self.now = database.now()
        self.draft = Draft(last)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.txn.abort()
            return
        try:
            draft = self.draft
            if draft.last >= draft.first:
                self._log.append(self.txn, draft, self.now, self._events, self._size)
            if self.evicted:
                self.txn.count_evicted(self.evicted)
        except BaseException:
            self.txn.abort()
            raise
        self.txn.commit()

    @property
    def _pieces(self) -> PieceWriter:
        return PieceWriter(self.txn)

    def apply(self, write: Write) -> Outcome:
        """Do all of a write or nothing of it."""
        if len(write) == 1 and (self.txn.tally is None or self._undo is not None):
            step = self._do(write[0])
            return step if isinstance(step, Refusal) else (step,)
        if write and type(write[0]) is Remember:
            return self._once(write[0], write[1:])
        if self.txn.tally is not None:
            self.txn.tally.begin()
        return self._all(write)

    def _all(self, write: Write) -> Outcome:
        self.undo = 0
        self._undo = undo = _Undo()
        mark = self.draft.mark()
        self._before = mark[0]
        results: list[Result] = []
        growth = self.growth
        for index, operation in enumerate(write):
            if growth is not None and not index % CHECK_EVERY:
                growth.check()
            step = self._do(operation)
            if isinstance(step, Refusal):
                self._give_up(undo, mark)
                revision = self._revision(operation)
                return msgspec.structs.replace(step, index=index, revision=revision)
            results.append(step)
        exceeded = None if self.txn.tally is None else self.txn.tally.exceeded()
        if exceeded is not None:
            self._give_up(undo, mark)
            return _beyond_quota(write, exceeded)
        self._undo = None
        self._drop_long(undo.left)
        return tuple(results)

    def _give_up(self, undo: _Undo, mark: tuple[int, int]) -> None:
        self._undo = None
        self._roll_back(undo)
        self.draft.back_to(mark)

    def _drop_long(self, values: list[tuple[Space, int, int]]) -> None:
        for space, number, size in values:
            self._pieces.drop(space, number, size)

    def _roll_back(self, undo: _Undo) -> None:
        """Put back what was there, last change first. LMDB cannot: its map allows no savepoints."""
        self._drop_long(undo.made)
        for key, space, old in reversed(undo.changes):
            present = self.txn.get(key, self.txn.database.spaces[space])
            if present is not None:
                self._unindex(present, space)
            if old is None:
                self.txn.pop(key, self.txn.database.spaces[space])
                continue
            self.txn.put(key, old, self.txn.database.spaces[space])
            if wire.has_ttl(old):
                self.txn.copies += wire.is_copy(old)
                entry = due_entry(wire.due_at(old), wire.revision(old), space)
                self.txn.put(entry, key, self.txn.database.expiry)

    def _once(self, name: Remember, write: Write) -> Outcome:
        raw = self._present(name.key, Space.ANSWERS)
        if raw is not None:
            kept = self._pieces.record(Space.ANSWERS, raw).value
            fingerprint, results, refusal = _decode_outcome(kept)
            if fingerprint != name.fingerprint:
                return Refusal(Why.REUSED)
            return refusal or results or ()
        full = _beyond_share(self.txn, Space.ANSWERS, Why.ANSWERS_FULL, 1)
        if full is not None:
            return full
        outcome = self.apply(write)
        if isinstance(outcome, Refusal) and (name.only_done or outcome.why is Why.QUOTA):
            return outcome
        if isinstance(outcome, Refusal):
            kept = _encode_outcome((name.fingerprint, None, outcome))
        else:
            kept = _encode_outcome((name.fingerprint, outcome, None))
        self._set(Set(name.key, kept, TEXT, name.ttl_ms, None, Space.ANSWERS))
        return outcome

    def _do(self, operation: Operation) -> Step:
        if type(operation) is Set:
            return self._set(operation)
        return _METHODS[type(operation)](self, operation)

    # Operations

    def _set(self, operation: Set) -> Step:
        key, ttl, space = operation.key, operation.ttl_ms, operation.space
        if operation.condition is not None:
            refusal = self._refused(key, operation.condition, space)
            if refusal is not None:
                return refusal
        if space is Space.LOCKS:
            more = bytes_taken(key, _packed(operation, 0, (self.now, 0, 0)))
            full = _beyond_share(self.txn, space, Why.LOCKS_FULL, more)
            if full is not None:
                return full
        draft = self.draft
        revision = draft.set(key) if space is _KEYS else self._note(_SET_CHANGE, key, space)
        ends = self._ends(operation) if ttl else _NEVER
        old = self.txn.replace(
            key, _packed(operation, revision, ends), self.txn.database.spaces[space]
        )
        if self._undo is not None:
            self._undo.changes.append((key, space, old))
        existed = old is not None
        if old is not None and not wire.is_plain(old):
            revision, existed = self._let_go_first(operation, old, revision, ends)
        if len(operation.value) > LONGEST_WHOLE:
            self.store_long(space, revision, operation.value)
        if ends[0]:
            self.txn.put(due_entry(ends[0], revision, space), key, self.txn.database.expiry)
        return Result(revision, existed)

    def _ends(self, operation: Set) -> _Ends:
        """Return when a record is to end that is set with a TTL, or keeps the end it has."""
        if operation.ttl_ms == KEEP_END:
            raw = self._present(operation.key, operation.space)
            expires_at, stale_until, _ = _NEVER if raw is None else wire.ends(raw)
        else:
            expires_at = self.now + operation.ttl_ms
            stale_until = expires_at + operation.stale_ms if operation.stale_ms else 0
        return expires_at, stale_until, self.now if stale_until else 0

    def store_long(self, space: Space, number: int, value: bytes) -> None:
        """Store a value in pieces."""
        self._pieces.store(space, number, value)
        if self._undo is not None:
            self._undo.made.append((space, number, len(value)))

    def _let_go_first(
        self, operation: Set, old: bytes, revision: int, ends: _Ends
    ) -> tuple[int, bool]:
        """Let go of the record that was replaced; return the new revision, and if it existed."""
        key, space = operation.key, operation.space
        existed = self.let_go(old, space)
        if not existed and not wire.is_copy(old):
            # It had ended and was still there: that is an event of its own, and comes first.
            revision = self._end_first(key, space, revision)
            self.txn.put(key, _packed(operation, revision, ends), self.txn.database.spaces[space])
        return revision, existed

    def _end_first(self, key: bytes, space: Space, revision: int) -> int:
        if space not in _EXPIRE_CHANGE:
            return revision
        return self.draft.before_last(_EXPIRE_CHANGE[space], key)

    def _delete(self, operation: Delete) -> Step:
        key, space = operation.key, operation.space
        if operation.condition is not None:
            refusal = self._refused(key, operation.condition, space)
            if refusal is not None:
                return refusal
        if space is _KEYS:
            self._end_lease(key)
        old = self.txn.pop(key, self.txn.database.spaces[space])
        if old is None:
            return Result(0, existed=False)
        if self._undo is not None:
            self._undo.changes.append((key, space, old))
        if not wire.is_plain(old) and not self.let_go(old, space):
            if not wire.is_copy(old):
                self._note(_EXPIRE_CHANGE, key, space)
            return Result(0, existed=False)
        return Result(self._note(_DELETE_CHANGE, key, space), existed=True)

    def _end_lease(self, key: bytes) -> None:
        """End the lease of a key: whoever recomputes it has begun before it was deleted."""
        locks = self.txn.database.spaces[Space.LOCKS]
        if len(key) <= MAX_LEASED_KEY_BYTES and self.txn.get(LEASE + key, locks) is not None:
            self._delete(Delete(LEASE + key, space=Space.LOCKS))

    def take_out(self, key: bytes, condition: Condition | None) -> Step | bytes:
        """Remove a key and return its record, whose value may be in pieces that stay.

        Where there is none, or the condition does not hold: what came of it.
        """
        refusal = None if condition is None else self._refused(key, condition, _KEYS)
        if refusal is not None:
            return refusal
        raw = self._present(key, _KEYS)
        if raw is None:
            return self._delete(Delete(key))
        self._end_lease(key)
        self.change(key, None, _KEYS)
        return raw

    def change(self, key: bytes, raw: bytes | None, space: Space) -> None:
        """Put a record in the place of another, or remove it. Pieces of values are left alone."""
        tree = self.txn.database.spaces[space]
        old = self.txn.pop(key, tree) if raw is None else self.txn.replace(key, raw, tree)
        if self._undo is not None:
            self._undo.changes.append((key, space, old))
        entry = b"" if raw is None or not wire.has_ttl(raw) else _entry_of(raw, space)
        if old is not None and entry and wire.has_ttl(old) and _entry_of(old, space) == entry:
            return
        if old is not None:
            self._unindex(old, space)
        if entry:
            self.txn.put(entry, key, self.txn.database.expiry)

    def is_present(self, key: bytes) -> bool:
        """Tell whether a key exists."""
        return self._present(key, _KEYS) is not None

    def drop_pieces(self, number: int, size: int) -> None:
        """Remove the pieces of a value that no record names any more."""
        if self._undo is None:
            self._pieces.drop(_KEYS, number, size)
        else:
            self._undo.left.append((_KEYS, number, size))

    def _discard(self, operation: Discard) -> Step:
        if self._undo is None:
            self.undo = 0
        return Trash(self).discard(operation)

    def _restore(self, operation: Restore) -> Step:
        return Trash(self).restore(operation)

    def _get(self, operation: Get) -> Step:
        raw = self._present(operation.key, _KEYS)
        if operation.condition is not None:
            refusal = self._refused(operation.key, operation.condition, _KEYS)
            if refusal is not None:
                return refusal
        record = None if raw is None else self._pieces.record(_KEYS, raw)
        return Result(0 if record is None else record.revision, record is not None, record)

    def _add(self, operation: Add) -> Step:
        raw = self._present(operation.key, _KEYS)
        if operation.condition is not None:
            refusal = self._refused(operation.key, operation.condition, _KEYS)
            if refusal is not None:
                return refusal
        record = None if raw is None else self._pieces.record(_KEYS, raw)
        before = operation.initial if record is None else number_of(record.value)
        if before is None:
            return Refusal(Why.NUMBER, revision=record.revision if record else None)
        number = before + operation.delta
        if not _LEAST <= number <= _MOST:
            return Refusal(Why.OVERFLOW, revision=record.revision if record else None)
        media_type = TEXT if record is None else record.media_type
        ttl, stale, caching = operation.ttl_ms or KEEP_END, 0, None
        if record is None:
            ttl = operation.new_ttl_ms or operation.ttl_ms
        else:
            caching = record.cache_control
            if record.stale_until:
                stale = record.stale_until - record.expires_at
        value = b"%d" % number
        step = self._set(
            Set(operation.key, value, media_type, ttl, stale_ms=stale, cache_control=caching)
        )
        if isinstance(step, Refusal):
            return step
        return Result(step.revision, step.existed, number=number)

    def _touch(self, operation: Touch) -> Step:
        key, space = operation.key, operation.space
        raw = self._present(key, space)
        if operation.condition is not None:
            refusal = self._refused(key, operation.condition, space)
            if refusal is not None:
                return refusal
        if raw is None:
            return Refusal(Why.MISSING)
        revision = wire.revision(raw)
        ends = self.now + operation.ttl_ms if operation.ttl_ms else 0
        before = wire.ends(raw)
        stale = operation.stale_ms
        if stale == KEEP_STALE:
            stale = before.stale_until - before.expires_at if before.stale_until else 0
        stale_until = ends + stale if ends and stale else 0
        self._unindex(raw, space)
        if self._undo is not None:
            self._undo.changes.append((key, space, raw))
        touched = wire.with_end(raw, ends, stale_until, before.stored_at)
        self.txn.put(key, touched, self.txn.database.spaces[space])
        if ends:
            self.txn.put(due_entry(ends, revision, space), key, self.txn.database.expiry)
        return Result(revision, existed=True)

    def _check(self, operation: Check) -> Step:
        refusal = self._refused(operation.key, operation.condition, operation.space)
        if refusal is not None:
            return refusal
        return Result(0, self._present(operation.key, operation.space) is not None)

    def expire(self, entry: bytes, key: bytes) -> None:
        """Remove the record that an entry of the expiry index names, with its event."""
        _, number, space = read_due(entry)
        raw = self.txn.pop(key, self.txn.database.spaces[space])
        if raw is not None and wire.keeps_copy(raw) and self._keep_copy(key, raw):
            return
        if raw is not None and wire.is_long(raw):
            self._pieces.drop(space, number, wire.size(raw))
        if raw is not None and space is Space.TRASH:
            Trash(self).note_end(key, raw)
        if raw is None or not wire.is_copy(raw):
            self._note(_EXPIRE_CHANGE, key, space)

    def _keep_copy(self, key: bytes, raw: bytes) -> bool:
        """Put the stale copy of a record that has ended in its place, if its time is not over."""
        if wire.is_copy(raw):
            self.txn.copies -= 1
            return False
        until = wire.ends(raw).stale_until
        if until <= self.now:
            return False
        self.txn.put(key, wire.as_copy(raw), self.txn.database.spaces[_KEYS])
        self.txn.put(due_entry(until, wire.revision(raw)), key, self.txn.database.expiry)
        self.txn.copies += 1
        self._note(_EXPIRE_CHANGE, key, _KEYS)
        self.copied.append(key)
        return True

    def evict(self, gone: list[tuple[bytes, bytes]]) -> None:
        """Note that keys (with their records) were evicted, and take away what depended on them."""
        note = self.draft.note
        for key, raw in gone:
            if wire.is_plain(raw) or self.let_go(raw, _KEYS):
                self.evicted += 1
                note(_EVICT, key)
            elif not wire.is_copy(raw):
                note(Change.EXPIRE, key)

    # Helpers

    def _present(self, key: bytes, space: Space) -> bytes | None:
        """Return the record's bytes, None when it is missing or its time is over."""
        raw = self.txn.get(key, self.txn.database.spaces[space])
        if raw is None or (wire.has_ttl(raw) and wire.expires_at(raw) <= self.now):
            return None
        return raw

    def _revision(self, operation: Operation) -> int | None:
        """Return the present revision of an operation's key, None when it is missing."""
        space = _KEYS
        if isinstance(operation, Set | Delete | Touch | Check):
            space = operation.space
        raw = self._present(operation.key, space)
        return None if raw is None else wire.revision(raw)

    def _refused(self, key: bytes, condition: Condition, space: Space) -> Refusal | None:
        raw = self._present(key, space)
        revision = None if raw is None else wire.revision(raw)
        own = self._undo is not None and revision is not None and revision > self._before
        # What this write itself has set has no revision yet that anybody could have named.
        if condition.holds(_SET_IN_THIS_WRITE if own else revision):
            return None
        if raw is None or space is not Space.LOCKS:
            return Refusal(Why.CONDITION, revision=revision)
        holder = self._pieces.record(space, raw)
        return Refusal(Why.CONDITION, revision=revision, holder=holder, at=self.now)

    def let_go(self, raw: bytes, space: Space) -> bool:
        """Take what depends on a record that is gone away; say whether the record still counted."""
        if wire.is_long(raw):
            number, size = wire.revision(raw), wire.size(raw)
            if self._undo is None:
                self._pieces.drop(space, number, size)
            else:
                self._undo.left.append((space, number, size))
        return self._unindex(raw, space)

    def _unindex(self, raw: bytes, space: Space) -> bool:
        """Take a record's end out of the index; say whether the record still counted."""
        due = wire.due_at(raw)
        if not due:
            return True
        self.txn.copies -= wire.is_copy(raw)
        self.txn.pop(due_entry(due, wire.revision(raw), space), self.txn.database.expiry)
        return wire.expires_at(raw) > self.now

    def _note(self, changes: dict[Space, Change], key: bytes, space: Space) -> int:
        """Note the event that a change has in its space, and return the revision."""
        if space in changes:
            return self.draft.note(changes[space], key)
        return due_number(key, 0, space)


def _entry_of(raw: bytes, space: Space) -> bytes:
    return due_entry(wire.due_at(raw), wire.revision(raw), space)


def _beyond_share(txn: WriteTransaction, space: Space, why: Why, more: int) -> Refusal | None:
    """Refuse what makes the records of a space take more than they may."""
    needed, share = txn.taken(txn.database.spaces[space]) + more, txn.database.share
    return Refusal(why, needed=needed, available=share) if needed > share else None


def _beyond_quota(write: Write, exceeded: Exceeded) -> Refusal:
    """Return the refusal of a write: it names the first operation on a key of the quota."""
    prefix = exceeded.quota.prefix.encode()
    concerned = (place for place, one in enumerate(write) if one.key.startswith(prefix))
    return Refusal(Why.QUOTA, next(concerned, 0), exceeded=exceeded)


_METHODS: Final[dict[type, Callable[[Commit, Operation], Step]]] = {
    Delete: Commit._delete,  # type: ignore[dict-item]  # each takes its own kind of operation
    Get: Commit._get,  # type: ignore[dict-item]  # as above
    Add: Commit._add,  # type: ignore[dict-item]  # as above
    Touch: Commit._touch,  # type: ignore[dict-item]  # as above
    Check: Commit._check,  # type: ignore[dict-item]  # as above
    Discard: Commit._discard,  # type: ignore[dict-item]  # as above
    Restore: Commit._restore,  # type: ignore[dict-item]  # as above
}


def apply_each(commit: Commit, writes: Sequence[Write]) -> list[Outcome]:
    """Do each write, all of it or nothing of it."""
    return [commit.apply(write) for write in writes]


def set_each(commit: Commit, writes: Sequence[Write]) -> list[Outcome]:
    """Do what `apply_each` does, for writes of `pages_of_plain`: half of them is the calls."""
    if commit.txn.tally is not None:
        return apply_each(commit, writes)
    operations: list[Set] = [write[0] for write in writes]  # type: ignore[misc]  # plain writes are one `Set` each
    return [(result,) for result in _set_plain(commit, operations)]


def set_together(commit: Commit, writes: Sequence[Write]) -> list[Outcome]:
    """Do what `apply_each` does, for writes that are of `are_plain_sets`: no quota, no refusal."""
    if commit.txn.tally is not None:
        return apply_each(commit, writes)
    outcomes: list[Outcome] = []
    for write in writes:
        results: list[Result] = []
        for start in range(0, len(write), CHECK_EVERY):
            if commit.growth is not None:
                commit.growth.check()
            results += _set_plain(commit, write[start : start + CHECK_EVERY])  # type: ignore[arg-type]  # `Set`s all
        outcomes.append(tuple(results))
    return outcomes


def _set_plain(commit: Commit, operations: Sequence[Set]) -> list[Result]:
    """Set short values, in the order of their keys; events and revisions are in that of asking.

    What comes in about the order of its keys then comes in exactly that, and fills its leaves,
    where a key that goes before the last one would leave two halves.
    """
    draft, replace = commit.draft, commit.txn.replacing_keys()
    keys = [operation.key for operation in operations]
    mark = draft.mark()
    first = draft.last + 1
    draft.set_all(keys)
    results = _NOTHING * len(keys)
    replaced: list[tuple[int, bytes]] = []
    due: list[tuple[bytes, bytes]] = []
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        operation, revision = operations[place], first + place
        ends = 0
        if operation.ttl_ms:
            ends = commit.now + operation.ttl_ms
            due.append((due_entry(ends, revision), operation.key))
        old = replace(keys[place], wire.pack(revision, operation.value, operation.media_type, ends))
        if old is None:
            results[place] = Result(revision, existed=False)
        else:
            results[place] = Result(revision, existed=True)
            if not wire.is_plain(old):
                replaced.append((place, old))
    if due:
        due.sort()
        commit.txn.put_parts(due, commit.txn.database.expiry, append=False)
    if replaced:
        _let_go_of_replaced(commit, operations, mark, replaced, results)
    return results


def _let_go_of_replaced(
    commit: Commit,
    operations: Sequence[Set],
    mark: tuple[int, int],
    replaced: list[tuple[int, bytes]],
    results: list[Result],
) -> None:
    """Let go of records that were replaced; `mark` is where the draft was before."""
    ended = set()
    for place, old in replaced:
        existed = commit.let_go(old, _KEYS)
        results[place] = Result(results[place].revision, existed)
        if not existed and not wire.is_copy(old):
            ended.add(place)
    if ended:
        _set_again(commit, operations, mark, ended, results)


def _set_again(
    commit: Commit,
    operations: Sequence[Set],
    mark: tuple[int, int],
    ended: set[int],
    results: list[Result],
) -> None:
    """Set again, where some have replaced what had ended and was still there.

    That is an event of its own and comes before the set, so that all revisions from there on are
    greater.
    """
    txn, database, draft = commit.txn, commit.txn.database, commit.draft
    begin = min(ended)
    again = operations[begin:]
    for place, operation in enumerate(again, begin):
        if operation.ttl_ms:
            entry = due_entry(commit.now + operation.ttl_ms, results[place].revision)
            txn.pop(entry, database.expiry)
    draft.back_to(mark)
    draft.set_all([operation.key for operation in operations[:begin]])
    due: dict[bytes, bytes] = {}
    for place, operation in enumerate(again, begin):
        key, ends = operation.key, commit.now + operation.ttl_ms if operation.ttl_ms else 0
        if place in ended:
            draft.note(Change.EXPIRE, key)
        revision = draft.set(key)
        txn.put(key, _packed(operation, revision, (ends, 0, 0)), database.spaces[_KEYS])
        results[place] = Result(revision, results[place].existed)
        due.pop(key, None)
        if ends:
            due[key] = due_entry(ends, revision)
    for key, entry in due.items():
        txn.put(entry, key, database.expiry)


def pages_of_plain(writes: Sequence[Write]) -> int:
    """Return how many pages writes take at most that set one short value each; 0 for others, none.

    They have no condition and keep no stale copy; the value may end.
    """
    ending = 0
    for write in writes:
        if len(write) != 1:
            return 0
        operation = write[0]
        if (
            type(operation) is not Set
            or operation.condition is not None
            or operation.space is not _KEYS
            or operation.cache_control is not None
            or len(operation.value) > LONGEST_WHOLE
        ):
            return 0
        if operation.ttl_ms:
            if operation.ttl_ms == KEEP_END or operation.stale_ms:
                return 0
            ending += 1
    if not writes:
        return 0
    return PAGES_A_COMMIT + PAGES_A_WRITE * len(writes) + PAGES_A_TTL * ending


def are_plain_sets(write: Write) -> bool:
    """Tell whether a write does nothing but set short values, without condition or TTL."""
    plain = PAGES_A_COMMIT + PAGES_A_WRITE * len(write)
    return pages_of_plain([(operation,) for operation in write]) == plain


def _packed(operation: Set, revision: int, ends: _Ends) -> bytes:
    value = operation.value
    if len(value) > LONGEST_WHOLE:
        raw = wire.pack_long(revision, len(value), operation.media_type, *ends)
    else:
        raw = wire.pack(revision, value, operation.media_type, *ends)
    caching = operation.cache_control
    return raw if caching is None else wire.with_cache_control(raw, caching)


def number_of(value: bytes) -> int | None:
    """Return the number that a counter's value is, None when it is none of 64 bits."""
    if not _NUMBER(value) or value == b"-0":
        return None
    number = int(value)
    return number if _LEAST <= number <= _MOST else None
