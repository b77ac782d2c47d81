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


@contextlib.contextmanager
def passing_signals_on(to: list[Program]) -> Iterator[None]:
    """Send what ends or wakes this process to the program that is last in the list, instead."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if to:
            to[-1].send(number)

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if not to:
            raise KeyboardInterrupt
        # The program has got it too, and decides by itself what to do.

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
