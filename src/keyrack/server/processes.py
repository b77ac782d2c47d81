"""The worker processes: started, watched, replaced when they die, and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from keyrack.server import signals
from keyrack.server.liveness import Liveness
from keyrack.server.worker_spec import WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.server.listeners import Listeners
    from keyrack.server.signals import Signals
    from keyrack.server.store import Store
    from keyrack.server.tls import Certificates
    from keyrack.server.worker_spec import Entry
    from keyrack.settings import Settings
    from keyrack.shared.access_board import AccessBoard
    from keyrack.shared.counters import Counters

_SECOND_CHANCE: Final = 2.0
"""Seconds that silent workers get to recover once the one is gone that they may have waited for."""
_STATES: Final = {
    "R": "it is busy",
    "S": "it waits for something",
    "D": "it waits for a disk",
    "T": "it was stopped by a signal",
    "t": "a debugger holds it",
}
"""What /proc says a process does."""
_OUT_OF_MEMORY: Final = "the kernel does so when memory runs out; its log (dmesg) says whether"

_log = logging.getLogger("keyrack.supervisor")


class Patience(NamedTuple):
    """How long what may take, in seconds; tests are less patient."""

    startup: float = 15.0
    """Until the first worker is ready."""
    young: float = 1.0
    """A worker that ends earlier than this died young."""
    deaths: int = 3
    """So many young deaths of one worker in a row, with none ever ready, end the service."""
    delay: float = 0.1
    longest_delay: float = 5.0
    poll: float = 0.005
    handover: float = 0.05
    """Between two looks at another service while one takes over."""
    settle: float = 5.0
    """Until a service that has taken over no longer needs the earlier one to come back."""
    grace: float = 1.5
    """What workers get beyond their own time limit before they are killed."""


PATIENCE: Final = Patience()


class Shared(NamedTuple):
    """What all processes of a service share."""

    settings: Settings
    listeners: Listeners
    store: Store
    counters: Counters
    certificates: Certificates | None = None
    access: AccessBoard | None = None


@dataclasses.dataclass(slots=True)
class _Slot:
    """A place for a worker: its number stays the same when the process is replaced."""

    number: int
    pid: int = 0
    """0 while no process runs."""
    started: float = 0.0
    due: float = 0.0
    """When the next process is to be started."""
    young_deaths: int = 0
    """Since a process last grew old."""
    killed: bool = False
    """The supervisor has killed the process that runs."""
    taken_out: bool = False
    """Its sockets take no connections, because nobody would accept them."""


class WorkerProcesses:
    """The workers of a service. Times are seconds of the monotonic clock.

    `let_go` closes, in a child, what only the supervisor may have open.
    """

    def __init__(
        self,
        shared: Shared,
        entry: Entry,
        heard: Signals,
        let_go: Callable[[], None],
        patience: Patience,
    ) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._listeners = shared.listeners
        self._counters = shared.counters
        self._entry = entry
        self._signals = heard
        self._let_go = let_go
        self._patience = patience
        self._slots = [_Slot(number) for number in range(self._settings.workers)]
        self._lifeline, self._lifeline_held = os.pipe()
        self._liveness = Liveness(self._settings.workers)
        self.replacing = True
        """Whether a worker that ends is followed by another."""
        self.shares_sockets = False
        """Whether another service listens on the same sockets."""

    # Starting

    def start_those_due(self) -> None:
        """Start a process for each worker that has none and whose time has come."""
        if not self.replacing:
            return
        now = time.monotonic()
        for slot in self._slots:
            if slot.pid == 0 and slot.due <= now:
                self._start(slot)

    def next_due(self, longest: float) -> float:
        """Return the seconds until the next process is to be started, `longest` at most."""
        now = time.monotonic()
        due = min((slot.due - now for slot in self._slots if slot.pid == 0), default=longest)
        return max(0.0, min(due, longest))

    def _start(self, slot: _Slot) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the worker would write it a second time
        slot.started = time.monotonic()
        self._liveness.forgive(slot.number)
        try:
            slot.pid = os.fork()
        except OSError as error:
            _log.error(
                "no process can be started for worker %d: %s (see `ulimit -u`, pids.max)",
                slot.number,
                error.strerror,
            )
            self._delay(slot)
            return
        if slot.pid == 0:
            self._be_worker(slot)

    def _be_worker(self, slot: _Slot) -> NoReturn:
        code, number = 1, slot.number
        try:
            self._listeners.keep_only(number)
            self.become_child()
            self._entry(
                WorkerSpec(
                    self._settings,
                    number,
                    self._listeners.of(number),
                    self._shared.store,
                    self._counters,
                    self._shared.certificates,
                    self._lifeline,
                    self._shared.access,
                )
            )
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException as error:
            _log.error(
                "worker %d failed: %s: %s",
                number,
                type(error).__name__,
                error,
                # Where it goes on like that, the first lines have it.
                exc_info=slot.young_deaths < self._patience.deaths,
                extra={"event": "worker_failed"},
            )
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def become_child(self) -> None:
        """In a child: let go of what is the supervisor's alone, and be ended by signals."""
        os.close(self._lifeline_held)
        self._let_go()
        self._signals.restore()

    # Watching

    def collect(self) -> list[tuple[int, int]]:
        """Collect all children that ended, replace workers; return process ids and statuses.

        Orphans that a process 1 inherits are among them.
        """
        ended = _ended_children()
        for pid, status in ended:
            for slot in self._slots:
                if slot.pid == pid:
                    self._note_death(slot, status)
        return ended

    def _note_death(self, slot: _Slot, status: int) -> None:
        self._counters.clear_ready(slot.number)
        self._counters.wake_all()
        self._counters.deaths.count(_reason(slot, status))
        self._delay(slot)
        level = logging.INFO if status == 0 else logging.WARNING
        _log.log(
            level,
            "worker %d %s%s",
            slot.number,
            _how_it_ended(status),
            self._replacement(slot),
            extra={
                "event": "worker_ended",
                "worker_pid": slot.pid,
                "seconds": round(time.monotonic() - slot.started, 3),
                **_hint(slot, status),
            },
        )
        slot.pid, slot.killed = 0, False
        # Until then who waits in its queue is better off waiting for the next process.
        hopeless = slot.young_deaths >= self._patience.deaths
        if hopeless and self.replacing and not self.shares_sockets:
            self._take_out(slot)

    def _replacement(self, slot: _Slot) -> str:
        if not self.replacing:
            return ""
        pause = slot.due - time.monotonic()
        return "; it is replaced" if pause <= 0 else f"; it is replaced in {pause:.1f} s"

    def _take_out(self, slot: _Slot) -> None:
        """Let nobody wait for a worker that ends as soon as it is started."""
        self._listeners.take_out(slot.number)
        if not slot.taken_out:
            slot.taken_out = True
            _log.error(
                "worker %d ends again and again; it gets no connections until it is ready",
                slot.number,
                extra={"event": "worker_taken_out"},
            )

    def welcome_back(self) -> None:
        """Take note of workers that had been taken out and are ready again."""
        for slot in self._slots:
            if slot.taken_out and self._counters.ready(slot.number):
                slot.taken_out = False
                _log.info("worker %d is ready again", slot.number, extra={"event": "worker_back"})

    def _delay(self, slot: _Slot) -> None:
        """Set when the next process is started: at once, unless several died young in a row."""
        now = time.monotonic()
        died_young = now - slot.started < self._patience.young
        slot.young_deaths = slot.young_deaths + 1 if died_young else 0
        slot.due = now
        if slot.young_deaths > 1:
            delay = self._patience.delay * 2.0 ** min(slot.young_deaths - 2, 20)
            slot.due += min(delay, self._patience.longest_delay)

    def kill_the_stuck(self) -> None:
        """Kill a worker that has given no sign of life for too long: one at a time.

        It may hold the store's write lock, for which all others wait; they are silent as well, and
        recover when it is gone. Whoever is stopped is the likeliest to be the cause.
        """
        self._counters.beats.give_as_supervisor()
        self._liveness.look(self._counters.beats.of_workers)
        silence, limit = self._liveness.seconds, self._settings.worker_timeout
        stuck = [slot for slot in self._living() if silence[slot.number] > self._bearable(slot)]
        if not limit or not stuck:
            return
        states = {slot.pid: _state(slot.pid) for slot in stuck}
        worst = max(stuck, key=lambda slot: (states[slot.pid] in "Tt", silence[slot.number]))
        _log.error(
            "worker %d has given no sign of life for %.0f s (%s): it is killed",
            worst.number,
            silence[worst.number],
            _STATES.get(states[worst.pid], "its state is not known"),
            extra={"event": "worker_stuck", "worker_pid": worst.pid},
        )
        os.kill(worst.pid, signal.SIGKILL)
        worst.killed = True
        for slot in stuck:
            self._liveness.forgive(slot.number, max(0.0, limit - _SECOND_CHANCE))

    def _bearable(self, slot: _Slot) -> float:
        limit = self._settings.worker_timeout
        return limit if self._counters.ready(slot.number) else max(limit, self._patience.startup)

    @property
    def die_young(self) -> bool:
        """Whether some worker ends again and again as soon as it is started."""
        return any(slot.young_deaths >= self._patience.deaths for slot in self._slots)

    # Ending

    @property
    def running(self) -> bool:
        """Whether any worker lives."""
        return any(slot.pid for slot in self._slots)

    def _living(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.pid]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of them."""
        for slot in self._living():
            # Not collected yet, so the process id still means this worker.
            os.kill(slot.pid, number)

    def wait(self, limit: float, ended: Callable[[int, int], None]) -> int | None:
        """Wait until all ended or the time is up; a signal to end is returned at once.

        `ended` is called with the process id and status of every child that has ended.
        """
        deadline = time.monotonic() + limit
        while self.running and (left := deadline - time.monotonic()) > 0:
            received = self._signals.wait(left)
            if received in signals.ENDING:
                return received
            self._forget_dead(ended)
        return None

    def kill(self, ended: Callable[[int, int], None]) -> None:
        """Kill all of them."""
        self.signal(signal.SIGKILL)
        deadline = time.monotonic() + self._patience.grace
        while self.running and (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            self._forget_dead(ended)

    def _forget_dead(self, ended: Callable[[int, int], None]) -> None:
        for pid, status in _ended_children():
            ended(pid, status)
            for slot in self._slots:
                if slot.pid == pid:
                    self._counters.clear_ready(slot.number)
                    slot.pid = 0


def _ended_children() -> list[tuple[int, int]]:
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended.append(found)
    return ended


def _state(pid: int) -> str:
    """Return the letter that /proc has for what a process does, `?` where it says nothing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "?"
    return stat.rpartition(")")[2].split()[0]


def _hint(slot: _Slot, status: int) -> dict[str, str]:
    """Return what an operator may think of, who sees this line at night."""
    killed_by_others = os.waitstatus_to_exitcode(status) == -signal.SIGKILL and not slot.killed
    return {"hint": _OUT_OF_MEMORY} if killed_by_others else {}


def _reason(slot: _Slot, status: int) -> str:
    """Return one of `DEATHS`."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return "stuck" if slot.killed else "killed"
    return "failed" if code else "ended"


def _how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit status {code}"
    return f"was killed by {signals.name(-code)}"
