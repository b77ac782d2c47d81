"""Writers that know what their own keys must hold, while something happens to the servers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import (
    ANY,
    Add,
    Condition,
    Delete,
    Refusal,
    Set,
    Space,
    StoreAway,
    Why,
)
from valkey_support.engines import attempt, value_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from keyrack.engines.contract import Operation, Outcome
    from keyrack.engines.valkey.engine import ValkeyEngine

NEW: Final = Condition(none_match=ANY)


class Load:
    """A writer for each key; `refused` counts by reason what was not done."""

    def __init__(self, engine: ValkeyEngine, keys: Sequence[bytes]) -> None:
        self._engine = engine
        self._keys = keys
        self._tasks: list[asyncio.Task[None]] = []
        self._running = False
        self.values: dict[bytes, bytes | None] = dict.fromkeys(keys)
        """What each key holds, by what was acknowledged."""
        self.done = 0
        self.refused: dict[Why, int] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write until the block ends. Raises what any of the writers has found to be wrong."""
        self._running = True
        self._tasks = [asyncio.ensure_future(self._write(key)) for key in self._keys]
        try:
            yield
        finally:
            self._running = False
            await asyncio.gather(*self._tasks)

    async def _write(self, key: bytes) -> None:
        chance = random.Random(key)
        while self._running:
            await self._one(key, chance)
            await asyncio.sleep(0.002)

    async def _one(self, key: bytes, chance: random.Random) -> None:
        before = self.values[key]
        new = b"%d" % chance.randrange(1000)
        added = b"%d" % (int(before or 0) + 1)
        operation, after, held = chance.choice((
            (Set(key, new), new, False),
            (Set(key, new, condition=NEW), new, before is not None),
            (Delete(key), None, False),
            (Add(key, 1), added, False),
            (Set(key, b"me", ttl_ms=600_000, condition=NEW, space=Space.LOCKS), before, False),
        ))  # fmt: skip
        outcome = await self._attempt(operation)
        if isinstance(outcome, tuple):
            assert not held, f"{key!r} was set anew, and held {before!r}"
            self.values[key] = after
            if operation == Set(key, b"me", ttl_ms=600_000, condition=NEW, space=Space.LOCKS):
                await self._release(key)
            else:
                assert outcome[0].existed == (before is not None), (operation, before)
        elif outcome.why is Why.CONDITION:
            assert held, f"{operation} was refused, and {key!r} held {before!r}"
        elif outcome.why is Why.AWAY:
            assert await self._value(key) in (before, after)
            self.values[key] = await self._value(key)
        assert await self._value(key) == self.values[key]

    async def _attempt(self, operation: Operation) -> Outcome:
        outcome = await attempt(self._engine, operation)
        if isinstance(outcome, Refusal):
            self.refused[outcome.why] = self.refused.get(outcome.why, 0) + 1
        else:
            self.done += 1
        return outcome

    async def _release(self, name: bytes) -> None:
        """Take the lock's second owner's part, who must not get it, and give it back."""
        other = Set(name, b"another", ttl_ms=600_000, condition=NEW, space=Space.LOCKS)
        second = await self._attempt(other)
        assert isinstance(second, Refusal), f"the lock {name!r} has two owners"
        while isinstance(await self._attempt(Delete(name, space=Space.LOCKS)), Refusal):
            await asyncio.sleep(0.02)

    async def _value(self, key: bytes) -> bytes | None:
        while True:
            with contextlib.suppress(StoreAway):
                return await value_of(self._engine, key)
            await asyncio.sleep(0.02)

    async def prove(self) -> None:
        """Make sure that everything is as it was acknowledged."""
        assert await self._engine.check() == []
        kept = {key: value for key, value in self.values.items() if value is not None}
        page = await self._engine.scan(limit=10_000)
        assert {key: record.value for key, record in page.entries} == kept
        assert await self._engine.count(b"", None, 10_000) == (len(kept), None)
        assert not set(self.refused) & {Why.BROKEN, Why.FULL}
