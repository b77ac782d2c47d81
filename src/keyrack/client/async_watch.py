"""Watches of a client on an event loop, and mirrors, which are kept by a task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keyrack.client import say
from keyrack.client.attempt import NoAnswer, fed
from keyrack.client.errors import HistoryGone, KeyrackError, ProtocolError, Refused, Timeout
from keyrack.client.mirroring import MirrorState
from keyrack.client.watching import (
    SILENCE_SECONDS,
    Reset,
    Synced,
    Watching,
    WatchItem,
    ends_a_watch,
)

if TYPE_CHECKING:
    from types import TracebackType

    from keyrack.client.async_sending import AsyncSender


class AsyncWatch(AsyncIterator[WatchItem]):
    """An iterator of changes that goes on where it was when its connection breaks.

    It is for one task. One that is cancelled while it waits for the next change, by a timeout for
    instance, can go on with it afterwards: nothing is lost.
    """

    def __init__(self, sender: AsyncSender, watching: Watching) -> None:
        self._sender = sender
        self._watching = watching
        self._closed = False
        self._items = self._run()

    @property
    def position(self) -> int | None:
        """The revision up to which it was told; None before anything was."""
        return self._watching.position

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> WatchItem:
        try:
            return await anext(self._items)
        except asyncio.CancelledError:
            # All that came was told; what comes next is asked for from there.
            self._items = self._run()
            raise

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it, and close its connection."""
        self._closed = True
        await self._items.aclose()

    async def _run(self) -> AsyncGenerator[WatchItem, None]:
        while not self._closed:
            try:
                if self._watching.must_list:
                    async for item in self._listing():
                        yield item
                async for item in self._stream():
                    yield item
            except HistoryGone as error:
                self._watching.lost(error)
            except Refused as error:
                if ends_a_watch(error):
                    raise
                say.info("A watch is asked for again: %s", error)
            except KeyrackError as error:
                say.info("A watch goes on after its connection broke: %s", error)
            await asyncio.sleep(self._watching.backoff())

    async def _listing(self) -> AsyncIterator[WatchItem]:
        watching, revision = self._watching, 0
        for prefix in watching.prefixes:
            after = None
            while True:
                page = await self._sender.send(watching.page(prefix, after))
                if not revision:
                    # What changes while later pages are read is told again by the stream.
                    revision = page.revision
                    yield Reset(revision)
                for item in watching.listed(page):
                    yield item
                after = page.after
                if after is None:
                    break
        watching.position = revision
        yield Synced(revision)

    async def _stream(self) -> AsyncIterator[WatchItem]:
        async with self._sender.opened(self._watching.request()) as (connection, body, data):
            try:
                while True:
                    for item in self._watching.feed(fed(body, data)):
                        yield item
                    if body.done or self._watching.must_list:
                        return
                    data = await connection.read(time.monotonic() + SILENCE_SECONDS)
                    if not data:
                        return
            except (OSError, ProtocolError) as error:
                raise NoAnswer(error, sent=True, begun=True) from error


class AsyncMirror(Mapping[str, Any]):
    """A mapping of the keys under a prefix that keeps itself up to date, as fast as a dict.

    Keys are without the prefix. It is filled by a task, and told of changes as they happen; while
    the service cannot be reached it stays as it was. `aclose` ends it.
    """

    def __init__(self, sender: AsyncSender, watch: AsyncWatch, prefix: str) -> None:
        self._watch = watch
        self._state = MirrorState(prefix)
        self._news = asyncio.Event()
        self._failure: BaseException | None = None
        self._task = asyncio.create_task(self._run(), name="keyrack-mirror")
        sender.background.add(self._task)
        self._task.add_done_callback(sender.background.discard)

    def __getitem__(self, key: str) -> Any:
        return self._state.values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._state.values))

    def __len__(self) -> int:
        return len(self._state.values)

    async def __aenter__(self) -> AsyncMirror:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def revision(self) -> int:
        """Up to which revision it is right; 0 before it was filled."""
        return self._state.revision

    async def wait_synced(self, timeout: float = 10.0, *, revision: int = 1) -> None:
        """Wait until it is filled, and right up to a revision. Raises `Timeout`."""
        try:
            async with asyncio.timeout(timeout):
                while self._state.revision < revision:
                    if self._failure is not None:
                        raise self._failure
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            if isinstance(error, Timeout):
                raise
            raise Timeout(f"The mirror was not filled within {timeout:g} s.") from None

    async def aclose(self) -> None:
        """End it. What it holds stays as it is."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._watch.aclose()

    async def _run(self) -> None:
        try:
            async for item in self._watch:
                if self._state.apply(item):
                    self._news.set()
        except Exception as error:
            say.warning("A mirror has ended, and stays as it is: %s", error)
            self._failure = error
            self._news.set()
