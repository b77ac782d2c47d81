"""The supervisor's signals: none interrupts it, none is lost, and none ends it by surprise.

While the service starts, a signal to end raises `SystemExit`: what was begun is undone on the way
out, and the exit code is 0, because ending is what was asked for. Later signals are blocked and
waited for. All others that would end a process are ignored, with a line in the log: a program that
rotates logs and sends SIGUSR1 must not stop a store.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

ENDING: Final = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
HANGUP: Final = signal.SIGHUP
_IGNORED: Final = frozenset(
    (
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGIO,
        signal.SIGPWR,
        signal.SIGSTKFLT,
        signal.SIGXCPU,
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    )
)
_BLOCKED: Final = _IGNORED | {HANGUP, signal.SIGCHLD}
_WAITED_FOR: Final = _BLOCKED | ENDING

_log = logging.getLogger("keyrack.supervisor")


class Signals:
    """What the supervisor hears of the world. Make it before anything else is done."""

    def __init__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        """What was blocked before, which is what workers begin with."""
        self._handlers = {number: signal.signal(number, _end_start) for number in ENDING}

    def release(self) -> None:
        """Leave signals as they were found: there is nothing to be started."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def take(self) -> None:
        """The service has started: from now on signals to end are waited for as well."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    def wait(self, seconds: float) -> int | None:
        """Return the next signal that means something, None if none comes within the time.

        A child that has ended is one, so a wait may be shorter than was asked for.
        """
        received = signal.sigtimedwait(_WAITED_FOR, seconds)
        if received is None:
            return None
        if received.si_signo in _IGNORED:
            _log.info("%s is ignored", name(received.si_signo), extra={"event": "signal_ignored"})
        return received.si_signo

    def restore(self) -> None:
        """In a child: end by a signal to end, and ignore what the supervisor ignores."""
        for number in ENDING | {signal.SIGCHLD}:
            signal.signal(number, signal.SIG_DFL)
        for number in (*_IGNORED, HANGUP):
            signal.signal(number, signal.SIG_IGN)
        # A terminal sends Ctrl-C to all processes; the supervisor then tells the workers, once.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask | {signal.SIGINT, signal.SIGQUIT})


def name(number: int) -> str:
    """Return what a signal is called."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end_start(number: int, _frame: FrameType | None) -> None:
    for again in ENDING:
        signal.signal(again, signal.SIG_IGN)  # once is enough: what was begun is being undone
    _log.info("%s: the service ends before it was ready", name(number), extra={"event": "ended"})
    raise SystemExit(0)
