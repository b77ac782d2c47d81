"""`keyrack snapshot list`: show the snapshots in a data directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from keyrack.cli import saying
from keyrack.cli.printing import Printer
from keyrack.cli.snapshot.shown import COLUMNS, DATA_DIR, described
from keyrack.cli.spec import DONE, MISUSED, REFUSED, Command

if TYPE_CHECKING:
    import argparse

    from keyrack.engines.embedded.durability.data_directory import DataDirectory

COMMAND = Command(
    "Show the snapshots in a data directory, the newest first.",
    flags=(DATA_DIR,),
    formats=("table", "json", "jsonl", "raw"),
    asks=False,
    codes=((1, "one is damaged"),),
)


def run(given: argparse.Namespace) -> int:
    """Print a line for each snapshot, the newest first."""
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import data_directory

    try:
        found, damaged = _found(data_directory.look(given.data_dir))
    except StoreError as error:
        return saying.complain(str(error), MISUSED)
    Printer(given, "table").rows(found, COLUMNS)
    for sentence in damaged:
        saying.complain(sentence, REFUSED)
    return REFUSED if damaged else DONE


def _found(directory: DataDirectory) -> tuple[list[dict[str, Any]], list[str]]:
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import snapshot

    found, damaged = [], []
    for number in reversed(directory.snapshots()):
        path = directory.snapshot(number)
        try:
            summary = snapshot.verify(path)[1]
        except StoreError as error:
            damaged.append(str(error))
        else:
            found.append(described(os.path.basename(path), os.path.getsize(path), summary))
    return found, damaged
