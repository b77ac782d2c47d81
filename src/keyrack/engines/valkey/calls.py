"""Commands and calls of the library's functions, by shard; all of one turn leave together."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from libvalkey import ReplyError

from keyrack.engines.contract import StoreAway, StoreError
from keyrack.engines.valkey import library
from keyrack.engines.valkey.arguments import FUNCTIONS
from keyrack.engines.valkey.layout import MOVING
from keyrack.engines.valkey.moving import MovingShards
from keyrack.engines.valkey.resp import Call, Lost, code_of, encode
from keyrack.engines.valkey.servers import Moving

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from keyrack.engines.valkey.clock import StoreClock
    from keyrack.engines.valkey.layout import Layout
    from keyrack.engines.valkey.servers import Servers

_TROUBLE: Final = frozenset(("MISCONF", "NOREPLICAS", "LOADING", "CLUSTERDOWN", "MASTERDOWN"))
"""Replies of a server that does nothing now; somebody has to see to it."""

_log = logging.getLogger("keyrack.valkey")


class Calls:
    """Sends what was asked for in a turn of the event loop at its end.

    `timeout` (seconds) is how long a call may wait for a shard that is on the move.
    """

    def __init__(
        self, servers: Servers, layout: Layout, clock: StoreClock, timeout: float, lenient: bool
    ) -> None:
        self.servers = servers
        self.layout = layout
        self.clock = clock
        self.timeout = timeout
        self.moving = MovingShards(servers, layout, lenient)
        self.loop = asyncio.get_running_loop()
        self._senders: list[Callable[[], None]] = []
        self._flush_due = False
        self._tasks: set[asyncio.Task[None]] = set()

    # Sending

    def before_flush(self, send: Callable[[], None]) -> None:
        """Have `send` called at the end of each turn in which something was asked for."""
        self._senders.append(send)

    def flush_soon(self) -> None:
        """Send what there is at the end of this turn."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        for send in self._senders:
            send()
        self.servers.flush()

    def submit(self, call: Call) -> None:
        """Send a call, with what else is sent."""
        self.servers.submit(call, self.loop.time())
        self.flush_soon()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for; it is cancelled by `close`."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the engine failed", exc_info=error)

    async def close(self) -> None:
        """End what `run` has begun."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Asking

    def ask(self, shard: int, *parts: bytes) -> asyncio.Future[Any]:
        """Send a command to the server of a shard."""
        return self.ask_slot(self.layout.slots[shard], encode(parts))

    def ask_slot(self, slot: int, data: bytes) -> asyncio.Future[Any]:
        """Send an encoded command to the server of a slot."""
        reply: asyncio.Future[Any] = self.loop.create_future()

        def done(answer: Any) -> None:
            if reply.done():
                return
            if isinstance(answer, Exception):
                reply.set_exception(error_of(answer))
            else:
                reply.set_result(answer)

        self.submit(Call(slot, data, done))
        return reply

    async def ask_servers(self, *parts: bytes) -> list[Any]:
        """Send a command to every server that holds a shard."""
        one_of = {id(self.servers.link_of(slot)): s for s, slot in enumerate(self.layout.slots)}
        return await asyncio.gather(*(self.ask(shard, *parts) for shard in one_of.values()))

    # Functions

    def parts(
        self, shard: int, name: str, *arguments: bytes, whole: bool = False
    ) -> tuple[bytes, ...]:
        """Return a call of a function as a command; `arguments.FUNCTIONS` names the arguments."""
        names = FUNCTIONS[name]
        if len(arguments) != len(names) and "*" not in names:
            raise TypeError(f"{name} takes {', '.join(names)}: not {len(arguments)} arguments")
        return (
            b"FCALL",
            library.function(name),
            *self.moving.keys(shard, whole),
            self.clock.argument(),
            b"%d" % shard,
            b"%d" % self.layout.shards,
            *arguments,
        )

    async def function(self, shard: int, name: str, *arguments: bytes) -> Any:
        """Call a function of the library in a shard."""
        deadline, whole = self.loop.time() + self.timeout, False
        while True:
            try:
                return await self.ask(shard, *self.parts(shard, name, *arguments, whole=whole))
            except ReplyError as error:
                if code_of(error) != MOVING:
                    raise
            if self.loop.time() > deadline:
                raise Moving
            whole = await self.moving.find_out(shard)

    async def each(self, name: str, *arguments: bytes) -> list[Any]:
        """Call a function in every shard, with the same arguments."""
        return await self.each_with(name, [arguments] * self.layout.shards)

    async def each_with(self, name: str, arguments: Sequence[Sequence[bytes]]) -> list[Any]:
        """Call a function in every shard; `arguments` has those of each."""
        asked = (
            self.ask(shard, *self.parts(shard, name, *its)) for shard, its in enumerate(arguments)
        )
        replies = await asyncio.gather(*asked, return_exceptions=True)
        return [
            await self._settled(shard, name, arguments[shard], reply)
            for shard, reply in enumerate(replies)
        ]

    async def _settled(self, shard: int, name: str, arguments: Sequence[bytes], reply: Any) -> Any:
        if isinstance(reply, ReplyError) and code_of(reply) == MOVING:
            return await self.function(shard, name, *arguments)
        if isinstance(reply, BaseException):
            raise reply
        return reply


def error_of(reply: Any) -> Exception:
    """Return the exception that whoever asked is given."""
    if isinstance(reply, Lost):
        return StoreAway("The connection to Valkey was lost. Try again in a moment.")
    if isinstance(reply, ReplyError) and is_trouble(reply):
        return StoreAway(f"Valkey cannot be used now: {reply}.")
    if isinstance(reply, Exception):
        return reply
    return StoreError(f"Valkey gave a reply that nobody expected: {reply!r:.100}")


def is_trouble(error: ReplyError) -> bool:
    """Tell whether a server does nothing now, whatever it is asked for."""
    return code_of(error) in _TROUBLE
