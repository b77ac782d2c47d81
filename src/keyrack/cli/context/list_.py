"""`keyrack context list`: show all contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.cli.context import shown
from keyrack.cli.printing import Column, Printer
from keyrack.cli.spec import DONE, Command

if TYPE_CHECKING:
    import argparse

_COLUMNS: Final = (
    Column("NAME", "name", colour="bold"),
    Column("CURRENT", "current"),
    Column("URL", "url"),
    Column("SOCKET", "uds"),
    Column("PREFIX", "prefix"),
    Column("READ-ONLY", "read_only"),
)
COMMAND = Command(
    "Show all contexts, and which one is used.",
    formats=("table", "json", "jsonl", "raw"),
    asks=False,
)


def run(given: argparse.Namespace) -> int:
    """Print a line for each."""
    found = shown.loaded()
    Printer(given, "table").rows([shown.document(found, name) for name in found.named], _COLUMNS)
    return DONE
