"""Deleting a key, or all keys under a prefix, for good or so that it can be undone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import (
    ANY,
    LEASE,
    MAX_LEASED_KEY_BYTES,
    Condition,
    Delete,
    Discard,
    Refusal,
    Space,
    Why,
)
from keyrack.http.answer import Answer
from keyrack.http.api import codec, keys
from keyrack.http.api.bulk import count_all, under_way
from keyrack.http.api.keeping import keeping, number_of, seconds_of, sender_of
from keyrack.http.api.models import Deleted
from keyrack.http.api.named_locks import NO_LOCKS, NamedLocks
from keyrack.http.api.pace import Pace
from keyrack.http.problems import Problem
from keyrack.http.reply import PendingWrite
from keyrack.http.tick import JSON_HEADERS
from keyrack.http.watch.messages import clock_text

if TYPE_CHECKING:
    from keyrack.engines.contract import Outcome, Record, Write
    from keyrack.http.api.keeping import Keeping
    from keyrack.http.protocol.request import Head, Request
    from keyrack.http.reply import Context

KEY_PARAMETERS: Final = frozenset((b"undo",))
PARAMETERS: Final = frozenset((b"prefix", b"dry_run", b"all", b"undo", b"at"))
_STEPS: Final = 32
_SAMPLE: Final = 10


# One key


async def key_delete(request: Request, context: Context) -> PendingWrite:
    """`DELETE /v1/keys/{key}`: remove the key."""
    key = keys.key_in_path(request)
    if not request.query and not context.limits.undo_default:
        operation = Delete(key, request.head.condition)
        return PendingWrite((operation,), partial(keys.key_delete_answer, head=request.head))
    given = codec.parameters(request.query, KEY_PARAMETERS)
    seconds = seconds_of(given, context)
    if not seconds:
        operation = Delete(key, request.head.condition)
        return PendingWrite((operation,), partial(keys.key_delete_answer, head=request.head))
    kept = keeping(sender_of(request), seconds, context, key=key)
    discard = Discard(key, kept.until, kept.about, 0, request.head.condition)
    conclude = partial(_discarded, head=request.head, is_wanted=b"undo" in given)
    return PendingWrite((discard,), conclude)


def _discarded(outcome: Outcome, head: Head, is_wanted: bool) -> Answer:
    """Return the answer to a `DELETE` of a key that can be undone, if that was asked for."""
    plain = keys.key_delete_answer(outcome, head)
    if isinstance(outcome, Refusal) or plain is not keys.REMOVED:
        return plain
    undo, until = number_of(outcome)
    if not is_wanted:
        # Who has not asked for it is answered as if it was not so, and told beside that.
        return plain._replace(headers=(*plain.headers, *_undo_field(undo)))
    done = Deleted(1, str(outcome[0].revision))
    _tell(done, undo, until, gone=not undo)
    return Answer(200, (*JSON_HEADERS, *_undo_field(undo)), codec.encode(done))


def _undo_field(undo: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"Keyrack-Undo", b"%d" % undo),) if undo else ()


def _tell(done: Deleted, undo: int, until: int, gone: int) -> None:
    """Tell how a deletion can be undone; `gone` of its keys cannot be put back."""
    done.undo = str(undo) if undo else None
    done.until = clock_text(until) if undo else None
    if gone:
        done.gone = gone


# A prefix


async def by_prefix(
    given: dict[bytes, bytes], context: Context, sender: str = "", locks: NamedLocks = NO_LOCKS
) -> Deleted:
    """Delete the keys under a prefix while `locks` are held, or say what would be deleted.

    `sender` is who may undo it.
    """
    prefix = codec.prefix_of(given.get(b"prefix", b""))
    everything = codec.switch(given, b"all")
    if not prefix and not everything:
        raise Problem("bad-parameter", "Without a prefix this deletes everything; say all=true.")
    seconds = seconds_of(given, context)
    # Keys that are set meanwhile, behind where the deletion is, are left alone.
    now = (await context.engine.history())[1]
    if codec.switch(given, b"dry_run"):
        page = await context.engine.scan(prefix, None, _SAMPLE)
        sample = [codec.text_of(key) for key, _ in page.entries]
        return Deleted(await count_all(prefix, context), str(now), dry_run=True, sample=sample)
    demand_locks(prefix, context, locks)
    bound = min(now, codec.revision_of(given[b"at"], "at")) if b"at" in given else now
    kept = keeping(sender, seconds, context, prefix=prefix) if seconds else None
    deletion = _Deletion(prefix, bound, kept, context, locks)
    await deletion.run()
    done = Deleted(deletion.deleted, str((await context.engine.history())[1]))
    if b"at" in given:
        done.kept_newer = deletion.newer
    if kept is not None:
        _tell(done, deletion.undo, deletion.until, deletion.gone)
    return done


def demand_locks(prefix: bytes, context: Context, locks: NamedLocks) -> None:
    """Refuse what would be refused half-way: keys below the prefix need a lock."""
    needed = [] if context.fences is None else context.fences.needed_below(prefix)
    for lock in needed:
        if lock not in locks.names:
            raise keys.refused(Refusal(Why.FENCED, lock=lock))


class _Deletion:
    """A deletion of the keys under a prefix that is under way.

    Of keys that were changed above the revision `bound` none goes. `kept`: what goes can be put
    back.
    """

    def __init__(
        self,
        prefix: bytes,
        bound: int,
        kept: Keeping | None,
        context: Context,
        locks: NamedLocks,
    ) -> None:
        self._prefix = prefix
        self._bound = bound
        self._kept = kept
        self._context = context
        self._locks = locks
        self._pace = Pace()
        self.deleted = 0
        self.newer = 0
        """How many keys were left alone because they are newer."""
        self.gone = 0
        """How many of the deleted ones cannot be put back, for want of room."""
        self.undo = self.until = 0
        """The undo, and when it ends; 0 where nothing can be put back."""

    async def run(self) -> None:
        """Delete, in small steps."""
        after: bytes | None = None
        while True:
            page = await self._context.engine.scan(self._prefix, after, _STEPS)
            await self._step(page.entries)
            after = page.next
            if after is None:
                break
            await self._pace.step()
        await self._delete_copies()
        await self._delete_leases()

    async def _step(self, entries: list[tuple[bytes, Record]]) -> None:
        old = [(key, record) for key, record in entries if record.revision <= self._bound]
        self.newer += len(entries) - len(old)
        if self._kept is not None and not self.undo:
            # The first one that goes gives the undo its number; the others name it.
            while old and not self.undo:
                await self._remove(old[:1])
                old = old[1:]
        await self._remove(old)

    async def _remove(self, entries: list[tuple[bytes, Record]]) -> None:
        over = self._locks.over
        writes = [over((self._operation(key, record),)) for key, record in entries]
        for made in await under_way(writes, self._context):
            outcome = self._locks.outcome(made)
            if isinstance(outcome, Refusal):
                if outcome.why is not Why.CONDITION:
                    raise keys.refused(outcome)
                self.newer += outcome.revision is not None
                continue
            (result,) = outcome
            self.deleted += result.existed
            if self._kept is not None and result.existed:
                self.gone += not result.number
                if not self.undo:
                    self.undo, self.until = number_of(outcome)

    def _operation(self, key: bytes, record: Record) -> Delete | Discard:
        condition = Condition(match=frozenset((record.revision,)))
        if self._kept is None:
            return Delete(key, condition)
        return Discard(key, self._kept.until, self._kept.about, self.undo, condition)

    async def _delete_copies(self) -> None:
        """Remove the stale copies of keys that have ended."""
        after: bytes | None = None
        missing = Condition(none_match=ANY)
        while True:
            names, after = await self._context.engine.stale_copies(self._prefix, after, _STEPS)
            over = self._locks.over
            await under_way([over((Delete(key, missing),)) for key in names], self._context)
            if after is None:
                return
            await self._pace.step()

    async def _delete_leases(self) -> None:
        """End the leases of keys: what is computed now began before the deletion."""
        if len(self._prefix) > MAX_LEASED_KEY_BYTES:
            return
        after: bytes | None = None
        while True:
            page = await self._context.engine.scan_locks(LEASE + self._prefix, after, _STEPS)
            ends: list[Write] = [(Delete(name, space=Space.LOCKS),) for name, _ in page.entries]
            await under_way(ends, self._context)
            after = page.next
            if after is None:
                return
            await self._pace.step()
