"""Access control of one worker: it judges by what the operator's file says now.

A change takes effect between two callbacks of the event loop: every request that begins after it is
judged by the new table, and streams and waits that are no longer allowed have ended.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from keyrack.access.model import AccessFile
from keyrack.access.table import Table
from keyrack.http.gate import Gate

if TYPE_CHECKING:
    from keyrack.access.table import Verify
    from keyrack.http.worker_context import WorkerContext
    from keyrack.shared.access_board import AccessBoard


class AccessControl:
    """What a worker knows of who may do what. Without a board everybody may do everything."""

    def __init__(self, board: AccessBoard | None, slot: int) -> None:
        self._board = board
        self._slot = slot
        self._epoch = -1
        self._document = b""
        self._verify: Verify | None = None
        self.gate = Gate()
        if board is not None:
            self.gate = Gate(self._table(board), self._failed)

    def follow(self, context: WorkerContext) -> None:
        """Judge by what is true now, if that has changed. Call it whenever it may have."""
        board = self._board
        if board is None:
            return
        # Before what it is about: what is read afterwards is at least that new.
        epoch = board.epoch()
        if epoch != self._epoch:
            self._epoch = epoch
            self.gate.table = self._table(board)
            context.heads.clear()
            for connection in list(context.connections):
                connection.judge_again()
        board.see(self._slot, epoch)

    def _table(self, board: AccessBoard) -> Table:
        access = msgspec.json.decode(board.document(), type=AccessFile)
        if access.issuers and self._verify is None:
            from keyrack.access.jwt import Verifier  # an extra, and most services do without

            self._verify = Verifier(lambda _: board.want_keys())
        return Table(access, verify=self._verify)

    def _failed(self, token_id: str | None) -> None:
        assert self._board is not None
        self._board.count_failed_login(self._slot)


def forget_expired(context: WorkerContext) -> None:
    """Forget those whose tokens are over. Call it every second, which some may count too long."""
    if context.gate.table is not None:
        context.forget_expired(time.time())
