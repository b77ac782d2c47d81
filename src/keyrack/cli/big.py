"""`keyrack big`: show what fills the memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from keyrack.cli import asking, kinds
from keyrack.cli.printing import Column, Printer
from keyrack.cli.saying import say
from keyrack.cli.spec import DONE, KEYS, Command, Example, Flag

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from keyrack.cli.service import Service

_COLUMNS = (Column("NAME", "name"), Column("KIND", "kind"), Column("BYTES", "bytes", right=True))

COMMAND = Command(
    "Walk over all keys, in small steps, and show the largest ones and the folders (beginnings of "
    "keys up to a delimiter) that hold most. The total is told on standard error.",
    flags=(
        Flag(
            ("--prefix",),
            "only keys that begin with this",
            "PREFIX",
            kinds.raw,
            b"",
            completes=KEYS,
        ),
        Flag(("--limit",), "at most so many of both [default: 20]", "N", kinds.some, 20),
        Flag(("--delimiter",), "what ends a folder [default: /]", "TEXT", default="/"),
        Flag(("--depth",), "how many delimiters a folder has [default: 1]", "N", kinds.some, 1),
    ),
    formats=("table", "json", "jsonl", "raw"),
    examples=(
        Example(
            "What fills it?",
            "keyrack set app/name Keyrack\nkeyrack big --limit 1 -o raw 2>/dev/null",
            "app/name\napp/",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print a line for each key and folder."""

    def question(service: Service) -> int:
        query: list[tuple[str, str | bytes]] = [
            ("prefix", service.prefixed(given.prefix)),
            ("limit", str(given.limit)),
            ("delimiter", given.delimiter),
            ("depth", str(given.depth)),
        ]
        Printer(given, "table").rows(_rows(service.lines("/v1/big", query)), _COLUMNS)
        return DONE

    return asking.ask(given, question)


def _rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield keys and folders; say what is no row."""
    for line in lines:
        found = json.loads(line)
        if "progress" in found:
            say(f"… {found['progress']['keys']} keys")
        elif "total" in found:
            say(f"{found['total']['keys']} keys, {found['total']['bytes']} bytes in all.")
        else:
            kind = "key" if "key" in found else "folder"
            yield {"name": found.pop(kind), "kind": kind, **found}
