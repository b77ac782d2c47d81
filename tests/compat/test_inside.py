"""What a request leaves behind, and what it tells of, seen from inside."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import TYPE_CHECKING, Any

import pytest
from api_support.inside import Inside
from compat_support.layer import upstash_of, worker_of

from keyrack.access.grant import OPEN
from keyrack.compat.upstash import Upstash
from keyrack.http.hot_keys import HotKeys
from keyrack.http.protocol.guard import Guard
from keyrack.http.protocol.head import read
from keyrack.http.protocol.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyrack.http.answer import Answer

REQUESTS = 40
WORDS: dict[str, tuple[bytes, Any, int]] = {
    "a command": (b"/", ["SET", "k", "v"], 200),
    "a command that reads first": (b"/", ["APPEND", "k", "v"], 200),
    "a command that fails": (b"/", ["SET", "k", "v", "EX", "0"], 400),
    "a command that there is not": (b"/", ["HSET", "k"], 400),
    "a pipeline": (
        b"/pipeline",
        [["SET", "k", "v"], ["INCR", "k"], ["DEL", "k"], ["GET"], ["MGET", "k"], ["HSET"]],
        200,
    ),
    "a transaction": (b"/multi-exec", [["SET", "k", "v"], ["INCR", "k"], ["GET", "k"]], 200),
    "no json": (b"/", {}, 400),
}


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    inside = Inside(tmp_path / "store")
    yield inside
    inside.close()


@pytest.fixture
def api(inside: Inside) -> Upstash:
    return upstash_of(inside)


async def ask(api: Upstash, path: bytes, body: Any) -> Answer:
    head = read([(b"host", b"localhost"), (b"upstash-encoding", b"base64")], False, Guard())
    data = json.dumps(body).encode()
    request = Request(b"POST", b"/upstash" + path, head, data, OPEN, keep_alive=True)
    return await api.serve(request)


@pytest.mark.parametrize(("path", "body", "status"), WORDS.values(), ids=WORDS)
def test_nothing_is_left_of_a_request(
    inside: Inside, api: Upstash, path: bytes, body: Any, status: int
) -> None:
    async def run() -> int:
        for _ in range(3):
            answer = await ask(api, path, body)
            assert answer.status == status, answer
        gc.collect()
        gc.disable()
        try:
            for _ in range(REQUESTS):
                await ask(api, path, body)
            await asyncio.sleep(0)
            return gc.collect()
        finally:
            gc.enable()

    assert inside.run(run()) < REQUESTS


def test_keys_that_are_asked_for_are_counted_while_somebody_wants_to_know(inside: Inside) -> None:
    worker = worker_of(inside)
    api = Upstash(worker)
    inside.run(ask(api, b"/", ["GET", "before"]))
    worker.hot_keys = HotKeys()
    many = [["GET", "a"], ["INCR", "a"], ["MGET", "a", "b"], ["PING"]]
    inside.run(ask(api, b"/pipeline", many))
    assert worker.hot_keys.sketch.weights == {b"a": 3, b"b": 1}
