"""Engines as tests call them: each answer is there when the call returns.

The contract is awaited; tests are no coroutines. What drives an engine is given by its world: the
embedded engine never suspends, so its coroutines are run to their end at once, and one that did
suspend fails its test.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from keyrack.engines.embedded import EmbeddedEngine
from keyrack.http import eager

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from keyrack.engines.contract import Event


class Driven:
    """An engine whose coroutines are driven by `run`; everything else is the engine's own."""

    def __init__(self, engine: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.__dict__.update(awaited=engine, run=run)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.awaited, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *about, **more: self.run(found(*about, **more))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.awaited, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.awaited, name)

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield the known events with a revision above `after`, oldest first."""
        while found := self.events_after(after, 1):
            yield from found
            after = found[-1].revision


def embedded(*where: Any, **how: Any) -> Any:
    """Open a store with the embedded engine (the arguments are its own) for a test."""
    return Driven(EmbeddedEngine(*where, **how), eager.at_once)
