"""What is done on Valkey is freed by its last reference: a worker seldom looks for cycles."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest
from valkey_support.engines import opened, run

from keyrack.engines.contract import ANY, Add, Condition, Delete, Set, Space

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from keyrack.engines.valkey.engine import ValkeyEngine

_ROUNDS = 20

OPERATIONS: dict[str, Callable[[ValkeyEngine], Awaitable[object]]] = {
    "get": lambda engine: engine.get(b"k"),
    "get what is missing": lambda engine: engine.get(b"missing"),
    "get many": lambda engine: engine.get_many([b"k", b"n", b"missing"]),
    "set": lambda engine: engine.write([(Set(b"k", b"v" * 1000),)]),
    "set many, each by itself": lambda engine: engine.write(
        [(Set(b"k%d" % number, b"v" * 1000),) for number in range(300)]
    ),
    "set more than a piece": lambda engine: engine.write([(Set(b"large", b"v" * 3_000_000),)]),
    "set what is refused": lambda engine: engine.write(
        [(Set(b"k", b"v", condition=Condition(none_match=ANY)),)]
    ),
    "add": lambda engine: engine.write([(Add(b"number", 1),)]),
    "delete": lambda engine: engine.write([(Delete(b"n"),)]),
    "scan": lambda engine: engine.scan(b"k", limit=10),
    "count": lambda engine: engine.count(b"k", None, 100),
    "sizes": lambda engine: engine.sizes_of([b"k", b"n"]),
    "history": lambda engine: engine.history(),
    "events": lambda engine: engine.events_after(0, 10),
    "expire": lambda engine: engine.expire(10),
    "tokens": lambda engine: engine.all_of(Space.ADMIN),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_leaves_no_cycles(anywhere: str, name: str) -> None:
    async def work() -> int:
        async with opened(anywhere) as engine:
            await engine.write([(Set(b"k", b"v"),)])
            await OPERATIONS[name](engine)
            gc.collect()
            gc.disable()
            try:
                for _ in range(_ROUNDS):
                    await asyncio.gather(*(OPERATIONS[name](engine) for _ in range(3)))
                await asyncio.sleep(0.05)
                return gc.collect()
            finally:
                gc.enable()

    assert run(work()) < _ROUNDS
