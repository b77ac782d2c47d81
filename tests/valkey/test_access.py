"""Two services on one Valkey: who is let in by one is let in by the other, within two seconds."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from access_support import Guarded, Who
from api_support import Client, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

PROMISED_SECONDS = 2.0
PATIENCE_SECONDS = 20.0
"""A busy machine may be late; the service itself looks twice a second."""


class Both:
    """Two services with one store, and an administrator of each."""

    def __init__(self, address: str) -> None:
        flags = ("--engine", address)
        self.one = Guarded("", *flags, memory=None, workers=2)
        self.other = Guarded("", *flags, memory=None, workers=2)

    def __enter__(self) -> Both:
        self.one.__enter__()
        self.other.__enter__()
        self.here = Client(self.one.server)
        self.there = Client(self.other.server)
        return self

    def __exit__(self, *about: Any) -> None:
        self.here.close()
        self.there.close()
        self.one.__exit__(*about)
        self.other.__exit__(*about)

    def made(self, **about: Any) -> Who:
        """Make a token at the first service."""
        answer = self.here.post("/v1/auth/tokens", {"name": "t", **about}, **self.one.admin.field)
        assert answer.status == 201, answer
        return Who(answer.json["id"], answer.json["token"])


def follows(is_so: Callable[[], bool]) -> float:
    """Wait until something is so; return the seconds that took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < PATIENCE_SECONDS
        time.sleep(0.02)
    return time.monotonic() - began


def opened(both: Both, who: Who) -> Watch:
    """Watch at the other service as soon as the worker that answers knows the token."""
    found: list[Watch] = []

    def opens() -> bool:
        # Each worker looks for itself, so that another one let the token in says nothing.
        with contextlib.suppress(AssertionError):
            found.append(Watch(both.other.server, "?prefix=app/", **who.field))
        return bool(found)

    follows(opens)
    return found[0]


def test_the_other_service_follows_each_change_of_tokens(anywhere: str) -> None:
    with Both(anywhere) as both:
        waits = []
        for _ in range(3):
            who = both.made(rules=["all keys:app/*"])

            def status(token: Who = who) -> int:
                return both.there.get("/get/app/x", **token.field).status

            waits.append(follows(lambda: status() == 404))
            path = f"/v1/auth/tokens/{who.id}"
            kind = {"Content_Type": "application/merge-patch+json", **both.one.admin.field}
            rights = b'{"rules":["all keys:other/*"]}'
            assert both.here.ask("PATCH", path, rights, **kind).status == 200
            waits.append(follows(lambda: status() == 403))
            assert both.here.delete(path, **both.one.admin.field).status == 204
            waits.append(follows(lambda: status() == 401))
    assert sorted(waits)[len(waits) // 2] < PROMISED_SECONDS


def test_a_stream_at_the_other_service_ends_when_its_token_is_revoked(server: str) -> None:
    with Both(server) as both:
        who = both.made(rules=["watch keys:app/*"])
        with opened(both, who) as watch:
            watch.synced()
            path = f"/v1/auth/tokens/{who.id}"
            assert both.here.delete(path, **both.one.admin.field).status == 204
            last = watch.next()
            assert (last.event, last.data["reason"]) == ("reset", "revoked")


def test_what_one_service_changes_the_other_does_not_undo(server: str) -> None:
    with Both(server) as both:
        who = both.made(rules=["read keys:a"])
        path = f"/v1/auth/tokens/{who.id}"
        kind = {"Content_Type": "application/merge-patch+json"}
        follows(lambda: both.there.get(path, **both.other.admin.field).status == 200)
        seen = both.there.get(path, **both.other.admin.field)["etag"]
        here = both.here.ask("PATCH", path, b'{"name":"n"}', **kind, **both.one.admin.field)
        assert here.status == 200
        # The other service need not have heard of it yet: the store refuses what it has not seen.
        stale = {"If_Match": seen, **kind, **both.other.admin.field}
        assert both.there.ask("PATCH", path, b'{"name":"m"}', **stale).status == 412
        both.there.ask("PATCH", path, b'{"watches":3}', **kind, **both.other.admin.field)
        shown = both.there.get(path, **both.other.admin.field).json
        assert (shown["name"], shown["watches"]) == ("n", 3)
