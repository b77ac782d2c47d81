"""`keyrack replay`: tell what happened, from a moment up to now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.cli import asking, kinds
from keyrack.cli.moments import events, moment
from keyrack.cli.printing import Column, Printer
from keyrack.cli.spec import DONE, KEYS, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COLUMNS: Final = (
    Column("TIME", "time"),
    Column("EVENT", "event", colour="bold"),
    Column("REVISION", "revision"),
    Column("KEY", "key"),
)
COMMAND = Command(
    "Tell what happened below a prefix, in order, as far as the history reaches back, and end. "
    "`keyrack watch --since REVISION` goes on from there.",
    arguments=(Argument("PREFIX", "only keys that begin with this", True, False, kinds.raw, KEYS),),
    flags=(
        Flag(
            ("--from",),
            "after this revision or time, or for so long, like 10m [default: all that is known]",
            "MOMENT",
            moment,
            attribute="since",
        ),
        Flag(("--values",), "with the value that each key has now"),
    ),
    formats=("table", "json", "jsonl"),
    examples=(
        Example(
            "What was done in the last hour?",
            "keyrack set tmp/a 1\nkeyrack del tmp/a\n"
            "keyrack replay tmp/ --from 1h | awk '{print $2, $4}'",
            "EVENT KEY\nset tmp/a\ndelete tmp/a",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the events."""

    def question(service: Service) -> int:
        found = events(service, given.prefix or b"", given.since, values=given.values)
        columns = (*COLUMNS, Column("VALUE", "value")) if given.values else COLUMNS
        Printer(given, "table").rows(found, columns)
        return DONE

    return asking.ask(given, question)
