"""A request, as both lanes pass it around. Names of fields are lower case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.engines.contract import Add, Delete, Discard, Set, Space

if TYPE_CHECKING:
    from keyrack.access.grant import Grant
    from keyrack.engines.contract import Condition, Outcome, Write
    from keyrack.http.answer import Headers
    from keyrack.http.problems import Problem
    from keyrack.http.protocol.guard import Judgement


class Head:
    """A header section, read once and shared by all requests that carry the very same bytes.

    Clients repeat their header section from request to request. What it means is worked out when
    it is first seen; see `keyrack.http.protocol.head`.
    """

    __slots__ = (
        "cacheable",
        "condition",
        "content_length",
        "content_type",
        "credentials",
        "denial",
        "fields",
        "grant",
        "host",
        "http_1_0",
        "idempotency_key",
        "is_coded",
        "keep_alive",
        "known_since",
        "lease",
        "locks",
        "max_stale",
        "plain",
        "prefer",
        "shared",
        "verdict",
        "wants_continue",
        "wants_page",
        "weak_match",
    )

    fields: Headers
    http_1_0: bool
    host: bytes
    content_length: int
    """Bytes of the body; -1 when it is chunked."""
    content_type: bytes | None
    keep_alive: bool
    wants_continue: bool
    wants_page: bool
    """A person follows a link: a browser asks for a page before anything else."""
    condition: Condition | None
    weak_match: bool
    """If-Match names weak tags, which never match."""
    is_coded: bool
    """The body has a content coding, like gzip."""
    prefer: bytes
    """All preferences (RFC 7240), joined by commas."""
    idempotency_key: bytes | None
    max_stale: int | None
    """For how many ms a value may be over (`Cache-Control: max-stale`); None where it may not."""
    lease: bytes | None
    """What Keyrack-Recompute says: the lease with which a key is stored."""
    locks: bytes
    """All that Keyrack-Lock says, joined by commas: the locks that a write depends on."""
    verdict: Judgement
    """What a request with this head may not do."""
    shared: bytes
    """Lines of the answer by which a browser lets a page of another origin read it."""
    credentials: bytes | None
    """What the Authorization field says. It is a secret: no log and no answer shows it."""
    grant: Grant | None
    """What whoever sent it may do; None where it has no credentials."""
    denial: Problem | None
    """Why its credentials do not count."""
    known_since: float
    """When it was first recognised (coarse seconds)."""
    plain: bool
    """Nothing in it changes what a request for a single key means."""
    cacheable: bool
    """Other requests are likely to carry the same bytes."""


class Request:
    """One whole request. `path` is raw: still percent-encoded, without the query.

    `grant` is what whoever sent it may do, be it by credentials or by the connection.
    """

    __slots__ = (
        "body",
        "came",
        "grant",
        "head",
        "keep_alive",
        "made",
        "method",
        "path",
        "query",
        "refusal",
        "revision",
        "ticket",
        "write",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        head: Head,
        body: bytes,
        grant: Grant,
        *,
        keep_alive: bool,
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition(b"?")
        self.head = head
        self.body = body
        self.grant = grant
        self.ticket: str | None = None
        """A ticket that stood in the query, from which it is gone then."""
        self.refusal: Problem | None = None
        """Why the sender may not do this, once that has been found."""
        self.write: Write = ()
        """What it came to, if it was a write and there is an audit trail."""
        self.made: str | None = None
        """The public id of the token that it has made."""
        self.revision = 0
        """The revision of the last change that it made, where that is known."""
        self.keep_alive = keep_alive
        self.came = 0
        """When, in ns of the monotonic clock; known only where an access log is kept."""

    def note_write(self, write: Write, outcome: Outcome) -> None:
        """Keep what a write was and came to, for the audit trail.

        Not the revision of a lock: it is the token that its holder alone knows.
        """
        self.write = write
        if isinstance(outcome, tuple):
            own = write[len(write) - len(outcome) :]  # without what is remembered
            self.revision = max(
                (
                    result.revision
                    for operation, result in zip(own, outcome, strict=True)
                    if isinstance(operation, Set | Delete | Add | Discard) and _is_of_key(operation)
                ),
                default=0,
            )


def _is_of_key(operation: Set | Delete | Add | Discard) -> bool:
    return isinstance(operation, Add | Discard) or operation.space is Space.KEYS
