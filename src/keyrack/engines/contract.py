"""What an engine is, in types. Every engine passes the same conformance tests.

An engine knows keys, records, operations and revisions. It knows no HTTP and no status code, and
it takes its clock as an argument. This module imports no sibling, so that everything may import it.

Units: a time is a whole number of milliseconds on the store's own clock (see `Engine.now`); a size
is a number of bytes; a revision is a 64-bit number that grows with every change of the store and
is never used twice.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_KEY_BYTES: Final = 511
MAX_ADMIN_BYTES: Final = 3500
"""The longest value in `Space.ADMIN`: one that is never cut into pieces."""
MAX_MEDIA_TYPE_BYTES: Final = 255
MAX_ABOUT_BYTES: Final = 2048
"""The most that is kept with an undo, in bytes."""
PAGE_BYTES: Final = 4 << 20
"""Bytes of values, all together, after which a page ends early."""
MAX_TTL_MS: Final = 3650 * 24 * 3600 * 1000
"""Ten years, so that no sum of a clock and a TTL comes near 64 bits."""

KEEP_END: Final = -1
"""In place of a TTL: the end that the key has, none for a new key."""
KEEP_STALE: Final = -1
"""For how long a stale copy is kept: as long as it would have been, after whatever end."""
LEASE: Final = b"\xff"
"""What the name of a lock begins with that is the lease to recompute a key: no text does. The key
follows. A lease ends when its key is deleted; one older than its key's revision is void."""
MAX_LEASED_KEY_BYTES: Final = MAX_KEY_BYTES - len(LEASE)

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"


class CacheControl(msgspec.Struct, frozen=True, gc=False):
    """What a writer lets caches do with a value. Times are whole seconds, at most ten years."""

    max_age: int
    """For how long it may be served without asking the store."""
    stale_while_revalidate: int = 0
    """For how long after that it may be served while the store is asked."""
    public: bool = False
    """Whether a cache that serves several people may keep it, where everybody may read the key."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is stored under a key: the value as it was sent, and what is known about it."""

    value: bytes
    media_type: str
    revision: int
    expires_at: int = 0
    """When it ends, in ms of the store's clock; 0 means never."""
    stale_until: int = 0
    """When the stale copy goes that is kept of it after its end; 0 where none is kept."""
    stored_at: int = 0
    """When its value was stored; known only where a stale copy is kept, 0 otherwise."""
    cache_control: CacheControl | None = None
    """What caches may do with it; None: nothing."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """A part of a value: a record that holds only these bytes, and where they are in the whole."""

    record: Record
    start: int
    size: int
    """Bytes of the whole value."""


Span: TypeAlias = tuple[int | None, int | None]
"""The first and the last byte; no last one: to the end; no first one: so many bytes of the end."""


def bounds(span: Span, size: int) -> tuple[int, int]:
    """Return where a part begins and ends in a value of so many bytes; empty where it has none."""
    first, last = span
    if first is None:
        return max(0, size - (last or 0)), size
    return min(first, size), size if last is None else min(last + 1, size)


class Condition(msgspec.Struct, frozen=True, gc=False):
    """The preconditions of RFC 9110 section 13.1, on revisions.

    `None` means the condition was not given; `ANY` is `*`; otherwise the revisions that were named.
    """

    match: frozenset[int] | None = None
    none_match: frozenset[int] | None = None
    newest: int | None = None
    """With it: the key is missing, or at no revision that is greater."""

    def holds(self, revision: int | None) -> bool:
        """Tell whether a key now at `revision` (`None` when it is missing) may be acted on."""
        if self.newest is not None and revision is not None and revision > self.newest:
            return False
        if self.match is not None and not _names(self.match, revision):
            return False
        return self.none_match is None or not _names(self.none_match, revision)


ANY: Final[frozenset[int]] = frozenset({-1})
"""The condition `*`: any current representation. No revision is negative."""


def _names(revisions: frozenset[int], current: int | None) -> bool:
    return current is not None and (revisions is ANY or revisions == ANY or current in revisions)


class Space(enum.IntEnum):
    """What a record is for. Each space has names of its own."""

    KEYS = 0
    """What users store."""
    LOCKS = 1
    """Who holds which lock; the record's revision is the fencing token."""
    ANSWERS = 2
    """Outcomes that were remembered, so that a retry gets the first one again. No events."""
    ADMIN = 3
    """What administrators make: tokens, policies, fences, quotas. No events, no revisions, no TTL,
    and no value beyond `MAX_ADMIN_BYTES`."""
    TRASH = 4
    """Records of keys that were deleted and can be put back, under an undo and their revision. No
    events. They go before any key does when memory is short."""
    UNDOS = 5
    """What of a deletion can be put back: how many keys, until when, who deleted. No events."""


class Set(msgspec.Struct, frozen=True, gc=False):
    """Store a value. Without a TTL the key does not end: an earlier TTL is cleared.

    With `KEEP_END` in its place the key ends when it would have ended, to the millisecond, and so
    does its stale copy. With a TTL and `stale_ms` a stale copy is kept for so long after the end,
    for `get_stale` alone: for everybody else the key is missing. Without `cache_control` caches may
    not keep the value, whatever was allowed of an earlier one.
    """

    key: bytes
    value: bytes
    media_type: str = TEXT
    ttl_ms: int = 0
    condition: Condition | None = None
    space: Space = Space.KEYS
    stale_ms: int = 0
    cache_control: CacheControl | None = None


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Remove a key, its stale copy and its lease. A key that is missing is no failure: the result
    says that it was."""

    key: bytes
    condition: Condition | None = None
    space: Space = Space.KEYS


class Get(msgspec.Struct, frozen=True, gc=False):
    """Read a key as the operations before it in the same write have left it."""

    key: bytes
    condition: Condition | None = None


class Add(msgspec.Struct, frozen=True, gc=False):
    """Add to the number that a key holds as decimal text; a missing key starts at `initial`.

    With `ttl_ms` the key gets this TTL, without one it keeps what it has; with `new_ttl_ms` it gets
    this one where it was missing. Refused with `Why.NUMBER` where the value is no number of 64
    bits, `Why.OVERFLOW` where the sum is none.
    """

    key: bytes
    delta: int
    initial: int = 0
    ttl_ms: int = 0
    condition: Condition | None = None
    new_ttl_ms: int = 0


class Touch(msgspec.Struct, frozen=True, gc=False):
    """Give a key another TTL (0: none). Value and revision stay. Refused where it is missing.

    A stale copy is kept for `stale_ms` after the new end; without a TTL none is kept.
    """

    key: bytes
    ttl_ms: int
    condition: Condition | None = None
    space: Space = Space.KEYS
    stale_ms: int = KEEP_STALE


class Check(msgspec.Struct, frozen=True, gc=False):
    """Do nothing, and let the write be refused when the condition does not hold."""

    key: bytes
    condition: Condition
    space: Space = Space.KEYS


class Remember(msgspec.Struct, frozen=True, gc=False):
    """Keep the write's outcome under a name, or give the one that is kept. First in its write.

    The outcome is kept in the same commit as what it tells of, so a write that carries a name is
    done once however often it is sent. Another `fingerprint` is refused with `Why.REUSED`. An
    outcome of `Why.FULL` or `Why.QUOTA` is not kept, nor with `only_done` any refusal.
    """

    key: bytes
    fingerprint: bytes
    ttl_ms: int
    only_done: bool = False


class Discard(msgspec.Struct, frozen=True, gc=False):
    """Remove a key as `Delete` does, and keep its record in the trash until the undo ends.

    Its TTL goes on there; its stale copy and its lease are not kept. Those that are kept with the
    same undo can be put back together: all of one write, and with `undo` those of an earlier one.
    The result's `number` is when the undo ends, 0 where nothing was kept, because there was no room
    for it or the undo has ended.
    """

    key: bytes
    until: int
    """When the undo ends, in ms of the store's clock."""
    about: bytes = b""
    """What is kept with a new undo, at most `MAX_ABOUT_BYTES`: who deletes, and what."""
    undo: int = 0
    """The number of an undo that this is a part of, 0 for a new one: its number is the revision of
    the first deletion."""
    condition: Condition | None = None
    keep: bool = True
    """Without it nothing is kept, and the undo says that it is gone."""


class Restore(msgspec.Struct, frozen=True, gc=False):
    """Put a record back that is in the trash, as a new revision, unless its key exists.

    Alone in its write, or behind checks.

    The result has a revision where it was put back; it `existed` where the key exists now, and then
    the record stays in the trash. Neither: it is not in the trash any more.
    """

    key: bytes
    undo: int
    revision: int
    """The record's revision when its key was deleted."""
    size: int = 0
    """About how many bytes it has."""


Operation: TypeAlias = Set | Delete | Get | Add | Touch | Check | Remember | Discard | Restore
Write: TypeAlias = tuple[Operation, ...]
"""Operations that are applied all or none; each sees what the ones before it did."""


class Result(msgspec.Struct, frozen=True, gc=False):
    """What one operation did: the revision of its change, and whether the key existed before."""

    revision: int
    existed: bool
    record: Record | None = None
    """What `Get` found."""
    number: int | None = None
    """What `Add` made; of `Discard` when the undo ends."""


class Why(enum.Enum):
    """Why a write was refused as a whole."""

    CONDITION = "condition"
    """A precondition did not hold."""
    MISSING = "missing"
    """A key that has to exist does not."""
    NUMBER = "number"
    """A value is not a decimal number of 64 bits."""
    OVERFLOW = "overflow"
    """A sum has more than 64 bits."""
    REUSED = "reused"
    """The outcome of another write is kept under this name."""
    FULL = "full"
    """The store has no room for it; deletes still work."""
    SERVER_FULL = "server full"
    """The server that the store is on has no room for it; deletes still work."""
    UNSAFE = "unsafe"
    """The server that the store is on is set to remove keys by itself. Nothing was done."""
    LOCKS_FULL = "locks full"
    """Locks take all of the memory that they may. None is ever evicted."""
    ANSWERS_FULL = "answers full"
    """Outcomes that are remembered take all of the memory that they may. None is ever evicted."""
    DISK_FULL = "disk full"
    """The disk that the store is kept on has no room for it. Nothing was done."""
    DISK = "disk"
    """The disk that the store is kept on failed: whether it will be there after a restart is not
    known. Writes are refused until the store was written to the disk anew."""
    BROKEN = "broken"
    """The engine failed, and cannot say whether the write was done."""
    AWAY = "away"
    """What the store is on does not answer; the write may have been done or not."""
    MOVING = "moving"
    """Its keys are on their way from one server to another. Nothing was done; later it will be."""
    SPREAD = "spread"
    """Its keys are in several shards, and nothing changes those together."""
    FENCED = "fenced"
    """A key needs a lock that the write does not name. Nothing was done."""
    QUOTA = "quota"
    """More keys or bytes than a quota allows. Nothing was done."""


class Quota(msgspec.Struct, frozen=True):
    """How many keys there may be that begin with a prefix, and how many bytes they may have.

    Bytes are those of keys and values. None is no limit.
    """

    name: str
    prefix: str
    max_bytes: int | None = None
    max_keys: int | None = None


class Exceeded(msgspec.Struct, frozen=True):
    """What a write would bring beyond its limit."""

    quota: Quota
    of: str
    """`bytes` or `keys`."""
    limit: int
    actual: int
    """How many there would be."""


class QuotaUse(msgspec.Struct, frozen=True):
    """A quota, and what there is below its prefix."""

    quota: Quota
    bytes: int
    keys: int
    counted: bool
    """Whether all keys are counted; it does not hold before that."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A write that changed nothing: which operation stopped it, and the key's present revision."""

    why: Why
    index: int = 0
    revision: int | None = None
    holder: Record | None = None
    """Who held the lock that was to be taken, where the engine knows: it may be free by now."""
    at: int = 0
    """When that was so, in ms of the store's clock."""
    needed: int = 0
    """With `FULL`: how many bytes a write of many operations may need, 0 where that is not known.
    With `LOCKS_FULL` and `ANSWERS_FULL`: how many bytes these would take."""
    available: int = 0
    """How many bytes there are for it."""
    lock: bytes = b""
    """With `FENCED`: the lock that the write has to name."""
    exceeded: Exceeded | None = None
    """With `QUOTA`: which one."""


Outcome: TypeAlias = tuple[Result, ...] | Refusal


class Change(enum.IntEnum):
    """What an event says happened to a key."""

    SET = 1
    DELETE = 2
    EXPIRE = 3
    EVICT = 4
    LOCK = 5
    """A lock was taken; `key` is its name."""
    UNLOCK = 6
    """A lock was given back, or its time ended."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One change of the store. Values are not kept."""

    revision: int
    change: Change
    key: bytes
    time: int


class Page(msgspec.Struct, frozen=True, gc=False):
    """A piece of the keys in order, as they all were at one revision."""

    entries: list[tuple[bytes, Record]]
    folders: list[bytes]
    """With a delimiter: beginnings that several keys share, up to and with the delimiter."""
    next: bytes | None
    """Where to go on (`after`), None at the end. A page may be short and still have one."""
    revision: int
    """The store's revision when the page was read: watching after it misses nothing."""


class Sweep(msgspec.Struct, frozen=True, gc=False):
    """What one round of expiry did."""

    expired: int
    """How many keys ended, and stale copies with them."""
    next_due: int | None
    """When the next key ends, in ms of the store's clock; None when none has a TTL."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """How full the store is. All sizes in bytes."""

    keys: int
    keys_with_ttl: int
    events: int
    revision: int
    limit: int
    used: int
    """Pages that hold something (records, indexes, events), and the small files."""
    free: int
    """What is left of the limit."""
    reserved: int
    """What the files have claimed from the system so far; it only grows, up to the limit."""
    reclaimable: int = 0
    """The part of `free` that held something before, and is used again first."""
    kept_free: int = 0
    """The part of `free` that only deletes and the log of events may use: a full store has it."""
    evicted: int = 0
    """How many keys were evicted in the store's life."""
    locks: int | None = None
    """How many locks are held, ended ones that are not yet removed included; None: not known."""
    disk_failed: bool = False
    """Writes are refused, because what was written last may not be on the disk."""
    stale_copies: int = 0
    """How many keys that have ended are kept as stale copies; they are none of `keys`."""
    trash: int = 0
    """How many records are in the trash; they are none of `keys`."""
    trash_bytes: int | None = None
    """About how many bytes they take; None where the engine does not know."""
    quotas: tuple[QuotaUse, ...] = ()
    """All quotas, in the order of their names."""


class Undo(msgspec.Struct, frozen=True, gc=False):
    """What of a deletion can be put back, and what came of the rest."""

    number: int
    """The revision of its first deletion."""
    since: int
    until: int
    """When it began and when it ends, in ms of the store's clock."""
    deleted: int
    """How many keys were deleted with it."""
    restored: int = 0
    """How many of them were put back."""
    ended: int = 0
    """How many have ended in the trash, as they would have."""
    gone: int = 0
    """How many were dropped because their room was needed."""
    about: bytes = b""
    """What was given with the first `Discard`."""

    @property
    def left(self) -> int:
        """How many are in the trash."""
        return self.deleted - self.restored - self.ended - self.gone


class Trashed(msgspec.Struct, frozen=True, gc=False):
    """A record in the trash, without its value."""

    key: bytes
    revision: int
    size: int
    """About how many bytes it has."""


class WhenFull(enum.Enum):
    """What happens to writes that need room when there is none."""

    REJECT = "reject"
    """They are refused, with `Why.FULL`."""
    EVICT = "evict"
    """Keys that were not used lately go, each with its event. Locks and answers stay."""


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can and cannot do; served under `/v1/info`."""

    engine: str
    shared_by: str
    durable: bool
    eviction: bool
    atomic_across_keys: bool
    quotas: bool = False
    """Whether it knows quotas."""
    answers_later: bool = False
    """Whether the answer to a write comes after the turn of the event loop that asked for it."""
    max_key_bytes: int = MAX_KEY_BYTES


SHORT_WAIT_NS: Final = 16_000
"""A wait for the write lock that is only counted: telling of each would cost more than it."""


class Measures:
    """What is told how long the store lets one wait, in ns, where it does."""

    __slots__ = ("lock_waited", "short_waits", "synced")

    def __init__(self) -> None:
        self.lock_waited: Callable[[int], None] | None = None
        """Called for a commit that has waited for the others' to end: for how long."""
        self.short_waits = 0
        """How many commits have waited less than `SHORT_WAIT_NS`, of which nobody is told."""
        self.synced: Callable[[int], None] | None = None
        """Called for each sync of the disk, by another thread: how long it took."""


class Engine(Protocol):  # structure: what one store has to answer
    """A store, as one worker process has it open.

    Every method that asks the store for something is awaited. An engine whose store is at hand
    answers without suspending, so that whoever drives its coroutines (`http.eager`) has the answer
    at once; one whose store is on the other side of a network suspends until the answer has come,
    and what was asked for in one turn of the event loop goes out together.

    Reads see every write that any process has acknowledged. Methods raise `StoreError` when the
    store itself is broken and `StoreAway` when it does not answer; a write that cannot be done is a
    `Refusal`, not an exception.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can and cannot do."""

    @property
    def measures(self) -> Measures:
        """What is told how long one has waited. An engine elsewhere knows nothing of it."""

    @property
    def get_now(self) -> Callable[[bytes], Record | None] | None:
        """`get` as a plain function, or None for an engine whose reads have to be waited for.

        It is there for the most frequent request of all, which a coroutine would cost 2 %.
        """

    @property
    def write_now(self) -> Callable[[Sequence[Write]], Sequence[Outcome]] | None:
        """`write` as a plain function, or None for an engine whose answers have to be waited for.

        An engine may have `get_now` without this: where writes are answered when they are durable.
        """

    def now(self) -> int:
        """Return the store's clock in ms: the same in every process, moved by no clock setting.

        Where the store is elsewhere it is an estimate, for telling and not for judging.
        """

    def listen(self, wanted: bool, told: Callable[[], None]) -> None:
        """Have `told` called whenever another service may have changed something, or no longer.

        What the workers of this service change is not told: they wake one another.
        """

    async def get(self, key: bytes) -> Record | None:
        """Return the record, or None when the key is missing or its time is over. O(log keys)."""

    async def get_stale(self, key: bytes) -> Record | None:
        """Return the record, be it over, as long as a stale copy of it is kept. O(log keys)."""

    async def stale_copies(
        self, prefix: bytes, after: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return keys under a prefix of which there is only a stale copy, and where to go on.

        In the order of their bytes; few or none of them do not mean that there are no more.
        """

    async def admin_value(self, key: bytes) -> bytes | None:
        """Return a value of `Space.ADMIN`."""

    async def all_of(self, space: Space) -> dict[bytes, bytes]:
        """Return the values of a space, by their keys; `Space.ADMIN` alone is few enough."""

    async def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return what `get` returns for each key, all as of one moment; of each shard's keys."""

    async def get_part(self, key: bytes, span: Span) -> Part | None:
        """Return a part of a value, None when the key is missing. Costs what the part costs."""

    async def sizes_of(self, keys: Sequence[bytes]) -> list[int]:
        """Return about how many bytes the record of each key has, 0 where there is none.

        No value is read for it, however many they are and however long.
        """

    async def lock_of(self, name: bytes) -> Record | None:
        """Return who holds a lock: the value is the owner, the revision the fencing token."""

    async def scan_locks(
        self, prefix: bytes = b"", after: bytes | None = None, limit: int = 100
    ) -> Page:
        """Return a page of the locks that are held, in order of their names.

        The records are what `lock_of` returns. Leases are locks, and come last.
        """

    async def scan(
        self,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit: int = 100,
        reverse: bool = False,
        delimiter: bytes = b"",
        most_bytes: int = PAGE_BYTES,
    ) -> Page:
        """Return a page of the keys that begin with `prefix`, in order of their bytes.

        `after` goes on behind (with `reverse`: before) a key. Costs O(log keys + limit), whatever
        the number of keys; a page ends early when its values have more than `most_bytes`.
        """

    async def count(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[int, bytes | None]:
        """Count keys in at most `steps` steps; return the number and where to go on, if at all."""

    async def sizes(
        self, prefix: bytes, after: bytes | None, steps: int
    ) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return keys in order with about how many bytes each takes, and where to go on, if at all.

        In at most about so many steps. No value is read for it, where the store is at hand.
        """

    async def history(self, after: int | None = None) -> tuple[int, int]:
        """Return the revision below which events are gone, and the store's revision now.

        With `after`: gone for somebody who knows the store as of that revision. The first revision
        is above it, too, where it was given to a change that was lost with an earlier life.
        """

    async def undo_of(self, number: int) -> Undo | None:
        """Return an undo, None where there is none or it has ended."""

    async def undos(self, below: int | None, limit: int) -> list[Undo]:
        """Return at most `limit` undos with a number below one, those of the newest first."""

    async def trashed(
        self, undo: int, after: bytes, limit: int
    ) -> tuple[list[Trashed], bytes | None]:
        """Return records of an undo that are in the trash, and where to go on, if at all.

        `after` is what the last call returned, empty at the beginning; their order is the engine's.
        """

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Apply each write, all or none, in order, and return one outcome for each.

        All of them share commits, so that many together cost less than one by one. A write whose
        answer does not come is refused with `Why.AWAY`.
        """

    def fence(self, refusals: Callable[[Sequence[Write]], dict[int, Refusal]] | None) -> None:
        """From now on have a function say which writes are refused, and why; None: none is.

        It is given the writes that come together, and returns refusals by their places among them.
        """

    async def count_quotas(self) -> bool:
        """Go by the quotas that `Space.ADMIN` holds now, and count for new ones what there is.

        Some of it: say whether more is left to count. See `engines.quotas`; an engine without
        that capability does nothing.
        """

    async def expire(self, limit: int) -> Sweep:
        """Remove at most `limit` keys whose time is over, each with its event.

        Fewer where all of them would take longer than a fraction of a millisecond.
        """

    async def evict(self) -> int:
        """Evict some keys if a full store owes that for what was written; say how many went."""

    async def trim(self, limit: int) -> int:
        """Remove at most `limit` groups of events beyond those that are kept; say how many.

        Fewer where all of them would take longer than a fraction of a millisecond.
        """

    async def events_after(self, revision: int, limit: int) -> list[Event]:
        """Return the oldest known events with a greater revision, at most so many."""

    async def events_of(
        self, key: bytes, before: int | None, limit: int
    ) -> tuple[list[Event], int | None]:
        """Return at most `limit` events of one key, newest first, and where to go on, if at all.

        `before` is what the last call returned, None for the end of the log. A call reads only as
        much of the log as a fraction of a millisecond allows, so it may find nothing and go on.
        """

    async def usage(self) -> Usage:
        """Return counts and sizes. Costs a few microseconds, whatever the number of keys."""

    async def check(self) -> list[str]:
        """Audit everything and return what is wrong, a sentence each. Reads the whole store."""


class StoreError(Exception):
    """The store cannot be used. The message says why and what to do."""


class StoreAway(StoreError):
    """Raised at any time: what the store is on does not answer. It is asked again, later."""


class StoreInUse(StoreError):
    """Raised at start: another service has this store open. The operator names another."""


class StoreFormatUnknown(StoreError):
    """Raised at start: the files are of another version, or no store. The operator decides."""


class StoreTooSmall(StoreError):
    """Raised at start: the directory cannot hold the memory limit. The operator changes either."""
