"""Commands on an engine in the test's own process, without any protocol."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from keyrack.compat import commands
from keyrack.compat.replies import CommandError
from keyrack.engines.contract import Delete
from keyrack.http.eager import at_once

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from engine_support.world import World

    from keyrack.engines.contract import Outcome, Page, Write


class DirectStore:
    """What commands may use, where everybody may do everything.

    `before_write` is called before each write: somebody else may come between there.
    """

    def __init__(self, world: World, max_value: int = 1 << 20) -> None:
        self.world = world
        self.engine: Any = world.engine.awaited
        self.max_value = max_value
        self.max_read = 8 << 20
        self.writes: list[Write] = []
        self.before_write = lambda: None

    def unix_ms(self) -> int:
        return round(time.time() * 1000)

    async def write(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        self.before_write()
        self.writes += writes
        outcomes: Sequence[Outcome] = await self.engine.write(writes)
        return outcomes

    async def page(self, prefix: bytes, after: bytes | None, limit: int) -> Page:
        page: Page = await self.engine.scan(prefix, after, limit)
        return page

    async def clear(self) -> None:
        page = await self.engine.scan(limit=1000)
        await self.write([(Delete(key),) for key, _ in page.entries])

    def turn(self, key: bytes) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()


def do(store: DirectStore, *words: bytes) -> Any:
    """Do a command; return its reply, or its error as text with a minus before it."""
    try:
        return at_once(commands.run(commands.call_of(words), store))
    except CommandError as error:
        return f"-{error}"


def do_together(store: DirectStore, *many: Sequence[bytes]) -> Any:
    """Do commands as one transaction; return what each replied."""
    try:
        calls = [commands.call_of(words) for words in many]
        replies = at_once(commands.run_together(calls, store))
    except CommandError as error:
        return f"-{error}"
    return [f"-{one}" if isinstance(one, CommandError) else one for one in replies]
