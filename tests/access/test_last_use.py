"""When a token was last used: known to the minute, in all workers, at no cost of a hot request."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from access_support import Guarded
from api_support import Client, spread

from keyrack.access import tokens
from keyrack.access.last_use import LastUse
from keyrack.http.worker_context import WorkerContext

A, B = "3fK9aZ01", "zzzzzzzz"


def test_a_use_is_told_to_the_minute() -> None:
    uses = LastUse(2)
    assert uses.of(A) is None
    uses.note(0, A, 1_000_000_019)
    assert uses.of(A) == 1_000_000_019 - 1_000_000_019 % 60
    assert uses.of(B) is None


def test_the_latest_of_all_workers_counts() -> None:
    uses = LastUse(3)
    for worker, moment in ((0, 600), (2, 1200), (1, 900)):
        uses.note(worker, A, moment)
    assert uses.of(A) == 1200


def test_as_many_tokens_as_there_may_be_are_told_apart() -> None:
    uses = LastUse(1)
    ids = [tokens.new().id for _ in range(10_000)]
    for number, token_id in enumerate(ids):
        uses.note(0, token_id, number * 60 + 60)
    known = [uses.of(token_id) for token_id in ids]
    right = sum(moment == number * 60 + 60 for number, moment in enumerate(known))
    assert right + known.count(None) == len(ids)
    assert known.count(None) < 100


def test_one_that_was_not_used_for_longest_gives_way() -> None:
    uses = LastUse(1)
    crowd = same_place(9)
    for number, token_id in enumerate(crowd):
        uses.note(0, token_id, (number + 1) * 60)
    assert uses.of(crowd[0]) is None
    assert [uses.of(one) for one in crowd[1:]] == [(n + 2) * 60 for n in range(8)]


def same_place(count: int) -> list[str]:
    """Return ids that fall into one place."""
    found: dict[int, list[str]] = {}
    while True:
        token_id = tokens.new().id
        place = found.setdefault(LastUse._place(0, token_id), [])
        place.append(token_id)
        if len(place) == count:
            return place


def test_the_service_tells_when_a_token_was_used() -> None:
    service = Guarded(workers=2)
    who, idle = service.add("read keys:app/*"), service.add("read keys:app/*")
    with service, spread(service.server) as clients:
        before = int(time.time())
        for _ in range(3):
            clients[0].get("/get/app/a", **who.field)
        for client in clients:
            shown = client.get(f"/v1/auth/tokens/{who.id}", **service.admin.field).json
            told = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(before))
            later = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(before + 60))
            assert shown["last_used"] in (told, later)
            other = client.get(f"/v1/auth/tokens/{idle.id}", **service.admin.field).json
            assert other["last_used"] is None


def test_a_wrong_secret_is_no_use() -> None:
    service = Guarded()
    who = service.add("read keys:app/*")
    wrong = tokens.new(who.id).text
    with service, Client(service.server) as client:
        assert client.get("/get/app/a", Authorization=f"Bearer {wrong}").status == 401
        shown = client.get(f"/v1/auth/tokens/{who.id}", **service.admin.field).json
    assert shown["last_used"] is None


def test_a_header_section_is_looked_at_again_after_a_minute() -> None:
    """That is when a token whose requests are all recognised tells that it is used."""
    nothing: Any = SimpleNamespace()
    tick: Any = SimpleNamespace(now=100.0)
    worker = WorkerContext(nothing, tick, nothing, nothing, nothing, nothing)
    for name in (b"old", b"new"):
        head: Any = SimpleNamespace(denial=None, grant=None, fields=(), keep_alive=True)
        worker.remember(name, head)
        tick.now += 50
    tick.now = 159.0
    worker.forget_some(time.time())
    assert set(worker.heads) == {b"old", b"new"}
    tick.now = 161.0
    worker.forget_some(time.time())
    assert set(worker.heads) == {b"new"}
