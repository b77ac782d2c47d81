"""`keyrack lock`: run a command while a lock is held."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

from keyrack.cli import asking, kinds, programs, saying
from keyrack.cli.printing import Printer
from keyrack.cli.saying import shown_key
from keyrack.cli.spec import DONE, Argument, Command, Example, Flag
from keyrack.client import KeyrackError, LockHeld

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service
    from keyrack.client.locks import Lock

NOT_GOT: Final = 75
LOST: Final = 76
_LOOK_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 10.0
COMMAND = Command(
    "Run a command while a lock is held, and end with its exit code. The lock is renewed as long "
    "as the command runs, and given back when it has ended. When it is lost, the command is told "
    "to end, and killed after 10 seconds. KEYRACK_TOKEN_FENCE is the fencing token: each holder's "
    "is higher than that of the one before. Without a command the lock is taken for --ttl and its "
    "token printed; `keyrack unlock` gives it back.",
    arguments=(Argument("NAME", "the lock", kind=kinds.key),),
    flags=(
        Flag(
            ("--ttl",),
            "how long it is held when this process is not there any more [default: 30s]",
            "TIME",
            kinds.some_seconds,
            30.0,
        ),
        Flag(
            ("--wait",),
            "how long to wait for it, 0 for not at all [default: as long as it takes]",
            "TIME",
            kinds.seconds,
        ),
        Flag(("--owner",), "who holds it, for people [default: this host and process]", "NAME"),
    ),
    program="[-- COMMAND [ARGUMENT…]]",
    writes=True,
    codes=(
        (NOT_GOT, "the lock was not got in time"),
        (LOST, "the lock was lost"),
        (126, "the command cannot be run"),
        (127, "the command is not found"),
    ),
    examples=(
        Example(
            "One at a time, of however many machines:",
            "keyrack lock report -- sh -c 'echo I hold it'",
            "I hold it",
        ),
        Example(
            "Not at all if somebody else does:",
            "keyrack lock backup --ttl 1m > /dev/null\n"
            'keyrack lock backup --wait 0 -- echo never 2> /dev/null || echo "exit code $?"',
            "exit code 75",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Take the lock, and run the command while it is held."""
    try:
        return asking.ask(given, lambda service: _locked(service, given))
    except programs.NotStarted as error:
        return saying.complain(str(error), error.code)


def _locked(service: Service, given: argparse.Namespace) -> int:
    lock = service.lock(
        given.name,
        ttl=given.ttl,
        wait=given.wait if given.wait is None or given.wait > 0 else 0.0,
        renew=bool(given.program),
        owner=given.owner,
    )
    try:
        lock.acquire()
    except LockHeld as error:
        left = f" for {error.ttl:.0f} s at most" if math.isfinite(error.ttl) else ""
        sentence = f"The lock {shown_key(given.name)} is held by {error.owner}{left}."
        return saying.complain(sentence, NOT_GOT)
    known = {
        "lock": given.name.decode("utf-8", "surrogateescape"),
        "token": str(lock.token),
        "owner": lock.owner,
        "ttl": given.ttl,
    }
    printer = Printer(given, "table")
    if not given.program:
        printer.document(known, [str(lock.token)])
        return DONE
    if printer.as_json:
        saying.say(printer.json(known))  # standard output is the command's
    return _run(lock, given.program)


def _run(lock: Lock, words: list[str]) -> int:
    foreground = programs.Foreground()
    environ = {**os.environ, "KEYRACK_TOKEN_FENCE": str(lock.token)}
    with foreground.passing_signals_on():
        try:
            program = foreground.start(words, environ)
            while (code := program.code(_LOOK_SECONDS)) is None:
                if lock.lost:
                    program.end(_PATIENCE_SECONDS)
                    return saying.complain("The lock was lost; the command was ended.", LOST)
        finally:
            lost = lock.lost
            _release(lock)
    return saying.complain("The lock was lost before the command ended.", LOST) if lost else code


def _release(lock: Lock) -> None:
    try:
        lock.release()
    except KeyrackError as error:
        saying.say(f"keyrack: the lock was not given back, and ends by itself: {error}")
