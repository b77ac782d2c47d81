"""The supervisor: makes what the workers share, starts them, replaces those that die, ends them.

Plain synchronous code: no event loop and no threads, so that forking is safe at any time. Its
signals are blocked and waited for, so that none of them interrupts anything; that also makes it a
proper process 1 of a container, for which the kernel drops signals that are neither handled nor
blocked, and which has to collect every orphan.

- A worker that dies is replaced at once. One that keeps dying young is replaced after a growing
  delay, and a service of which no worker ever gets ready ends with exit code 1.
- SIGTERM or SIGINT ends the service: no new connections, requests under way are finished, exit
  code 0, or 1 where the last snapshot could not be taken. A second one kills the workers and exits
  with code 1.
- A worker that is alive and gives no sign of life is killed, and so replaced.
- SIGHUP and signals that mean nothing here are logged and ignored.
- A new service may take over (`takeover.py`). Then the workers leave: they accept nothing more, and
  end when their last client has gone; the service ends with them.
- If the supervisor itself is killed, the workers read the end of the lifeline, a pipe whose other
  end only the supervisor holds, and end by themselves.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import time
from typing import TYPE_CHECKING

from keyrack.access.sections import AccessFileError
from keyrack.engines.contract import StoreError
from keyrack.server import audit_log, logs, signals, stores
from keyrack.server.access_keeper import AccessKeeper
from keyrack.server.audit_log import AuditLogError
from keyrack.server.banner import banner, facts
from keyrack.server.connection_limit import TooFewFiles, demand_files
from keyrack.server.listeners import ListenError, open_listeners
from keyrack.server.liveness import INTERVAL
from keyrack.server.processes import PATIENCE, Patience, Shared, WorkerProcesses
from keyrack.server.succession import Links, Succession
from keyrack.server.takeover import (
    Handover,
    Inheritance,
    TakeoverRefused,
    inherit,
    offer_of,
    open_control,
)
from keyrack.server.termination import leave_message
from keyrack.server.tls import TlsError, read_certificates
from keyrack.shared.counters import Counters

if TYPE_CHECKING:
    from keyrack.server.durability import Durability
    from keyrack.server.signals import Signals
    from keyrack.server.worker_spec import Entry
    from keyrack.settings import Settings

_log = logging.getLogger("keyrack.supervisor")


def run(
    settings: Settings,
    heard: Signals,
    entry: Entry | None = None,
    patience: Patience = PATIENCE,
) -> int:
    """Serve until told to end, and return the exit code. Signals stay blocked: exit after it."""
    with contextlib.ExitStack() as stack:
        try:
            demand_files(settings.workers)
            supervisor = _assembled(settings, heard, entry, patience, stack)
        except (TlsError, AccessFileError, AuditLogError) as error:
            return _refused(error, 2)
        except (TooFewFiles, ListenError, StoreError, TakeoverRefused) as error:
            return _refused(error, 1)
        heard.take()
        return supervisor.run()


def _refused(error: Exception, code: int) -> int:
    _log.error("%s", error)
    leave_message(str(error))
    return code


def _assembled(
    settings: Settings,
    heard: Signals,
    entry: Entry | None,
    patience: Patience,
    stack: contextlib.ExitStack,
) -> Supervisor:
    """Make all that a service needs; what has to be undone at its end is on the stack."""
    certificates = read_certificates(settings)
    if settings.audit_log is not None:
        audit_log.demand(settings.audit_log)
    keeper = AccessKeeper(settings) if settings.controls_access else None
    found = _taken_over(settings, stack) if settings.takeover else None
    prepared = found or _prepared(settings, stack)
    durability = prepared.store.keep(found is not None)
    if durability is not None:
        stack.callback(durability.close)
    worker, requests = _what_workers_need()
    shared = Shared(
        settings,
        prepared.listeners,
        prepared.store,
        Counters.create(settings.workers, requests),
        certificates,
        None if keeper is None else keeper.board,
    )
    if certificates is not None:
        certificates.publish(shared.counters)
    links = Links(_handover(shared, prepared, stack), prepared.predecessor)
    return Supervisor(shared, entry or worker, heard, links, durability, patience, keeper)


def _prepared(settings: Settings, stack: contextlib.ExitStack) -> Inheritance:
    listeners = open_listeners(settings)
    stack.callback(listeners.close)
    store = stores.prepare(settings)
    stack.callback(store.close)
    for note in store.notes:
        _log.warning("%s", note)
    control = None
    if store.takeover is not None:
        try:
            control = open_control(store.path, settings)
        except OSError as error:
            _log.warning("This service cannot be taken over: %s.", error.strerror)
    return Inheritance(listeners, store, control, None)


def _taken_over(settings: Settings, stack: contextlib.ExitStack) -> Inheritance | None:
    found = inherit(settings)
    if found is None:
        _log.info("there is no running service to take over from; this one starts as usual")
        return None
    stack.callback(found.listeners.close)
    stack.callback(found.store.close)
    assert found.predecessor is not None
    stack.callback(found.predecessor.close)
    _log.info("taking over from %s", found.predecessor.name, extra={"event": "taking_over"})
    return found


def _handover(
    shared: Shared, prepared: Inheritance, stack: contextlib.ExitStack
) -> Handover | None:
    """Return what a service that takes over from this one speaks to."""
    control, handle = prepared.control, shared.store.takeover
    if control is None or handle is None:
        return None
    made = Handover(
        control,
        lambda: offer_of(shared.settings, shared.listeners, shared.store, handle, control),
    )
    stack.callback(made.close)
    return made


def _what_workers_need() -> tuple[Entry, int]:
    """Import what workers run: once, before forking, so that they share its memory.

    Returns that, and how many words of the counters they need for their requests.
    """
    from keyrack.http.api.counting import REQUEST_WORDS
    from keyrack.server.worker import run as entry

    return entry, REQUEST_WORDS.number


class Supervisor:
    """Runs a service. Times are seconds of the monotonic clock."""

    def __init__(
        self,
        shared: Shared,
        entry: Entry,
        heard: Signals,
        links: Links,
        durability: Durability | None = None,
        patience: Patience = PATIENCE,
        keeper: AccessKeeper | None = None,
    ) -> None:
        self._keeper = keeper
        self._shared = shared
        self._settings = shared.settings
        self._counters = shared.counters
        self._signals = heard
        self._durability = durability
        self._patience = patience
        self._processes = WorkerProcesses(shared, entry, heard, links.close, patience)
        self._succession = Succession(shared, links, self._processes, patience)
        self._drops = logs.Drops(self._counters.count_log_dropped)
        self._began = time.monotonic()
        self._some_were_ready = False
        self._announced = False

    def run(self) -> int:
        """Run until a signal ends the service or no worker can run; return the exit code."""
        # What exists by now lives for ever; unfreezed, each worker's collector would copy it all.
        gc.collect()
        gc.freeze()
        self._succession.share()
        while True:
            if self._shared.store.is_lost:
                return self._lose_store()
            self._processes.start_those_due()
            received = self._signals.wait(self._pause())
            if received in signals.ENDING:
                return self._end(signals.name(received))
            if received == signals.HANGUP:
                self._hang_up()
            self._look_for_readiness()
            for pid, status in self._processes.collect():
                self._child_ended(pid, status)
            self._processes.welcome_back()
            self._processes.kill_the_stuck()
            self._succession.look(self._announced)
            if self._shared.certificates is not None:
                self._shared.certificates.look(self._counters)
            self._drops.look()
            if self._keeper is not None:
                self._keeper.look(self._counters, self._processes.become_child)
            if self._durability is not None:
                self._durability.look(self._counters, self._processes.become_child)
            if self._succession.leaving and self._has_left():
                return 0
            if (reason := self._hopeless()) is not None:
                return self._give_up(reason)

    def _hang_up(self) -> None:
        if self._shared.certificates is None and self._keeper is None:
            _log.info("SIGHUP is ignored; settings change with a restart")
        if self._shared.certificates is not None:
            self._shared.certificates.reload(self._counters)
        if self._keeper is not None:
            self._keeper.reload(self._counters)

    def _pause(self) -> float:
        if not self._announced:
            return self._patience.poll
        if self._succession.under_way:
            return self._patience.handover
        return self._processes.next_due(
            INTERVAL if self._durability is None else self._durability.pause()
        )

    def _look_for_readiness(self) -> None:
        if self._announced:
            return
        ready = self._counters.ready_workers()
        self._some_were_ready = self._some_were_ready or ready > 0
        if ready == self._settings.workers:
            self._announced = True
            self._succession.succeed()
            self._announce()

    def _announce(self) -> None:
        if self._settings.is_open_to_network:
            _log.warning(
                "Everybody who reaches this service may read and write everything (--auth none).",
                extra={"event": "open_to_everybody"},
            )
        about = (self._settings, self._shared.store, self._shared.listeners.urls)
        if logs.on_terminal():
            logs.write(banner(*about))
        else:
            _log.info("ready", extra=facts(*about))

    def _child_ended(self, pid: int, status: int) -> None:
        if self._durability is not None:
            self._durability.ended(pid, status, self._counters)
        if self._keeper is not None:
            self._keeper.ended(pid, status, self._counters)

    def _hopeless(self) -> str | None:
        late = time.monotonic() - self._began > self._patience.startup
        if self._succession.takes_over and not self._announced:
            return "not all workers got ready, so nothing is taken over" if late else None
        if self._some_were_ready:
            return None
        if self._processes.die_young:
            return "the workers end as soon as they are started; the lines above say why"
        if late:
            return f"no worker got ready within {self._patience.startup:g} seconds"
        return None

    # Ending

    def _give_up(self, reason: str) -> int:
        _log.error("%s", reason)
        if self._succession.takes_over:
            # Beside the other service's, these workers may have accepted connections.
            self._processes.signal(signal.SIGTERM)
            self._wait(self._settings.shutdown_timeout)
        self._processes.kill(self._child_ended)
        return 1

    def _has_left(self) -> bool:
        """Tell whether all connections have ended, and end those whose time is up."""
        if self._processes.running and self._succession.is_over:
            self._processes.signal(signal.SIGTERM)
            self._wait(self._settings.shutdown_timeout + self._patience.grace)
            self._processes.kill(self._child_ended)
        # The successor looks for this service's end to know that the one before has ended, too.
        if self._processes.running or not self._succession.alone:
            return False
        _log.info("the service has ended", extra={"event": "ended"})
        return True

    def _lose_store(self) -> int:
        """End: a worker that is started now finds no store, and those that live cannot be saved."""
        _log.error(
            "the store's directory %s was removed or replaced behind the service, which ends. "
            "Where that happens when a user logs out, it is RemoveIPC of systemd's logind: run the "
            "service as a system user.",
            self._shared.store.path,
            extra={"event": "store_lost"},
        )
        self._stop_workers()
        _log.info("the service has ended", extra={"event": "ended"})
        return 1

    def _end(self, why: str) -> int:
        _log.info("%s: the service ends", why, extra={"event": "ending"})
        if self._announced:
            self._succession.settle()
        self._counters.set_draining(True)
        if self._wait(self._settings.drain_delay) is not None:
            _log.info("told again: the drain delay is over")
        if not self._stop_workers():
            return 1
        kept = self._durability is None or self._durability.finish(self._counters)
        _log.info("the service has ended", extra={"event": "ended"})
        return 0 if kept else 1

    def _stop_workers(self) -> bool:
        """End the workers when their requests are answered; False when told to be quicker."""
        self._shared.listeners.close()
        self._processes.signal(signal.SIGTERM)
        limit = self._settings.shutdown_timeout + self._patience.grace
        again = self._wait(limit)
        if again is not None:
            _log.warning("%s again: the workers are killed", signals.name(again))
            self._processes.kill(self._child_ended)
            return False
        if self._processes.running:
            _log.warning("not all requests ended within %g seconds: they are cut off", limit)
            self._processes.kill(self._child_ended)
        return True

    def _wait(self, limit: float) -> int | None:
        return self._processes.wait(limit, self._child_ended)
