"""`keyrack clients`: show who is connected, or end a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from keyrack.cli import asking, kinds
from keyrack.cli.printing import Column, Printer
from keyrack.cli.saying import say
from keyrack.cli.spec import DONE, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

_COLUMNS = (
    Column("ID", "id"),
    Column("ADDRESS", "address"),
    Column("AGE", "age", right=True),
    Column("IDLE", "idle", right=True),
    Column("STATE", "state"),
    Column("REQUEST", "request"),
    Column("OWED", "owed", right=True),
    Column("TOKEN", "token"),
    Column("AGENT", "agent"),
)

COMMAND = Command(
    "Show who is connected: those to whom most is owed first, then the oldest. `reading` are those "
    "that do not take their answers. What is told of a sender is what its last request said.",
    flags=(
        Flag(("--limit",), "at most so many [default: 100]", "N", kind=kinds.some, default=100),
        Flag(("--end",), "end the connection with this ID, at once", "ID"),
    ),
    formats=("table", "json", "jsonl", "raw"),
    examples=(Example("How many are there?", "keyrack clients -o raw | wc -l", "1"),),
)


def run(given: argparse.Namespace) -> int:
    """Print a line for each connection, or end one."""

    def question(service: Service) -> int:
        if given.end is not None:
            service.json("DELETE", f"/v1/clients/{quote(given.end, safe='')}")
            return DONE
        _, found = service.json("GET", "/v1/clients", query=[("limit", str(given.limit))])
        Printer(given, "table").rows(found["clients"], _COLUMNS)
        if found["missing_workers"]:
            say(f"Workers that did not answer: {', '.join(map(str, found['missing_workers']))}.")
        return DONE

    return asking.ask(given, question)
