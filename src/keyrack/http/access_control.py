"""Access control of one worker: it judges by what the operator's file and the store say now.

A change takes effect between two callbacks of the event loop: every request that begins after it is
judged by the new table, and streams and waits that are no longer allowed have ended. Whoever makes
a change waits until all workers have said that they judge by it.

What was made over HTTP is in the store's own space for it: a record for each token and policy, one
for the key of tickets, and one that is another after each change, which is what services on other
machines look at.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from keyrack.access import tickets
from keyrack.access.last_use import MINUTE
from keyrack.access.model import AccessFile, Policy, Token
from keyrack.access.table import Table
from keyrack.engines.contract import ANY, Condition, Delete, Refusal, Set, Space, StoreAway
from keyrack.http import eager
from keyrack.http.agreement import wait_for_all
from keyrack.http.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Collection

    from keyrack.access.table import LoginFailed, Verify
    from keyrack.engines.contract import Engine, Outcome, Write
    from keyrack.http.tick import Tick
    from keyrack.shared.access_board import AccessBoard
    from keyrack.shared.counters import Counters

# One tag for all, so that a cluster keeps them in one shard and changes several together.
_TOKEN: Final = b"{auth}t"
_POLICY: Final = b"{auth}p"
_TICKET_KEY: Final = b"{auth}k"
_VERSION: Final = b"{auth}v"
_MOST_NOTED: Final = 16_384

_log = logging.getLogger("keyrack.auth")


class _Kept(NamedTuple):
    """What the store says."""

    tokens: dict[str, Token]
    policies: dict[str, Policy]
    ticket_key: bytes | None
    version: bytes


_NOTHING: Final = _Kept({}, {}, None, b"")


def _key_of(token: Token) -> bytes:
    """Return the key that a token is kept under: another one after each change.

    So of two who change it at once only one finds it. Nothing else in this space tells, as it has
    no revisions.
    """
    return _TOKEN + token.id.encode() + (b".%d" % token.serial if token.serial else b"")


class AccessChange:
    """What is to be done in the store, all or none."""

    def __init__(self) -> None:
        self._operations: list[Set | Delete] = []

    def add_token(self, token: Token) -> AccessChange:
        """Keep a token that there was not."""
        return self._put(_key_of(token), msgspec.json.encode(token), Condition(none_match=ANY))

    def replace_token(self, before: Token, after: Token) -> AccessChange:
        """Keep a token as it is after a change, unless somebody else has changed it meanwhile.

        The serial of `after` is another one.
        """
        return self.drop_token(before).add_token(after)

    def drop_token(self, token: Token) -> AccessChange:
        """Remove a token, unless somebody else has changed it meanwhile."""
        there = Condition(match=ANY)
        self._operations.append(Delete(_key_of(token), there, space=Space.ADMIN))
        return self

    def put_policy(self, name: str, policy: Policy) -> AccessChange:
        """Keep a policy."""
        return self._put(_POLICY + name.encode(), msgspec.json.encode(policy))

    def drop_policy(self, name: str) -> AccessChange:
        """Remove a policy."""
        self._operations.append(Delete(_POLICY + name.encode(), space=Space.ADMIN))
        return self

    def put_ticket_key(self, *, new: bool = False) -> AccessChange:
        """Keep a new key for tickets; `new`: if there is none."""
        condition = Condition(none_match=ANY) if new else None
        return self._put(_TICKET_KEY, tickets.new_key(), condition)

    def _put(self, key: bytes, value: bytes, condition: Condition | None = None) -> AccessChange:
        self._operations.append(Set(key, value, condition=condition, space=Space.ADMIN))
        return self

    def longest(self) -> int:
        """Return the bytes of the longest value."""
        return max((len(o.value) for o in self._operations if isinstance(o, Set)), default=0)

    def write(self) -> Write:
        """Return the write, which says as well that there was a change."""
        version = Set(_VERSION, secrets.token_bytes(8), space=Space.ADMIN)
        return (*self._operations, version)


class JudgedClient(Protocol):
    """A connection that is open."""

    def judge_again(self) -> None:
        """Find out anew what its client may do, and end what that may do no longer."""


class Served(Protocol):
    """What a worker knows of its clients; see `worker_context`."""

    @property
    def heads(self) -> dict[bytes, Any]:
        """Header sections that are recognised."""

    @property
    def connections(self) -> Collection[JudgedClient]:
        """The connections that are open."""

    def forget_some(self, now: float) -> None:
        """Forget those to be looked at again; `now` in seconds since 1970."""


class AccessControl:
    """What a worker knows of who may do what. Without a board everybody may do everything."""

    def __init__(
        self,
        board: AccessBoard | None,
        slot: int,
        counters: Counters,
        engine: Engine,
        tick: Tick,
    ) -> None:
        self._board = board
        self._slot = slot
        self._counters = counters
        self._engine = engine
        self._ticking = tick
        self._worker: Served | None = None
        self._kept = _NOTHING
        self._noted: dict[str, int] = {}
        """In which minute a token's use was last noted."""
        self._epoch = -1
        self._asking = False
        self._verify: Verify | None = None
        self.gate = Gate()
        if board is not None:
            self.gate = Gate(
                self._table(board, _NOTHING), self._failed, board.meters, slot, self._used
            )
            board.meters.release(slot)  # those of a worker that had this number before

    @property
    def board(self) -> AccessBoard | None:
        """What all processes know; None where everybody may do everything."""
        return self._board

    @property
    def controlled(self) -> bool:
        """Whether it matters who asks."""
        return self._board is not None

    @property
    def epoch(self) -> int:
        """The epoch that this worker judges by."""
        return self._epoch

    async def begin(self, worker: Served) -> None:
        """Learn what the store says, before the first request comes."""
        self._worker = worker
        if self._board is None:
            return
        try:
            kept = await self._read()
            if kept.ticket_key is None:
                write = AccessChange().put_ticket_key(new=True).write()
                await self._engine.write([write])
                kept = await self._read()
        except StoreAway as error:
            _log.warning("%s; who may log in by the store is not known yet", error)
            return
        self._take(self._board.epochs.epoch(), kept)

    def follow(self) -> None:
        """Judge by what is true now, if that has changed. Call it whenever it may have."""
        board = self._board
        if board is None:
            return
        # Before what it is about: what is read afterwards is at least that new.
        epoch = board.epochs.epoch()
        if epoch != self._epoch:
            eager.run(self._follow(epoch), _ignore)

    async def _follow(self, epoch: int) -> None:
        try:
            kept = await self._read()
        except StoreAway:
            return  # `tick` tries again
        if epoch > self._epoch:
            self._take(epoch, kept)

    def _take(self, epoch: int, kept: _Kept) -> None:
        assert self._board is not None
        assert self._worker is not None
        self._epoch = epoch
        self._kept = kept
        self.gate.table = self._table(self._board, kept)
        self._worker.heads.clear()
        for connection in list(self._worker.connections):
            connection.judge_again()
        self._board.epochs.see(self._slot, epoch)

    def tick(self) -> None:
        """Call it every half second: some may have ended, and others may have changed the store."""
        if self._board is None or self._worker is None:
            return
        self._worker.forget_some(time.time())
        self.follow()
        if not self._asking and (self._engine.get_now is None or self._counters.shared):
            self._asking = True
            eager.run(self._look_elsewhere(), _ignore)

    async def _look_elsewhere(self) -> None:
        """Look whether another service has changed who may log in."""
        try:
            version = await self._engine.admin_value(_VERSION) or b""
            if version != self._kept.version:
                assert self._board is not None
                self._take(self._board.epochs.epoch(), await self._read())
        except StoreAway:
            pass  # those who ask for something are told
        finally:
            self._asking = False

    async def _read(self) -> _Kept:
        found = await self._engine.all_of(Space.ADMIN)
        made: dict[str, Token] = {}
        policies: dict[str, Policy] = {}
        for key, value in found.items():
            if key.startswith(_TOKEN):
                token = msgspec.json.decode(value, type=Token)
                made[token.id] = token
            elif key.startswith(_POLICY):
                policies[key[len(_POLICY) :].decode()] = msgspec.json.decode(value, type=Policy)
        return _Kept(made, policies, found.get(_TICKET_KEY), found.get(_VERSION, b""))

    def _table(self, board: AccessBoard, kept: _Kept) -> Table:
        access = msgspec.json.decode(board.document(), type=AccessFile)
        if access.issuers and self._verify is None:
            from keyrack.access.jwt import Verifier  # an extra, and most services do without

            self._verify = Verifier(lambda _: board.want_keys())
        return Table(
            access,
            kept.tokens.values(),
            kept.policies,
            ticket_key=kept.ticket_key,
            verify=self._verify,
        )

    def _failed(self, error: LoginFailed) -> None:
        assert self._board is not None
        self._board.count_failed_login(self._slot, error.reason.name.lower())

    def _used(self, token_id: str) -> None:
        assert self._board is not None
        now = int(time.time())
        if self._noted.get(token_id) != now // MINUTE:
            if len(self._noted) >= _MOST_NOTED:
                self._noted.clear()
            self._noted[token_id] = now // MINUTE
            self._board.last_use.note(self._slot, token_id, now)

    def last_use(self, token_id: str) -> int | None:
        """Return the minute of a token's last use (seconds since 1970), None if none is known."""
        return None if self._board is None else self._board.last_use.of(token_id)

    def decides(self, token: Token) -> list[str]:
        """Return the rules of a token, in the order of decision."""
        table = self.gate.table
        return [] if table is None else table.rights_of(token).rules.lines()

    def token_counts(self) -> dict[str, int]:
        """Return how many tokens there are, by where they are kept: `file`, `store`."""
        table = self.gate.table
        sources = [] if table is None else [known.source for known in table.tokens]
        return {source: sources.count(source) for source in ("file", "store")}

    # Changes

    async def catch_up(self) -> None:
        """Judge by what the store says now: somebody else has changed it."""
        assert self._board is not None
        epoch = self._board.epochs.epoch()
        self._take(epoch, await self._read())

    async def make(self, change: AccessChange) -> tuple[Outcome, int]:
        """Make a change, and wait until all workers judge by it.

        Returns its outcome, and how many workers have not said so in time.
        """
        assert self._board is not None
        outcome = await self._ticking.write(change.write())
        if isinstance(outcome, Refusal):
            return outcome, 0
        epochs = self._board.epochs
        return outcome, await wait_for_all(epochs, self._slot, self._counters, self.follow)


def _ignore(_: Any) -> None:
    pass
