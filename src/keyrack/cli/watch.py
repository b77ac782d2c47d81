"""`keyrack watch`: print what changes, or run a command for it."""

from __future__ import annotations

import base64
import itertools
import os
import subprocess
from typing import TYPE_CHECKING, Any, Final

from keyrack.cli import asking, kinds, outages, saying
from keyrack.cli.printing import Printer, flush
from keyrack.cli.saying import escaped
from keyrack.cli.spec import DONE, KEYS, Argument, Command, Example, Flag
from keyrack.client import WatchEvent

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service

COLOURS: Final = {"set": "green", "delete": "red", "expire": "yellow", "evict": "yellow"}
COMMAND = Command(
    "Print what changes, as it happens, each change once and in order. It goes on by itself when "
    "the connection breaks. A watch has no end, so -o json is a document a line, as jsonl is.",
    arguments=(
        Argument("PREFIX", "only keys that begin with one of these", True, True, kinds.raw, KEYS),
    ),
    flags=(
        Flag(("--since",), "go on after this revision", "REVISION", kinds.whole),
        Flag(("--values",), "with the value, as it is when it is told"),
        Flag(
            ("--exec",),
            "run this by the shell for each change: KEYRACK_EVENT, KEYRACK_KEY, KEYRACK_REVISION "
            "say which; with --values the value is its standard input",
            "COMMAND",
        ),
        Flag(("--limit",), "end after so many", "NUMBER", kinds.some),
    ),
    formats=("jsonl", "json", "table"),
    terminal="table",
    examples=(
        Example(
            "Each change of an app runs a command, those since a revision first:",
            "since=$(keyrack set app/mark x --verbose | tr -d '\"')\n"
            "keyrack set app/name Keyrack\n"
            "keyrack watch app/ --since $since --limit 1 --exec 'echo $KEYRACK_EVENT $KEYRACK_KEY'",
            "set app/name",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print changes until it is interrupted."""

    def question(service: Service) -> int:
        service.text("/healthz")  # who mistyped an address is told, and does not wait for ever
        printer = Printer(given, "jsonl", "table")
        with outages.told():
            for event in itertools.islice(_changes(service, given), given.limit):
                if given.exec:
                    run_for(given.exec, event)
                else:
                    _print(printer, event)
        return DONE

    return asking.ask(given, question)


def _changes(service: Service, given: argparse.Namespace) -> Iterator[WatchEvent]:
    with service.watch(*given.prefix, since=given.since, values=given.values) as watch:
        for item in watch:
            if isinstance(item, WatchEvent):
                yield item


def run_for(command: str, event: WatchEvent) -> None:
    """Run a command for a change, and say when it failed."""
    environ = {
        **os.environ,
        "KEYRACK_EVENT": event.kind,
        "KEYRACK_REVISION": str(event.revision),
        "KEYRACK_TIME": event.time or "",
    }
    # A variable cannot hold a NUL: such a key is told escaped.
    environ["KEYRACK_KEY"] = escaped(event.key) if "\0" in event.key else event.key
    value = event.value if event.has_value else b""
    # A command line of the user's own. Keys and values reach it as variables and input only.
    done = subprocess.run(command, shell=True, env=environ, input=value, check=False)  # nosec B602
    if done.returncode:
        saying.say(f"keyrack: {command!r} ended with {done.returncode}.")


def _print(printer: Printer, event: WatchEvent) -> None:
    if printer.format == "table":
        kind = printer.paint(f"{event.kind:6}", COLOURS[event.kind])
        value = f"  {shown_value(event.value)}" if event.has_value else ""
        printer.line(f"{event.time}  {kind}  {event.revision}  {escaped(event.key)}{value}")
    else:
        printer.line(printer.json(record(event)))
    flush()


def shown_value(value: bytes) -> str:
    """Return a value on one line."""
    return escaped(value.decode("utf-8", "surrogateescape"))


def record(event: WatchEvent) -> dict[str, Any]:
    """Return a change for programs. A value that is no UTF-8 is in base64."""
    found = {
        "event": event.kind,
        "key": event.key,
        "revision": str(event.revision),
        "time": event.time,
    }
    if not event.has_value:
        return found
    try:
        return {**found, "value": event.value.decode()}
    except UnicodeDecodeError:
        encoded = base64.b64encode(event.value).decode()
        return {**found, "encoding": "base64", "value": encoded}
