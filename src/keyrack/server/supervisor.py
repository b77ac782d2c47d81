"""The supervisor: makes what the workers share, starts them, replaces those that die, ends them.

Plain synchronous code: no event loop and no threads, so that forking is safe at any time. Its
signals are blocked and waited for, so that none of them interrupts anything; that also makes it a
proper process 1 of a container, for which the kernel drops signals that are neither handled nor
blocked, and which has to collect every orphan.

- A worker that dies is replaced at once. One that keeps dying young is replaced after a growing
  delay, and a service of which no worker ever gets ready ends with exit code 1.
- SIGTERM or SIGINT ends the service: no new connections, requests under way are finished, exit
  code 0. A second one kills the workers and exits with code 1.
- A worker that is alive and gives no sign of life is killed, and so replaced.
- SIGHUP is logged and ignored, so that closing a terminal does not end the service.
- A new service may take over (`takeover.py`). Then the workers leave: they accept nothing more, and
  end when their last client has gone; the service ends with them.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias

from keyrack.engines.contract import StoreError
from keyrack.server import logs
from keyrack.server.banner import banner, facts
from keyrack.server.listeners import ListenError, Listeners, open_listeners
from keyrack.server.liveness import INTERVAL, Liveness
from keyrack.server.stores import kind_of
from keyrack.server.takeover import (
    Handover,
    Inheritance,
    Predecessor,
    Ready,
    Settled,
    Step,
    TakeoverRefused,
    inherit,
    offer_of,
    open_control,
)
from keyrack.shared.counters import Counters
from keyrack.system import raise_file_limit

if TYPE_CHECKING:
    from keyrack.server.durability import Durability
    from keyrack.server.stores import Held
    from keyrack.settings import Settings

Entry: TypeAlias = Callable[..., None]
"""What a worker runs: `keyrack.server.worker.run`, or a stand-in with the same parameters."""

_ENDING: Final = frozenset((signal.SIGTERM, signal.SIGINT))
_WAITED_FOR: Final = _ENDING | {signal.SIGCHLD, signal.SIGHUP}
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


_PATIENCE: Final = Patience()


def run(settings: Settings, entry: Entry | None = None) -> int:
    """Serve until told to end, and return the exit code. Signals stay blocked: exit after it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    raise_file_limit()
    with contextlib.ExitStack() as stack:
        try:
            found = _taken_over(settings, stack) if settings.takeover else None
            prepared = found or _prepared(settings, stack)
            durability = kind_of(settings).keep(settings, prepared.place, found is not None)
        except (ListenError, StoreError, TakeoverRefused) as error:
            _log.error("%s", error)
            return 1
        listeners, place, control, predecessor = prepared
        handover = None
        if control is not None:
            handover = Handover(control, lambda: offer_of(settings, listeners, place, control))
            stack.callback(handover.close)
        if durability is not None:
            stack.callback(durability.close)
        worker, requests = _what_workers_need()
        return Supervisor(
            settings,
            listeners,
            place,
            Counters.create(settings.workers, requests),
            entry or worker,
            mask,
            handover=handover,
            predecessor=predecessor,
            durability=durability,
        ).run()


def _prepared(settings: Settings, stack: contextlib.ExitStack) -> Inheritance:
    listeners = open_listeners(settings)
    stack.callback(listeners.close)
    place = kind_of(settings).prepare(settings)
    stack.callback(place.close)
    for note in place.notes:
        _log.warning("%s", note)
    if place.lock < 0:
        return Inheritance(listeners, place, None, None)
    try:
        control = open_control(place.path)
    except OSError as error:
        _log.warning("This service cannot be taken over: %s.", error.strerror)
        control = None
    return Inheritance(listeners, place, control, None)


def _taken_over(settings: Settings, stack: contextlib.ExitStack) -> Inheritance | None:
    found = inherit(settings)
    if found is None:
        _log.info("there is no running service to take over from; this one starts as usual")
        return None
    stack.callback(found.listeners.close)
    stack.callback(found.place.close)
    assert found.predecessor is not None
    stack.callback(found.predecessor.close)
    _log.info("taking over from %s", found.predecessor.name, extra={"event": "taking_over"})
    return found


def _what_workers_need() -> tuple[Entry, int]:
    """Import what workers run: once, before forking, so that they share its memory.

    Returns that, and how many words of the counters they need for their requests.
    """
    from keyrack.http.api.counting import REQUEST_WORDS
    from keyrack.server.worker import run as entry

    return entry, REQUEST_WORDS.number


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
        place: Held,
        counters: Counters,
        entry: Entry,
        worker_mask: set[Any] | None = None,
        patience: Patience = _PATIENCE,
        handover: Handover | None = None,
        predecessor: Predecessor | None = None,
        *,
        durability: Durability | None = None,
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
        self._announced_at = 0.0
        self._liveness = Liveness(settings.workers)
        self._handover = handover
        self._predecessor = predecessor
        self._settled = predecessor is None
        self._leave_by: float | None = None
        """When the last workers are told to end, once another service has taken over."""
        self._durability = durability

    def run(self) -> int:
        """Run until a signal ends the service or no worker can run; return the exit code."""
        # What exists by now lives for ever; unfreezed, each worker's collector would copy it all.
        gc.collect()
        gc.freeze()
        self._counters.set_shared(self._predecessor is not None)
        while True:
            self._start_those_due()
            received = signal.sigtimedwait(_WAITED_FOR, self._pause())
            if received is not None and received.si_signo in _ENDING:
                return self._end(signal.Signals(received.si_signo))
            if received is not None and received.si_signo == signal.SIGHUP:
                _log.info("SIGHUP is ignored; settings change with a restart")
            self._look_for_readiness()
            self._collect_dead()
            self._look_for_stuck()
            self._look_for_services()
            if self._durability is not None:
                self._durability.look(self._counters, self._become_child)
            if self._leave_by is not None and self._has_left():
                return 0
            if (reason := self._hopeless()) is not None:
                return self._give_up(reason)

    # Starting

    def _start_those_due(self) -> None:
        if self._leave_by is not None:
            return
        now = time.monotonic()
        for slot in self._slots:
            if slot.pid == 0 and slot.due <= now:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the worker would write it a second time
        slot.started = time.monotonic()
        self._liveness.forgive(slot.number)
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
        self._listeners.keep_only(number)
        self._become_child()

    def _become_child(self) -> None:
        os.close(self._lifeline_held)
        for shared in (self._handover, self._predecessor):
            if shared is not None:
                shared.close()  # so that the other side notices the supervisor's end, not ours
        for default in _ENDING | {signal.SIGCHLD}:
            signal.signal(default, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # A terminal sends Ctrl-C to all processes; the supervisor then tells the workers, once.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._worker_mask | {signal.SIGINT})

    # Watching

    def _pause(self) -> float:
        if not self._announced:
            return self._patience.poll
        if self._leave_by is not None or (self._handover and self._handover.under_way):
            return self._patience.handover
        now = time.monotonic()
        longest = INTERVAL if self._durability is None else self._durability.pause()
        due = min((slot.due - now for slot in self._slots if slot.pid == 0), default=longest)
        return max(0.0, min(due, longest))

    def _look_for_readiness(self) -> None:
        if self._announced:
            return
        ready = self._counters.ready_workers()
        self._some_were_ready = self._some_were_ready or ready > 0
        if ready == len(self._slots):
            self._announced = True
            self._announced_at = time.monotonic()
            self._succeed()
            self._announce()

    def _announce(self) -> None:
        about = (self._settings, self._place, self._listeners.urls)
        if logs.on_terminal():
            print(banner(*about), file=sys.stderr, flush=True)
        else:
            _log.info("ready", extra=facts(*about))

    def _collect_dead(self) -> None:
        """Collect every child that ended: workers, and orphans that a process 1 inherits."""
        for pid, status in self._ended_children():
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
            "worker %d %s%s",
            slot.number,
            _how_it_ended(status),
            "; it is replaced" if self._leave_by is None else "",
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

    def _look_for_stuck(self) -> None:
        """Kill a worker that has given no sign of life for too long: one at a time.

        It may hold the store's write lock, for which all others wait; they are silent as well, and
        recover when it is gone. Whoever is stopped is the likeliest to be the cause.
        """
        self._counters.beat_supervisor()
        self._liveness.look(self._counters.beats())
        silence, limit = self._liveness.seconds, self._settings.worker_timeout
        stuck = [slot for slot in self._running() if silence[slot.number] > self._bearable(slot)]
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
        for slot in stuck:
            self._liveness.forgive(slot.number, max(0.0, limit - _SECOND_CHANCE))

    def _bearable(self, slot: _Slot) -> float:
        limit = self._settings.worker_timeout
        return limit if self._counters.ready(slot.number) else max(limit, self._patience.startup)

    def _hopeless(self) -> str | None:
        if self._predecessor is not None and not self._announced:
            if time.monotonic() - self._began > self._patience.startup:
                return "not all workers got ready, so nothing is taken over"
            return None
        if self._some_were_ready:
            return None
        if any(slot.young_deaths >= self._patience.deaths for slot in self._slots):
            return "the workers end as soon as they are started; the lines above say why"
        if time.monotonic() - self._began > self._patience.startup:
            return f"no worker got ready within {self._patience.startup:g} seconds"
        return None

    def _give_up(self, reason: str) -> int:
        _log.error("%s", reason)
        if self._predecessor is not None:
            # Beside the other service's, these workers may have accepted connections.
            self._signal_workers(signal.SIGTERM)
            self._wait_for_workers(self._settings.shutdown_timeout)
        self._kill()
        return 1

    # Taking over, and being taken over

    def _succeed(self) -> None:
        """All workers serve: what the earlier service had is now this one's."""
        if self._predecessor is not None:
            self._listeners.adopt()
            self._place.adopt()
            self._predecessor.tell(Ready())

    def _settle(self) -> None:
        """Tell the earlier service that it need not come back if this one ends."""
        if self._predecessor is not None and not self._settled:
            self._predecessor.tell(Settled())
        self._settled = True

    def _look_for_services(self) -> None:
        earlier = self._predecessor
        if earlier is not None and not earlier.gone:
            if earlier.look():
                _log.info("%s has ended", earlier.name, extra={"event": "taken_over"})
                self._share()
            elif self._announced and time.monotonic() - self._announced_at > self._patience.settle:
                self._settle()
        if self._handover is not None and self._announced:
            self._attend(self._handover)

    def _attend(self, handover: Handover) -> None:
        step = handover.step()
        if step is Step.ASKED:
            _log.info("%s takes over", handover.successor, extra={"event": "takeover_asked"})
            self._share()
        elif step is Step.WITHDRAWN:
            _log.warning("%s has given up; this service goes on", handover.successor)
            self._share()
        elif step is Step.READY:
            self._leave(handover)
        elif step is Step.ABANDONED:
            _log.error("%s has ended already; this service goes on", handover.successor)
            self._come_back()

    def _share(self) -> None:
        """Tell the workers whether others have the store as well, whose commits wake nobody."""
        earlier = self._predecessor is not None and not self._predecessor.gone
        asked = self._handover is not None and self._handover.under_way
        later = asked or self._leave_by is not None
        self._counters.set_shared(earlier or later)

    def _leave(self, handover: Handover) -> None:
        _log.info(
            "%s has taken over; this service ends with its last connection",
            handover.successor,
            extra={"event": "leaving"},
        )
        self._leave_by = time.monotonic() + self._settings.takeover_timeout
        self._listeners.hand_over()
        self._place.hand_over()
        self._settle()
        self._signal_workers(signal.SIGUSR1)

    def _come_back(self) -> None:
        """Serve again. Workers that leave cannot be called back; they end and are replaced."""
        self._leave_by = None
        self._listeners.adopt()
        self._place.adopt()
        self._share()
        self._signal_workers(signal.SIGTERM)

    def _has_left(self) -> bool:
        """Tell whether all connections have ended, and end those whose time is up."""
        assert self._leave_by is not None
        if self._running() and time.monotonic() > self._leave_by:
            self._signal_workers(signal.SIGTERM)
            self._wait_for_workers(self._settings.shutdown_timeout + self._patience.grace)
            self._kill()
        # The successor looks for this service's end to know that the one before has ended, too.
        if self._running() or (self._predecessor is not None and not self._predecessor.gone):
            return False
        _log.info("the service has ended", extra={"event": "ended"})
        return True

    # Ending

    def _end(self, why: signal.Signals) -> int:
        _log.info("%s: the service ends", why.name, extra={"event": "ending"})
        if self._announced:
            self._settle()
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
        if self._durability is not None:
            self._durability.finish(self._counters)
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
        dead = {pid for pid, _ in self._ended_children()}
        for slot in self._slots:
            if slot.pid in dead:
                self._counters.clear_ready(slot.number)
                slot.pid = 0

    def _ended_children(self) -> list[tuple[int, int]]:
        ended = _ended_children()
        if self._durability is not None:
            for pid, status in ended:
                self._durability.ended(pid, status, self._counters)
        return ended

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


def _state(pid: int) -> str:
    """Return the letter that /proc has for what a process does, `?` where it says nothing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "?"
    return stat.rpartition(")")[2].split()[0]


def _how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
