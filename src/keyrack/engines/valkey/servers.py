"""Connections to the servers of a store: finding them, keeping them, and finding them again.

Nothing above this module knows whether there is one server, one of several that Sentinel names, or
a cluster: it asks for commands by slot. Nothing below knows about keys.

Commands that cannot be sent wait a little, as a server that is replaced is back in a second or two;
once it has been away for longer than the deadline, what is asked for fails at once. A command that
was sent and has no reply is never sent again: nobody knows whether it was carried out.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from libvalkey import ReplyError

from keyrack.engines.contract import StoreAway
from keyrack.engines.valkey import library
from keyrack.engines.valkey.resp import Call, Lost, ValkeyConnection, code_of, encode

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable

    from keyrack.engines.valkey.address import Address

Place = tuple[str, int]

_TICK: Final = 0.1
"""Seconds between two looks at what is late."""
_MOST_TRIES: Final = 100
_QUICK_TRIES: Final = 5
"""So many times a command goes at once where its slot is said to be; after that with pauses."""
_MOST_LOADS: Final = 3
_LOOK: Final = 1.0
"""Seconds between two questions to Sentinel who the primary is."""
_RETRY: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
_MOST_WAITING: Final = 100_000
_LATER: Final = frozenset(("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "BUSY"))
"""Replies of a server that will be able to do it soon. Nothing was done."""
_ELSEWHERE: Final = frozenset(("READONLY", "NOREPLICAS"))
_LOAD: Final = encode((b"FUNCTION", b"LOAD", library.SOURCE))

_log = logging.getLogger("keyrack.valkey")


class ServerUnfit(Exception):
    """A server was reached, and cannot be used."""


class Moving(StoreAway):
    """A shard is on its way to another server. What was asked for was not done."""

    def __init__(self) -> None:
        super().__init__("A part of the store is being moved to another server. Try again soon.")


class Login:
    """How to enter a server: name and password, TLS, and how long anything may take (seconds)."""

    def __init__(
        self, user: str, password: str, tls: ssl.SSLContext | None, timeout: float
    ) -> None:
        self.tls = tls
        self.timeout = timeout
        self._secret = [part.encode() for part in (user, password) if part]

    async def enter(
        self, place: Place, connection: ValkeyConnection, name: bytes = b"keyrack"
    ) -> None:
        """Connect to a server and say who we are."""
        loop = asyncio.get_running_loop()
        host = place[0] if self.tls else None
        await loop.create_connection(lambda: connection, *place, ssl=self.tls, server_hostname=host)
        if self._secret:
            await ask(connection, b"AUTH", *self._secret)
        await ask(connection, b"CLIENT", b"SETNAME", name)

    async def ask_sentinel(self, connection: ValkeyConnection, *parts: bytes) -> Any:
        """Ask a Sentinel, with the server's password if it wants one.

        Many want none though the server does, and would refuse one: it is not offered unasked. The
        user is the default one, as those of the server are not known there.
        """
        try:
            return await ask(connection, *parts)
        except ReplyError as error:
            if not self._secret or not str(error).startswith("NOAUTH"):
                raise
        await ask(connection, b"AUTH", self._secret[-1])
        return await ask(connection, *parts)


async def ask(connection: ValkeyConnection, *parts: bytes) -> Any:
    """Send one command on a connection that nobody else uses yet, and return the reply."""
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[Any] = loop.create_future()

    def done(answer: Any) -> None:
        if not reply.done():
            if isinstance(answer, Exception):
                reply.set_exception(answer)
            else:
                reply.set_result(answer)

    connection.send(Call(0, encode(parts), done), loop.time())
    connection.flush()
    return await reply


def information(reply: bytes) -> dict[str, str]:
    """Return what `INFO` tells, by name."""
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def reply_to(call: Call, reply: Any) -> None:
    """Give a call its reply."""
    call.done(reply)


class Link:
    """One server to which a connection is kept. `locate` says where it is, now."""

    def __init__(
        self, login: Login, locate: Callable[[], Awaitable[Place]], servers: Servers
    ) -> None:
        self._login = login
        self._locate = locate
        self._servers = servers
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Call] = deque()
        self._connection: ValkeyConnection | None = None
        self._away_since = self._loop.time()
        self.keeper = self._loop.create_task(self._connect())
        self._closed = False
        self.trouble = "there was no time yet to connect"
        self.place: Place = ("", 0)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def send(self, call: Call, now: float) -> None:
        """Send a command with the next `flush`, or when there is a connection again."""
        if self._connection is not None:
            self._connection.send(call, now)
        elif now - self._away_since > self._login.timeout or len(self._waiting) > _MOST_WAITING:
            call.done(self.away())
        else:
            self._waiting.append(call)

    def flush(self) -> None:
        """Send what there is to send."""
        if self._connection is not None:
            self._connection.flush()

    def tick(self, now: float) -> None:
        """Fail what has waited for too long."""
        limit = self._login.timeout
        if self._connection is not None and self._connection.late(now, limit):
            self.trouble = f"it gave no reply for {limit:g} seconds"
            self._connection.close()
        while self._waiting and self._waiting[0].asked < now - limit:
            self._waiting.popleft().done(self.away())

    def away(self) -> StoreAway:
        """Return what to tell those whose command cannot be sent."""
        host, port = self.place
        where = f"{host}:{port}" if port else "Valkey"
        return StoreAway(f"{where} cannot be used: {self.trouble}. Try again in a moment.")

    def drop(self, why: str) -> None:
        """Give up the connection and find the server anew."""
        self.trouble = why
        if self._connection is not None:
            self._connection.close()

    def close(self) -> None:
        """End at once."""
        for call in self.retire():
            call.done(StoreAway("The service ends."))
        if self._connection is not None:
            self._connection.close()

    def retire(self) -> list[Call]:
        """End when all replies are there; return the commands that were never sent."""
        self._closed = True
        self.keeper.cancel()
        if self._connection is not None:
            self._connection.retire()
        unsent = list(self._waiting)
        self._waiting.clear()
        return unsent

    async def _connect(self) -> None:
        pause = 0.0
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LONGEST_PAUSE, pause * 2 or _RETRY)
            try:
                async with asyncio.timeout(self._login.timeout):
                    await self._enter()
                    return
            except (OSError, TimeoutError, Lost, ReplyError, ServerUnfit, StoreAway) as error:
                self.trouble = str(error) or f"no connection in {self._login.timeout:g} seconds"
                self._servers.unreachable(self)

    async def _enter(self) -> None:
        connection = ValkeyConnection(self._replied, self._lost_before_use)
        try:
            self.place = await self._locate()
            await self._login.enter(self.place, connection)
            await self._servers.check(connection)
        except BaseException:
            connection.close()
            raise
        self._use(connection)

    def _lost_before_use(self) -> None:
        """Nobody uses it yet: those that wait in `_enter` are told by their calls."""

    def _use(self, connection: ValkeyConnection) -> None:
        now = self._loop.time()
        connection.lost = self._lost
        self._connection = connection
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            connection.send(call, now)
        connection.flush()
        _log.info("connected to %s:%d", *self.place)
        self._servers.connected(self)

    def _lost(self) -> None:
        self._connection = None
        if self._closed:
            return
        self._away_since = self._loop.time()
        _log.warning("the connection to %s:%d is lost", *self.place)
        self.keeper = self._loop.create_task(self._connect())
        self._servers.unreachable(self)

    def _replied(self, call: Call, reply: Any) -> None:
        if type(reply) is ReplyError:
            self._servers.failed(self, call, reply)
        else:
            call.done(reply)

    def load_and_retry(self, call: Call) -> None:
        """Have the library of functions loaded, and then the command done that missed it."""
        now = self._loop.time()
        self.send(Call(call.slot, _LOAD, _loaded), now)
        self.send(call, now)
        self.flush()


def _loaded(reply: Any) -> None:
    if isinstance(reply, ReplyError) and "already exists" not in str(reply):
        _log.error("the functions cannot be loaded: %s", reply)


class Servers(abc.ABC):
    """All servers of a store, whatever they are. `changed` is called when any was found anew."""

    are_a_cluster = False

    def __init__(self, address: Address, login: Login, changed: Callable[[], None]) -> None:
        self._address = address
        self._login = login
        self._changed = changed
        self.patience = login.timeout
        """Seconds for which a command that servers refuse for the moment is tried again."""
        self.on_the_move: Callable[[int], None] = lambda slot: None
        """Called when a server says that a slot is on its way to another one."""
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_TICK, self._tick)
        self._closed = False

    async def find(self) -> None:  # noqa: B027  # only a cluster has to
        """Find the servers; raises `StoreAway` when that cannot be done."""

    @abc.abstractmethod
    def link_of(self, slot: int) -> Link:
        """Return the server that holds a slot, as far as is known."""

    @abc.abstractmethod
    def links(self) -> Iterable[Link]:
        """Return all servers."""

    @abc.abstractmethod
    async def check(self, connection: ValkeyConnection) -> None:
        """Raise `ServerUnfit` when the server at the other end cannot be used now."""

    def connected(self, link: Link) -> None:
        """Take note that a server was found, again."""
        self._changed()

    def unreachable(self, link: Link) -> None:  # noqa: B027  # only a cluster looks elsewhere
        """Take note that a server could not be reached."""

    async def others_have(self, slot: int) -> bool:
        """Tell whether servers that do not own a slot have keys of it; only a cluster's can."""
        return False

    def moved(self, call: Call, code: str, where: str) -> None:
        """Send a command to where its slot is now, which only a cluster knows."""
        call.done(StoreAway(f"{where} has the key: the server is part of a cluster by now."))

    def submit(self, call: Call, now: float) -> None:
        """Send a command with the next `flush`."""
        call.asked = now
        self.link_of(call.slot).send(call, now)

    def flush(self) -> None:
        """Send everything."""
        for link in self.links():
            link.flush()

    def failed(self, link: Link, call: Call, error: ReplyError) -> None:
        """Do what an error reply asks for: go elsewhere, try again, load the library, give up."""
        code = code_of(error)
        call.tries += 1
        if code in ("TRYAGAIN", "ASK"):
            self.on_the_move(call.slot)
        again = call.tries <= _MOST_TRIES and not self._closed
        again = again and self._loop.time() - call.asked < self.patience
        if code == "TRYAGAIN" and call.divisible:
            call.done(error)
        elif not again:
            call.done(_gave_up(code, error))
        elif code in ("MOVED", "ASK"):
            self.moved(call, code, str(error).split(" ")[2])
        elif code in _LATER:
            self._loop.call_later(_RETRY, self._retry, call)
        elif code in _ELSEWHERE:
            link.drop(str(error))
            self._loop.call_later(_RETRY, self._retry, call)
        elif "unction not found" in str(error) and call.tries <= _MOST_LOADS:
            link.load_and_retry(call)
        else:
            call.done(error)

    def _retry(self, call: Call) -> None:
        link = self.link_of(call.slot)
        link.send(call, self._loop.time())
        link.flush()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_TICK, self._tick)
        now = self._loop.time()
        for link in list(self.links()):
            link.tick(now)

    async def close(self) -> None:
        """End."""
        self._closed = True
        self._timer.cancel()
        links = list(self.links())
        for link in links:
            link.close()
        await asyncio.gather(*(link.keeper for link in links), return_exceptions=True)


def _gave_up(code: str, error: ReplyError) -> Exception:
    """Return what to tell of a command that was refused to the last."""
    if code in ("TRYAGAIN", "ASK"):
        return Moving()
    if code in _LATER or code == "MOVED":
        return StoreAway(f"Valkey answers: {error}.")
    return error


class Single(Servers):
    """One server, or the one of several that Sentinel says is the primary."""

    def __init__(self, address: Address, login: Login, changed: Callable[[], None]) -> None:
        super().__init__(address, login, changed)
        watched = address.kind == "sentinel"
        self._link = Link(login, self._ask_sentinels if watched else self._fixed, self)
        self._look = self._loop.create_task(self._look_around()) if watched else None

    def link_of(self, slot: int) -> Link:
        """Return the only one."""
        return self._link

    def links(self) -> Iterable[Link]:
        """Return the only one."""
        return (self._link,)

    async def check(self, connection: ValkeyConnection) -> None:
        """Refuse a replica, a server that still loads, and a member of a cluster."""
        facts = information(await ask(connection, b"INFO"))
        if facts.get("loading") == "1":
            raise ServerUnfit("it still loads its data")
        if facts.get("role") != "master":
            raise ServerUnfit("it is a replica, not the primary")
        if facts.get("cluster_enabled") == "1":
            raise ServerUnfit("it is part of a cluster; say valkey-cluster://")

    async def _look_around(self) -> None:
        """Leave a primary that is none any more, though it may not know: it may be cut off."""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                place = await self._ask_sentinels()
            except ServerUnfit:
                continue
            if self._link.connected and place != self._link.place:
                self._link.drop(f"Sentinel says that {place[0]}:{place[1]} is the primary")

    async def close(self) -> None:
        """End."""
        await super().close()
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)

    async def _fixed(self) -> Place:
        return self._address.hosts[0]

    async def _ask_sentinels(self) -> Place:
        trouble = ""
        for place in self._address.hosts:
            try:
                async with asyncio.timeout(self._login.timeout / 2):
                    return await self._ask_sentinel(place)
            except (OSError, TimeoutError, Lost, ReplyError, ServerUnfit) as error:
                trouble = f"{place[0]}:{place[1]}: {error or 'no answer'}"
        raise ServerUnfit(f"no Sentinel names the primary ({trouble})")

    async def _ask_sentinel(self, place: Place) -> Place:
        connection = ValkeyConnection(reply_to, lambda: None)
        try:
            loop = asyncio.get_running_loop()
            host = place[0] if self._login.tls else None
            await loop.create_connection(
                lambda: connection, *place, ssl=self._login.tls, server_hostname=host
            )
            name = self._address.master.encode()
            question = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)
            reply = await self._login.ask_sentinel(connection, *question)
        finally:
            connection.close()
        if reply is None:
            raise ServerUnfit(f"it knows no {self._address.master!r}")
        return reply[0].decode(), int(reply[1])


class Cluster(Servers):
    """The primaries of a cluster; only those that hold one of `slots` are kept connected."""

    are_a_cluster = True

    def __init__(
        self,
        address: Address,
        login: Login,
        changed: Callable[[], None],
        slots: Iterable[int],
    ) -> None:
        super().__init__(address, login, changed)
        self._slots = frozenset(slots)
        self._links: dict[Place, Link] = {}
        self._map: dict[int, Link] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._again = False
        self._trouble = "none holds some of them"
        self._retired: list[Link] = []

    async def find(self) -> None:
        """Find out who holds which slot."""
        await self._refresh()
        if self._slots - self._map.keys():
            raise StoreAway(f"No server of the cluster tells where all slots are: {self._trouble}.")

    def link_of(self, slot: int) -> Link:
        """Return the primary of a slot."""
        return self._map[slot]

    def links(self) -> Iterable[Link]:
        """Return the primaries, and those that no longer are and still have to reply."""
        self._retired = [link for link in self._retired if link.connected]
        return [*self._links.values(), *self._retired]

    async def check(self, connection: ValkeyConnection) -> None:
        """Refuse a server without a cluster. Whose slots it has, its replies tell."""
        facts = information(await ask(connection, b"INFO"))
        if facts.get("cluster_enabled") != "1":
            raise ServerUnfit("it is not part of a cluster; say valkey://")

    def unreachable(self, link: Link) -> None:
        """Look who has its slots now."""
        self._refresh_soon()

    def moved(self, call: Call, code: str, where: str) -> None:
        """Send a command to where its slot is now."""
        if call.tries > _QUICK_TRIES and code == "MOVED":
            self._refresh_soon()
            self._loop.call_later(_RETRY, self._retry, call)
            return
        host, _, port = where.rpartition(":")
        link = self._link_at((host, int(port)))
        now = self._loop.time()
        if code == "ASK":
            link.send(Call(call.slot, encode((b"ASKING",)), lambda _: None), now)
        else:
            self._map[call.slot] = link
            self._refresh_soon()
        link.send(call, now)
        link.flush()

    def _link_at(self, place: Place) -> Link:
        link = self._links.get(place)
        if link is None:

            async def fixed() -> Place:
                return place

            link = self._links[place] = Link(self._login, fixed, self)
        return link

    def _refresh_soon(self) -> None:
        if self._refreshing is None and not self._closed:
            self._refreshing = self._loop.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        else:
            self._again = True

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if self._again:
            self._again = False
            self._loop.call_later(_RETRY * 4, self._refresh_soon)

    async def _refresh(self) -> None:
        places = [*self._links, *self._address.hosts]
        for place in dict.fromkeys(places):
            try:
                async with asyncio.timeout(self._login.timeout / 2):
                    self._learn(await self._ask_for_slots(place), place[0])
                    return
            except (OSError, TimeoutError, Lost, ReplyError) as error:
                self._trouble = f"{place[0]}:{place[1]}: {error or 'no answer'}"
        self._again = True

    async def _ask_for_slots(self, place: Place) -> Any:
        return await self._ask_at(place, b"CLUSTER", b"SLOTS")

    async def _ask_at(self, place: Place, *parts: bytes) -> Any:
        connection = ValkeyConnection(reply_to, lambda: None)
        try:
            await self._login.enter(place, connection)
            return await ask(connection, *parts)
        finally:
            connection.close()

    async def others_have(self, slot: int) -> bool:
        """Tell whether servers that do not own a slot have keys of it.

        Raises `StoreAway` when one of them cannot be asked.
        """
        owner = self.link_of(slot).place
        question = (b"CLUSTER", b"COUNTKEYSINSLOT", b"%d" % slot)
        try:
            async with asyncio.timeout(self._login.timeout):
                nodes = await self._ask_at(owner, b"CLUSTER", b"NODES")
                others = _primaries(nodes.decode(), owner)
                counts = await asyncio.gather(*(self._ask_at(one, *question) for one in others))
        except (OSError, TimeoutError, Lost, ReplyError) as error:
            raise StoreAway(
                f"It cannot be found out which server has the slot {slot}: {error or 'no answer'}."
            ) from None
        return any(counts)

    def _learn(self, ranges: Any, asked: str) -> None:
        before = dict(self._map)
        for first, last, primary, *_ in ranges:
            mine = [slot for slot in self._slots if first <= slot <= last]
            if mine:
                place = (primary[0] or asked.encode()).decode(), int(primary[1])
                self._map.update(dict.fromkeys(mine, self._link_at(place)))
        used = set(self._map.values())
        for place, link in list(self._links.items()):
            if link not in used:
                del self._links[place]
                self._retired.append(link)
                for call in link.retire():
                    self._retry(call)
        if before != self._map:
            self._changed()

    async def close(self) -> None:
        """End."""
        await super().close()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)


def _primaries(nodes: str, asked: Place) -> list[Place]:
    """Return where the other primaries are, of what `CLUSTER NODES` tells.

    Without those that have failed and own nothing: replicas that had the same are in their place.
    """
    places: list[Place] = []
    for line in nodes.splitlines():
        _, address, flags, *rest = line.split(" ")
        marks = flags.split(",")
        if "master" in marks and "myself" not in marks and not ("fail" in marks and not rest[5:]):
            host, _, port = address.partition("@")[0].rpartition(":")
            places.append((host or asked[0], int(port)))
    return places
