"""Running somebody else's program: its signals, its end, its exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

from keyrack.cli.parsing import Misused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_NOT_FOUND: Final = 127
_NOT_RUNNABLE: Final = 126
_HEARD_SECONDS: Final = 0.2
"""How long a program has to end, if it has got the Ctrl-C that came while it was being started."""


class Program:
    """A program that runs now. It is in the same process group: Ctrl-C reaches it by itself."""

    def __init__(self, words: list[str], environ: Mapping[str, str]) -> None:
        try:
            self._process = subprocess.Popen(words, env=dict(environ))
        except FileNotFoundError:
            raise NotStarted(f"{words[0]!r} is no program that can be found.", _NOT_FOUND) from None
        except OSError as error:
            detail = f"{words[0]!r} cannot be run: {error.strerror}."
            raise NotStarted(detail, _NOT_RUNNABLE) from None

    def code(self, seconds: float) -> int | None:
        """Wait so long for its end, and return its exit code as a shell would; None: it runs."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self, patience: float) -> int:
        """Tell it to end, kill it when it has not after so many seconds; return its exit code."""
        self._process.terminate()
        code = self.code(patience)
        if code is None:
            self._process.kill()
            code = self.code(60.0)
        return 128 + signal.SIGKILL if code is None else code


class NotStarted(Exception):
    """Raised when a program cannot be run. The message is a sentence; `code` is a shell's."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


class Foreground:
    """What runs in this process's place, one program after the other.

    What ends or wakes this process goes to the program instead; what comes while one is being
    started is kept for it.
    """

    def __init__(self) -> None:
        self._program: Program | None = None
        self._is_starting = False
        self._early: list[int] = []
        self.is_ending = False
        """Somebody wants this process to end, so no other program should be started."""

    @property
    def program(self) -> Program:
        """The one that was started last."""
        assert self._program is not None
        return self._program

    def start(self, words: list[str], environ: Mapping[str, str]) -> Program:
        """Start a program. Raises `NotStarted`."""
        self._is_starting = True
        try:
            self._program = started = Program(words, environ)
        finally:
            self._is_starting = False
        early, self._early = self._early, []
        for number in early:
            # Ctrl-C has reached it already, unless it was not there yet.
            if number != signal.SIGINT or started.code(_HEARD_SECONDS) is None:
                started.send(number)
        return started

    @contextlib.contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """Pass on what is sent to this process, as long as this lasts."""
        before = {number: signal.signal(number, self._pass_on) for number in _PASSED_ON}
        before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self.is_ending = self.is_ending or number == signal.SIGTERM
        if self._is_starting:
            self._early.append(number)
        elif self._program is not None:
            self._program.send(number)

    def _interrupted(self, number: int, _frame: FrameType | None) -> None:
        self.is_ending = True
        if self._is_starting:
            self._early.append(number)
        elif self._program is None:
            raise KeyboardInterrupt
        # A program that runs has got it too, and decides by itself what to do.


def signal_of(text: str) -> int:
    """Return the number of a signal like HUP, SIGHUP or 1. Raises `ValueError`."""
    if text.isdecimal() and int(text) in set(signal.Signals):
        return int(text)
    name = text.upper().removeprefix("SIG")
    if f"SIG{name}" not in signal.Signals.__members__:
        raise ValueError(f"{text!r} is no signal like HUP or TERM.")
    return int(signal.Signals[f"SIG{name}"])


def environment(values: Mapping[str, bytes]) -> dict[str, str]:
    """Return this process's environment with more variables. Raises `Misused`."""
    environ = dict(os.environ)
    for name, value in values.items():
        if b"\0" in value:
            raise Misused(f"The value for {name} has a NUL byte, which no variable can hold.")
        environ[name] = os.fsdecode(value)
    return environ
