"""Locks of a client without an event loop, and the thread that renews them."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from keyrack.client import say
from keyrack.client.errors import KeyrackError, LockLost
from keyrack.client.leases import Lease

if TYPE_CHECKING:
    from types import TracebackType

    from keyrack.client.calls import Requests
    from keyrack.client.sending import Sender

_RETRY_SHARE: Final = 10
"""A renewal that failed is tried again after this part of the lock's time."""


class Lock(Lease):
    """A lock: `with client.lock("report") as lock:`.

    `token` is the fencing token; `lost` tells whether it was lost meanwhile. It is renewed by
    itself until the block ends, which raises `LockLost` if it was lost, and gives it back if not.
    """

    def __init__(
        self,
        sender: Sender,
        renewals: Renewals,
        requests: Requests,
        name: str | bytes,
        ttl: float,
        wait: float | None,
        renew: bool,
        owner: str | None,
    ) -> None:
        super().__init__(requests, name, ttl, owner)
        self._sender = sender
        self._renewals = renewals if renew else None
        self._wait = wait

    def acquire(self) -> None:
        """Take it. Raises `LockHeld` when somebody else holds it for longer than `wait`."""
        self._sender.run(self.acquiring(self._wait))
        if self._renewals is not None:
            self._renewals.add(self)

    def renew(self) -> None:
        """Renew it now. Raises `LockLost` when it is not held any more."""
        began = time.monotonic()
        try:
            token = self._sender.send(self.renewal(self.token), self.ttl / 3)
        except KeyrackError as error:
            self.renewal_failed(error)
            if self.lost:
                raise LockLost(f"The lock {self.name!r} is not held any more.") from error
            raise
        self.taken(token, began)

    def release(self) -> bool:
        """Give it back, and tell whether it was still held."""
        if self._renewals is not None:
            self._renewals.remove(self)
        if not self.is_mine_to_release:
            return False
        call = self.release_call()
        self.given_back()
        return self._sender.send(call)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = self.lost
        try:
            self.release()
        except KeyrackError as failure:
            # What the block raised is more important; the lock ends by itself.
            say.warning("The lock %r could not be given back: %s", self.name, failure)
        if lost and error is None:
            raise LockLost(f"The lock {self.name!r} was lost before its block had ended.")


class Renewals:
    """Renews the locks of a client in time: one thread for all, while there are any."""

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._locks: set[Lock] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """Begin anew in the child of a fork: the locks are the parent's, and so is the thread."""
        self._begin()

    def add(self, lock: Lock) -> None:
        """Renew a lock from now on."""
        with self._changed:
            self._locks.add(lock)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="keyrack-locks", daemon=True)
                self._thread.start()

    def remove(self, lock: Lock) -> None:
        """Renew a lock no more."""
        with self._changed:
            self._locks.discard(lock)
            self._changed.notify()

    def _run(self) -> None:
        retries: dict[Lock, float] = {}
        while True:
            with self._changed:
                if not self._locks:
                    self._thread = None
                    return
                moments = {lock: retries.get(lock, lock.renew_at) for lock in self._locks}
                lock = min(moments, key=moments.__getitem__)
                left = moments[lock] - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
            retries.pop(lock, None)
            if not self._renewed(lock):
                retries[lock] = time.monotonic() + lock.ttl / _RETRY_SHARE

    def _renewed(self, lock: Lock) -> bool:
        try:
            lock.renew()
        except LockLost as error:
            say.warning("%s", error)
            self.remove(lock)
        except KeyrackError as error:
            say.warning("The lock %r could not be renewed yet: %s", lock.name, error)
            return False
        return True


_all: WeakSet[Renewals] = WeakSet()


def _after_fork() -> None:
    for renewals in list(_all):
        renewals.forget()


os.register_at_fork(after_in_child=_after_fork)
