"""Every way in which a request can fail: one table, and one place where a failure becomes HTTP.

Under `/v1` a failure is an RFC 9457 problem; on the seed API (`/get`, `/set`) it has the seed
API's own shape, and for Upstash's clients in theirs. Status, title and type come from the table;
the detail says what to do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from keyrack.engines.contract import MAX_KEY_BYTES, MAX_TTL_MS, StoreAway
from keyrack.http.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyrack.http.answer import Headers

_log = logging.getLogger("keyrack.http")

TYPE_PREFIX: Final = "/docs/problems/"


class ProblemKind(NamedTuple):
    """A kind of failure; `explanation` is its page in the documentation."""

    status: int
    title: str
    explanation: str
    closes: bool = False
    """The connection cannot be used after it: where the message ends is not known."""


KINDS: Final[Mapping[str, ProblemKind]] = {
    "malformed-message": ProblemKind(
        400,
        "The HTTP message is malformed",
        "The request does not follow RFC 9112, or could be read in two ways. The connection is "
        "closed, because where the next request begins is not known.",
        closes=True,
    ),
    "bad-host": ProblemKind(
        400,
        "The Host field is missing, repeated or malformed",
        "An HTTP/1.1 request names its host exactly once.",
        closes=True,
    ),
    "bad-target": ProblemKind(
        400,
        "The request target is malformed",
        "A target is a path of visible ASCII characters, with any other byte percent-encoded.",
    ),
    "bad-key": ProblemKind(
        400,
        "The key cannot be used",
        f"A key is 1 to {MAX_KEY_BYTES} bytes of UTF-8. In a path it is percent-decoded exactly "
        "once and is the whole rest of the path, slashes included.",
    ),
    "bad-parameter": ProblemKind(
        400,
        "A query parameter is unknown, repeated or has a bad value",
        "Parameters that are not known are refused rather than ignored, so that a misspelt one "
        "does not do something else than was meant.",
    ),
    "bad-ttl": ProblemKind(
        400,
        "The TTL cannot be used",
        f"A TTL is a decimal number of seconds between 0.001 and {MAX_TTL_MS // 1000} (ten "
        "years), without a sign or an exponent.",
    ),
    "bad-condition": ProblemKind(
        400,
        "A precondition is malformed",
        "If-Match and If-None-Match hold `*` or a list of entity tags in double quotes.",
    ),
    "bad-json": ProblemKind(
        400,
        "The body is not the JSON that was expected",
        "The body is one JSON text in UTF-8, with the members that the operation names.",
    ),
    "digest-mismatch": ProblemKind(
        400,
        "The body is not the one that was sent",
        "Content-MD5 is the MD5 of the body, in base64. It is of another one: something has "
        "changed the body on its way. Nothing was done; send it again.",
    ),
    "unauthenticated": ProblemKind(
        401,
        "Who sends this is not known",
        "Access is controlled here, and what is asked for is not open to everybody. Send a token: "
        "`Authorization: Bearer krk_...`, or as the password of Basic with any user name.",
    ),
    "invalid-token": ProblemKind(
        401,
        "The token does not count",
        "It is incomplete, expired, revoked, or not known; where that can be told, the detail says "
        "which. The member `token` is its public id, null where it has none. Nothing was done.",
    ),
    "forbidden": ProblemKind(
        403,
        "The sender may not do this",
        "The member `verb` says what would have been needed and `rule` which of the sender's rules "
        "decided, null where none allows it; `token` is the public id of the sender's token. "
        "Whether the key exists is not told. `POST /v1/auth/check` tells the same beforehand.",
    ),
    "bad-token": ProblemKind(
        400,
        "A token, policy or ticket cannot be made like this",
        "A rule, a rate, a name or a network is malformed, a policy is missing, or there would be "
        "too many. The detail says which.",
    ),
    "token-not-found": ProblemKind(
        404, "There is no such token or policy", "It was never made, or was removed."
    ),
    "token-in-file": ProblemKind(
        409,
        "It is in the operator's file",
        "What the file of `--auth` says, or KEYRACK_TOKEN, is changed there. The service notices.",
    ),
    "policy-in-use": ProblemKind(
        409,
        "Tokens have this policy",
        "Change or remove those tokens first; the detail names them.",
    ),
    "last-admin": ProblemKind(
        409,
        "Nobody could administer the service then",
        "The last token with the rule `admin` stays. Make another one first, or name one in the "
        "operator's file.",
    ),
    "no-access-control": ProblemKind(
        409,
        "There is no access control here",
        "Without `--auth`, KEYRACK_TOKEN or `--token-file` everybody may do everything, and there "
        "is nothing that tokens could say.",
    ),
    "rate-limited": ProblemKind(
        429,
        "There are too many requests",
        "The sender's token has a rate and has used it up, or too many log-ins from its address "
        "have failed. Retry after the seconds that Retry-After names.",
    ),
    "cross-site": ProblemKind(
        403,
        "A page of another site may not do this",
        "The request comes from a web page of another origin, which may link to this server, and "
        "not write, embed or fetch, unless `--cors-origins` lists it. Programs that are no "
        "browsers do not send the fields that this is judged by.",
    ),
    "host-not-allowed": ProblemKind(
        403,
        "This server is not known by the name that was called",
        "A request must name the server by an IP address, localhost, this machine's name, `--host` "
        "or a name that `--allowed-hosts` lists. This keeps pages of other sites from reading the "
        "store by pointing their own name at this address (DNS rebinding). It is asked of browsers "
        "always, and of every client where the service listens on loopback only or "
        "`--allowed-hosts` is given.",
    ),
    "bad-number": ProblemKind(
        400,
        "A number cannot be used",
        "Numbers of 64 bits are decimal digits with an optional minus, best sent as a string.",
    ),
    "not-found": ProblemKind(
        404,
        "There is nothing at this path",
        "No operation has this path. The home page lists the common ones.",
    ),
    "undo-not-found": ProblemKind(
        404,
        "There is no such deletion that could be undone",
        "Its time is over, it was somebody else's, or it never was. `GET /v1/undo` tells which "
        "there are.",
    ),
    "client-not-found": ProblemKind(
        404,
        "There is no such connection",
        "It was never there, or has ended. `GET /v1/clients` tells which there are.",
    ),
    "busy": ProblemKind(
        503,
        "Somebody else asks for the same just now",
        "What concerns all workers is asked for by one at a time. Retry after the seconds that "
        "Retry-After names.",
    ),
    "key-not-found": ProblemKind(
        404, "Key not found", "The key was never set, was deleted, or ended."
    ),
    "method-not-allowed": ProblemKind(
        405,
        "The method is not allowed here",
        "The path exists, the method does not. The Allow field lists those that do.",
    ),
    "request-timeout": ProblemKind(
        408,
        "The request did not arrive in time",
        "Header and body each have a deadline as a whole, which single bytes do not extend: "
        "`--head-timeout` and `--body-timeout`.",
        closes=True,
    ),
    "batch-refused": ProblemKind(
        409,
        "An operation of the batch was refused, so none was done",
        "The members `operation` (counted from 0) and `reason` say which and why.",
    ),
    "lock-held": ProblemKind(
        409,
        "Somebody else holds the lock",
        "The members `owner` and `ttl` say who and for how many seconds yet; Retry-After says it "
        "too. With `Prefer: wait=30` the request waits for the lock instead.",
    ),
    "state-lock-lost": ProblemKind(
        409,
        "The lock of the state was lost",
        "The write names a lock that nobody holds any more: somebody took it away. Nothing was "
        "changed. Terraform has written what it could not store to `errored.tfstate`: compare, "
        "then `terraform state push errored.tfstate`.",
    ),
    "not-a-number": ProblemKind(
        409, "The value is not a number", "Only a decimal number of 64 bits can be added to."
    ),
    "no-snapshots": ProblemKind(
        409,
        "This service takes no snapshots",
        "Nothing is kept on a disk unless the service is started with `--durability snapshot` or "
        "`commit`. `GET /v1/export` works in any mode.",
    ),
    "not-json": ProblemKind(
        409, "The value is not JSON", "Only a value of type `application/json` can be patched."
    ),
    "overflow": ProblemKind(
        409, "The sum has more than 64 bits", "The counter was left as it was."
    ),
    "lock-not-held": ProblemKind(
        404, "Nobody holds the lock", "It was never taken, was given back, or its time was over."
    ),
    "history-gone": ProblemKind(
        410,
        "The history does not reach back to there",
        "Events are kept up to a number (`--events`). List the keys, which names a revision, and "
        "watch from that one.",
    ),
    "range-not-satisfiable": ProblemKind(
        416,
        "The value has none of these bytes",
        "`Content-Range` tells how many bytes the value has now.",
    ),
    "precondition-failed": ProblemKind(
        412,
        "A precondition does not hold",
        "The key is not in the state that If-Match or If-None-Match asked for. The ETag of this "
        "answer is its present one; without an ETag the key is missing.",
    ),
    "lease-lost": ProblemKind(
        412,
        "The lease to recompute the key was lost",
        "Its time was over, it was given back, or the key was written or deleted since it was "
        "given: what was computed may be older than what is there. Read the key again.",
    ),
    "lock-lost": ProblemKind(
        412,
        "The lock is not held with this token any more",
        "A write names a lock and its token in `Keyrack-Lock`, and is done only while the lock is "
        "held with that token. Its time was over, it was given back, or somebody else has it: what "
        "the write was to change may have been changed since. Nothing was done.",
    ),
    "lock-required": ProblemKind(
        428,
        "A write of this key needs a lock",
        "A fence says so (`GET /v1/fences`). The member `lock` names the lock: take it with "
        "`POST /v1/locks/{name}`, and send its token with the write, as "
        '`Keyrack-Lock: "name"; token=1795474670195050`. Nothing was done.',
    ),
    "bad-fence": ProblemKind(
        400,
        "A fence cannot be made like this",
        "The keys of a fence are a key, or a beginning of keys with `*` behind it, written as in a "
        "rule of access control; its lock is the name of a lock. In a store that is spread over "
        "shards a lock and the keys that need it have to be in the same one: both have the same "
        "part in braces, like `{jobs}/*` and the lock `{jobs}`.",
    ),
    "fence-not-found": ProblemKind(
        404, "There is no such fence", "It was never made, or was removed."
    ),
    "bad-quota": ProblemKind(
        400,
        "A quota cannot be made like this",
        "A quota has a prefix of keys and `max_bytes`, `max_keys` or both. There are at most 100.",
    ),
    "quota-not-found": ProblemKind(
        404, "There is no such quota", "It was never made, or was removed."
    ),
    "quotas-not-supported": ProblemKind(
        501,
        "This store has no quotas",
        "Quotas need the embedded engine. Give whoever needs a limit a Valkey of their own.",
    ),
    "fence-in-file": ProblemKind(
        409,
        "The fence is in the operator's file",
        "What the file of `--auth` says is changed there. The service notices.",
    ),
    "too-large": ProblemKind(
        413,
        "The body or the value is too large",
        "The members `limit` and `actual` are in bytes. The limits are settings: `--max-value` "
        "and `--max-body`.",
        closes=True,
    ),
    "target-too-long": ProblemKind(
        414, "The request target is too long", "The member `limit` is in bytes.", closes=True
    ),
    "unsupported-media-type": ProblemKind(
        415,
        "The media type or encoding of the body is not supported",
        "The operation names the media type that it takes; values are stored without a content "
        "encoding.",
    ),
    "expectation-failed": ProblemKind(
        417,
        "The expectation is not known",
        "The only expectation that is supported is `100-continue`.",
        closes=True,
    ),
    "idempotency-key-reused": ProblemKind(
        422,
        "The Idempotency-Key belongs to another request",
        "A key names one request, body included. A retry repeats it exactly.",
    ),
    "not-durable": ProblemKind(
        422,
        "A state could get lost here",
        "States of Terraform are kept by a service that has each write on its disk before it "
        "answers (`--durability commit`), and that evicts nothing. With `?durability=none` in the "
        "address any other keeps them as well.",
    ),
    "nothing-imported": ProblemKind(
        422,
        "Nothing was imported",
        "Every line was refused. The members are those of the report of an import: `errors` has "
        "the first hundred lines that were refused, and why.",
    ),
    "keys-in-several-shards": ProblemKind(
        422,
        "The keys are in several shards",
        "A store in a Valkey cluster is spread over shards, and only keys of the same shard can be "
        "changed together. Where a key has a part in braces that part alone decides on its shard: "
        "`{order:17}/state` and `{order:17}/lines` are always in the same one. "
        "`atomic_across_keys` under `/v1/info` says whether a store is spread.",
    ),
    "state-locked": ProblemKind(
        423,
        "Somebody else has locked the state",
        "The members are what the holder has said of the lock: `ID`, `Who`, `Operation`, "
        "`Created`. `ID` tells the others too, because Terraform shows nothing else. "
        "`terraform force-unlock` takes the lock from a holder that is gone.",
    ),
    "head-too-large": ProblemKind(
        431,
        "The header section is too large",
        "The member `limit` says how many fields or bytes are taken.",
        closes=True,
    ),
    "internal": ProblemKind(
        500,
        "Something went wrong inside the server",
        "This is a defect of the server; its log has the details.",
    ),
    "method-not-implemented": ProblemKind(
        501,
        "The method is not known",
        "No operation has this method. They are GET, HEAD, PUT, POST, DELETE, PATCH and OPTIONS, "
        "in capitals.",
        closes=True,
    ),
    "version-not-supported": ProblemKind(
        505,
        "The version of HTTP is not supported",
        "Requests are HTTP/1.1 or HTTP/1.0. Every later HTTP/1 is served as HTTP/1.1.",
        closes=True,
    ),
    "unavailable": ProblemKind(
        503,
        "The store cannot be reached right now",
        "Retry after the seconds that Retry-After names.",
    ),
    "client-memory-full": ProblemKind(
        503,
        "The service holds as much for its clients as it may",
        "Bodies that are arriving and answers that are not taken share one budget, "
        "`--client-memory`. Retry after the seconds that Retry-After names. While the budget is "
        "nearly used up, clients that take nothing are cut, the greediest first.",
    ),
    "not-well": ProblemKind(
        503,
        "The service does not work as it should",
        "A process of it is stuck, and nobody has replaced it. Its log says more; restart it.",
    ),
    "ending": ProblemKind(
        503,
        "The service is about to end",
        "It was told to, and answers what is under way. Other services, and this one after its "
        "restart, take new requests.",
    ),
    "too-many-connections": ProblemKind(
        503,
        "There are too many connections",
        "The service holds as many as `--max-connections` or its limit of open files lets it. "
        "Use fewer with more requests each (keep-alive), or raise the limit.",
        closes=True,
    ),
    "quota-full": ProblemKind(
        507,
        "A quota is used up",
        "The write would bring the keys below `prefix` above what a quota allows "
        "(`GET /v1/quotas`): the member `of` says whether `bytes` or `keys`, `limit` how many "
        "there may be, `actual` how many there would be. Nothing was done. Deletes, and writes "
        "that make it no more, are done all the same.",
    ),
    "store-full": ProblemKind(
        507,
        "The store is full",
        "Nothing was written. Reads and deletes go on; writes work again when there is room, or "
        "with a larger `--memory` (of a store in Valkey: a larger `maxmemory` there). With "
        "`--when-full evict` room is made by evicting keys. Locks may take an eighth of the "
        "memory, and so may answers that are kept for `Idempotency-Key`; neither is evicted. "
        "Where they are known, the members `actual` and `limit` say how many bytes would be "
        "needed and how many there are.",
    ),
}


class Problem(Exception):
    """A failure of one request, of a kind in the table. Raised anywhere, answered in one place.

    `detail` says what is wrong with this request and what to do; `members` are added to the
    problem's JSON, `headers` to the answer.
    """

    def __init__(self, slug: str, detail: str, headers: Headers = (), **members: Any) -> None:
        super().__init__(slug, detail)
        self.slug = slug
        self.kind = KINDS[slug]
        self.detail = detail
        self.headers = headers
        self.members = members


def answer(problem: Problem, path: bytes) -> Answer:
    """Return a failure as the answer to a request for `path`."""
    kind = problem.kind
    if is_seed(path):
        message = _SEED_MESSAGES.get(problem.slug, problem.detail)
        body = msgspec.json.encode({"status": "error", "message": message})
        media_type = b"application/json"
    elif is_upstash(path) and problem.slug != "not-found":
        body = msgspec.json.encode({"error": as_redis(problem)})
        media_type = b"application/json"
    else:
        body = msgspec.json.encode(document(problem))
        media_type = b"application/problem+json"
    headers = ((b"Content-Type", media_type), *_ALWAYS, *problem.headers)
    return Answer(kind.status, headers, body)


def in_trace(answer: Answer, trace_id: str) -> Answer:
    """Return the answer with the id of the trace that it belongs to, if it is a problem."""
    if (b"Content-Type", b"application/problem+json") not in answer.headers:
        return answer
    return answer._replace(body=b'%b,"trace_id":"%b"}' % (answer.body[:-1], trace_id.encode()))


def answer_to(error: Exception, path: bytes) -> Answer:
    """Return the answer to a request for `path` that failed with an exception."""
    if isinstance(error, Problem):
        return answer(error, path)
    if isinstance(error, StoreAway):
        return answer(away(str(error)), path)
    _log.error("serving failed", exc_info=error, extra={"path": path.decode("latin-1")})
    return answer(internal(), path)


def away(detail: str) -> Problem:
    """Return the problem of a store that does not answer now."""
    return Problem("unavailable", detail, ((b"Retry-After", b"1"),))


def internal() -> Problem:
    """Return the problem of a defect of ours."""
    return Problem("internal", "The server's log says more.")


def document(problem: Problem) -> dict[str, Any]:
    """Return a failure as the members of an RFC 9457 problem."""
    return {
        "type": TYPE_PREFIX + problem.slug,
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail,
        **problem.members,
    }


def is_seed(path: bytes) -> bool:
    """Tell whether a path belongs to the seed API, whose failures have a shape of their own."""
    return path.startswith(b"/get/") or path in (b"/get", b"/set")


def is_upstash(path: bytes) -> bool:
    """Tell whether a path is one that Upstash's clients use, who read failures in a way of theirs.

    Where that is not served, nothing is there, and that is told as everywhere.
    """
    return path == b"/upstash" or path.startswith(b"/upstash/")


def as_redis(problem: Problem) -> str:
    """Return a failure as Redis tells of one: a word for its kind, and a sentence."""
    return f"{_REDIS_CODES.get(problem.slug, 'ERR')} {problem.detail}"


_REDIS_CODES: Final = {
    "unauthenticated": "WRONGPASS",
    "invalid-token": "WRONGPASS",
    "forbidden": "NOPERM",
    "store-full": "OOM",
    "quota-full": "OOM",
    "keys-in-several-shards": "CROSSSLOT",
}
_ALWAYS: Final = ((b"Cache-Control", b"no-store"), (b"X-Content-Type-Options", b"nosniff"))
_SEED_MESSAGES: Final = {"key-not-found": "Key not found"}
