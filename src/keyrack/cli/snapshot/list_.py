"""`keyrack snapshot list`: show the snapshots in a data directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from keyrack.cli import asking
from keyrack.cli.parser import Parser
from keyrack.cli.snapshot.shown import shown

if TYPE_CHECKING:
    from keyrack.engines.embedded.durability.data_directory import DataDirectory


def run(arguments: list[str]) -> int:
    """Print a line for each snapshot, the newest first."""
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import data_directory

    parser = Parser(
        prog="keyrack snapshot list",
        description="Show the snapshots in a data directory, the newest first.",
        epilog="exit codes: 0 done, 1 one is damaged, 2 misused",
    )
    parser.add_argument("--data-dir", required=True, metavar="DIRECTORY")
    try:
        return _listed(data_directory.look(parser.parse_args(arguments).data_dir))
    except StoreError as error:
        return asking.complain(str(error), asking.MISUSED)


def _listed(directory: DataDirectory) -> int:
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import snapshot

    code = asking.OK
    for number in reversed(directory.snapshots()):
        path = directory.snapshot(number)
        try:
            summary = snapshot.verify(path)[1]
        except StoreError as error:
            code = asking.complain(str(error), asking.REFUSED)
        else:
            print(shown(os.path.basename(path), os.path.getsize(path), summary))
    return code
