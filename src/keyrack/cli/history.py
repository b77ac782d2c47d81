"""`keyrack history`: what happened to a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.cli import asking, kinds, saying
from keyrack.cli.printing import Column, Printer
from keyrack.cli.saying import shown_key
from keyrack.cli.spec import DONE, KEYS, MISSING, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COLUMNS: Final = (
    Column("TIME", "time"),
    Column("EVENT", "event", colour="bold"),
    Column("REVISION", "revision"),
)
COMMAND = Command(
    "Show the last known events of a key, the newest first: when it was set, deleted, ended, "
    "evicted. Where did it go?",
    arguments=(Argument("KEY", "the key", kind=kinds.key, completes=KEYS),),
    flags=(Flag(("--limit",), "at most so many [default: 100]", "NUMBER", kinds.some, 100),),
    formats=("table", "json", "jsonl"),
    examples=(
        Example(
            "It was set, and then deleted:",
            "keyrack set seen x\nkeyrack del seen\nkeyrack history seen | awk '{print $2}'",
            "EVENT\ndelete\nset",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the events."""

    def question(service: Service) -> int:
        found = [
            {"time": event.time, "event": event.kind, "revision": str(event.revision)}
            for event in service.history(given.key, limit=min(given.limit, 1000))
        ]
        Printer(given, "table").rows(found, COLUMNS)
        if not found:
            return saying.complain(f"Nothing is known of {shown_key(given.key)}.", MISSING)
        return DONE

    return asking.ask(given, question)
