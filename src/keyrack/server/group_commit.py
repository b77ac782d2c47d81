"""Writes of a worker that are answered when they are on the disk (`--durability commit`)."""

from __future__ import annotations

import logging
import sys
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.engines.contract import Refusal, Why
from keyrack.engines.embedded.durability.group_sync import SyncThread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from keyrack.engines.contract import Outcome, Write
    from keyrack.engines.embedded import EmbeddedEngine

_SWITCH_SECONDS: Final = 0.0001
"""How long the thread that comes back from the disk waits for the interpreter of a busy loop."""
_QUIET_TURNS: Final = 4
"""Within so many turns an answer is written, and what its client asks next is read."""
_MOST_TURNS: Final = 20
_DISK: Final = frozenset((Why.DISK, Why.DISK_FULL))

_log = logging.getLogger("keyrack.journal")


class _Group(NamedTuple):
    """Writes that were asked for together, and what is given their outcomes."""

    writes: Sequence[Write]
    answer: asyncio.Future[Sequence[Outcome]]


class GroupCommit:
    """Has writes done, and gives their outcomes when all that they saw and did is on the disk.

    That goes for refusals as well: a condition that does not hold may not hold because of a write
    that is not on the disk yet. While the disk is busy with some writes the next ones gather: they
    would have to wait for another sync in any case, and so they share a transaction too. They wait
    a few turns of the loop more for those that were just answered, because a sync costs as much CPU
    as twenty writes.
    """

    def __init__(self, engine: EmbeddedEngine, loop: asyncio.AbstractEventLoop) -> None:
        assert engine.journal is not None, "there is a journal"
        self._engine = engine
        self._loop = loop
        self._journal = engine.journal
        self._group_sync = engine.group_sync()
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread = SyncThread(self._group_sync, loop.call_soon_threadsafe)
        self._troubled = False
        self._waiting: list[_Group] = []
        self._busy = False

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Have writes done; return their outcomes when they are on the disk."""
        group = _Group(writes, self._loop.create_future())
        self._waiting.append(group)
        if not self._busy:
            self._commit()
        return await group.answer

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._busy = True
        writes = list(chain.from_iterable(group.writes for group in waiting))
        try:
            outcomes = self._engine.apply(writes)
        except Exception:
            # No write may leave its client waiting, whatever the engine's trouble is.
            _log.exception("the engine failed with %d writes to do", len(writes))
            outcomes = [Refusal(Why.BROKEN)] * len(writes)
        self._thread.when_kept(self._journal.sequence, partial(self._conclude, waiting, outcomes))

    def _conclude(self, waiting: list[_Group], outcomes: list[Outcome], kept: bool) -> None:
        answers = outcomes if kept else [Refusal(Why.DISK)] * len(outcomes)
        self._tell_operator(answers[0])
        position = 0
        for group in waiting:
            if not group.answer.done():
                group.answer.set_result(answers[position : position + len(group.writes)])
            position += len(group.writes)
        # Behind the answers, each of which lets go of the interpreter: the thread that waits for
        # the disk would take it every time, and both would wait for it longer than for the disk.
        alone = len(outcomes) == 1 and not self._waiting
        if alone:
            self._loop.call_soon(self._go_on)
        else:
            self._loop.call_soon(self._gather, 0, 0, 0)

    def _gather(self, before: int, quiet: int, turns: int) -> None:
        """Go on when turns of the loop bring no more writes.

        Whoever was answered asks again at once, and shares the sync with those that wait already.
        """
        waiting, turns = len(self._waiting), turns + 1
        quiet = 0 if waiting > before else quiet + 1
        if quiet < _QUIET_TURNS and turns < _MOST_TURNS:
            self._loop.call_soon(self._gather, waiting, quiet, turns)
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._busy = bool(self._waiting)
        if self._waiting:
            self._commit()

    def _tell_operator(self, outcome: Outcome) -> None:
        troubled = isinstance(outcome, Refusal) and outcome.why in _DISK
        if troubled and not self._troubled:
            full = isinstance(outcome, Refusal) and outcome.why is Why.DISK_FULL
            what = "is full" if full else "has failed"
            _log.error("the disk under %s %s; writes are refused", self._journal.data.path, what)
        elif self._troubled and not troubled:
            _log.warning("writes are kept on the disk again")
        self._troubled = troubled

    def close(self) -> None:
        """End, when what was asked for is on the disk."""
        self._thread.close()
        self._group_sync.close()
