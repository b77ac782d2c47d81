"""The one place where an answer becomes an exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyrack.client.errors import (
    BatchRefused,
    Conflict,
    Forbidden,
    HistoryGone,
    LockHeld,
    LockRequired,
    NotFound,
    RateLimited,
    Refused,
    RetryLater,
    StoreFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from keyrack.client.wire import Response

MISSING: Final = "key-not-found"
"""The kind of the problem that a missing key is. Not every 404 says so."""
_LONGEST_PROBLEM: Final = 65536

_BY_KIND: Final[dict[str, type[Refused]]] = {
    "batch-refused": BatchRefused,
    "lock-held": LockHeld,
    "too-large": TooLarge,
    "history-gone": HistoryGone,
    "lock-lost": Refused,
}
_BY_STATUS: Final[dict[int, type[Refused]]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    410: HistoryGone,
    412: Conflict,
    413: TooLarge,
    428: LockRequired,
    429: RateLimited,
    503: Unavailable,
    507: StoreFull,
}
_OLD: Final = ("not-found", "method-not-allowed", "bad-parameter")
"""What a server answers that does not know an operation yet."""


def refused(answer: Response) -> Refused:
    """Return the exception that an answer is which is no success."""
    problem = _problem(answer)
    kind = str(problem.pop("type", "")).rpartition("/")[2]
    said = problem.pop("detail", None) or problem.pop("title", None)
    detail = str(said or f"The server answered {_status_line(answer)}.")
    if kind in _OLD:
        detail += " An old server may not know this yet."
    made = _BY_KIND.get(kind) or _BY_STATUS.get(answer.status, Refused)
    error = made(answer.status, detail, kind, problem)
    if isinstance(error, Conflict):
        error.etag = answer.field(b"ETag")
    elif isinstance(error, RetryLater):
        after = answer.field(b"Retry-After") or ""
        error.retry_after = float(after) if after.isdigit() and len(after) < 9 else None
    return error


def _status_line(answer: Response) -> str:
    """Return status and reason as the server wrote them."""
    return answer.head.partition(b"\r\n")[0].partition(b" ")[2].decode("latin-1")


def _problem(answer: Response) -> dict[str, Any]:
    """Return the members of an RFC 9457 problem, none when the body is something else."""
    kind = (answer.field(b"Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/problem+json" or len(answer.body) > _LONGEST_PROBLEM:
        return {}
    import json  # only needed when something failed

    try:
        problem = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}
