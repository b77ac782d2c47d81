"""JSON Merge Patch (RFC 7396): change members of a JSON value where it is.

A patch reads, merges, and writes if the key is still as it was read; else it begins again. Patches
of one key that a worker has at the same time go one after the other: all at once, each commit would
let one of them win and send the others back.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

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
    from keyrack.http.feed import Feed
    from keyrack.http.message import Request
    from keyrack.http.reply import Context

_NONE: Final[frozenset[bytes]] = frozenset()
_MERGE_PATCH: Final = b"application/merge-patch+json"
_ATTEMPTS: Final = 100


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


_lines: Final[WeakKeyDictionary[Feed, dict[bytes, deque[_Attempts]]]] = WeakKeyDictionary()
"""For each worker and key, the patches that are under way; the first one is tried."""


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
        lines = _lines.setdefault(self._context.feed, {})
        line = lines.setdefault(self._key, deque())
        line.append(self)
        if len(line) == 1:
            self._try()
        return self._call_off

    def _call_off(self) -> None:
        self._off = True

    def _end(self, answer: Answer) -> None:
        """Answer, and let the next in the line try: soon, not deeper in the stack."""
        if not self._off:
            self._done(answer)
        self._context.feed.soon(self._next)

    def _next(self) -> None:
        lines = _lines[self._context.feed]
        line = lines[self._key]
        line.popleft()
        while line and line[0]._off:
            line.popleft()
        if line:
            line[0]._try()
        else:
            del lines[self._key]

    def _try(self) -> None:
        self._left -= 1
        self._context.attempt(self._prepared, self._write)

    def _prepared(self, context: Context) -> Set | Answer:
        return problems.answered(lambda: self._judged(context), self._request.path)

    def _judged(self, context: Context) -> Set:
        try:
            return self._operation(context)
        except (RecursionError, UnicodeEncodeError):
            why = "It is nested too deeply, or has half of a surrogate pair."
            raise Problem("bad-json", why) from None

    def _write(self, prepared: Set | Answer) -> None:
        if isinstance(prepared, Answer):
            self._end(prepared)
        else:
            self._context.feed.submit((prepared,), self._conclude)

    def _operation(self, context: Context) -> Set:
        record = context.engine.get(self._key)
        if record is None:
            raise Problem("key-not-found", "There is no such key, or its time is over.")
        condition = self._request.head.condition
        if condition is not None and not condition.holds(record.revision):
            raise refused(Refusal(Why.CONDITION, revision=record.revision))
        value = self._merged(record)
        check_size(value, context.limits)
        left = record.expires_at and max(1, record.expires_at - context.engine.now())
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
        if isinstance(outcome, Refusal) and outcome.why is Why.CONDITION and self._left > 0:
            self._try()
        else:
            self._end(self._answer(outcome))

    def _answer(self, outcome: Outcome) -> Answer:
        if not isinstance(outcome, Refusal):
            tag = (b"ETag", etag(outcome[0].revision))
            return Answer(204, (tag, (b"Cache-Control", b"no-store")))
        problem = refused(outcome)
        if outcome.why is Why.CONDITION:
            later = ((b"Retry-After", b"1"),)
            problem = Problem("unavailable", "Others change this key all the time.", later)
        return problems.answer(problem, self._request.path)


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
