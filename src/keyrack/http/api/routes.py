"""The route table: every operation, declared once, with what it takes, answers and is served by.

Routing, counters and metrics, the OpenAPI document, the reference pages and `docs/http-api.md` are
made from this table. A new operation is one row here and the function that serves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.engines.contract import MAX_TTL_MS
from keyrack.http.api import (
    batch,
    deleting,
    fences,
    keys,
    locks,
    observing,
    patch,
    quotas,
    recompute,
    terraform,
    tokens,
    undo,
    watch,
)
from keyrack.http.api import listing as pages
from keyrack.http.api.models import (
    MAX_BATCH_OPERATIONS,
    MAX_CACHE_SECONDS,
    MAX_UNDO_SECONDS,
    BatchAnswer,
    BatchRequest,
    BigLine,
    ClientList,
    Count,
    CounterAnswer,
    CounterRequest,
    Deleted,
    ExportedKey,
    FenceList,
    FenceRequest,
    FenceShown,
    HotKeyList,
    ImportReport,
    KeyEvents,
    KeyPage,
    LockHolder,
    LockPage,
    LockRequest,
    LockState,
    QuotaList,
    QuotaRequest,
    QuotaShown,
    SetRequest,
    Shown,
    SlowRequests,
    Status,
    TerraformLock,
    TerraformVersions,
    UndoList,
    Undone,
)
from keyrack.http.api.token_model import (
    CheckRequest,
    CheckResults,
    Pending,
    PolicyList,
    PolicyRequest,
    RotateRequest,
    Self,
    TicketMade,
    TicketRequest,
    TokenChange,
    TokenMade,
    TokenPage,
    TokenRequest,
    TokenShown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context, Reply


class Parameter(NamedTuple):
    """A query parameter or header field of a request."""

    name: str
    schema: dict[str, Any]
    description: str
    where: str = "query"
    required: bool = False


class Shape(NamedTuple):
    """A body: its media type, and its type, a tuple of several, or None for bytes as they are."""

    media_type: str
    type: Any = None


class Reaction(NamedTuple):
    """An answer that is no failure."""

    status: int
    description: str
    body: Shape | None = None
    headers: tuple[str, ...] = ()


class Route(NamedTuple):
    """One operation. Where `serve` is None, or returns it, the wide lane's endpoint serves it."""

    name: str
    method: str
    path: str
    summary: str
    description: str
    cost: str
    example: str
    answers: tuple[Reaction, ...]
    problems: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Shape | None = None
    writes: bool = False
    is_probe: bool = False
    """It tells whether the service is well, and nothing else."""
    has_effects: bool = False
    """It changes nothing that is stored, and yet more than an answer comes of it."""
    blind: bool = False
    """It looks at nothing before it writes, and so may share a commit with the writes that its
    connection sent before it."""
    serve: Callable[[Request, Context], Coroutine[Any, Any, Reply | None]] | None = None
    also: tuple[tuple[str, str], ...] = ()
    """Other methods and paths that mean the same, such as OpenAPI has no words for."""


MAX_IDEMPOTENCY_KEY: Final = 255
"""Characters of an Idempotency-Key."""

_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_BINARY: Final = "application/octet-stream"
_ANY: Final = "*/*"

_STRING: Final = {"type": "string"}
_SWITCH: Final = {"type": "boolean", "default": False}
_TAG_SCHEMA: Final = {
    "type": "string",
    "pattern": r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$',
    "examples": ['"1795474670195050"', "*"],
}

_TTL: Final = Parameter(
    "ttl",
    {"type": "number", "minimum": 0.001, "maximum": MAX_TTL_MS // 1000},
    "Seconds until the key ends. Without it the key does not end.",
)
_STALE: Final = Parameter(
    "stale",
    {"type": "number", "minimum": 0.001, "maximum": MAX_TTL_MS // 1000},
    "Seconds for which a stale copy is kept after the TTL, for reads that take one.",
)
_CACHE_TIME: Final = {"type": "integer", "minimum": 0, "maximum": MAX_CACHE_SECONDS}
_CACHING: Final = (
    Parameter(
        "max_age",
        _CACHE_TIME,
        "Seconds for which caches may serve the value. Without it none may keep it.",
    ),
    Parameter(
        "swr", _CACHE_TIME, "Seconds for which they may serve it after that, while they ask."
    ),
    Parameter(
        "public", _SWITCH, "Caches of several people, too, where everybody may read the key."
    ),
)
_MAX_STALE: Final = Parameter(
    "Cache-Control",
    {"type": "string", "pattern": "^max-stale(=[0-9]+)?$", "examples": ["max-stale=60"]},
    "`max-stale` or `max-stale=SECONDS`: a stale copy will do.",
    "header",
)
_LEASE: Final = Parameter(
    "Keyrack-Recompute",
    {"type": "string", "pattern": '^"?[0-9]{1,19}"?$', "examples": ['"1795474670195050"']},
    "The token of the lease under which the value was computed: stored only if the lease is still "
    "held and the key was not written or deleted since.",
    "header",
)
_IF_MATCH: Final = Parameter(
    "If-Match",
    _TAG_SCHEMA,
    "Only if the key is at one of these ETags; `*`: if it exists.",
    "header",
)
_IF_NONE_MATCH: Final = Parameter(
    "If-None-Match",
    _TAG_SCHEMA,
    "Only if the key is at none of these ETags; `*`: if it is missing.",
    "header",
)
_IF_TOKEN: Final = Parameter(
    "If-Match",
    _TAG_SCHEMA,
    "Only if nobody has changed the token since an answer had this ETag.",
    "header",
)
_RANGE: Final = Parameter(
    "Range",
    {"type": "string", "examples": ["bytes=0-1023", "bytes=-100"]},
    "Only these bytes of the value: `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LENGTH`. Several "
    "ranges and other units are passed over.",
    "header",
)
_IF_RANGE: Final = Parameter(
    "If-Range",
    {"type": "string", "pattern": r'^"[!#-~]*"$', "examples": ['"1795474670195050"']},
    "The part only if the key is at this ETag, else all of the value.",
    "header",
)
_UNDO: Final = Parameter(
    "undo",
    {"type": "integer", "minimum": 0, "maximum": MAX_UNDO_SECONDS},
    "For so many seconds the deletion can be undone: the answer says by which number. 0: not at "
    "all. Without it `--undo-default` counts.",
)
_WAIT: Final = Parameter(
    "Prefer",
    {"type": "string", "pattern": r"^wait=[0-9]{1,9}$", "examples": ["wait=30"]},
    "`wait=SECONDS`: answer when it can be answered otherwise, or when the time is over.",
    "header",
)
_PREFER: Final = Parameter(
    "Prefer",
    {
        "type": "string",
        "pattern": r"^(wait|recompute|early)=[0-9]{1,9}( *, *(wait|recompute|early)=[0-9]{1,9})*$",
        "examples": ["wait=30", "recompute=15, early=5, wait=5"],
    },
    "`wait=SECONDS`: answer when it can be answered otherwise, or when the time is over. "
    f"`recompute=SECONDS`, up to {recompute.MAX_LEASE_SECONDS}: the lease that is wanted where the "
    "key has ended, or ends within `early=SECONDS`.",
    "header",
)
_IDEMPOTENCY: Final = Parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY},
    "A name for this request: repeated within ten minutes (`--idempotency-ttl`), it is not done "
    "again and gets the first answer.",
    "header",
)
_HELD_LOCK: Final = Parameter(
    "Keyrack-Lock",
    {"type": "string", "examples": ['"jobs"; token=1795474670195050']},
    "A lock that has to be held with this token when the write is done, percent-encoded as in a "
    "path; several are separated by commas. A fence can demand it.",
    "header",
)
_SEND_JSON: Final = "-H 'Content-Type: application/json'"
_MADE: Final = """$(sed -E 's/.*"id":"([^"]+)".*/\\1/' made.json)"""
"""The id of the token that the example of making one has made."""
_CHANGES: Final = (
    "bad-json", "unsupported-media-type", "cross-site", "store-full", "bad-token",
)  # fmt: skip
_ONE_TOKEN: Final = (
    "token-not-found", "token-in-file", "bad-condition", "precondition-failed", "unavailable",
)  # fmt: skip
_PREFIX: Final = Parameter("prefix", _STRING, "Only keys that begin with this.")

_READ_PROBLEMS: Final = ("bad-target", "bad-key", "bad-parameter", "host-not-allowed", "cross-site")
_WRITE_PROBLEMS: Final = (
    "bad-target",
    "bad-key",
    "bad-parameter",
    "host-not-allowed",
    "cross-site",
    "too-large",
    "store-full",
)
_BODY_PROBLEMS: Final = ("bad-json", "unsupported-media-type")

_FENCED: Final = ("lock-required", "lock-lost", "keys-in-several-shards")
_KEPT: Final = (*_FENCED, "quota-full")
"""Of operations that store something under a key."""
_ASKED: Final = ("bad-parameter", "host-not-allowed", "cross-site")


def _most(default: int, most: int) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("limit", schema, "At most so many.")


_KEEP: Final = Parameter(
    "keep",
    {
        "type": "integer",
        "minimum": 0,
        "maximum": terraform.MOST_VERSIONS,
        "default": terraform.VERSIONS,
    },
    "How many earlier states are kept.",
)
_DURABILITY: Final = Parameter(
    "durability",
    {"type": "string", "enum": ["commit", "none"], "default": "commit"},
    "`none`: the service may lose what it is given here.",
)
_LOCK_ID: Final = Parameter("ID", _STRING, "The ID of the lock, where it is locked.")
_EARLIER: Final = Parameter(
    "version",
    {"type": "string", "pattern": "^[0-9]{1,19}$"},
    "An earlier state, by its `version` in the list.",
)
_DIGEST: Final = Parameter(
    "Content-MD5",
    {"type": "string", "examples": ["1B2M2Y8AsgTpgAmY7PhCfg=="]},
    "The MD5 of the body, in base64; another body is refused.",
    "header",
)
_ADDRESS: Final = (_KEEP, _DURABILITY)
_STATE_PROBLEMS: Final = (
    *_WRITE_PROBLEMS,
    "state-locked",
    "state-lock-lost",
    "not-durable",
    "lock-required",
)

_DONE: Final = (
    Reaction(204, "Done; every worker judges by it."),
    Reaction(202, "Done; some worker is stuck and has not said that it knows.",
             Shape(_JSON, Pending)),
)  # fmt: skip

_TABLE: Final = (
    Route(
        "set",
        "POST",
        "/set",
        "Set a key",
        "A JSON string is stored as `text/plain; charset=utf-8`; any other JSON value as "
        "`application/json`, its text kept exactly as it was sent: numbers are never rounded.",
        "O(log keys); writes of the same moment share a commit",
        "curl localhost:8088/set -H 'Content-Type: application/json' "
        '-d \'{"key":"key_1","value":"value_1"}\'',
        (Reaction(200, "Stored.", Shape(_JSON, Status)),),
        (*_WRITE_PROBLEMS, *_BODY_PROBLEMS, "bad-ttl", *_KEPT),
        (_HELD_LOCK, _IDEMPOTENCY),
        Shape(_JSON, SetRequest),
        writes=True,
        blind=True,
        serve=keys.seed_set,
    ),
    Route(
        "get",
        "GET",
        "/get/{key}",
        "Get a key",
        "Text (`text/*` in valid UTF-8) is shown as a JSON string, `application/json` as itself, "
        'anything else in base64 with `"encoding":"base64"`.',
        "O(log keys)",
        "curl localhost:8088/get/key_1",
        (Reaction(200, "The key and its value.", Shape(_JSON, Shown)),),
        (*_READ_PROBLEMS, "key-not-found"),
        serve=keys.seed_get,
    ),
    Route(
        "key_put",
        "PUT",
        "/v1/keys/{key}",
        "Store a value",
        "The body is kept byte for byte with its `Content-Type`. Without one, or as a form (what "
        "curl says unless told otherwise), it is text if it is UTF-8, else octets.",
        "O(log keys + size)",
        "curl -i -X PUT 'localhost:8088/v1/keys/greeting?ttl=60' -d hello",
        (
            Reaction(201, "Stored under a key that did not exist.", None, ("ETag",)),
            Reaction(204, "Replaced.", None, ("ETag",)),
        ),
        (
            *_WRITE_PROBLEMS,
            "bad-ttl",
            "bad-condition",
            "precondition-failed",
            "lease-lost",
            "unsupported-media-type",
            *_KEPT,
        ),
        (_TTL, _STALE, *_CACHING, _IF_MATCH, _IF_NONE_MATCH, _LEASE, _HELD_LOCK, _IDEMPOTENCY),
        Shape(_ANY),
        writes=True,
        blind=True,
        serve=recompute.key_put,
    ),
    Route(
        "key_get",
        "GET",
        "/v1/keys/{key}",
        "Get a value as it was stored",
        "With `If-None-Match` and `Prefer: wait=` the answer waits until the key differs from that "
        "state; it works for a missing key too. With `Prefer: recompute=SECONDS` it takes a stale "
        "copy, and offers to compute the value anew: one client at a time is given a lease for it, "
        "and the others take the stale copy or, with `wait=` as well, wait for the value.",
        "O(log keys)",
        "curl -i localhost:8088/v1/keys/greeting",
        (
            Reaction(
                200,
                "The value, with its media type.",
                Shape(_ANY),
                (
                    "ETag",
                    "Keyrack-TTL",
                    "Cache-Control",
                    "Age",
                    "Cache-Status",
                    "Keyrack-Recompute",
                ),
            ),
            Reaction(
                206,
                "The part that `Range` names.",
                Shape(_ANY),
                ("ETag", "Keyrack-TTL", "Cache-Control", "Content-Range"),
            ),
            Reaction(
                304,
                "It is in the state that `If-None-Match` names.",
                None,
                ("ETag", "Cache-Control"),
            ),
        ),
        (
            *_READ_PROBLEMS,
            "key-not-found",
            "precondition-failed",
            "bad-condition",
            "range-not-satisfiable",
        ),
        (_IF_MATCH, _IF_NONE_MATCH, _PREFER, _MAX_STALE, _RANGE, _IF_RANGE),
        serve=watch.read,
    ),
    Route(
        "key_delete",
        "DELETE",
        "/v1/keys/{key}",
        "Remove a key",
        "",
        "O(log keys)",
        "curl -i -X DELETE localhost:8088/v1/keys/greeting",
        (
            Reaction(204, "Removed.", None, ("Keyrack-Undo",)),
            Reaction(200, "Removed, with `undo`.", Shape(_JSON, Deleted), ("Keyrack-Undo",)),
        ),
        (
            *_READ_PROBLEMS,
            "key-not-found",
            "bad-condition",
            "precondition-failed",
            *_FENCED,
        ),
        (_UNDO, _IF_MATCH, _IF_NONE_MATCH, _HELD_LOCK, _IDEMPOTENCY),
        writes=True,
        blind=True,
        serve=deleting.key_delete,
    ),
    Route(
        "key_patch",
        "PATCH",
        "/v1/keys/{key}",
        "Give a key another TTL, or change members of a JSON value",
        "With `ttl` and no body the key gets another end, `ttl=none` for none; value and ETag "
        "stay. Without `ttl` the body is a JSON Merge Patch (RFC 7396): its members replace those "
        "of the value, members that are null go, and the TTL stays. Numbers that are not touched "
        "stay as they are written.",
        "O(log keys + size)",
        "curl -X PUT localhost:8088/v1/keys/config "
        "-H 'Content-Type: application/json' -d '{\"debug\":true}' && "
        "curl -i -X PATCH localhost:8088/v1/keys/config "
        "-H 'Content-Type: application/merge-patch+json' -d '{\"debug\":null,\"level\":2}'",
        (Reaction(204, "Changed.", None, ("ETag",)),),
        (
            *_WRITE_PROBLEMS,
            *_BODY_PROBLEMS,
            "bad-ttl",
            "key-not-found",
            "not-json",
            "bad-condition",
            "precondition-failed",
            "unavailable",
            *_KEPT,
        ),
        (
            Parameter(
                "ttl",
                {
                    "oneOf": [
                        {"type": "number", "minimum": 0.001, "maximum": MAX_TTL_MS // 1000},
                        {"const": "none"},
                    ]
                },
                "Seconds until the key ends from now on; `none`: it does not end. Without a body.",
            ),
            _STALE,
            _IF_MATCH,
            _IF_NONE_MATCH,
            _HELD_LOCK,
            _IDEMPOTENCY,
        ),
        Shape("application/merge-patch+json", Any),
        writes=True,
        serve=patch.patch,
    ),
    Route(
        "keys_list",
        "GET",
        "/v1/keys",
        "List keys in order",
        "An ordered page. `next` (and `Link`) says where to go on: give it as `after`. With "
        "`delimiter=/` keys below a further slash are shown as folders. `revision` is the one at "
        "which the page was read: a watch `since` it misses nothing.",
        "O(log keys + limit), however many keys there are; counting: O(keys counted)",
        "curl 'localhost:8088/v1/keys?prefix=config&limit=10'",
        (Reaction(200, "A page, or the count.", Shape(_JSON, (KeyPage, Count)), ("Link",)),),
        _READ_PROBLEMS,
        (
            _PREFIX,
            Parameter("after", _STRING, "Go on behind this key or folder."),
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": pages.MOST, "default": pages.DEFAULT},
                "At most so many keys and folders.",
            ),
            Parameter("reverse", _SWITCH, "From the last key to the first."),
            Parameter("delimiter", _STRING, "Show what keys share up to this as folders."),
            Parameter("values", _SWITCH, "Show the values too."),
            Parameter("count_only", _SWITCH, "Answer only how many there are."),
        ),
        serve=pages.page,
    ),
    Route(
        "keys_delete",
        "DELETE",
        "/v1/keys",
        "Remove all keys under a prefix",
        "In small steps that hold up nobody: keys that are set while it goes on are left alone. "
        "`dry_run=true` counts and shows a sample instead.",
        "O(keys removed)",
        "curl -X DELETE 'localhost:8088/v1/keys?prefix=config&dry_run=true'",
        (Reaction(200, "How many were, or would be, removed.", Shape(_JSON, Deleted)),),
        (*_READ_PROBLEMS, *_FENCED),
        (
            _PREFIX,
            Parameter("dry_run", _SWITCH, "Remove nothing, say what would be removed."),
            Parameter("all", _SWITCH, "Needed for an empty prefix."),
            _UNDO,
            Parameter(
                "at",
                {"type": "string", "pattern": "^[0-9]{1,19}$"},
                "Remove only keys that were not changed after this revision: the one that "
                "`dry_run=true` has told. `kept_newer` says how many were.",
            ),
            _HELD_LOCK,
        ),
        writes=True,
    ),
    Route(
        "undos",
        "GET",
        "/v1/undo",
        "What can be undone?",
        "The deletions with `undo` that the sender has made and of which there is something left, "
        "the newest first.",
        "O(undos there are)",
        "curl localhost:8088/v1/undo",
        (Reaction(200, "They, and where to go on.", Shape(_JSON, UndoList)),),
        _READ_PROBLEMS,
        (
            _most(undo.DEFAULT, undo.MOST),
            Parameter("before", {"type": "string", "pattern": "^[0-9]{1,19}$"}, "Go on here."),
        ),
        serve=undo.listed,
    ),
    Route(
        "undo",
        "POST",
        "/v1/undo/{key}",
        "Undo a deletion",
        "Puts the deleted keys back, as they were, with new revisions, in small steps that hold up "
        "nobody. A key that exists by now is left alone (`kept_newer`), one that would have ended "
        "by now has (`ended`), and what was dropped because memory was short is `gone`. To send "
        "it again does no harm: it goes on, and answers what all of it came to.",
        "O(keys put back)",
        "curl -X PUT localhost:8088/v1/keys/report -d hello && "
        "undo=$(curl -X DELETE 'localhost:8088/v1/keys/report?undo=600' "
        '| sed \'s/.*"undo":"//; s/".*//\') && '
        "curl -X POST localhost:8088/v1/undo/$undo",
        (Reaction(200, "What came of the keys.", Shape(_JSON, Undone)),),
        (*_READ_PROBLEMS, "undo-not-found", "store-full", "unavailable", *_KEPT),
        (_HELD_LOCK,),
        writes=True,
    ),
    Route(
        "batch",
        "POST",
        "/v1/batch",
        "Do several operations, all or none",
        f"Up to {MAX_BATCH_OPERATIONS} of `get`, `set`, `delete`, `add`, `touch` and `check`, in "
        "order; each sees what the ones before did. If one is refused nothing is done, and 409 "
        "says which and why.",
        "O(operations * log keys)",
        "curl localhost:8088/v1/batch -H 'Content-Type: application/json' -d "
        '\'{"operations":[{"op":"check","key":"a","if_none_match":"*"},'
        '{"op":"set","key":"a","value":"1"},{"op":"add","key":"n","delta":"5"}]}\'',
        (Reaction(200, "One result for each operation.", Shape(_JSON, BatchAnswer)),),
        (
            *_WRITE_PROBLEMS,
            *_BODY_PROBLEMS,
            "bad-ttl",
            "bad-number",
            "batch-refused",
            "idempotency-key-reused",
            *_KEPT,
        ),
        (_HELD_LOCK, _IDEMPOTENCY),
        Shape(_JSON, BatchRequest),
        writes=True,
        blind=True,
        serve=batch.batch,
    ),
    Route(
        "counter",
        "POST",
        "/v1/counters/{key}",
        "Add to a counter",
        "A counter is an ordinary text value. It is made from `initial` when it is missing; with "
        "`ttl` it gets that TTL, without one it keeps what it has; `ttl_if_new` is for one that is "
        "made. 64 bits, signed.",
        "O(log keys)",
        "curl localhost:8088/v1/counters/visits -H 'Content-Type: application/json' "
        '-d \'{"delta":"1"}\'',
        (Reaction(200, "The new number.", Shape(_JSON, CounterAnswer), ("ETag",)),),
        (
            *_WRITE_PROBLEMS,
            *_BODY_PROBLEMS,
            "bad-ttl",
            "bad-number",
            "bad-condition",
            "not-a-number",
            "overflow",
            "precondition-failed",
            "idempotency-key-reused",
            *_KEPT,
        ),
        (_IF_MATCH, _IF_NONE_MATCH, _HELD_LOCK, _IDEMPOTENCY),
        Shape(_JSON, CounterRequest),
        writes=True,
        blind=True,
        serve=batch.count,
    ),
    Route(
        "lock_acquire",
        "POST",
        "/v1/locks/{key}",
        "Take, wait for, or renew a lock",
        "`token` in the answer is a fencing token: it grows from holder to holder. With `token` in "
        "the request the lock is renewed. With `Prefer: wait=` the request waits for its turn. A "
        "batch can `check` the token, so that a holder whose time is over changes nothing.",
        "O(log locks)",
        "curl localhost:8088/v1/locks/report -H 'Content-Type: application/json' "
        '-d \'{"owner":"job-7","ttl":30}\'',
        (
            Reaction(201, "Taken.", Shape(_JSON, LockState)),
            Reaction(200, "Renewed.", Shape(_JSON, LockState)),
        ),
        (
            *_WRITE_PROBLEMS,
            *_BODY_PROBLEMS,
            "bad-ttl",
            "lock-held",
            "lock-not-held",
            "idempotency-key-reused",
        ),
        (_WAIT, _IDEMPOTENCY),
        Shape(_JSON, LockRequest),
        writes=True,
        blind=True,
        serve=locks.acquire,
    ),
    Route(
        "lock_release",
        "DELETE",
        "/v1/locks/{key}",
        "Give a lock back",
        "With its token; or, with `force=true`, take it from a holder that is gone.",
        "O(log locks)",
        "curl localhost:8088/v1/locks/backup -H 'Content-Type: application/json' "
        '-d \'{"owner":"job-8","ttl":30}\' -o taken.json && curl -i -X DELETE '
        "\"localhost:8088/v1/locks/backup?token=$(grep -oE '[0-9]{16}' taken.json)\"",
        (Reaction(204, "Given back."),),
        (*_READ_PROBLEMS, "lock-held", "lock-not-held"),
        (
            Parameter(
                "token",
                {"type": "string", "pattern": "^[0-9]{1,19}$"},
                "The token that the holder was given.",
            ),
            Parameter(
                "force",
                _SWITCH,
                "Instead of the token: take the lock from whoever holds it. What its holder still "
                "does is kept from counting by a `check` of its token in a batch.",
            ),
            _IDEMPOTENCY,
        ),
        writes=True,
        blind=True,
        serve=locks.release,
    ),
    Route(
        "lease_release",
        "DELETE",
        "/v1/leases/{key}",
        "Give up recomputing a key",
        "Whoever was given a lease by `GET /v1/keys/{key}` with `Prefer: recompute=` and cannot "
        "compute the value gives it back: the next one gets it at once.",
        "O(log locks)",
        "curl -X PUT 'localhost:8088/v1/keys/front-page?ttl=60&stale=300' -d hello && "
        "curl -i -H 'Prefer: recompute=15, early=60' localhost:8088/v1/keys/front-page "
        '-o taken.txt && curl -i -X DELETE "localhost:8088/v1/leases/front-page?token=$(grep -oE '
        "'[0-9]{16}\"; ttl' taken.txt | grep -oE '[0-9]{16}')\"",
        (Reaction(204, "Given back."),),
        (*_READ_PROBLEMS, "lease-lost"),
        (
            Parameter(
                "token",
                {"type": "string", "pattern": "^[0-9]{1,19}$"},
                "The token of the lease.",
                required=True,
            ),
        ),
        writes=True,
        serve=recompute.release,
    ),
    Route(
        "locks_list",
        "GET",
        "/v1/locks",
        "Locks that are held",
        "A page in order of the bytes of the names, each with its owner and the seconds left.",
        "O(locks)",
        "curl 'localhost:8088/v1/locks?prefix=rep'",
        (Reaction(200, "A page of locks.", Shape(_JSON, LockPage)),),
        _READ_PROBLEMS,
        (
            Parameter("prefix", _STRING, "Only locks whose names begin with this."),
            Parameter("after", _STRING, "Go on behind this name."),
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": pages.MOST, "default": pages.DEFAULT},
                "At most so many.",
            ),
        ),
        serve=locks.page,
    ),
    Route(
        "lock_show",
        "GET",
        "/v1/locks/{key}",
        "Who holds a lock",
        "",
        "O(log locks)",
        "curl localhost:8088/v1/locks/report",
        (Reaction(200, "Its holder, and the seconds left.", Shape(_JSON, LockHolder)),),
        (*_READ_PROBLEMS, "lock-not-held"),
        serve=locks.show,
    ),
    Route(
        "terraform_write",
        "POST",
        "/v1/terraform/{key}",
        "Store a state",
        "Terraform's `http` backend with this path as its `address`. The state is the key "
        "`terraform/{key}`. Where it is locked, `ID` has to be that of the lock, which is checked "
        "in the same commit. What is replaced is kept as an earlier version. The same body again "
        "changes nothing.",
        "O(log keys + size)",
        "curl -i 'localhost:8088/v1/terraform/prod?durability=none' "
        f'{_SEND_JSON} -d \'{{"version":4,"serial":1}}\'',
        (Reaction(200, "Stored.", None, ("ETag",)),),
        (*_STATE_PROBLEMS, "bad-json", "digest-mismatch", "unavailable", "unsupported-media-type"),
        (*_ADDRESS, _LOCK_ID, _DIGEST),
        Shape(_JSON),
        writes=True,
        serve=terraform.write,
    ),
    Route(
        "terraform_read",
        "GET",
        "/v1/terraform/{key}",
        "Get a state",
        "",
        "O(log keys)",
        "curl -i localhost:8088/v1/terraform/prod",
        (Reaction(200, "The state.", Shape(_JSON), ("ETag",)),),
        (*_READ_PROBLEMS, "key-not-found"),
        (*_ADDRESS, _EARLIER),
        serve=terraform.read,
    ),
    Route(
        "terraform_lock",
        "POST",
        "/v1/terraform/{key}/lock",
        "Lock a state",
        "The same as `LOCK /v1/terraform/{key}`, which Terraform sends unless told otherwise. It "
        "is the lock `terraform/{key}`, and does not end by itself. Its holder gets it again.",
        "O(log locks)",
        "curl -i 'localhost:8088/v1/terraform/prod/lock?durability=none' "
        f'{_SEND_JSON} -d \'{{"ID":"0a1b","Who":"ci"}}\'',
        (Reaction(200, "Locked."),),
        (
            *_WRITE_PROBLEMS,
            *_BODY_PROBLEMS,
            "digest-mismatch",
            "state-locked",
            "not-durable",
            "unavailable",
        ),
        (*_ADDRESS, _DIGEST),
        Shape(_JSON, TerraformLock),
        writes=True,
        serve=terraform.lock,
        also=(("LOCK", "/v1/terraform/{key}"),),
    ),
    Route(
        "terraform_lock_show",
        "GET",
        "/v1/terraform/{key}/lock",
        "Who has locked a state",
        "",
        "O(log locks)",
        "curl localhost:8088/v1/terraform/prod/lock",
        (Reaction(200, "What its holder has said of the lock.", Shape(_JSON, TerraformLock)),),
        (*_READ_PROBLEMS, "lock-not-held"),
        _ADDRESS,
        serve=terraform.show_lock,
    ),
    Route(
        "terraform_unlock",
        "DELETE",
        "/v1/terraform/{key}/lock",
        "Unlock a state",
        "The same as `UNLOCK /v1/terraform/{key}`. With the lock's info or, where that is not "
        "known, with no body at all, as `terraform force-unlock` has it. No lock is no failure.",
        "O(log locks)",
        "curl -i -X DELETE localhost:8088/v1/terraform/prod/lock "
        f'{_SEND_JSON} -d \'{{"ID":"0a1b"}}\'',
        (Reaction(200, "Nobody holds it any more."),),
        (*_WRITE_PROBLEMS, *_BODY_PROBLEMS, "digest-mismatch", "state-locked", "unavailable"),
        (*_ADDRESS, _DIGEST),
        Shape(_JSON, TerraformLock),
        writes=True,
        serve=terraform.unlock,
        also=(("UNLOCK", "/v1/terraform/{key}"),),
    ),
    Route(
        "terraform_versions",
        "GET",
        "/v1/terraform/{key}/versions",
        "List earlier states",
        "`GET /v1/terraform/{key}?version=` answers one of them. They are keys below "
        "`terraform/{key}/versions/`.",
        "O(versions)",
        "curl -X POST 'localhost:8088/v1/terraform/prod?durability=none' "
        f'{_SEND_JSON} -d \'{{"version":4,"serial":2}}\' && '
        "curl localhost:8088/v1/terraform/prod/versions",
        (Reaction(200, "The newest first.", Shape(_JSON, TerraformVersions)),),
        _READ_PROBLEMS,
        _ADDRESS,
        serve=terraform.versions,
    ),
    Route(
        "terraform_restore",
        "POST",
        "/v1/terraform/{key}/versions",
        "Put an earlier state back",
        "What it replaces is kept as an earlier version in its turn. The state's `serial` is what "
        "it was then.",
        "O(log keys + size)",
        "curl localhost:8088/v1/terraform/prod/versions -o versions.json && curl -i -X POST "
        '"localhost:8088/v1/terraform/prod/versions?durability=none&'
        "version=$(grep -oE '[0-9]{16}' versions.json)\"",
        (Reaction(200, "It is the present one.", None, ("ETag",)),),
        (*_STATE_PROBLEMS, "key-not-found", "unavailable"),
        (*_ADDRESS, _LOCK_ID, _EARLIER._replace(required=True)),
        writes=True,
        serve=terraform.restore,
    ),
    Route(
        "terraform_remove",
        "DELETE",
        "/v1/terraform/{key}",
        "Remove a state",
        "It is kept as an earlier version; with `keep=0` all of them go too.",
        "O(log keys)",
        "curl -i -X DELETE 'localhost:8088/v1/terraform/prod?durability=none'",
        (Reaction(200, "Removed.", None, ("ETag",)),),
        (*_STATE_PROBLEMS, "key-not-found", "unavailable"),
        (*_ADDRESS, _LOCK_ID),
        writes=True,
        serve=terraform.remove,
    ),
    Route(
        "fence_put",
        "PUT",
        "/v1/fences/{key}",
        "Have writes of keys need a lock",
        "Every write of these keys then has to name the lock and its token in `Keyrack-Lock`: it "
        "is 428 without, and 412 where the lock is not held with that token. When this is answered "
        "no worker does a write that it forbids. What ends by its TTL or is evicted ends all the "
        "same.",
        "O(fences)",
        f"curl -i -X PUT localhost:8088/v1/fences/jobs {_SEND_JSON} "
        '-d \'{"keys":"jobs/*","lock":"jobs"}\'',
        (
            Reaction(201, "Made."),
            Reaction(204, "Changed; every worker goes by it."),
            Reaction(
                202,
                "Made; some worker is stuck and has not said that it knows.",
                Shape(_JSON, Pending),
            ),
        ),
        (*_ASKED, *_BODY_PROBLEMS, "bad-key", "bad-fence", "fence-in-file", "store-full"),
        (),
        Shape(_JSON, FenceRequest),
        writes=True,
        serve=fences.put,
    ),
    Route(
        "fences_list",
        "GET",
        "/v1/fences",
        "Fences",
        "Those of the operator's file and those that the store keeps, in the order of their names.",
        "O(fences)",
        "curl localhost:8088/v1/fences",
        (Reaction(200, "All fences.", Shape(_JSON, FenceList)),),
        _ASKED,
        serve=fences.list_fences,
    ),
    Route(
        "fence_show",
        "GET",
        "/v1/fences/{key}",
        "One fence",
        "",
        "O(fences)",
        "curl localhost:8088/v1/fences/jobs",
        (Reaction(200, "The fence.", Shape(_JSON, FenceShown)),),
        (*_ASKED, "bad-key", "fence-not-found"),
        serve=fences.show,
    ),
    Route(
        "fence_drop",
        "DELETE",
        "/v1/fences/{key}",
        "Remove a fence",
        "",
        "O(fences)",
        "curl -i -X DELETE localhost:8088/v1/fences/jobs",
        _DONE,
        (*_ASKED, "bad-key", "fence-not-found", "fence-in-file"),
        writes=True,
        serve=fences.drop,
    ),
    Route(
        "quota_put",
        "PUT",
        "/v1/quotas/{key}",
        "Limit what there is below a prefix",
        "A write that would bring the keys below the prefix above `max_keys`, or keys and values "
        "above `max_bytes`, is 507 from now on. Deletes, and writes that make it no more, are "
        "done beyond the limit too. Keys that exist are counted first, while others are written. "
        "Not on Valkey.",
        "O(keys below the prefix), in steps",
        f"curl -i -X PUT localhost:8088/v1/quotas/team-a {_SEND_JSON} "
        '-d \'{"prefix":"team-a/","max_bytes":50000000,"max_keys":100000}\'',
        (
            Reaction(201, "Made; it holds."),
            Reaction(204, "Changed; it holds."),
        ),
        (
            *_ASKED,
            *_BODY_PROBLEMS,
            "bad-key",
            "bad-quota",
            "store-full",
            "unavailable",
            "quotas-not-supported",
        ),
        (),
        Shape(_JSON, QuotaRequest),
        writes=True,
        serve=quotas.put,
    ),
    Route(
        "quotas_list",
        "GET",
        "/v1/quotas",
        "Quotas",
        "With what there is below each prefix, in the order of their names.",
        "O(quotas)",
        "curl localhost:8088/v1/quotas",
        (Reaction(200, "All quotas.", Shape(_JSON, QuotaList)),),
        _ASKED,
        serve=quotas.list_quotas,
    ),
    Route(
        "quota_show",
        "GET",
        "/v1/quotas/{key}",
        "One quota",
        "",
        "O(quotas)",
        "curl localhost:8088/v1/quotas/team-a",
        (Reaction(200, "The quota.", Shape(_JSON, QuotaShown)),),
        (*_ASKED, "bad-key", "quota-not-found"),
        serve=quotas.show,
    ),
    Route(
        "quota_drop",
        "DELETE",
        "/v1/quotas/{key}",
        "Remove a quota",
        "The keys stay.",
        "O(quotas)",
        "curl -i -X DELETE localhost:8088/v1/quotas/team-a",
        (Reaction(204, "Removed."),),
        (*_ASKED, "bad-key", "quota-not-found", "unavailable"),
        writes=True,
        serve=quotas.drop,
    ),
    Route(
        "watch",
        "GET",
        "/v1/watch",
        "Watch keys",
        "Server-sent events: `set`, `delete`, `expire`, `evict`, each with the revision as its id; "
        "`synced` when the history has been told; `bookmark` when only other keys change; `reset` "
        "when this client cannot keep up and is closed. `Last-Event-ID` or `since` resumes. Where "
        "the history does not reach back to a `since` the answer is 410; to a `Last-Event-ID`, "
        "with which browsers go on by themselves, it is a stream that begins with `reset`.",
        "One write for each piece of news and watcher",
        "curl -N 'localhost:8088/v1/watch?prefix=config'",
        (Reaction(200, "A stream of events.", Shape("text/event-stream")),),
        (*_READ_PROBLEMS, "history-gone"),
        (
            Parameter(
                "prefix",
                {"type": "array", "items": _STRING},
                "Only keys that begin with this; several may be given.",
            ),
            Parameter("since", {"type": "string", "pattern": "^[0-9]{1,19}$"}, "Resume after it."),
            Parameter(
                "lastEventId",
                {"type": "string", "pattern": "^[0-9]{0,19}$"},
                "As the header field, for those that cannot set one.",
            ),
            Parameter("values", _SWITCH, "Tell the value too, as it is when it is sent."),
            Parameter(
                "Last-Event-ID",
                {"type": "string", "pattern": "^[0-9]{1,19}$"},
                "Resume after it; wins over `since`.",
                "header",
            ),
        ),
        serve=watch.watch,
    ),
    Route(
        "key_events",
        "GET",
        "/v1/events/{key}",
        "Where did my key go?",
        "The last known events of a key, newest first: when it was set, deleted, ended, evicted.",
        "O(events since the oldest that is told), in small steps",
        "curl localhost:8088/v1/events/greeting",
        (Reaction(200, "Its events.", Shape(_JSON, KeyEvents)),),
        _READ_PROBLEMS,
        (
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": pages.MOST, "default": pages.DEFAULT},
                "At most so many.",
            ),
        ),
    ),
    Route(
        "export",
        "GET",
        "/v1/export",
        "Export keys",
        "One key a line, lossless: any key, any value, media type and remaining TTL. Each piece is "
        "read at one moment, the whole is not.",
        "O(keys exported), in bounded memory",
        "curl 'localhost:8088/v1/export?prefix=config' | tee config.ndjson",
        (Reaction(200, "The keys, in order.", Shape(_NDJSON, ExportedKey)),),
        _READ_PROBLEMS,
        (_PREFIX,),
    ),
    Route(
        "snapshot",
        "GET",
        "/v1/snapshot",
        "Take a snapshot and fetch it",
        "The file of a snapshot: everything that the store holds, locks and events included, as it "
        "was at one moment. A new one is taken when anything was changed since the last; like "
        "those that are taken at intervals it stays in the data directory for a while. Check the "
        "file with `keyrack snapshot verify`: one that was cut off is no snapshot.",
        "O(everything stored), in bounded memory, by a process of its own",
        "curl -f localhost:8088/v1/snapshot -o monday.snapshot",
        (Reaction(200, "The file.", Shape(_BINARY)),),
        ("bad-parameter", "host-not-allowed", "cross-site", "no-snapshots", "unavailable"),
        has_effects=True,
    ),
    Route(
        "import",
        "POST",
        "/v1/import",
        "Import keys",
        "Lines as `export` writes them, streamed. `on_error=stop` stops at the first line that "
        "fails; otherwise such lines are reported (the first hundred) and the rest goes on.",
        "O(lines), in bounded memory",
        "curl localhost:8088/v1/import -H 'Content-Type: application/x-ndjson' "
        "--data-binary @config.ndjson",
        (Reaction(200, "What was imported, and what not.", Shape(_JSON, ImportReport)),),
        (
            "bad-parameter",
            "host-not-allowed",
            "cross-site",
            "unsupported-media-type",
            "bad-json",
            "nothing-imported",
            *_KEPT,
        ),
        (
            Parameter(
                "on_error", {"enum": ["continue", "stop"], "default": "continue"}, "What then."
            ),
            _HELD_LOCK,
        ),
        Shape(_NDJSON, ExportedKey),
        writes=True,
    ),
    Route(
        "slow",
        "GET",
        "/v1/slow",
        "What was slow?",
        "The last requests that took longer than `--slow`, or whose answer had more than "
        "`--slow-bytes`, of all workers, the newest first: 128 of each worker. A write that waited "
        "says for how long it waited for the write lock and for the disk.",
        "O(entries)",
        "curl localhost:8088/v1/slow",
        (Reaction(200, "They.", Shape(_JSON, SlowRequests)),),
        _ASKED,
        (_most(observing.DEFAULT_ENTRIES, observing.MOST_ENTRIES),),
        serve=observing.slow,
    ),
    Route(
        "slow_clear",
        "DELETE",
        "/v1/slow",
        "Forget what was slow",
        "",
        "constant",
        "curl -X DELETE localhost:8088/v1/slow",
        (Reaction(204, "Forgotten, by all workers."),),
        _ASKED,
        writes=True,
        serve=observing.clear_slow,
    ),
    Route(
        "hot",
        "GET",
        "/v1/hot",
        "Which keys are hot?",
        "Looks for some seconds at the requests of all workers, and answers with the keys that "
        "were asked for most: reads, writes and operations of batches. Each request is counted at "
        "first, one in sixteen when there are many. Nothing is counted while nobody asks.",
        "less than 1 µs a request, for as long as it looks",
        "curl 'localhost:8088/v1/hot?seconds=2'",
        (Reaction(200, "Keys, and how often each was asked for.", Shape(_JSON, HotKeyList)),),
        (*_ASKED, "busy"),
        (
            Parameter(
                "seconds",
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": observing.MOST_SECONDS,
                    "default": observing.DEFAULT_SECONDS,
                },
                "How long to look.",
            ),
            _most(observing.DEFAULT_KEYS, observing.MOST_KEYS),
        ),
        serve=observing.hot,
    ),
    Route(
        "big",
        "GET",
        "/v1/big",
        "What fills the memory?",
        "Walks over all keys under a prefix, in small steps, and answers with the largest and with "
        "what is under each folder: beginnings of keys up to and with the `depth`th `delimiter`. "
        "Lines come as it goes on: `progress`, once a second, and at the end the largest `key`s, "
        "the `folder`s with the most bytes, and the `total`.",
        "O(keys under the prefix), in bounded memory",
        "curl 'localhost:8088/v1/big?limit=10'",
        (Reaction(200, "A line for each.", Shape(_NDJSON, BigLine)),),
        _READ_PROBLEMS,
        (
            _PREFIX,
            _most(observing.DEFAULT_KEYS, observing.MOST_KEYS),
            Parameter("delimiter", {"type": "string", "default": "/"}, "What ends a folder."),
            Parameter(
                "depth",
                {"type": "integer", "minimum": 1, "maximum": observing.MOST_DEPTH, "default": 1},
                "How many delimiters a folder has.",
            ),
        ),
    ),
    Route(
        "clients_list",
        "GET",
        "/v1/clients",
        "Who is connected?",
        "The connections of all workers: those to whom most is owed first, then the oldest. What "
        "is told of a sender is what the last request said.",
        "O(connections), in small steps",
        "curl localhost:8088/v1/clients",
        (Reaction(200, "They.", Shape(_JSON, ClientList)),),
        (*_ASKED, "busy"),
        (_most(observing.DEFAULT_ENTRIES, observing.MOST_ENTRIES),),
        serve=observing.clients,
    ),
    Route(
        "client_end",
        "DELETE",
        "/v1/clients/{key}",
        "End a connection",
        "At once, whatever it is doing. Its client may come back: revoke its token to keep it out.",
        "O(connections)",
        "curl -X DELETE localhost:8088/v1/clients/0-17",
        (Reaction(204, "Ended."),),
        (*_ASKED, "client-not-found", "busy"),
        writes=True,
        serve=observing.end_client,
    ),
    *(
        Route(
            name,
            method,
            path,
            summary,
            about,
            "O(tokens), and one turn of each worker" if method != "GET" else "O(tokens)",
            f'curl -H "Authorization: Bearer $KEYRACK_TOKEN" {example}',
            answers,
            ("bad-parameter", "host-not-allowed", "no-access-control", *more),
            given,
            body,
            writes=method != "GET",
            serve=serve,
        )
        for name, method, path, summary, about, example, answers, more, given, body, serve in (
            (
                "auth_tokens_list",
                "GET",
                "/v1/auth/tokens",
                "List tokens",
                "All tokens, those of the operator's file included, without their secrets.",
                "localhost:8088/v1/auth/tokens",
                (Reaction(200, "A page.", Shape(_JSON, TokenPage)),),
                (),
                (
                    Parameter("after", _STRING, "Go on behind this id."),
                    Parameter(
                        "limit",
                        {"type": "integer", "minimum": 1, "maximum": pages.MOST, "default": 100},
                        "At most so many.",
                    ),
                ),
                None,
                tokens.list_tokens,
            ),
            (
                "auth_token_create",
                "POST",
                "/v1/auth/tokens",
                "Make a token",
                "This answer is the only one that has the token's text.",
                f"localhost:8088/v1/auth/tokens {_SEND_JSON} "
                '-d \'{"name":"ci","rules":["all keys:ci/*"],"ttl":86400}\' | tee made.json',
                (Reaction(201, "Made.", Shape(_JSON, TokenMade), ("Location", "ETag")),),
                _CHANGES,
                (),
                Shape(_JSON, TokenRequest),
                tokens.create,
            ),
            (
                "auth_token_show",
                "GET",
                "/v1/auth/tokens/{key}",
                "Show a token",
                "With all its rules, in the order of decision.",
                f"localhost:8088/v1/auth/tokens/{_MADE}",
                (
                    Reaction(
                        200,
                        "The token, without its secret. One of the file has no ETag.",
                        Shape(_JSON, TokenShown),
                        ("ETag",),
                    ),
                ),
                ("token-not-found",),
                (),
                None,
                tokens.show,
            ),
            (
                "auth_token_change",
                "PATCH",
                "/v1/auth/tokens/{key}",
                "Change a token",
                "A merge patch of `name`, `policies`, `rules`, `expires`, `disabled`, `rate`, "
                "`watches`, `from`. What others change at the same time stays.",
                f"-X PATCH localhost:8088/v1/auth/tokens/{_MADE} "
                "-H 'Content-Type: application/merge-patch+json' -d '{\"disabled\":true}'",
                (
                    Reaction(
                        200,
                        "Changed; every worker judges by it.",
                        Shape(_JSON, TokenShown),
                        ("ETag",),
                    ),
                    Reaction(
                        202, "Changed; some worker is stuck.", Shape(_JSON, TokenShown), ("ETag",)
                    ),
                ),
                (*_CHANGES, *_ONE_TOKEN, "last-admin"),
                (_IF_TOKEN,),
                Shape("application/merge-patch+json", TokenChange),
                tokens.change,
            ),
            (
                "auth_token_rotate",
                "POST",
                "/v1/auth/tokens/{key}/rotate",
                "Give a token another secret",
                "Id and rights stay. The present secret counts for `overlap` seconds more.",
                f"localhost:8088/v1/auth/tokens/{_MADE}/rotate {_SEND_JSON} "
                "-d '{\"overlap\":60}'",
                (Reaction(200, "The new text.", Shape(_JSON, TokenMade), ("ETag",)),),
                (*_CHANGES, *_ONE_TOKEN),
                (_IF_TOKEN,),
                Shape(_JSON, RotateRequest),
                tokens.rotate,
            ),
            (
                "auth_token_revoke",
                "DELETE",
                "/v1/auth/tokens/{key}",
                "Revoke a token",
                "When this is answered with 204, no worker lets it in, and its streams and waiting "
                "requests have ended.",
                f"-X DELETE localhost:8088/v1/auth/tokens/{_MADE}",
                _DONE,
                ("cross-site", "store-full", *_ONE_TOKEN, "last-admin"),
                (_IF_TOKEN,),
                None,
                tokens.revoke,
            ),
            (
                "auth_policies_list",
                "GET",
                "/v1/auth/policies",
                "List policies",
                "Those that every service has, those of the operator's file, and the store's.",
                "localhost:8088/v1/auth/policies",
                (Reaction(200, "All policies.", Shape(_JSON, PolicyList)),),
                (),
                (),
                None,
                tokens.list_policies,
            ),
            (
                "auth_policy_put",
                "PUT",
                "/v1/auth/policies/{key}",
                "Define a policy",
                "A change counts for all tokens that have the policy.",
                f"-X PUT localhost:8088/v1/auth/policies/app {_SEND_JSON} "
                '-d \'{"rules":["all keys:app/*"]}\'',
                (
                    Reaction(201, "Defined."),
                    Reaction(204, "Changed; every worker judges by it."),
                    Reaction(202, "Changed; some worker is stuck."),
                ),
                (*_CHANGES, "bad-key", "token-in-file"),
                (),
                Shape(_JSON, PolicyRequest),
                tokens.put_policy,
            ),
            (
                "auth_policy_delete",
                "DELETE",
                "/v1/auth/policies/{key}",
                "Remove a policy",
                "",
                "-X DELETE localhost:8088/v1/auth/policies/app",
                _DONE,
                (
                    "cross-site",
                    "store-full",
                    "bad-key",
                    "token-not-found",
                    "token-in-file",
                    "policy-in-use",
                ),
                (),
                None,
                tokens.drop_policy,
            ),
            (
                "auth_self",
                "GET",
                "/v1/auth/self",
                "Who am I",
                "Who the sender is to the service, and what they may do.",
                "localhost:8088/v1/auth/self",
                (Reaction(200, "The sender.", Shape(_JSON, Self)),),
                (),
                (),
                None,
                tokens.show_self,
            ),
            (
                "auth_check",
                "POST",
                "/v1/auth/check",
                "What is allowed, and by which rule",
                "Nothing is done. With `token` it is asked about another one, which needs `admin`.",
                f"localhost:8088/v1/auth/check {_SEND_JSON} "
                '-d \'{"checks":[{"verb":"read","key":"app/x"}]}\'',
                (Reaction(200, "A result for each.", Shape(_JSON, CheckResults)),),
                ("bad-json", "unsupported-media-type", "cross-site", "token-not-found"),
                (),
                Shape(_JSON, CheckRequest),
                tokens.check,
            ),
            (
                "auth_ticket_create",
                "POST",
                "/v1/auth/tickets",
                "Make a ticket",
                "A weaker token for a short time, for a link, a page or a child process. It is "
                "kept nowhere, may do what its rules say as long as its maker may, and ends with "
                "it.",
                f"localhost:8088/v1/auth/tickets {_SEND_JSON} "
                '-d \'{"rules":["read keys:app/report"],"ttl":60}\'',
                (Reaction(201, "The ticket.", Shape(_JSON, TicketMade)),),
                ("bad-json", "unsupported-media-type", "cross-site", "bad-token", "unavailable"),
                (),
                Shape(_JSON, TicketRequest),
                tokens.make_ticket,
            ),
            (
                "auth_tickets_rotate",
                "POST",
                "/v1/auth/tickets/rotate",
                "End all tickets",
                "Their key is replaced.",
                "-X POST localhost:8088/v1/auth/tickets/rotate",
                _DONE,
                ("cross-site", "store-full"),
                (),
                None,
                tokens.rotate_tickets,
            ),
        )
    ),
    *(
        Route(
            name,
            "GET",
            path,
            summary,
            "",
            "constant",
            f"curl localhost:8088{path}",
            (Reaction(200, summary + ".", Shape(media_type)),),
            ("bad-parameter", "host-not-allowed", "cross-site", *more),
            is_probe=name in ("healthz", "readyz"),
            serve=serve,
        )
        for name, path, summary, media_type, more, serve in (
            (
                "healthz",
                "/healthz",
                "The service is alive",
                "text/plain",
                ("not-well",),
                keys.healthz,
            ),
            (
                "readyz",
                "/readyz",
                "The service is ready",
                "text/plain",
                ("ending", "unavailable"),
                None,
            ),
            ("info", "/v1/info", "What runs, and how full it is", _JSON, (), None),
            ("limits", "/v1/limits", "Every limit that is enforced", _JSON, (), None),
            ("metrics", "/metrics", "Prometheus metrics", "text/plain", (), None),
            ("openapi", "/openapi.json", "This API as OpenAPI 3.1", _JSON, (), None),
            ("docs", "/docs", "The reference for people", "text/html", (), None),
            ("home", "/", "A page for people", "text/html", (), None),
        )
    ),
)
ROUTES: Final = {route.name: route for route in _TABLE}
