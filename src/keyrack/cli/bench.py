"""`keyrack bench`: load a service with reads and writes, and say how long they took."""

from __future__ import annotations

import selectors
import socket
import time
from array import array
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from keyrack.cli import asking, kinds
from keyrack.cli.exposition import Between, Look
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer, pairs
from keyrack.cli.spec import CONFLICT, DONE, Command, Example, Flag
from keyrack.cli.target import target_of
from keyrack.client import KeyrackError, chance
from keyrack.client.errors import ProtocolError, Unreachable
from keyrack.client.wire import PipelineReader

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service
    from keyrack.client.address import Endpoint

_LOOPBACK: Final = ("127.", "localhost", "::1")
_READ_BYTES: Final = 1 << 18
_BATCHES: Final = 256
"""Prepared groups of requests, which connections send one after the other, round and round."""
COMMAND = Command(
    "Load a service with reads and writes of keys below a prefix of its own, which are removed at "
    "the end, and say how long requests took. One process asks, so a service with several workers "
    "is not brought to its end by it. Services of other machines are refused without --i-know.",
    flags=(
        Flag(("-s", "--seconds"), "how long [default: 3s]", "TIME", kinds.some_seconds, 3.0),
        Flag(("-c", "--connections"), "how many [default: 8]", "NUMBER", kinds.some, 8),
        Flag(("--pipeline",), "requests at once on each [default: 1]", "NUMBER", kinds.some, 1),
        Flag(("--size",), "bytes of a value, like 32 or 1k [default: 32]", "SIZE", kinds.size, 32),
        Flag(("--keys",), "how many keys there are [default: 1000]", "NUMBER", kinds.some, 1000),
        Flag(("--reads",), "how many of 100 requests read [default: 90]", "N", kinds.whole, 90),
        Flag(("--i-know",), "also where the service is on another machine"),
    ),
    writes=True,
    codes=((CONFLICT, "some answers were errors"),),
    examples=(
        Example(
            "Short, for a look; `-o json` has all of it:",
            "keyrack bench --seconds 200ms -o json | grep -o '\"errors\": 0'",
            '"errors": 0',
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Load it, and print what came of it."""
    target = target_of(given)
    host = urlsplit(target.url).hostname or ""
    if not (given.i_know or target.uds or host.startswith(_LOOPBACK)):
        raise Misused(f"{host} is not this machine: say --i-know if you mean it.")
    if given.reads > 100:
        raise Misused("--reads is a number from 0 to 100.")
    return asking.ask(given, lambda service: _measured(service, given))


def _measured(service: Service, given: argparse.Namespace) -> int:
    prefix = f"keyrack-bench-{chance.new_id()[:12].decode()}/"
    load = _Load(service, given, prefix)
    try:
        load.fill()
        before = _look(service)
        load.run()
        after = _look(service)
    finally:
        load.close()
        service.delete_prefix(prefix)
    found = load.report()
    if before is not None and after is not None:
        between = Between(before, after)
        found["server_cpu"] = round(between.rate("keyrack_worker_cpu_seconds_total"), 3)
    shown = dict(found)
    for name in ("p50", "p99", "p99.9", "longest"):
        shown[name] = f"{found[name] * 1e6:,.0f} µs"
    Printer(given, "table").document(found, pairs(shown))
    return CONFLICT if found["errors"] else DONE


def _look(service: Service) -> Look | None:
    """Return the numbers of the service, None where they may not be read."""
    try:
        return Look(service.text("/metrics"), time.monotonic())
    except KeyrackError:
        return None


class _Load:
    """Connections that ask as fast as they are answered. Times are in seconds."""

    def __init__(self, service: Service, given: argparse.Namespace, prefix: str) -> None:
        self._service = service
        self._given = given
        self._prefix = prefix
        self._groups = [self._group(number) for number in range(_BATCHES)]
        self._times = array("d")
        self._errors = 0
        self._seconds = 0.0
        self._selector = selectors.DefaultSelector()
        self._connections: list[_Connection] = []

    def fill(self) -> None:
        """Store every key once, so that reads find something."""
        value = b"x" * self._given.size
        names = [self._key(number) for number in range(self._given.keys)]
        for at in range(0, len(names), 500):
            self._service.set_many(dict.fromkeys(names[at : at + 500], value))

    def run(self) -> None:
        """Ask until the time is over."""
        for number in range(self._given.connections):
            connection = _Connection(self._service.endpoint, number)
            self._connections.append(connection)
            self._selector.register(connection, selectors.EVENT_READ, connection)
        began = time.perf_counter()
        end = began + self._given.seconds
        for connection in self._connections:
            connection.send(self._groups, self._given.pipeline)
        # However short the time is, something is answered: a machine may be busy.
        while time.perf_counter() < end or (not self._times and time.perf_counter() < end + 10):
            for key, _ in self._selector.select(0.1):
                self._take(key.data)
        self._seconds = time.perf_counter() - began

    def _take(self, connection: _Connection) -> None:
        answers = connection.receive()
        if answers is None:
            return
        now = time.perf_counter()
        self._errors += sum(answer.status >= 400 for answer in answers)
        self._times.extend([now - connection.began] * len(answers))
        connection.send(self._groups, self._given.pipeline)

    def report(self) -> dict[str, Any]:
        """Return what was measured."""
        times = sorted(self._times)
        count = len(times)
        if not count:
            raise Unreachable("No request was answered in the whole time.")
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
        return {
            "requests": count,
            "per_second": round(count / self._seconds, 1),
            "errors": self._errors,
            **{name: times[min(count - 1, int(share * count))] for name, share in shares.items()},
            "longest": times[-1],
            "connections": self._given.connections,
            "pipeline": self._given.pipeline,
            "value_bytes": self._given.size,
            "reads_of_100": self._given.reads,
        }

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()
        self._selector.close()

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:08}"

    def _group(self, number: int) -> bytes:
        """Return the bytes of as many requests as are sent at once."""
        value = b"x" * self._given.size
        requests = []
        for place in range(self._given.pipeline):
            at = number * self._given.pipeline + place
            key = self._key(at * 7919 % self._given.keys).encode()
            reads = (at * 37) % 100 < self._given.reads
            requests.append(self._service.load_request(key, None if reads else value))
        return b"".join(requests)


class _Connection:
    """One connection: a group of requests goes out, and its answers come in."""

    def __init__(self, endpoint: Endpoint, number: int) -> None:
        self._socket = _connected(endpoint)
        self._next = number
        self._reader = PipelineReader([False])
        self.began = 0.0

    def fileno(self) -> int:
        """Return the number of its socket."""
        return self._socket.fileno()

    def send(self, groups: list[bytes], count: int) -> None:
        """Send the next group."""
        self._reader = PipelineReader([False] * count)
        self.began = time.perf_counter()
        try:
            self._socket.sendall(groups[self._next % len(groups)])
        except OSError as error:
            raise ProtocolError(f"A connection broke: {error.strerror}.") from None
        self._next += 1

    def receive(self) -> list[Any] | None:
        """Take what has come; return all answers when they are there. Raises `KeyrackError`."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except OSError as error:
            raise ProtocolError(f"A connection broke: {error.strerror}.") from None
        if not data:
            raise ProtocolError("The service closed a connection in the middle.")
        self._reader.feed(data)
        return self._reader.answers if self._reader.done else None

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _connected(endpoint: Endpoint) -> socket.socket:
    try:
        if endpoint.uds is not None:
            made = socket.socket(socket.AF_UNIX)
            made.connect(endpoint.uds)
            return made
        made = socket.create_connection((endpoint.host, endpoint.port), 5.0)
    except OSError as error:
        raise Unreachable(f"{endpoint.shown} cannot be reached: {error.strerror}.") from None
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if endpoint.tls is not None:
        return endpoint.tls.wrap_socket(made, server_hostname=endpoint.host)
    return made
