"""`keyrack snapshot verify`: check snapshots, every byte."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from keyrack.cli import saying
from keyrack.cli.printing import Printer
from keyrack.cli.snapshot.shown import COLUMNS, described
from keyrack.cli.spec import DONE, FILES, REFUSED, Argument, Command

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Check snapshots, every byte, and say what they hold.",
    arguments=(Argument("FILE", "the snapshots", many=True, completes=FILES),),
    formats=("table", "json", "jsonl", "raw"),
    asks=False,
    codes=((1, "one is damaged"),),
)


def run(given: argparse.Namespace) -> int:
    """Check each file, and say what it is."""
    found: list[dict[str, Any]] = []
    damaged = [sentence for path in given.file if (sentence := _verified(path, found))]
    Printer(given, "table").rows(found, COLUMNS)
    for sentence in damaged:
        saying.complain(sentence, REFUSED)
    return REFUSED if damaged else DONE


def _verified(path: str, found: list[dict[str, Any]]) -> str:
    """Add what a snapshot holds; return why it is none, and nothing where it is one."""
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import snapshot

    try:
        _, summary = snapshot.verify(path)
    except StoreError as error:
        return str(error)
    found.append(described(path, os.path.getsize(path), summary))
    return ""
