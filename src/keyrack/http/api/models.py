"""The bodies of requests and answers, as types: what is parsed, and what the reference shows.

Numbers of 64 bits are strings in JSON, because many readers keep only 53 bits of a number.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from keyrack.engines.contract import MAX_KEY_BYTES, MAX_TTL_MS

MAX_UNDO_SECONDS: Final = 7 * 24 * 3600
"""The longest that a deletion can be undone: a week."""
MAX_BATCH_OPERATIONS: Final = 1000
_MAX_TTL: Final = MAX_TTL_MS // 1000
MAX_CACHE_SECONDS: Final = _MAX_TTL

Key: TypeAlias = Annotated[
    str, Meta(min_length=1, description=f"1 to {MAX_KEY_BYTES} bytes of UTF-8.")
]
Ttl: TypeAlias = Annotated[
    msgspec.Raw,
    Meta(
        description=f"Seconds until the key ends: 0.001 to {_MAX_TTL}, or null for none.",
        extra_json_schema={"type": ["number", "null"], "minimum": 0.001, "maximum": _MAX_TTL},
    ),
]
Stale: TypeAlias = Annotated[
    msgspec.Raw,
    Meta(
        description="Seconds for which a stale copy is kept after the TTL, or null for none.",
        extra_json_schema={"type": ["number", "null"], "minimum": 0.001, "maximum": _MAX_TTL},
    ),
]
CacheSeconds: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_CACHE_SECONDS)]
MaxAge: TypeAlias = Annotated[
    CacheSeconds | None,
    Meta(description="Seconds for which caches may serve the value; without it none may keep it."),
]
Swr: TypeAlias = Annotated[
    CacheSeconds | None,
    Meta(description="Seconds for which they may serve it after `max_age`, while they ask."),
]
Public: TypeAlias = Annotated[
    bool, Meta(description="Caches of several people, too, where everybody may read the key.")
]
TtlIfNew: TypeAlias = Annotated[
    msgspec.Raw,
    Meta(
        description="As `ttl`, for a counter that is made by this; one that exists keeps its end.",
        extra_json_schema={"type": ["number", "null"], "minimum": 0.001, "maximum": _MAX_TTL},
    ),
]
AnyJson: TypeAlias = Annotated[
    msgspec.Raw, Meta(description="Any JSON value; it is kept as it was written.")
]
Revision: TypeAlias = Annotated[str, Meta(pattern="^[0-9]{1,19}$", description="A revision.")]
Expected: TypeAlias = Annotated[
    str, Meta(pattern=r"^(\*|[0-9]{1,19})$", description="A revision, or `*` for any.")
]
Number: TypeAlias = Annotated[
    str, Meta(pattern="^-?[0-9]{1,19}$", description="A number of 64 bits, signed.")
]
Encoding: TypeAlias = Literal["base64"]


def _no_ttl() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class Body(Struct, forbid_unknown_fields=True, gc=False):
    """A request's body. Unknown members are refused, so that a misspelt one is noticed."""


# The seed API


class SetRequest(Body):
    """The body of `POST /set`. The value is kept as it was written, not as it was understood."""

    key: Key
    value: AnyJson
    ttl: Ttl = msgspec.field(default_factory=_no_ttl)
    stale: Stale = msgspec.field(default_factory=_no_ttl)
    max_age: MaxAge = None
    swr: Swr = None
    public: Public = False


class SetText(Body):
    """The body that most `POST /set` have: a string and no TTL."""

    key: str
    value: str


class Pair(Struct, gc=False):
    """The answer to `GET /get/<key>` for a value that is text."""

    key: str
    value: str


class Shown(Struct, omit_defaults=True):
    """A key and its value as JSON."""

    key: str
    value: AnyJson
    encoding: Encoding | UnsetType = UNSET


class Status(Struct):
    """How it went, on the seed API."""

    status: Literal["success", "error"]
    message: str


# Pages


class Entry(Struct, omit_defaults=True):
    """A key of a page."""

    key: str
    revision: Revision
    type: str
    size: int
    ttl: float | None
    value: AnyJson | UnsetType = UNSET
    encoding: Encoding | UnsetType = UNSET
    max_age: int | UnsetType = UNSET
    swr: int | UnsetType = UNSET
    public: bool | UnsetType = UNSET


class KeyPage(Struct, omit_defaults=True):
    """A page of keys in order, and the revision at which it was read."""

    keys: list[Entry]
    next: str | None
    revision: Revision
    folders: list[str] | UnsetType = UNSET
    filtered: bool = False
    """Whether there may be more that the sender may not list."""


class Count(Struct):
    """How many keys there are."""

    count: int
    revision: Revision


class Deleted(Struct, omit_defaults=True):
    """What a deletion by prefix did, or would do."""

    deleted: int
    revision: Revision
    dry_run: bool | UnsetType = UNSET
    sample: list[str] | UnsetType = UNSET
    kept_newer: int | UnsetType = UNSET
    """How many keys were left alone because they have changed after the revision `at`."""
    undo: Revision | UnsetType | None = UNSET
    """What `POST /v1/undo/{key}` takes; null where there is nothing that could be put back."""
    until: str | UnsetType | None = UNSET
    """When the undo ends."""
    gone: int | UnsetType = UNSET
    """How many of the keys cannot be put back, because there was no room to keep them."""


class Undoable(Struct, omit_defaults=True):
    """A deletion that can be undone."""

    undo: Revision
    deleted: int
    left: int
    """How many keys can be put back."""
    restored: int
    ended: int
    """How many have ended meanwhile, as they would have."""
    gone: int
    """How many were dropped because their room was needed."""
    since: str
    until: str
    prefix: str | UnsetType = UNSET
    key: str | UnsetType = UNSET


class UndoList(Struct):
    """The deletions that the sender can undo, the newest first."""

    undos: list[Undoable]
    next: Revision | None
    """Where to go on (`before`), null at the end."""


class Undone(Struct):
    """What an undo came to, with what it came to before."""

    undo: Revision
    deleted: int
    restored: int
    kept_newer: int
    """How many were not put back because their key exists. They are kept until the undo ends."""
    ended: int
    gone: int
    until: str
    revision: Revision


# Batches


class Conditional(Body):
    """An operation that may depend on the key's present revision."""

    key: Key
    if_match: Expected | UnsetType = UNSET
    if_none_match: Expected | UnsetType = UNSET


class BatchGet(Conditional, tag_field="op", tag="get"):
    """Read a key as the operations before have left it."""


class BatchSet(Conditional, tag_field="op", tag="set", kw_only=True):
    """Store a value."""

    value: AnyJson
    ttl: Ttl = msgspec.field(default_factory=_no_ttl)
    stale: Stale = msgspec.field(default_factory=_no_ttl)
    type: str | UnsetType = UNSET
    encoding: Encoding | UnsetType = UNSET
    max_age: MaxAge = None
    swr: Swr = None
    public: Public = False


class BatchDelete(Conditional, tag_field="op", tag="delete"):
    """Remove a key; one that is missing is no failure."""


class BatchAdd(Conditional, tag_field="op", tag="add", kw_only=True):
    """Add to a counter."""

    delta: Number | int = "1"
    initial: Number | int = "0"
    ttl: Ttl = msgspec.field(default_factory=_no_ttl)
    ttl_if_new: TtlIfNew = msgspec.field(default_factory=_no_ttl)


class BatchTouch(Conditional, tag_field="op", tag="touch", kw_only=True):
    """Give a key another TTL, or none with null; value and revision stay.

    Without `stale` a stale copy is kept for as long as before, after the new end.
    """

    ttl: Ttl
    stale: Stale | UnsetType = UNSET


class BatchCheck(Body, tag_field="op", tag="check"):
    """Let the batch be refused unless a key is in a state, or a lock is held with a token."""

    key: Key | UnsetType = UNSET
    if_match: Expected | UnsetType = UNSET
    if_none_match: Expected | UnsetType = UNSET
    lock: Key | UnsetType = UNSET
    token: Revision | UnsetType = UNSET


BatchOperation: TypeAlias = BatchGet | BatchSet | BatchDelete | BatchAdd | BatchTouch | BatchCheck


class BatchRequest(Body):
    """Operations that are done all or none, in order."""

    operations: Annotated[list[BatchOperation], Meta(min_length=1, max_length=MAX_BATCH_OPERATIONS)]
    undo: Annotated[int, Meta(ge=0, le=MAX_UNDO_SECONDS)] | UnsetType = UNSET


class BatchResult(Struct, omit_defaults=True):
    """What one operation of a batch did. Which members are there depends on `op`."""

    op: str
    key: str | UnsetType = UNSET
    revision: Revision | UnsetType = UNSET
    existed: bool | UnsetType = UNSET
    value: AnyJson | UnsetType = UNSET
    type: str | UnsetType = UNSET
    encoding: Encoding | UnsetType = UNSET


class BatchAnswer(Struct, omit_defaults=True):
    """One result for each operation."""

    results: list[BatchResult]
    undo: Revision | UnsetType = UNSET
    until: str | UnsetType = UNSET


# Counters and locks


class CounterRequest(Body):
    """What to add."""

    delta: Number | int = "1"
    initial: Number | int = "0"
    ttl: Ttl = msgspec.field(default_factory=_no_ttl)
    ttl_if_new: TtlIfNew = msgspec.field(default_factory=_no_ttl)


class CounterAnswer(Struct):
    """The number that a counter has now."""

    key: str
    value: Number
    revision: Revision


class LockRequest(Body):
    """Take a lock, or with its token renew it."""

    owner: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_BYTES)]
    ttl: Ttl
    token: Revision | UnsetType = UNSET


class LockHolder(Struct):
    """Who holds a lock, and for how many seconds yet."""

    name: str
    owner: str
    ttl: float


class LockPage(Struct):
    """Locks that are held, in order of the bytes of their names."""

    locks: list[LockHolder]
    next: Annotated[str | None, Meta(description="Where to go on (`after`); null at the end.")]


class LockState(Struct):
    """What the holder of a lock is told: the token is for nobody else."""

    name: str
    owner: str
    token: Revision
    ttl: float


# Terraform


_LOCK_NAMES: Final = {
    name: "ID" if name == "id" else name.capitalize()
    for name in ("id", "operation", "info", "who", "version", "created", "path")
}


class TerraformLock(Struct, rename=_LOCK_NAMES):
    """What Terraform says of a lock that it takes. It is kept, and told to others."""

    id: Annotated[str, Meta(description="Names the lock; a write under it sends it as `?ID=`.")]
    operation: str = ""
    info: str = ""
    who: str = ""
    version: str = ""
    created: str = ""
    path: str = ""


class TerraformVersion(Struct):
    """A state that was replaced."""

    version: Revision
    replaced: Annotated[str, Meta(description="When; RFC 3339, UTC.")]
    size: Annotated[int, Meta(description="Bytes.")]
    serial: Annotated[
        int | None, Meta(description="Terraform's own number; null where it does not tell.")
    ]
    terraform_version: str | None


class TerraformVersions(Struct):
    """The states before the present one, the newest first."""

    name: str
    versions: list[TerraformVersion]


# Fences


class FenceRequest(Body):
    """Which keys need which lock to be written."""

    keys: Annotated[
        str, Meta(min_length=1, description="A key, or a beginning of keys and `*`, as in a rule.")
    ]
    lock: Key


class FenceShown(Struct):
    """A fence, and where it is kept."""

    name: str
    keys: str
    lock: str
    source: Annotated[str, Meta(description="`file` or `store`.")]


class FenceList(Struct):
    """All fences, in the order of their names."""

    fences: list[FenceShown]


# Quotas


Limit: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]


class QuotaRequest(Body):
    """How many keys there may be below a prefix, and how many bytes; one of the two at least."""

    prefix: Annotated[str, Meta(description="What keys begin with; empty for all of them.")]
    max_bytes: Annotated[Limit | None, Meta(description="Of keys and values.")] = None
    max_keys: Limit | None = None


class QuotaShown(Struct):
    """A quota, and what there is below its prefix."""

    name: str
    prefix: str
    max_bytes: int | None
    max_keys: int | None
    bytes: Annotated[int, Meta(description="Of keys and values, as they are now.")]
    keys: int
    counted: Annotated[
        bool, Meta(description="False while its keys are counted: it does not hold yet.")
    ]


class QuotaList(Struct):
    """All quotas, in the order of their names."""

    quotas: list[QuotaShown]


# Events, service


class KeyEvent(Struct):
    """Something that happened to a key."""

    event: Literal["set", "delete", "expire", "evict"]
    key: str
    revision: Revision
    time: Annotated[str, Meta(description="RFC 3339, on the store's clock.")]


class KeyEvents(Struct):
    """The last known events of a key, newest first."""

    key: str
    events: list[KeyEvent]
    since: Annotated[Revision, Meta(description="Older events are not known any more.")]


class ExportedKey(Body, omit_defaults=True):
    """A line of an export, and of an import."""

    key: str
    value: AnyJson
    type: str | UnsetType = UNSET
    encoding: Encoding | UnsetType = UNSET
    ttl: float | UnsetType | None = UNSET
    stale: Annotated[
        float | UnsetType | None,
        Meta(description="Seconds for which a stale copy is kept after the TTL."),
    ] = UNSET
    max_age: MaxAge = None
    swr: Swr = None
    public: Public = False


class ImportReport(Struct):
    """What an import did."""

    imported: int
    failed: int
    errors: list[ImportError_]
    stopped: bool


class ImportError_(Struct):
    """Why a line was not imported; lines count from 1."""

    line: int
    detail: str


class SlowRequest(Struct):
    """A request that took long, or whose answer was large."""

    operation: Annotated[
        str,
        Meta(
            description="What was asked for; `set`, `delete`, `add`, `touch`, `batch` of a write "
            "that has waited with others; `turn` where a turn of the event loop was slow and none "
            "of its requests by itself."
        ),
    ]
    ms: Annotated[float, Meta(description="From its turn of the event loop to its answer, in ms.")]
    time: Annotated[int, Meta(description="When it was answered, in ns since 1970.")] = 0
    worker: Annotated[int, Meta(description="The number of the worker.")] = 0
    key: Annotated[str | None, Meta(description="The key or the prefix; cut if long.")] = None
    status: Annotated[int | None, Meta(description="The answer's status, where known.")] = None
    refusal: Annotated[str | None, Meta(description="Why a write was refused.")] = None
    lock_ms: Annotated[float, Meta(description="Of it: waiting for the store's write lock.")] = 0.0
    disk_ms: Annotated[float, Meta(description="Of it: waiting for the disk.")] = 0.0
    token: Annotated[str | None, Meta(description="The sender's token, where known.")] = None
    bytes: Annotated[int | None, Meta(description="Bytes of the value, or of the answer.")] = None
    together: Annotated[int, Meta(description="How many writes shared the commit.")] = 0
    reads: Annotated[int, Meta(description="Of a turn: its reads.")] = 0
    writes: Annotated[int, Meta(description="Of a turn: its writes.")] = 0


class SlowRequests(Struct):
    """The last slow requests, the newest first."""

    limit_ms: Annotated[float, Meta(description="What counts as slow; 0: nothing does.")]
    entries: list[SlowRequest]


class HotKey(Struct):
    """A key that is asked for often."""

    key: str
    rate: Annotated[float, Meta(description="Requests a second, at least, as far as sampled.")]


class HotKeyList(Struct):
    """What was asked for most, the most frequent first."""

    seconds: Annotated[float, Meta(description="How long was looked.")]
    requests: Annotated[int, Meta(description="About how many requests for keys there were.")]
    error: Annotated[float, Meta(description="How much more a second each rate may be.")]
    keys: list[HotKey]
    missing_workers: Annotated[list[int], Meta(description="Workers that did not answer.")]


ClientState: TypeAlias = Literal[
    "idle", "sending", "working", "waiting", "watching", "reading", "ending"
]


class ConnectedClient(Struct):
    """A connection that is open."""

    id: Annotated[str, Meta(description="Names it for `DELETE /v1/clients/{id}`.")]
    worker: Annotated[int, Meta(description="The number of the worker that serves it.")]
    address: Annotated[str, Meta(description="Where the client is; `unix` on a Unix socket.")]
    tls: bool
    age: Annotated[float, Meta(description="Seconds since it was opened.")]
    idle: Annotated[float, Meta(description="Seconds since it was last used; within a second.")]
    state: Annotated[
        ClientState,
        Meta(
            description="`sending`: a request is arriving; `working`: its answer is being made; "
            "`waiting`: for a key or a lock; `reading`: it does not take its answer."
        ),
    ]
    request: Annotated[
        str | None, Meta(description="Method and path of the request under way, if there is one.")
    ]
    queued: Annotated[int, Meta(description="Requests that wait behind it.")]
    owed: Annotated[int, Meta(description="Bytes of answers that the client has not taken.")]
    held: Annotated[int, Meta(description="Bytes that are held for it in all.")]
    token: Annotated[str | None, Meta(description="The public id of its last request's token.")]
    agent: Annotated[str | None, Meta(description="Its last request's User-Agent.")]


class ClientList(Struct):
    """Who is connected: those to whom most is owed first, then the oldest."""

    connections: Annotated[int, Meta(description="How many there are.")]
    clients: list[ConnectedClient]
    missing_workers: Annotated[list[int], Meta(description="Workers that did not answer.")]


class BigLine(Struct, omit_defaults=True):
    """A line of the answer to `GET /v1/big`; each has one of these members."""

    progress: Annotated[
        BigProgress | UnsetType, Meta(description="How far the walk is; once a second.")
    ] = UNSET
    key: Annotated[str | UnsetType, Meta(description="A large key.")] = UNSET
    folder: Annotated[str | UnsetType, Meta(description="A beginning of many keys.")] = UNSET
    total: Annotated[BigProgress | UnsetType, Meta(description="The last line.")] = UNSET
    bytes: Annotated[int | UnsetType, Meta(description="Of keys and values.")] = UNSET
    error: Annotated[
        int | UnsetType, Meta(description="How many bytes more a folder may have.")
    ] = UNSET


class BigProgress(Struct):
    """What was looked at."""

    keys: int
    bytes: int


class ProblemDocument(Struct):
    """RFC 9457: what is wrong and what to do."""

    type: str
    title: str
    status: int
    detail: str
