"""The kinds of client, behind one face: a test that is written once holds for all of them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import uvloop

from keyrack.client import AsyncClient, Client
from keyrack.client.address import Endpoint
from keyrack.inprocess.client import LocalClient
from keyrack.inprocess.store import OwnStore

Where: TypeAlias = str | Endpoint
"""Where a store is that clients are made for: a URL, or a store in this process."""
KINDS = ("sync", "asyncio", "uvloop")
_LOOPS: dict[str, Any] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Asked:
    """A client of some kind; its methods are called as those of `Client` are."""

    def __init__(self, client: Any, runner: asyncio.Runner | None) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if self._runner is None or not callable(method):
            return method

        def called(*given: Any, **named: Any) -> Any:
            return self.finished(method(*given, **named))

        return called

    def finished(self, result: Any) -> Any:
        """Return what an awaitable or an iterator gives, when it is over."""
        if self._runner is not None and inspect.isawaitable(result):
            return self._runner.run(_awaited(result))
        if self._runner is not None and isinstance(result, AsyncIterator):
            return iter(self._runner.run(_collected(result)))
        return result


async def _awaited(result: Any) -> Any:
    return await result


async def _collected(result: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in result]


def client_of(where: Where | None = None, **options: Any) -> Client:
    """Return a client without an event loop: of a service, or of a store in this process."""
    if isinstance(where, Endpoint) and isinstance(where.local, OwnStore):
        return LocalClient(where.local, **options)
    return Client(where, **options)


@contextmanager
def asked(kind: str, *given: Any, **named: Any) -> Iterator[Asked]:
    """Make a client of a kind, and close it afterwards."""
    if kind == "sync":
        with client_of(*given, **named) as client:
            yield Asked(client, None)
        return
    with asyncio.Runner(loop_factory=_LOOPS[kind]) as runner:
        one = AsyncClient(*given, **named)
        try:
            yield Asked(one, runner)
        finally:
            runner.run(one.aclose())
