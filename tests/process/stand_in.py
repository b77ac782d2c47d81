"""A supervisor with stand-ins for workers: `stand_in.py BEHAVIOUR WORKERS [SHUTDOWN [WORKER]]`.

The last two are `shutdown_timeout` and `worker_timeout`. Everything it does is told in JSON log
lines on standard error.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keyrack.server import logs
from keyrack.server.listeners import open_listeners
from keyrack.server.processes import Patience, Shared
from keyrack.server.signals import Signals
from keyrack.server.succession import Links
from keyrack.server.supervisor import Supervisor
from keyrack.settings import Settings
from keyrack.shared.counters import STARTS, Counters

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from keyrack.server.store import Work
    from keyrack.server.worker_spec import WorkerSpec

    Worker = Callable[[int, list[socket.socket], Counters, int], None]

_log = logging.getLogger("stand_in")
_PATIENT = Patience(
    startup=0.5 if sys.argv[1] == "silent" else 10.0,
    young=0.5,
    delay=0.05,
    longest_delay=0.2,
    grace=0.2,
)


def entry(spec: WorkerSpec) -> None:
    """Behave as the command line says."""
    slot, counters = spec.slot, spec.counters
    counters.slot(slot)[STARTS] += 1
    told("started", slot=slot, life=counters.slot(slot)[STARTS])
    BEHAVIOURS[sys.argv[1]](slot, spec.listeners, counters, spec.lifeline)


def serve(slot: int, listeners: list[socket.socket], counters: Counters, lifeline: int) -> None:
    """Answer each connection with the process id, until told to end or the lifeline ends."""
    reader, writer = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: _write(writer, number))
    sources: list[Any] = [reader, lifeline, *listeners]
    counters.set_ready(slot)
    while True:
        ready, _, _ = select.select(sources, [], [])
        if lifeline in ready:
            return told("lifeline", slot=slot, end=os.read(lifeline, 1) == b"")
        if reader in ready:
            time.sleep(0.05)  # a second signal would have come by now
            numbers = list(os.read(reader, 100))
            return told("told to end", numbers=numbers, draining=counters.draining)
        for listener in listeners:
            if listener in ready:
                connection, _ = listener.accept()
                connection.sendall(b"%d" % os.getpid())
                connection.close()


def deaf_at_first(
    slot: int, listeners: list[socket.socket], counters: Counters, lifeline: int
) -> None:
    """Accept nothing in the first life."""
    if counters.slot(slot)[STARTS] == 1:
        counters.set_ready(slot)
        signal.pause()
    serve(slot, listeners, counters, lifeline)


def stubborn(slot: int, listeners: list[socket.socket], counters: Counters, lifeline: int) -> None:
    """Never end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    counters.set_ready(slot)
    while True:
        signal.pause()


def silent(slot: int, listeners: list[socket.socket], counters: Counters, lifeline: int) -> None:
    """Never get ready."""
    signal.pause()


def broken(slot: int, listeners: list[socket.socket], counters: Counters, lifeline: int) -> None:
    """Fail at once."""
    raise RuntimeError("this worker is broken")


def looping(slot: int, listeners: list[socket.socket], counters: Counters, lifeline: int) -> None:
    """Give signs of life for a moment, then loop for ever; in the second life, go on with them."""
    counters.set_ready(slot)
    over = time.monotonic() + 1
    while counters.slot(slot)[STARTS] > 1 or time.monotonic() < over:
        counters.beats.give(slot)
        time.sleep(0.1)
    while True:
        pass


def ailing(slot: int, listeners: list[socket.socket], counters: Counters, lifeline: int) -> None:
    """Be ready once, and then never live long."""
    if counters.slot(slot)[STARTS] == 1:
        counters.set_ready(slot)
        time.sleep(0.1)
    os._exit(7)


def parent(slot: int, listeners: list[socket.socket], counters: Counters, lifeline: int) -> None:
    """Leave orphans behind, which end a moment later, and tell how many are not collected."""
    for _ in range(3):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.02)
            os._exit(0)
    for _ in range(3):
        os.wait()
    time.sleep(0.2)  # they have ended by now
    deadline = time.monotonic() + 30
    while (left := zombies()) and time.monotonic() < deadline:
        time.sleep(0.01)
    told("orphans", supervisor=os.getppid(), zombies=left)
    serve(slot, listeners, counters, lifeline)


def zombies() -> int:
    """Return how many processes ended and were not collected."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            count += path.read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
    return count


def _write(descriptor: int, number: int) -> None:
    os.write(descriptor, bytes([number]))


def told(message: str, **extra: Any) -> None:
    """Tell the test."""
    _log.info(message, extra=extra)


BEHAVIOURS: dict[str, Worker] = {
    one.__name__: one
    for one in (serve, deaf_at_first, stubborn, silent, broken, looping, ailing, parent)
}


class FakeStore:
    """A store that is nowhere."""

    engine = "embedded"
    path = "/nowhere"
    memory = 1 << 30
    named = False
    notes: Final[list[str]] = []
    data = None
    takeover = None
    is_lost = False

    def keep(self, running: bool) -> None:
        """Keep nothing."""

    def serve(self, work: Work) -> None:
        """Serve nothing."""

    def close(self) -> None:
        """Give up nothing."""


def main() -> int:
    """Run the supervisor as `keyrack serve` would."""
    logs.configure("info", terminal=False)
    heard = Signals()
    timeout = float(sys.argv[3]) if len(sys.argv) > 3 else 8.0
    silence = float(sys.argv[4]) if len(sys.argv) > 4 else 10.0
    settings = Settings(
        port=0, workers=int(sys.argv[2]), shutdown_timeout=timeout, worker_timeout=silence
    )
    counters = Counters.create(settings.workers)
    shared = Shared(settings, open_listeners(settings), FakeStore(), counters)
    heard.take()
    return Supervisor(shared, entry, heard, Links(None, None), patience=_PATIENT).run()


if __name__ == "__main__":
    sys.exit(main())
