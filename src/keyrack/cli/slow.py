"""`keyrack slow`: show what was slow, or forget it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from keyrack.cli import asking, kinds
from keyrack.cli.printing import Column, Printer
from keyrack.cli.spec import DONE, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

_COLUMNS = (
    Column("TIME", "shown_time"),
    Column("MS", "ms", right=True),
    Column("LOCK", "lock_ms", right=True),
    Column("DISK", "disk_ms", right=True),
    Column("OPERATION", "operation"),
    Column("KEY", "key"),
    Column("STATUS", "status", right=True),
    Column("BYTES", "bytes", right=True),
    Column("WORKER", "worker", right=True),
    Column("TOKEN", "token"),
)

COMMAND = Command(
    "Show the last requests that took long or had large answers (--slow and --slow-bytes of the "
    "service), the newest first, and how much of it they waited for the write lock and the disk. "
    "A `turn` is one of the event loop that was slow without any one request being the cause.",
    flags=(
        Flag(("--limit",), "at most so many [default: 100]", "N", kind=kinds.some, default=100),
        Flag(("--clear",), "forget them all"),
    ),
    formats=("table", "json", "jsonl"),
    examples=(Example("Begin anew, then look:", "keyrack slow --clear\nkeyrack slow >/dev/null"),),
)


def run(given: argparse.Namespace) -> int:
    """Print a line for each."""

    def question(service: Service) -> int:
        if given.clear:
            service.json("DELETE", "/v1/slow")
            return DONE
        _, found = service.json("GET", "/v1/slow", query=[("limit", str(given.limit))])
        printer = Printer(given, "table")
        entries = found["entries"]
        printer.rows(entries if printer.as_json else map(_shown, entries), _COLUMNS)
        return DONE

    return asking.ask(given, question)


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    at = time.localtime(entry["time"] / 1e9)
    waited = {name: round(entry.get(name, 0.0), 1) for name in ("ms", "lock_ms", "disk_ms")}
    return {**entry, **waited, "shown_time": time.strftime("%Y-%m-%d %H:%M:%S", at)}
