"""Word from the shards that something has changed, for a process with waiting clients.

Each shard tells its changes on a channel of its own. A process whose clients wait listens to all of
them, over a connection to each server; what was changed it then reads from the shards' events. What
is lost with a connection is made up for: a new connection counts as a change.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from libvalkey import ProtocolError, Reader, ReplyError

from keyrack.engines.contract import StoreAway
from keyrack.engines.valkey.layout import CHANNEL
from keyrack.engines.valkey.resp import Lost, ValkeyConnection, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.valkey.layout import Layout
    from keyrack.engines.valkey.servers import Link, Login, Servers

_PAUSE: Final = 0.2
_BEAT: Final = 5.0
"""Seconds between two signs of life on a connection: a dead one tells nothing."""
_PING: Final = encode((b"PING",))


class _Listener(ValkeyConnection):
    """A connection that is told things without asking."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[], None]) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        super().__init__(lambda call, reply: call.done(reply), self._end)
        self._told = told
        self._listens = False
        self.heard = True

    def listen(self, names: list[bytes]) -> None:
        """Have everything on these channels told."""
        self._listens = True
        self._reader = Reader()
        self.write(b"".join(encode((b"SSUBSCRIBE", name)) for name in names))

    def data_received(self, data: bytes) -> None:
        """Tell that something was said, not what: all of it is read from the shards."""
        if not self._listens:
            super().data_received(data)
            return
        self.heard = True
        news = False
        try:
            self._reader.feed(data)
            while (said := self._reader.gets()) is not False:
                if type(said) is ReplyError or said[0] == b"sunsubscribe":
                    self.close()
                news = news or said[0] in (b"smessage", b"ssubscribe")
        except (ProtocolError, TypeError):
            self.close()
        if news:
            self._told()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Notices:
    """Listens while it is wanted. `told` is called when something may have changed."""

    def __init__(
        self, login: Login, servers: Servers, layout: Layout, told: Callable[[], None]
    ) -> None:
        self._login = login
        self._servers = servers
        self._layout = layout
        self._told = told
        self._wanted = False
        self._tasks: dict[Any, asyncio.Task[None]] = {}

    def want(self, wanted: bool) -> None:
        """Begin to listen, or end."""
        self._wanted = wanted
        self.renew()

    def renew(self) -> None:
        """Listen to the servers as they are now."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        if not self._wanted:
            return
        channels: dict[Link, list[bytes]] = {}
        for base, slot in zip(self._layout.bases, self._layout.slots, strict=True):
            channels.setdefault(self._servers.link_of(slot), []).append(base + CHANNEL)
        for link, names in channels.items():
            self._tasks[link] = asyncio.get_running_loop().create_task(self._listen(link, names))

    async def close(self) -> None:
        """End."""
        tasks = list(self._tasks.values())
        self.want(False)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, link: Link, names: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            listener = _Listener(loop, self._told)
            try:
                async with asyncio.timeout(self._login.timeout):
                    await self._login.enter(link.place, listener, b"keyrack-watch")
                listener.listen(names)
                await self._until_dead(listener)
            except (OSError, TimeoutError, Lost, ReplyError, StoreAway):
                pass
            finally:
                listener.close()
            await asyncio.sleep(_PAUSE)

    async def _until_dead(self, listener: _Listener) -> None:
        while listener.heard:
            listener.heard = False
            listener.write(_PING)
            await asyncio.wait((listener.ended,), timeout=_BEAT)
            if listener.ended.done():
                return
