"""Locks of a client on an event loop, each with a task that renews it while it is held."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from keyrack.client import say
from keyrack.client.errors import KeyrackError, LockLost
from keyrack.client.leases import Lease

if TYPE_CHECKING:
    from types import TracebackType

    from keyrack.client.async_sending import AsyncSender
    from keyrack.client.calls import Requests

_RETRY_SHARE: Final = 10
"""A renewal that failed is tried again after this part of the lock's time."""


class AsyncLock(Lease):
    """A lock: `async with client.lock("report") as lock:`. As `Lock` is, awaited."""

    def __init__(
        self,
        sender: AsyncSender,
        requests: Requests,
        name: str | bytes,
        ttl: float,
        wait: float | None,
        renew: bool,
        owner: str | None,
    ) -> None:
        super().__init__(requests, name, ttl, owner)
        self._sender = sender
        self._wait = wait
        self._renew = renew
        self._task: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Take it. Raises `LockHeld` when somebody else holds it for longer than `wait`."""
        await self._sender.run(self.acquiring(self._wait))
        if self._renew:
            self._task = asyncio.create_task(self._keep(), name="keyrack-lock")
            self._sender.background.add(self._task)
            self._task.add_done_callback(self._sender.background.discard)

    async def renew(self) -> None:
        """Renew it now. Raises `LockLost` when it is not held any more."""
        began = time.monotonic()
        try:
            token = await self._sender.send(self.renewal(self.token), self.ttl / 3)
        except KeyrackError as error:
            self.renewal_failed(error)
            if self.lost:
                raise LockLost(f"The lock {self.name!r} is not held any more.") from error
            raise
        self.taken(token, began)

    async def release(self) -> bool:
        """Give it back, and tell whether it was still held."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        if not self.is_mine_to_release:
            return False
        call = self.release_call()
        self.given_back()
        return await self._sender.send(call)

    async def __aenter__(self) -> AsyncLock:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = self.lost
        try:
            await self.release()
        except KeyrackError as failure:
            # What the block raised is more important; the lock ends by itself.
            say.warning("The lock %r could not be given back: %s", self.name, failure)
        if lost and error is None:
            raise LockLost(f"The lock {self.name!r} was lost before its block had ended.")

    async def _keep(self) -> None:
        pause = 0.0
        while True:
            await asyncio.sleep(max(pause, self.renew_at - time.monotonic()))
            pause = 0.0
            try:
                await self.renew()
            except LockLost as error:
                say.warning("%s", error)
                return
            except KeyrackError as error:
                say.warning("The lock %r could not be renewed yet: %s", self.name, error)
                pause = self.ttl / _RETRY_SHARE
