"""A lock that is held for a time: what is asked for it, and until when it is surely held.

How long it is held is reckoned on this machine's steady clock, from before the request was sent: so
this side never believes for longer than the server does.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from keyrack.client import chance, wire
from keyrack.client.calls import ApiCall, json_body, json_response, ttl_text
from keyrack.client.errors import KeyrackError, LockHeld, LockLost, ProtocolError, Refused
from keyrack.client.refusals import refused

if TYPE_CHECKING:
    from keyrack.client.calls import Requests
    from keyrack.client.steps import Steps
    from keyrack.client.wire import Response

_LONGEST_WAIT_SECONDS: Final = 60.0
_SOON_SECONDS: Final = 0.01
"""What is left of a wait is not worth a request."""
_numbers: Final = itertools.count()


class Lease:
    """The state of a lock that a caller wants or has. `token` is the fencing token, 0 for none.

    `owner` is who the server says holds it; by default host, process, thread and a random part.
    """

    def __init__(
        self, requests: Requests, name: str | bytes, ttl: float, owner: str | None
    ) -> None:
        if ttl <= 0:
            raise ValueError("A lock needs a ttl above 0, so that it ends when its holder does.")
        self._requests = requests
        self.name = name
        self.ttl = ttl
        self.owner = owner or _owner()
        self._process = os.getpid()
        self.token = 0
        self._until = 0.0
        self._refused = False

    @property
    def held(self) -> bool:
        """Whether it is surely held now."""
        return bool(self.token) and not self._refused and time.monotonic() < self._until

    @property
    def is_mine_to_release(self) -> bool:
        """Whether it was taken by this process, and not by the parent of a fork."""
        return bool(self.token) and self._process == os.getpid()

    @property
    def lost(self) -> bool:
        """Whether it was held and is not any more, without having been given back."""
        return bool(self.token) and not self.held

    @property
    def renew_at(self) -> float:
        """When to renew it, on the monotonic clock: a third of its time after the last time."""
        return self._until - self.ttl * 2 / 3

    def check(self) -> None:
        """Raise `LockLost` unless it is held."""
        if not self.held:
            raise LockLost(f"The lock {self.name!r} is not held any more.")

    # Taking it

    def acquiring(self, wait: float | None) -> Steps[None]:
        """Take it; wait at most so many seconds, with None as long as it takes.

        Raises `LockHeld` when somebody else holds it until then.
        """
        deadline = math.inf if wait is None else time.monotonic() + wait
        while True:
            began = time.monotonic()
            try:
                token: int = yield self._wanted(min(deadline - began, _LONGEST_WAIT_SECONDS))
                if time.monotonic() - began > self.ttl / 3:
                    # It was waited for: since when it is held is only known of a renewal.
                    began = time.monotonic()
                    yield self.renewal(token)
            except LockHeld:
                # It may be an earlier try that got it, whose answer was lost: nobody is told a
                # token but in that answer, and so it is waited for as if it were another's.
                if time.monotonic() < deadline - _SOON_SECONDS:
                    continue
                raise
            self.taken(token, began)
            return

    def _wanted(self, wait: float) -> ApiCall[int]:
        # The server does not remember the answer to a request that waits.
        if wait >= 0.5:
            fields = b"Prefer: wait=%d\r\n" % round(wait)
        else:
            fields = b"Idempotency-Key: %b\r\n" % chance.new_id()
        asked = {"owner": self.owner, "ttl": float(ttl_text(self.ttl))}
        call = self._posted(asked, fields)
        return call._replace(wait=max(0.0, wait))

    def renewal(self, token: int) -> ApiCall[int]:
        """Return the call that renews it."""
        asked = {"owner": self.owner, "ttl": float(ttl_text(self.ttl)), "token": str(token)}
        return self._posted(asked, b"")

    def _posted(self, asked: dict[str, Any], fields: bytes) -> ApiCall[int]:
        fields += b"Content-Type: application/json\r\n"
        data = self._requests.request(b"POST", self._path(), fields, json_body(asked))
        return ApiCall("lock", data, self._read, True)

    def _read(self, response: Response) -> int:
        shown = json_response(response, 200, 201)
        try:
            return int(shown["token"])
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("The answer tells of no lock.") from None

    def release_call(self) -> ApiCall[bool]:
        """Return the call that gives it back, and tells whether it was still held."""
        query = wire.query([("token", str(self.token))])
        data = self._requests.request(b"DELETE", self._path() + query)
        return ApiCall("unlock", data, _read_released, True)

    def _path(self) -> bytes:
        return b"/v1/locks/" + wire.key_path(self._requests.key(self.name))

    # What is known of it

    def taken(self, token: int, began: float) -> None:
        """Say that it was taken or renewed by a request that was sent at `began`."""
        self.token = token
        self._until = began + self.ttl
        self._refused = False

    def renewal_failed(self, error: KeyrackError) -> None:
        """Say that it was not renewed. By a refusal it is lost, else when its time is over."""
        if isinstance(error, Refused) and error.status in (404, 409):
            self._refused = True

    def given_back(self) -> None:
        """Say that it is not wanted any more."""
        self.token = 0


def _read_released(response: Response) -> bool:
    if response.status == 204:
        return True
    error = refused(response)
    if error.kind in ("lock-not-held", "lock-held"):
        return False
    raise error


def _owner() -> str:
    host = os.uname().nodename
    return (
        f"{host}:{os.getpid()}:{threading.get_native_id()}:{next(_numbers)}-{os.urandom(4).hex()}"
    )


def owner(requests: Requests, name: str | bytes) -> ApiCall[str | None]:
    """Ask who holds a lock; None for nobody."""
    path = b"/v1/locks/" + wire.key_path(requests.key(name))
    return ApiCall("lock", requests.request(b"GET", path), _read_owner, True)


def _read_owner(response: Response) -> str | None:
    if response.status == 404:
        error = refused(response)
        if error.kind == "lock-not-held":
            return None
        raise error
    try:
        return str(json_response(response)["owner"])
    except (KeyError, TypeError):
        raise ProtocolError("The answer tells of no lock.") from None
