"""What is said to the server by who takes stale values and recomputes keys, and what it answers.

A read that offers to recompute a key comes back with one of: a value; the lease to compute it, with
or without a stale value; or nothing, because somebody else computes it and that took too long.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.client import chance, say, wire
from keyrack.client.calls import ApiCall, ends_query
from keyrack.client.errors import KeyrackError
from keyrack.client.keys import raise_unless_missing
from keyrack.client.refusals import refused

if TYPE_CHECKING:
    from keyrack.client.keys import KeyCalls
    from keyrack.client.wire import Response

MISSING: Final = object()
"""In place of a value: there is none."""
SLACK_SECONDS: Final = 1.0
"""How much longer the read of somebody else in this process may take than the server waits."""
_TOKEN: Final = re.compile(r'"(\d{1,19})"')
_LEASE_LOST: Final = "lease-lost"


class CachePolicy(NamedTuple):
    """How long a computed value is kept, and how its recomputation is shared. All in seconds."""

    ttl: float | None
    stale: float | None = None
    """For how long after the TTL others are served the old value while one computes the new."""
    lease: float = 15.0
    """For how long others leave the computation to the one that has begun it."""
    wait: float = 5.0
    """How long to wait for what somebody else computes, where there is no old value."""
    early: float = 0.0
    """How long before the end a value is computed anew already."""
    stale_if_error: bool = False
    """Whether the old value does where the computation fails."""

    def check(self) -> CachePolicy:
        """Return the policy. Raises `ValueError` for one that cannot be."""
        if self.stale is not None and self.ttl is None:
            raise ValueError("stale= needs ttl=: what does not end is never stale.")
        if not 0 < self.lease <= 300:
            raise ValueError("lease= is more than 0 and at most 300 seconds.")
        if self.wait < 0 or self.early < 0:
            raise ValueError("wait= and early= are no less than 0.")
        return self


class Found(NamedTuple):
    """What there is of a key: a value or `MISSING`, and the token of the lease, if that is ours."""

    value: Any
    token: str | None


def look(keys: KeyCalls, key: str | bytes, policy: CachePolicy) -> ApiCall[Found]:
    """Read a key, and offer to compute it."""
    name = keys.requests.key(key)
    wait = math.ceil(policy.wait)
    fields = b"Prefer: recompute=%d" % max(1, math.ceil(policy.lease))
    if policy.early:
        fields += b", early=%d" % math.ceil(policy.early)
    if wait:
        fields += b", wait=%d" % wait
    data = keys.requests.on_key(b"GET", name, fields + b"\r\n")
    read = partial(_found, keys, name)
    # Sent again after its answer was lost, it finds the lease taken: by itself, which ends.
    return ApiCall("get_or_compute", data, read, True, float(wait))


def _found(keys: KeyCalls, key: bytes, answer: Response) -> Found:
    match = _TOKEN.match(answer.field(b"Keyrack-Recompute") or "")
    token = None if match is None else match[1]
    if answer.status != 200:
        raise_unless_missing(answer)
        return Found(MISSING, token)
    media_type = answer.field(b"Content-Type") or ""
    try:
        return Found(keys.loads(answer.body, media_type, key), token)
    except KeyrackError:
        if token is None:
            raise
        return Found(MISSING, token)  # what nobody can read is computed anew


def fill(
    keys: KeyCalls, key: str | bytes, value: Any, policy: CachePolicy, token: str | None
) -> ApiCall[bool]:
    """Store what was computed, and tell whether it is there: not where the lease was lost."""
    name = keys.requests.key(key)
    body, kind = keys.serializer.dumps(value, name)
    fields = wire.field("Content-Type", kind) if kind else b""
    if token is not None:
        fields += b'Keyrack-Recompute: "%b"\r\n' % token.encode()
        fields += b"Idempotency-Key: %b\r\n" % chance.new_id()
    data = keys.requests.put(name, ends_query(policy.ttl, policy.stale), fields, body)
    return ApiCall("get_or_compute", data, _stored, True)


def _stored(answer: Response) -> bool:
    if answer.status in (201, 204):
        return True
    error = refused(answer)
    if error.kind != _LEASE_LOST:
        raise error
    return False


def give_up(keys: KeyCalls, key: str | bytes, token: str) -> ApiCall[None]:
    """Give a lease back: the next one computes the key at once."""
    target = b"/v1/leases/%b?token=%b" % (wire.key_path(keys.requests.key(key)), token.encode())
    return ApiCall("get_or_compute", keys.requests.request(b"DELETE", target), _given_up, True)


def _given_up(answer: Response) -> None:
    if answer.status != 204:
        error = refused(answer)
        if error.kind != _LEASE_LOST:
            raise error


def not_stored(key: str | bytes, error: KeyrackError) -> None:
    """Tell that a value was computed and could not be stored: whoever wanted it has it."""
    say.warning("What was computed for %r could not be stored: %s", key, error)


def not_given_up(key: str | bytes, error: KeyrackError) -> None:
    """Tell that a lease could not be given back, which ends by itself."""
    say.warning("The lease to compute %r could not be given back: %s", key, error)
