"""A service under a storm: clients that note what they saw, while workers are killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_support.driven import embedded
from keyrack_server import ENGINE, ON_VALKEY, Server, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from engine_support.driven import Driven
    from keyrack_server import Answer, Wire


ROUNDS = int(os.environ.get("KEYRACK_TEST_ROUNDS", "1"))
"""How many times as long as in a plain run the storms last."""
_MEMORY = 512 << 20
_OLD = 1.1
"""Seconds after which the supervisor no longer thinks that a worker died young."""
_YOUNG = 0.03
_HANGS = 30.0
"""Seconds after which a client that gets no answer says that the service hangs."""


class Service(Server):
    """A server whose workers are expected to be killed, and nothing else to go wrong."""

    def complaints(self) -> list[dict[str, Any]]:
        """Return what was logged above `info`, without the deaths that we have caused."""
        return [
            line
            for line in super().complaints()
            if "was killed by SIGKILL" not in line["message"]
            # Chance may kill one worker twice within a second.
            and line.get("event") != "worker_taken_out"
        ]

    def kill_worker(self, chance: random.Random) -> int:
        """Kill one of the workers, and return its process id; 0 if there is none to be killed.

        Seldom one that has only begun: the supervisor lets those rest that keep dying young, and
        then there would be nobody left to kill.
        """
        old = [pid for pid in self.worker_pids() if chance.random() < _YOUNG or _age(pid) > _OLD]
        if not old:
            return 0
        victim = chance.choice(old)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return victim


def _age(pid: int) -> float:
    """Seconds since a process was started, 0 when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    started = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


@contextlib.contextmanager
def service(workers: int, *flags: str) -> Iterator[tuple[Service, str]]:
    """Serve from a named store; afterwards the store's audit must find nothing wrong."""
    with store() as directory:
        with Service("--store", directory, *flags, workers=workers, memory="512m") as server:
            yield server, directory
        assert audit(directory) == []


@contextlib.contextmanager
def store() -> Iterator[str]:
    """Make a directory for a store in memory, where there is any."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="test-of-keyrack-", dir=where) as directory:
        yield directory


@contextlib.contextmanager
def opened(directory: str) -> Iterator[Driven]:
    """Open a store beside or after its service."""
    engine = _open(directory)
    try:
        yield engine
    finally:
        engine.close()


def _open(directory: str) -> Driven:
    if ON_VALKEY:
        from valkey_support.store import opened_for  # not for tests that do without

        return opened_for(ENGINE, directory)
    return embedded(directory, _MEMORY)


def audit(directory: str) -> list[str]:
    """Return what is wrong in a store."""
    with opened(directory) as engine:
        return engine.check()


class Client:
    """One connection, made anew whenever it is lost. Not for more than one thread."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._wire: Wire | None = None
        self.lost = 0

    def ask(
        self, method: str, target: str, body: bytes | None = None, **fields: str
    ) -> Answer | None:
        """Send a request; None when the connection ends without a whole answer."""
        data = request(method, target, body, **fields)
        try:
            if self._wire is None:
                self._wire = self._server.connect(_HANGS)
            answer = self._wire.ask(data)
        except TimeoutError:
            raise AssertionError(f"no answer for {_HANGS:g} seconds: {data!r}") from None
        except (EOFError, OSError):
            self.lost += 1
            self.close()
            return None
        if answer.closes:
            self.close()
        return answer

    def insist(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Answer:
        """Send a request again and again until it is answered."""
        while (answer := self.ask(method, target, body, **fields)) is None:
            pass
        return answer

    def close(self) -> None:
        """Close; the next request opens a connection of its own."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class Killer:
    """Kills a worker now and then while the block lasts: `with Killer(server, 0.5, seed):`.

    `pause` is the mean of the seconds between two kills.
    """

    def __init__(self, server: Service, pause: float, seed: int) -> None:
        self._server = server
        self._pause = pause
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer")
        self.kills = 0

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._chance.uniform(0.2, 1.8) * self._pause):
            self.kills += bool(self._server.kill_worker(self._chance))


def in_threads(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do all works at the same time; return what they returned, or raise what one raised."""
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            results[number] = works[number]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until a condition holds; return how many seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} seconds: {what}"
        time.sleep(0.002)
    return time.monotonic() - began
