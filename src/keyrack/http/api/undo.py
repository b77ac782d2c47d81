"""Undoing deletions: which there are, who may undo them, and the undoing.

What was deleted belongs to whoever has deleted it: an undo is shown to its sender and to
administrators, and to nobody else is there such a thing. Putting a key back is a write of it, so
the sender has to have the right to set it at that time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from keyrack.access.rules import Scope, Verb
from keyrack.engines.contract import Refusal, Restore
from keyrack.http.answer import Answer
from keyrack.http.api import codec, rights
from keyrack.http.api.deleting import demand_locks
from keyrack.http.api.keeping import about_of, sender_of
from keyrack.http.api.keys import refused
from keyrack.http.api.models import Undoable, UndoList, Undone
from keyrack.http.problems import Problem
from keyrack.http.tick import JSON_HEADERS
from keyrack.http.watch.messages import clock_text

if TYPE_CHECKING:
    from keyrack.engines.contract import Trashed, Undo
    from keyrack.http.api.keeping import About
    from keyrack.http.api.named_locks import NamedLocks
    from keyrack.http.api.pace import Pace
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

MOST: Final = 1000
DEFAULT: Final = 100
PATH: Final = b"/v1/undo/"
_MOST_DIGITS: Final = 20
"""A number with as many may have more than 64 bits."""
_LIST: Final = frozenset((b"limit", b"before"))
_PAGE: Final = 100
_MOST_PAGES: Final = 50
"""Pages of undos that one request looks at: they may all be somebody else's."""
_STEP: Final = 32
_STEP_BYTES: Final = 1 << 20


async def listed(request: Request, context: Context) -> Answer:
    """`GET /v1/undo`: what the sender can undo, the newest first."""
    given = codec.parameters(request.query, _LIST)
    limit = codec.whole(given, b"limit", DEFAULT, 1, MOST)
    below = codec.revision_of(given[b"before"], "before") if b"before" in given else None
    found: list[Undoable] = []
    for _ in range(_MOST_PAGES):
        page = await context.engine.undos(below, _PAGE)
        for undo in page:
            below = undo.number
            about = about_of(undo.about)
            if undo.left > 0 and _is_own(request, about):
                found.append(_shown(undo, about))
            if len(found) == limit:
                break
        if len(page) < _PAGE and len(found) < limit:
            below = None
        if below is None or len(found) == limit:
            break
        await asyncio.sleep(0)
    return Answer(
        200, JSON_HEADERS, codec.encode(UndoList(found, None if below is None else str(below)))
    )


def _shown(undo: Undo, about: About) -> Undoable:
    shown = Undoable(
        undo=str(undo.number),
        deleted=undo.deleted,
        left=undo.left,
        restored=undo.restored,
        ended=undo.ended,
        gone=undo.gone,
        since=clock_text(undo.since),
        until=clock_text(undo.until),
    )
    if about.prefix is not None:
        shown.prefix = codec.text_of(about.prefix)
    if about.key is not None:
        shown.key = codec.text_of(about.key)
    return shown


def _is_own(request: Request, about: About) -> bool:
    return request.grant.rights.admin or about.by == sender_of(request)


class Undoing:
    """One undo that is under way."""

    def __init__(self, request: Request, context: Context, locks: NamedLocks) -> None:
        self._request = request
        self._context = context
        self._locks = locks
        self._kept_newer = 0

    async def run(self, pace: Pace) -> Undone:
        """Put back what there is. To call it again goes on where it was broken off.

        Raises `Problem` where there is no such undo, or the sender may not set the keys.
        """
        undo = await self._find()
        await self._make_sure(undo, pace)
        after: bytes | None = b""
        while after is not None:
            page, after = await self._context.engine.trashed(undo.number, after, _STEP)
            await self._restore(undo.number, page)
            await pace.step()
        undo = await self._context.engine.undo_of(undo.number) or undo
        revision = (await self._context.engine.history())[1]
        # What has ended in the trash and was not swept yet is counted already.
        ended = undo.deleted - undo.restored - undo.gone - self._kept_newer
        return Undone(
            undo=str(undo.number),
            deleted=undo.deleted,
            restored=undo.restored,
            kept_newer=self._kept_newer,
            ended=max(0, ended),
            gone=undo.gone,
            until=clock_text(undo.until),
            revision=str(revision),
        )

    async def _find(self) -> Undo:
        name = self._request.path[len(PATH) :]
        if name.isdigit() and len(name) < _MOST_DIGITS:
            undo = await self._context.engine.undo_of(int(name))
            if undo is not None and _is_own(self._request, about_of(undo.about)):
                return undo
        raise Problem("undo-not-found", "There is no such deletion that you could undo (any more).")

    async def _make_sure(self, undo: Undo, pace: Pace) -> None:
        """Make sure that the sender may set all that is put back, before any of it is."""
        about = about_of(undo.about)
        if about.prefix is not None:
            demand_locks(about.prefix, self._context, self._locks)
        if self._request.grant.sets is None:
            return
        if about.prefix is not None:
            rights.require_whole(self._request, Verb.SET, about.prefix)
            return
        after: bytes | None = b""
        while after is not None:
            page, after = await self._context.engine.trashed(undo.number, after, _STEP)
            for one in page:
                rights.require(self._request, Scope.KEYS, Verb.SET, one.key)
            await pace.step()

    async def _restore(self, number: int, page: list[Trashed]) -> None:
        size, some = 0, []
        for one in page:
            some.append(one)
            size += one.size
            if size > _STEP_BYTES:
                await self._restore_some(number, some)
                size, some = 0, []
        await self._restore_some(number, some)

    async def _restore_some(self, number: int, some: list[Trashed]) -> None:
        over = self._locks.over
        writes = [over((Restore(one.key, number, one.revision, one.size),)) for one in some]
        for made in await self._context.tick.write_many(writes):
            outcome = self._locks.outcome(made)
            if isinstance(outcome, Refusal):
                raise refused(outcome)
            self._kept_newer += outcome[0].existed
