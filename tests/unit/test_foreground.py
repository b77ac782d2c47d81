"""Signals reach the program that runs in a command's place, also while it is being started."""

from __future__ import annotations

import os
import signal

import pytest

from keyrack.cli import programs


class Told:
    """A program that notes what it is sent. While it is started, this process gets signals."""

    def __init__(self, *while_it_starts: int, code: int | None = None) -> None:
        self.heard: list[int] = []
        self._code = code
        for number in while_it_starts:
            os.kill(os.getpid(), number)

    def send(self, number: int) -> None:
        self.heard.append(number)

    def code(self, _seconds: float) -> int | None:
        return self._code


def started(
    monkeypatch: pytest.MonkeyPatch, *while_it_starts: int, code: int | None = None
) -> tuple[programs.Foreground, Told]:
    made: list[Told] = []

    def start(_words: object, _environ: object) -> Told:
        made.append(Told(*while_it_starts, code=code))
        return made[-1]

    monkeypatch.setattr(programs, "Program", start)
    foreground = programs.Foreground()
    with foreground.passing_signals_on():
        foreground.start(["program"], {})
    return foreground, made[0]


def test_what_comes_while_it_is_started_is_kept_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    foreground, program = started(monkeypatch, signal.SIGTERM, signal.SIGUSR1)
    assert program.heard == [signal.SIGTERM, signal.SIGUSR1]
    assert foreground.is_ending


def test_ctrl_c_is_sent_again_to_who_was_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    _, program = started(monkeypatch, signal.SIGINT)
    assert program.heard == [signal.SIGINT]


def test_ctrl_c_is_not_sent_to_who_has_heard_it(monkeypatch: pytest.MonkeyPatch) -> None:
    foreground, program = started(monkeypatch, signal.SIGINT, code=130)
    assert program.heard == []
    assert foreground.is_ending


def test_before_there_is_any_program_ctrl_c_ends_the_command() -> None:
    with programs.Foreground().passing_signals_on(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    started(monkeypatch)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
