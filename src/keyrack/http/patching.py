"""JSON Merge Patch (RFC 7396): change members of a JSON value where it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from keyrack.engines.contract import JSON, Condition, Refusal, Set, Why
from keyrack.http import contract, problems
from keyrack.http.contract import etag
from keyrack.http.message import Answer
from keyrack.http.problems import Problem
from keyrack.http.reply import Deferred
from keyrack.http.semantics import check_size, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Outcome, Record
    from keyrack.http.message import Request
    from keyrack.http.reply import Context

_NONE: Final[frozenset[bytes]] = frozenset()
_MERGE_PATCH: Final = b"application/merge-patch+json"
_ATTEMPTS: Final = 10_000


class _Literal(str):
    """A JSON number as it was written, so that it is written the same again."""

    __slots__ = ()


def patch(request: Request, context: Context) -> Deferred:
    """`PATCH /v1/keys/{key}`: merge the body into the value, members that are null go."""
    contract.parameters(request.query, _NONE)
    key = contract.key_of(request.path[len(b"/v1/keys/") :])
    kind = request.head.content_type or b""
    if kind.split(b";")[0].strip().lower() != _MERGE_PATCH:
        raise Problem("unsupported-media-type", "Send the patch as `application/merge-patch+json`.")
    change = _parsed(request.body)
    return Deferred(lambda done: _Attempts(request, context, key, change, done).begin())


class _Attempts:
    """Read, merge, write if nothing else was written meanwhile, or begin again."""

    def __init__(
        self,
        request: Request,
        context: Context,
        key: bytes,
        change: Any,
        done: Callable[[Answer], None],
    ) -> None:
        self._request = request
        self._context = context
        self._key = key
        self._change = change
        self._done = done
        self._left = _ATTEMPTS
        self._off = False

    def begin(self) -> Callable[[], None]:
        self._try()
        return self._call_off

    def _call_off(self) -> None:
        self._off = True

    def _try(self) -> None:
        self._left -= 1
        try:
            operation = self._operation()
        except Problem as problem:
            self._done(problems.answer(problem, self._request.path))
            return
        except (RecursionError, UnicodeEncodeError):
            why = "It is nested too deeply, or has half of a surrogate pair."
            self._done(problems.answer(Problem("bad-json", why), self._request.path))
            return
        self._context.feed.submit((operation,), self._conclude)

    def _operation(self) -> Set:
        record = self._context.engine.get(self._key)
        if record is None:
            raise Problem("key-not-found", "There is no such key, or its time is over.")
        condition = self._request.head.condition
        if condition is not None and not condition.holds(record.revision):
            raise refused(Refusal(Why.CONDITION, revision=record.revision))
        value = self._merged(record)
        check_size(value, self._context.limits)
        left = record.expires_at and max(1, record.expires_at - self._context.engine.now())
        same = Condition(match=frozenset((record.revision,)))
        return Set(self._key, value, record.media_type, left, same)

    def _merged(self, record: Record) -> bytes:
        if record.media_type.split(";")[0].strip() != JSON:
            raise Problem(
                "not-json", f"The value is {record.media_type}; only application/json is patched."
            )
        try:
            value = _parsed(record.value)
        except Problem as problem:
            raise Problem("not-json", f"The value cannot be patched. {problem.detail}") from None
        return _written(merge(value, self._change))

    def _conclude(self, outcome: Outcome) -> None:
        if self._off:
            return
        if not isinstance(outcome, Refusal):
            tag = (b"ETag", etag(outcome[0].revision))
            self._done(Answer(204, (tag, (b"Cache-Control", b"no-store"))))
        elif outcome.why is Why.CONDITION and self._left:
            self._try()
        else:
            self._done(problems.answer(refused(outcome), self._request.path))


def merge(value: Any, change: Any) -> Any:
    """Return a value with a merge patch applied (RFC 7396, section 2)."""
    if not isinstance(change, dict):
        return change
    merged = dict(value) if isinstance(value, dict) else {}
    for name, part in change.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), part)
    return merged


def _parsed(text: bytes) -> Any:
    """Return JSON as Python values, with numbers as the text that they were."""
    try:
        contract.check_json(text)
        return json.loads(
            text, parse_int=_Literal, parse_float=_Literal, object_pairs_hook=contract.unique_dict
        )
    except (ValueError, RecursionError) as error:
        raise Problem("bad-json", f"It cannot be read as JSON: {error}.") from None


def _written(value: Any) -> bytes:
    """Return JSON text; numbers are written as they were, never rounded."""
    if isinstance(value, _Literal):
        return value.encode()
    if isinstance(value, dict):
        members = (contract.encode(name) + b":" + _written(part) for name, part in value.items())
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(_written, value)) + b"]"
    return contract.encode(value)
