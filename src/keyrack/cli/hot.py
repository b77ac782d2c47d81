"""`keyrack hot`: show which keys are asked for most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds
from keyrack.cli.printing import Column, Printer
from keyrack.cli.saying import say
from keyrack.cli.spec import DONE, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

_COLUMNS = (Column("KEY", "key"), Column("A SECOND", "rate", right=True))

COMMAND = Command(
    "Look for some seconds at the requests of all workers, and show the keys that were asked for "
    "most. The service counts nothing while nobody looks.",
    flags=(
        Flag(("--limit",), "at most so many [default: 20]", "N", kind=kinds.some, default=20),
        Flag(
            ("--seconds",),
            "how long to look, 1 to 30 [default: 5]",
            "N",
            kind=kinds.some,
            default=5,
        ),
    ),
    formats=("table", "json", "jsonl", "raw"),
    examples=(Example("A short look:", "keyrack hot --seconds 1 -o raw"),),
)


def run(given: argparse.Namespace) -> int:
    """Print a line for each key."""

    def question(service: Service) -> int:
        query = [("seconds", str(given.seconds)), ("limit", str(given.limit))]
        _, found = service.json("GET", "/v1/hot", query=query, seconds=given.seconds)
        printer = Printer(given, "table")
        printer.rows(found["keys"], _COLUMNS)
        if found["missing_workers"]:
            say(f"Workers that did not answer: {', '.join(map(str, found['missing_workers']))}.")
        return DONE

    return asking.ask(given, question)
