"""`keyrack run`: run a program with its environment from keys."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Final

from keyrack.cli import asking, kinds, outages, programs, saying
from keyrack.cli.changes import Changes
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.spec import KEYS, Argument, Command, Example, Flag
from keyrack.client import ScanEntry

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

_LOOK_SECONDS: Final = 0.1
_ODD: Final = re.compile(r"[^A-Za-z0-9_]")
COMMAND = Command(
    "Run a program whose environment comes from the keys below a prefix: `app/db/host` is DB_HOST "
    "for the prefix `app/`. When keys change so that the environment does, the program is told to "
    "end and started again, or gets a signal. It ends when the program ends by itself, with its "
    "exit code. While the service cannot be reached the program goes on with what it has.",
    arguments=(Argument("PREFIX", "the keys that are variables", kind=kinds.raw, completes=KEYS),),
    flags=(
        Flag(
            ("--signal",),
            "send this instead of starting it again: it keeps the environment that it has",
            "NAME",
            programs.signal_of,
        ),
        Flag(("--once",), "do not look for changes"),
        Flag(("--pristine",), "with no other variables than PATH, HOME and those of the keys"),
        Flag(("--as-is",), "names as the keys have them, instead of A to Z, 0 to 9 and _"),
        Flag(
            ("--kill-after",),
            "kill it when it has not ended after this time [default: 10s]",
            "TIME",
            kinds.some_seconds,
            10.0,
        ),
    ),
    program="-- COMMAND [ARGUMENT…]",
    codes=((126, "the command cannot be run"), (127, "the command is not found")),
    examples=(
        Example(
            "Configuration in the environment:",
            "keyrack set app/db/host db.internal\nkeyrack set app/port 8088\n"
            "keyrack run app/ -- sh -c 'echo $DB_HOST:$PORT'",
            "db.internal:8088",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Run the program, and run it again when its environment changes."""
    if not given.program:
        raise Misused("Say which program to run, behind `--`.")
    try:
        with outages.told():
            return asking.ask(given, lambda service: _run(service, given))
    except programs.NotStarted as error:
        return saying.complain(str(error), error.code)


def _run(service: Service, given: argparse.Namespace) -> int:
    environ = _environment(service, given)  # who mistyped an address is told at once
    changes = None if given.once else Changes(service, [given.prefix])
    foreground = programs.Foreground()
    try:
        with foreground.passing_signals_on():
            if changes is not None:
                changes.wait_synced()
                environ = _environment(service, given)
            return _kept_running(service, given, environ, changes, foreground)
    finally:
        if changes is not None:
            changes.close()


def _kept_running(
    service: Service,
    given: argparse.Namespace,
    environ: dict[str, str],
    changes: Changes | None,
    foreground: programs.Foreground,
) -> int:
    _tell(given, environ)
    foreground.start(given.program, environ)
    while (code := foreground.program.code(_LOOK_SECONDS)) is None:
        if changes is None or not changes.wait(0.0):
            continue
        if changes.failure is not None:
            saying.say(f"keyrack: changes are not noticed any more: {changes.failure}")
            changes = None
            continue
        after = _environment(service, given)
        if after == environ:
            continue
        environ = after
        _tell(given, environ)
        if given.signal is not None:
            foreground.program.send(given.signal)
            continue
        code = foreground.program.end(given.kill_after)
        if foreground.is_ending:
            return code
        foreground.start(given.program, environ)
    return code


def _environment(service: Service, given: argparse.Namespace) -> dict[str, str]:
    values = {
        name: entry.value
        for entry in service.scan(given.prefix, values=True)
        if isinstance(entry, ScanEntry) and (name := _name(entry.key, given))
    }
    environ = programs.environment(values)
    if given.pristine:
        kept = {*values, "PATH", "HOME"}
        return {name: value for name, value in environ.items() if name in kept}
    return environ


def _name(key: str, given: argparse.Namespace) -> str:
    """Return the variable that a key is, empty for none."""
    name = key.encode()[len(given.prefix) :].decode()
    if given.as_is:
        return "" if "=" in name or "\0" in name else name
    name = _ODD.sub("_", name).upper()
    return f"_{name}" if name[:1].isdigit() else name


def _tell(given: argparse.Namespace, environ: dict[str, str]) -> None:
    printer = Printer(given, "table")
    if printer.as_json:  # standard output is the program's
        own = sorted(name for name in environ if environ[name] != os.environ.get(name))
        saying.say(printer.json({"started": time.time(), "variables": own}))
