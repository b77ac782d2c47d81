"""The supervisor: makes what the workers share, starts them, replaces those that die, ends them.

Plain synchronous code: no event loop and no threads, so that forking is safe at any time. Its
signals are blocked and waited for, so that none of them interrupts anything; that also makes it a
proper process 1 of a container, for which the kernel drops signals that are neither handled nor
blocked, and which has to collect every orphan.

- A worker that dies is replaced at once. One that keeps dying young is replaced after a growing
  delay, and a service of which no worker ever gets ready ends with exit code 1.
- SIGTERM or SIGINT ends the service: no new connections, requests under way are finished, exit
  code 0. A second one kills the workers and exits with code 1.
- SIGHUP is logged and ignored, so that closing a terminal does not end the service.
- If the supervisor itself is killed, the workers read the end of the lifeline, a pipe whose other
  end only the supervisor holds, and end by themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias

from keyrack.engines.contract import StoreError
from keyrack.engines.embedded.directory import prepare
from keyrack.server import logs
from keyrack.server.counters import Counters
from keyrack.server.greeting import facts, greeting
from keyrack.server.listeners import ListenError, Listeners, open_listeners
from keyrack.system import memory_limit, raise_file_limit

if TYPE_CHECKING:
    from keyrack.engines.embedded.directory import Place
    from keyrack.settings import Settings

Entry: TypeAlias = Callable[..., None]
"""What a worker runs: `keyrack.server.worker.run`, or a stand-in with the same parameters."""

_ENDING: Final = frozenset((signal.SIGTERM, signal.SIGINT))
_WAITED_FOR: Final = _ENDING | {signal.SIGCHLD, signal.SIGHUP}
_LONG: Final = 3600.0

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
    grace: float = 1.5
    """What workers get beyond their own time limit before they are killed."""


_PATIENCE: Final = Patience()


def run(settings: Settings, entry: Entry | None = None) -> int:
    """Serve until told to end, and return the exit code. Signals stay blocked: exit after it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    raise_file_limit()
    with contextlib.ExitStack() as stack:
        try:
            listeners, place = _prepared(settings, stack)
        except (ListenError, StoreError) as error:
            _log.error("%s", error)
            return 1
        counters = Counters.create(settings.workers)
        entry = entry or _worker_entry()
        return Supervisor(settings, listeners, place, counters, entry, mask).run()


def _prepared(settings: Settings, stack: contextlib.ExitStack) -> tuple[Listeners, Place]:
    listeners = open_listeners(settings)
    stack.callback(listeners.close)
    place = prepare(settings.store, settings.memory, memory_limit(), settings.events)
    stack.callback(place.close)
    for note in place.notes:
        _log.warning("%s", note)
    return listeners, place


def _worker_entry() -> Entry:
    """Import what workers need: once, before forking, so that they share its memory."""
    from keyrack.server.worker import run as entry

    return entry


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


class Supervisor:
    """Runs the workers. Times are seconds of the monotonic clock."""

    def __init__(
        self,
        settings: Settings,
        listeners: Listeners,
        place: Place,
        counters: Counters,
        entry: Entry,
        worker_mask: set[Any] | None = None,
        patience: Patience = _PATIENCE,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._place = place
        self._counters = counters
        self._entry = entry
        self._worker_mask = worker_mask or set()
        self._patience = patience
        self._slots = [_Slot(number) for number in range(settings.workers)]
        self._lifeline, self._lifeline_held = os.pipe()
        self._began = time.monotonic()
        self._some_were_ready = False
        self._announced = False

    def run(self) -> int:
        """Run until a signal ends the service or no worker can run; return the exit code."""
        # What exists by now lives for ever; unfreezed, each worker's collector would copy it all.
        gc.collect()
        gc.freeze()
        while True:
            self._start_those_due()
            received = signal.sigtimedwait(_WAITED_FOR, self._pause())
            if received is not None and received.si_signo in _ENDING:
                return self._end(signal.Signals(received.si_signo))
            if received is not None and received.si_signo == signal.SIGHUP:
                _log.info("SIGHUP is ignored; settings change with a restart")
            self._look_for_readiness()
            self._collect_dead()
            if (reason := self._hopeless()) is not None:
                _log.error("%s", reason)
                self._kill()
                return 1

    # Starting

    def _start_those_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.pid == 0 and slot.due <= now:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the worker would write it a second time
        slot.started = time.monotonic()
        try:
            slot.pid = os.fork()
        except OSError as error:
            _log.error("no process can be started for worker %d: %s", slot.number, error.strerror)
            self._delay(slot)
            return
        if slot.pid == 0:
            self._be_worker(slot.number)

    def _be_worker(self, number: int) -> NoReturn:
        code = 1
        try:
            self._become_worker(number)
            mine = self._listeners.of(number)
            self._entry(self._settings, number, mine, self._place, self._counters, self._lifeline)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            _log.exception("worker %d failed", number)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _become_worker(self, number: int) -> None:
        os.close(self._lifeline_held)
        self._listeners.keep_only(number)
        for default in _ENDING | {signal.SIGCHLD}:
            signal.signal(default, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # A terminal sends Ctrl-C to all processes; the supervisor then tells the workers, once.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._worker_mask | {signal.SIGINT})

    # Watching

    def _pause(self) -> float:
        if not self._announced:
            return self._patience.poll
        now = time.monotonic()
        return max(0.0, min((s.due - now for s in self._slots if s.pid == 0), default=_LONG))

    def _look_for_readiness(self) -> None:
        if self._announced:
            return
        ready = self._counters.ready_workers()
        self._some_were_ready = self._some_were_ready or ready > 0
        if ready == len(self._slots):
            self._announced = True
            self._announce()

    def _announce(self) -> None:
        about = (self._settings, self._place, self._listeners.urls)
        if logs.on_terminal():
            print(greeting(*about), file=sys.stderr, flush=True)
        else:
            _log.info("ready", extra=facts(*about))

    def _collect_dead(self) -> None:
        """Collect every child that ended: workers, and orphans that a process 1 inherits."""
        for pid, status in _ended_children():
            for slot in self._slots:
                if slot.pid == pid:
                    self._note_death(slot, status)

    def _note_death(self, slot: _Slot, status: int) -> None:
        self._counters.clear_ready(slot.number)
        self._counters.wake_all()
        self._delay(slot)
        level = logging.INFO if status == 0 else logging.WARNING
        _log.log(
            level,
            "worker %d %s; it is replaced",
            slot.number,
            _how_it_ended(status),
            extra={
                "event": "worker_ended",
                "worker_pid": slot.pid,
                "seconds": round(time.monotonic() - slot.started, 3),
            },
        )
        slot.pid = 0

    def _delay(self, slot: _Slot) -> None:
        """Set when the next process is started: at once, unless several died young in a row."""
        now = time.monotonic()
        died_young = now - slot.started < self._patience.young
        slot.young_deaths = slot.young_deaths + 1 if died_young else 0
        slot.due = now
        if slot.young_deaths > 1:
            delay = self._patience.delay * 2.0 ** min(slot.young_deaths - 2, 20)
            slot.due += min(delay, self._patience.longest_delay)

    def _hopeless(self) -> str | None:
        if self._some_were_ready:
            return None
        if any(slot.young_deaths >= self._patience.deaths for slot in self._slots):
            return "the workers end as soon as they are started; the lines above say why"
        if time.monotonic() - self._began > self._patience.startup:
            return f"no worker got ready within {self._patience.startup:g} seconds"
        return None

    # Ending

    def _end(self, why: signal.Signals) -> int:
        _log.info("%s: the service ends", why.name, extra={"event": "ending"})
        self._counters.set_draining(True)
        if self._wait_for_workers(self._settings.drain_delay) is not None:
            _log.info("told again: the drain delay is over")
        self._listeners.close()
        self._signal_workers(signal.SIGTERM)
        limit = self._settings.shutdown_timeout + self._patience.grace
        again = self._wait_for_workers(limit)
        if again is not None:
            _log.warning("%s again: the workers are killed", again.name)
            self._kill()
            return 1
        if self._running():
            _log.warning("not all requests ended within %g seconds: they are cut off", limit)
            self._kill()
        _log.info("the service has ended", extra={"event": "ended"})
        return 0

    def _wait_for_workers(self, limit: float) -> signal.Signals | None:
        """Wait until all ended or the time is up; a second signal to end is returned at once."""
        deadline = time.monotonic() + limit
        while self._running() and (left := deadline - time.monotonic()) > 0:
            received = signal.sigtimedwait(_WAITED_FOR, left)
            if received is not None and received.si_signo in _ENDING:
                return signal.Signals(received.si_signo)
            self._forget_dead()
        return None

    def _kill(self) -> None:
        self._signal_workers(signal.SIGKILL)
        deadline = time.monotonic() + self._patience.grace
        while self._running() and (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            self._forget_dead()

    def _forget_dead(self) -> None:
        dead = {pid for pid, _ in _ended_children()}
        for slot in self._slots:
            if slot.pid in dead:
                self._counters.clear_ready(slot.number)
                slot.pid = 0

    def _signal_workers(self, number: signal.Signals) -> None:
        for slot in self._running():
            # Not collected yet, so the process id still means this worker.
            os.kill(slot.pid, number)

    def _running(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.pid]


def _ended_children() -> list[tuple[int, int]]:
    """Collect all children that ended; return their process ids and exit statuses."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended.append(found)
    return ended


def _how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
