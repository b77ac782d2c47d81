"""Work on many keys: counting, events of a key, export and import.

All of it goes in steps that each take a fraction of a millisecond and use a transaction of their
own, with other requests served between them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from keyrack.access.rules import Scope, Verb
from keyrack.engines.contract import (
    JSON,
    TEXT,
    Refusal,
    Set,
    Why,
)
from keyrack.http.api import caching, codec, rights
from keyrack.http.api.keys import check_size, refused
from keyrack.http.api.listing import refuse_contradiction
from keyrack.http.api.models import (
    Count,
    ExportedKey,
    ImportError_,
    ImportReport,
    KeyEvents,
)
from keyrack.http.api.named_locks import NamedLocks
from keyrack.http.api.plain_lines import plain_sets
from keyrack.http.problems import Problem
from keyrack.http.watch import messages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from keyrack.engines.contract import Event, Outcome, Record, Write
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

EVENT_PARAMETERS: Final = frozenset((b"limit",))
EXPORT_PARAMETERS: Final = frozenset((b"prefix",))
IMPORT_PARAMETERS: Final = frozenset((b"on_error",))
_COUNT_STEPS: Final = 1000
_NO_KEY: Final = b""
"""Whose turn it is to make a step of an export: what is being made is counted for no client yet."""
_EXPORT_LINES: Final = 500
_EXPORT_BYTES: Final = 64 << 10
_IMPORT_LINES: Final = 250
_IMPORTS_AHEAD: Final = 3
"""So many times so many lines are under way to a store elsewhere when more are read."""
_TOGETHER_BYTES: Final = 1 << 20
"""Values that are tried all or none before they are tried one by one."""
_MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8, which some programs begin a file with."""
_MOST_ERRORS: Final = 100
_SPELL_SECONDS: Final = 0.0005
_decode_line: Final = msgspec.json.Decoder(ExportedKey).decode


async def count(given: dict[bytes, bytes], context: Context) -> Count:
    """Count the keys under a prefix. O(keys under it)."""
    refuse_contradiction(given)
    prefix = codec.prefix_of(given.get(b"prefix", b""))
    revision = (await context.engine.history())[1]
    return Count(await count_all(prefix, context), str(revision))


async def count_all(prefix: bytes, context: Context) -> int:
    """Return how many keys there are under a prefix. In small steps."""
    number = 0
    after: bytes | None = None
    while True:
        found, after = await context.engine.count(prefix, after, _COUNT_STEPS)
        number += found
        if after is None:
            return number
        await asyncio.sleep(0)


def under_way(writes: list[Write], context: Context) -> asyncio.Future[list[Outcome]]:
    """Have writes done with those of this turn; their outcomes come later."""
    return context.tick.write_many(writes)


async def key_events(key: bytes, limit: int, context: Context) -> KeyEvents:
    """Return the last known events of a key, newest first: the log is read from its end, in steps.

    O(events kept) where the key has fewer than `limit`.
    """
    found: list[Event] = []
    before: int | None = None
    while True:
        some, before = await context.engine.events_of(key, before, limit - len(found))
        found += (event for event in some if event.change in messages.SHOWN)
        if before is None or len(found) >= limit:
            break
        await asyncio.sleep(0)
    since = (await context.engine.history())[0]
    return KeyEvents(key.decode(), [messages.as_json(event) for event in found], str(since))


# Moving data


async def export(prefix: bytes, context: Context) -> AsyncGenerator[bytes, None]:
    """Yield the keys under a prefix as NDJSON, in steps that are made as the client takes them.

    Nothing but the step itself is held for a client that does not take it.
    """
    after: bytes | None = None
    while True:
        async with context.patches.held(_NO_KEY):
            step, after = await _export_step(prefix, after, context)
        if step:
            yield step
        if after is None:
            return
        del step
        await asyncio.sleep(0)


async def _export_step(
    prefix: bytes, after: bytes | None, context: Context
) -> tuple[bytes, bytes | None]:
    """Return lines with `_EXPORT_BYTES` of values and one more, and where to go on, if at all."""
    page = await context.engine.scan(prefix, after, _EXPORT_LINES, most_bytes=_EXPORT_BYTES)
    now = context.engine.now()
    lines = []
    stop = time.monotonic() + _SPELL_SECONDS
    for key, record in page.entries:
        lines.append(await _line(key, record, now))
        if time.monotonic() > stop:
            await asyncio.sleep(0)
            stop = time.monotonic() + _SPELL_SECONDS
    return b"".join(lines), page.next


async def _line(key: bytes, record: Record, now: int) -> bytes:
    """Return a line. A long value is encoded in pieces, with other requests served between them."""
    plain = codec.plain_value(record)
    if isinstance(plain, bytes):
        # JSON with line breaks in it would be several lines, and must come back byte for byte.
        plain = plain if _stays_one_line(plain) else None
    line = ExportedKey(key.decode(), msgspec.Raw(await _value(plain, record.value)))
    if record.media_type != (TEXT if isinstance(plain, str) else JSON) or plain is None:
        line.type = record.media_type
    if plain is None:
        line.encoding = "base64"
    if record.expires_at:
        line.ttl = max(1, record.expires_at - now) / 1000
    if record.stale_until:
        line.stale = (record.stale_until - record.expires_at) / 1000
    caching.show(line, record)
    return codec.encode(line) + b"\n"


async def _value(plain: bytes | str | None, stored: bytes) -> bytes:
    """Return the JSON of a value: itself, a string, or a string of base64."""
    if isinstance(plain, bytes):
        return plain
    value = stored if plain is None else plain
    if len(value) <= codec.PIECE:
        return b"".join(codec.string_pieces(value))
    pieces = []
    for piece in codec.string_pieces(value):
        pieces.append(piece)
        await asyncio.sleep(0)
    return b"".join(pieces)


def _stays_one_line(raw: bytes) -> bool:
    # A JSON string among the values of type application/json would be taken for text.
    return b"\n" not in raw and b"\r" not in raw and raw[:1] != b'"' and raw.strip() == raw


class Import:
    """An import that is under way: lines in, writes out, and a report."""

    def __init__(self, request: Request, context: Context, stop_on_error: bool) -> None:
        self._request = request
        self._context = context
        self._stop_on_error = stop_on_error
        self._may_set = request.grant.sets
        self._locks = NamedLocks.of(request)
        self._broken: Problem | None = None
        """Why it ends early, or why no line can be imported: a lock that is missing or was lost."""
        self._rest = b""
        self._line = 0
        self._begun = False
        """It was looked how the body begins."""
        self._ahead = _IMPORTS_AHEAD if self._may_go_ahead() else 0
        self._unanswered: deque[tuple[Sequence[int], asyncio.Future[list[Outcome]]]] = deque()
        """Numbers of lines whose writes are under way, and their outcomes."""
        self.report = ImportReport(0, 0, [], stopped=False)

    def _may_go_ahead(self) -> bool:
        """Tell whether lines are read while earlier ones are written, by a server elsewhere."""
        return self._context.engine.capabilities.answers_later and not self._stop_on_error

    async def take(self, data: bytes) -> None:
        """Import the whole lines of what has come so far."""
        if not self._begun:
            data = self._opening(self._rest + data)
            self._rest = b""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > self._context.limits.max_body:
            limit = self._context.limits.max_body
            raise Problem("bad-json", "A line is longer than a body may be.", limit=limit)
        for start in range(0, len(lines), _IMPORT_LINES):
            if self.report.stopped:
                return
            await self._write(lines[start : start + _IMPORT_LINES])

    def _opening(self, data: bytes) -> bytes:
        """Return the beginning of the body without a mark; refuse what is no lines of JSON."""
        if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
            raise Problem("bad-json", "This is UTF-16. Send the lines as UTF-8.")
        self._begun = len(data) >= len(_MARK)
        data = data.removeprefix(_MARK)
        if data.lstrip().startswith(b"["):
            raise Problem(
                "bad-json", "This is a JSON array. Send one object a line (`jq -c '.[]'` does it)."
            )
        return data

    async def finish(self) -> ImportReport:
        """Import the last line, and return the report.

        Raises `Problem` where nothing could be imported, with the members of the report.
        """
        if self._rest and not self.report.stopped:
            await self._write([self._rest])
        await self._conclude(0)
        if self._broken is not None and (self.report.stopped or not self.report.imported):
            raise await self.cut_off(self._broken)
        if self.report.failed and not self.report.imported:
            members = msgspec.to_builtins(self.report)
            raise Problem("nothing-imported", "No line could be imported; see `errors`.", **members)
        return self.report

    async def cut_off(self, problem: Problem) -> Problem:
        """Return why the import ended early, with what was done before that."""
        await self._conclude(0)
        done, failed = self.report.imported, self.report.failed
        detail = f"{problem.detail} Until then {done} lines were imported, and {failed} failed."
        members = {**problem.members, "imported": done, "failed": failed}
        return Problem(problem.slug, detail, problem.headers, **members)

    async def _write(self, lines: list[bytes]) -> None:
        writes, numbers, unreadable = self._read(lines)
        if self._stop_on_error:
            self._note(numbers, await self._until_refused(writes))
        else:
            over = [self._locks.over(write) for write in writes] if self._locks else writes
            self._unanswered.append((numbers, self._context.tick.write_many(over)))
            if self._ahead:
                await asyncio.sleep(0)  # lets others go first, and these writes leave
            await self._conclude(self._ahead)
        if not self.report.stopped:
            for number, trouble in unreadable:
                self._failed(number, trouble)

    def _read(
        self, lines: list[bytes]
    ) -> tuple[list[tuple[Set]], Sequence[int], list[tuple[int, Problem]]]:
        """Return the writes of lines, their numbers, and what is wrong with the other lines."""
        first = self._line + 1
        plain = plain_sets(lines, self._context.limits.max_value, self._may_set)
        if plain is not None:
            self._line += len(lines)
            return plain, range(first, first + len(lines)), []
        writes: list[tuple[Set]] = []
        numbers: list[int] = []
        unreadable: list[tuple[int, Problem]] = []
        for self._line, line in enumerate(lines, first):
            if not line.strip():
                continue
            try:
                writes.append((self._operation(line),))
                numbers.append(self._line)
            except Problem as problem:
                unreadable.append((self._line, problem))
                if self._stop_on_error:
                    break
        return writes, numbers, unreadable

    async def _until_refused(self, writes: list[tuple[Set]]) -> list[Outcome]:
        """Have writes done in order, none behind one that is refused, and return the outcomes."""
        if not writes:
            return []
        if sum(len(operation.value) for (operation,) in writes) <= _TOGETHER_BYTES:
            # All or none of them: where none is refused, that is the same.
            whole = self._locks.over(tuple(chain.from_iterable(writes)))
            together = await self._context.tick.write(whole)
            if not isinstance(together, Refusal):
                return [(result,) for result in together[len(self._locks.names) :]]
        outcomes: list[Outcome] = []
        for write in writes:
            outcomes.append(await self._context.tick.write(self._locks.over(write)))
            if isinstance(outcomes[-1], Refusal):
                break
        return outcomes

    async def _conclude(self, left: int) -> None:
        """Take the outcomes of all but so many of the writes that are under way."""
        while len(self._unanswered) > left:
            numbers, outcomes = self._unanswered.popleft()
            self._note(numbers, await outcomes)

    def _note(self, numbers: Sequence[int], outcomes: list[Outcome]) -> None:
        """Note what came of lines; those behind the last outcome were not tried."""
        for number, outcome in zip(numbers, outcomes, strict=False):
            if isinstance(outcome, Refusal):
                self._refused(number, outcome)
            else:
                self.report.imported += 1

    def _refused(self, number: int, outcome: Refusal) -> None:
        try:
            problem = refused(self._locks.refusal(outcome))
        except Problem as lost:
            self._broken = problem = lost
        if outcome.why is Why.FENCED:
            self._broken = self._broken or problem
        self._failed(number, problem)
        self.report.stopped = self.report.stopped or problem.slug == "lock-lost"

    def _failed(self, line: int, problem: Problem) -> None:
        self.report.failed += 1
        if len(self.report.errors) < _MOST_ERRORS:
            self.report.errors.append(ImportError_(line, problem.detail))
        self.report.stopped = self._stop_on_error

    def _operation(self, line: bytes) -> Set:
        given, raw, bare = codec.exported_line(line, _decode_line)
        key = codec.checked_key(codec.utf8(given.key))
        if self._may_set is not None and not self._may_set(key):
            rights.require(self._request, Scope.KEYS, Verb.SET, key)
        value, media_type = codec.stored(raw, line)
        if bare:
            check_size(value, self._context.limits)
            return Set(key, value, media_type)
        return self._with_members(given, key, value, media_type)

    def _with_members(self, given: ExportedKey, key: bytes, value: bytes, media_type: str) -> Set:
        if given.encoding is not UNSET:
            if bytes(given.value)[:1] != b'"':
                raise Problem("bad-json", "A value in base64 is a string.")
            value, media_type = codec.from_base64(value), "application/octet-stream"
        if isinstance(given.type, str):
            media_type = codec.checked_media_type(given.type)
        check_size(value, self._context.limits)
        ttl = codec.milliseconds(given.ttl) if isinstance(given.ttl, float) else 0
        stale = codec.milliseconds(given.stale) if isinstance(given.stale, float) else 0
        if stale and not ttl:
            raise Problem(
                "bad-ttl", "A stale copy is kept of a key that ends: `stale` needs `ttl`."
            )
        may_keep = caching.of_members(given)
        return Set(key, value, media_type, ttl, stale_ms=stale, cache_control=may_keep)


def options(given: dict[bytes, bytes]) -> bool:
    """Return whether an import stops at the first line that fails."""
    value = given.get(b"on_error", b"continue")
    if value not in (b"continue", b"stop"):
        raise Problem("bad-parameter", "on_error is continue or stop.")
    return value == b"stop"
