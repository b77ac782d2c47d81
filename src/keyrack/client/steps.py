"""Work that takes several calls, written once for both kinds of client.

Such work is a generator: it yields the next `ApiCall`, or a `Pause`, and is sent what came of it.
An error of a call is raised where it was yielded. `Sender.run` and `AsyncSender.run` drive it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from keyrack.client import chance
from keyrack.client.calls import ApiCall
from keyrack.client.errors import Conflict, Timeout
from keyrack.client.keys import UNCHANGED, Keep, Unchanged, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.client.keys import KeyCalls

T = TypeVar("T")

NOTHING: Final = '"0"'
"""The ETag of a key that is missing: no key has it, so a wait for a change of it ends with one."""
_LONGEST_WAIT_SECONDS: Final = 60.0
_FIRST_PAUSE_SECONDS: Final = 0.005


class Pause(NamedTuple):
    """So many seconds in which nothing is asked."""

    seconds: float


Steps: TypeAlias = Generator[ApiCall[Any] | Pause, Any, T]


def update(
    keys: KeyCalls,
    key: str | bytes,
    change: Callable[[Any], Any],
    attempts: int,
    ttl: float | Keep | None,
) -> Steps[Any]:
    """Read a key, store what `change` makes of its value if nobody was faster, else do it again."""
    conflict: Conflict | None = None
    for attempt in range(attempts):
        if attempt:
            # Jitter lets those that met once go on one after the other.
            yield Pause(chance.uniform(0, _FIRST_PAUSE_SECONDS * 2 ** min(attempt, 7)))
        stored: Value | None = yield keys.get_value(key, None, None)
        name = keys.requests.key(key)
        before = None if stored is None else keys.loads(stored.data, stored.media_type, name)
        after = change(before)
        left = None if stored is None else stored.ttl
        kept = left if isinstance(ttl, Keep) else ttl
        match, none_match = (None, "*") if stored is None else (stored.etag, None)
        try:
            yield keys.set(key, after, ttl=kept, if_match=match, if_none_match=none_match)
        except Conflict as error:
            conflict = error
        else:
            return after
    assert conflict is not None, "there is at least one attempt"
    raise conflict


def wait(
    keys: KeyCalls, key: str | bytes, until: str, etag: str | None, timeout: float
) -> Steps[Value | None]:
    """Wait until a key exists, is gone, or differs from `etag`. Raises `Timeout`."""
    if until not in ("exists", "gone", "changes"):
        raise ValueError(f'until is "exists", "gone" or "changes", not {until!r}.')
    deadline = time.monotonic() + timeout
    known: str | None = NOTHING if until == "exists" else etag
    while True:
        left = deadline - time.monotonic()
        if known is None:  # the state to differ from is the present one
            found: Value | Unchanged | None = yield keys.get_value(key, None, None)
        else:
            found = yield keys.get_value(key, known, max(1.0, min(left, _LONGEST_WAIT_SECONDS)))
        if found is not UNCHANGED:
            value = None if isinstance(found, Unchanged) else found
            if until == "gone" and value is None:
                return None
            missing = value is None and known == NOTHING
            if until != "gone" and known is not None and not missing:
                return value
            known = NOTHING if value is None else value.etag
        if time.monotonic() >= deadline:
            raise Timeout(f"Nothing of that kind happened to {key!r} within {timeout:g} s.")
