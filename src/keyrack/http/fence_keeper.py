"""The fences that a worker goes by: those of the operator's file, and those that the store keeps.

A change is complete when it is answered: whoever makes it waits until all workers of the service
refuse what it forbids. Services elsewhere that share the store learn of it within a second.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from keyrack.access.compiled import Permission
from keyrack.access.model import AccessFile, FenceRule
from keyrack.access.rules import Rule, Scope, Sourced, Verb, pattern_of
from keyrack.engines.contract import Delete, Refusal, Set, Space, StoreAway, Why
from keyrack.engines.fences import Fence, Fences, Refusals
from keyrack.http import eager
from keyrack.http.agreement import wait_for_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyrack.engines.contract import Engine, Outcome, Write
    from keyrack.http.tick import Tick
    from keyrack.shared.access_board import AccessBoard
    from keyrack.shared.counters import Counters

# One tag for all, so that a cluster keeps them in one shard and changes several together.
_FENCE: Final = b"{fence}r"
_VERSION: Final = b"{fence}v"

_log = logging.getLogger("keyrack")


class KnownFence(NamedTuple):
    """A fence, and where it is kept: `file` or `store`."""

    name: str
    rule: FenceRule
    source: str


class FenceKeeper:
    """What a worker knows of fences, and how they are changed. `board` tells of the file."""

    def __init__(
        self,
        slot: int,
        counters: Counters,
        engine: Engine,
        tick: Tick,
        board: AccessBoard | None = None,
    ) -> None:
        self._slot = slot
        self._counters = counters
        self._epochs = counters.fence_epochs
        self._engine = engine
        self._ticking = tick
        self._board = board
        self._seen: tuple[int, int] | None = None
        """The epochs of the store's fences and of the file; None before the store was read."""
        self._version = b""
        self._asking = False
        self._fences = Fences(())
        self.known: tuple[KnownFence, ...] = ()
        """All fences, in the order of their names."""

    async def begin(self) -> None:
        """Learn which there are, before the first request comes."""
        self._engine.fence(_nothing_known)
        await self._follow(self._epoch())

    def follow(self) -> None:
        """Go by what is true now, if that has changed. Call it whenever it may have."""
        epoch = self._epoch()
        if epoch != self._seen:
            eager.run(self._follow(epoch), _ignore)

    def tick(self) -> None:
        """Call it every half second: somebody else may have changed the store."""
        self.follow()
        if not self._asking and (self._engine.get_now is None or self._counters.shared):
            self._asking = True
            eager.run(self._look_elsewhere(), _ignore)

    def needed_below(self, prefix: bytes) -> list[bytes]:
        """Return the locks that keys may need which begin with a prefix."""
        return self._fences.needed_below(prefix)

    def _epoch(self) -> tuple[int, int]:
        return self._epochs.epoch(), 0 if self._board is None else self._board.epochs.epoch()

    async def _follow(self, epoch: tuple[int, int]) -> None:
        try:
            kept = await self._engine.all_of(Space.ADMIN)
        except StoreAway as error:
            if self._seen is None:
                _log.warning("%s; which writes need a lock is not known yet", error)
            return  # `tick` tries again
        if self._seen is None or epoch >= self._seen:
            self._take(epoch, kept)

    async def _look_elsewhere(self) -> None:
        """Look whether another service has changed which fences there are."""
        try:
            if (await self._engine.admin_value(_VERSION) or b"") != self._version:
                await self._follow(self._epoch())
        except StoreAway:
            pass  # those who ask for something are told
        finally:
            self._asking = False

    def _take(self, epoch: tuple[int, int], kept: Mapping[bytes, bytes]) -> None:
        found = {
            key[len(_FENCE) :].decode(): msgspec.msgpack.decode(value, type=FenceRule)
            for key, value in kept.items()
            if key.startswith(_FENCE)
        }
        filed = self._filed()
        known = [KnownFence(name, rule, "store") for name, rule in found.items()]
        known = [one for one in known if one.name not in filed]
        known += [KnownFence(name, rule, "file") for name, rule in filed.items()]
        self.known = tuple(sorted(known))
        self._version = kept.get(_VERSION, b"")
        self._fences = _compiled([one.rule for one in known])
        self._engine.fence(self._fences.refusals if known else None)
        self._seen = epoch
        self._epochs.see(self._slot, epoch[0])

    def _filed(self) -> dict[str, FenceRule]:
        if self._board is None or not (document := self._board.document()):
            return {}
        return msgspec.json.decode(document, type=AccessFile).fences

    # Changes

    async def put(self, name: str, rule: FenceRule) -> tuple[Outcome, int]:
        """Keep a fence; see `_make`."""
        key = _FENCE + name.encode()
        # Not as JSON, in which a character may take six bytes: a value of this space is short.
        return await self._make(Set(key, msgspec.msgpack.encode(rule), space=Space.ADMIN))

    async def drop(self, name: str) -> tuple[Outcome, int]:
        """Remove a fence that the store keeps; see `_make`."""
        return await self._make(Delete(_FENCE + name.encode(), space=Space.ADMIN))

    async def _make(self, change: Set | Delete) -> tuple[Outcome, int]:
        """Make a change, and wait until all workers go by it.

        Returns its outcome, and how many workers have not said so in time.
        """
        version = Set(_VERSION, secrets.token_bytes(8), space=Space.ADMIN)
        outcome = await self._ticking.write((change, version))
        if isinstance(outcome, Refusal):
            return outcome, 0
        return outcome, await wait_for_all(self._epochs, self._slot, self._counters, self.follow)


def _compiled(rules: Sequence[FenceRule]) -> Fences:
    """Return fences with a test for a single key that is as quick as that of access control."""
    fences = [Fence(*pattern_of(rule.keys), rule.lock.encode()) for rule in rules]
    named = frozenset((Verb.SET,))
    lines = [Rule(named, Scope.KEYS, one.pattern, one.beginning) for one in fences]
    return Fences(fences, Permission(Sourced(line, None) for line in lines).test)


def _nothing_known(writes: Sequence[Write]) -> Refusals:
    """Refuse all writes of users' keys: whether they need a lock is not known yet."""
    known = Fences((Fence(b"", True, b""),)).refusals(writes)
    return {place: Refusal(Why.AWAY) for place in known}


def _ignore(_: Any) -> None:
    pass
