"""`keyrack data salvage`: go on with what can be read of a damaged data directory."""

from __future__ import annotations

import os

from keyrack.cli import asking
from keyrack.cli.data.check import told
from keyrack.cli.parser import Parser
from keyrack.cli.snapshot.shown import shown


def run(arguments: list[str]) -> int:
    """Make a snapshot of what can be read, set the rest aside, and print what is lost."""
    from keyrack.engines.contract import StoreError

    parser = Parser(
        prog="keyrack data salvage",
        description="Make a snapshot of what can be read of a damaged data directory, for the next "
        "start. What is damaged, and all journals, are renamed and kept (.set-aside). Where "
        "nothing is lost nothing is changed, but a damaged file `keyrack`, which is made anew. "
        "`keyrack data check` says beforehand what is lost.",
        epilog="exit codes: 0 done, or nothing to do; 1 refused, 2 misused",
    )
    parser.add_argument("--data-dir", required=True, metavar="DIRECTORY")
    try:
        return _salvaged(parser.parse_args(arguments).data_dir)
    except StoreError as error:
        return asking.complain(str(error), asking.REFUSED)
    except OSError as error:
        return asking.complain(f"{error.filename}: {error.strerror}.", asking.MISUSED)


def _salvaged(directory: str) -> int:
    from keyrack.engines.contract import StoreFormatUnknown
    from keyrack.engines.embedded.durability import data_directory
    from keyrack.engines.embedded.durability.salvage import mend_head, plan, salvage

    try:
        data_directory.look(directory)
    except StoreFormatUnknown:
        if not data_directory.has_files(directory):
            raise  # else a directory that is misspelt would be made
        print(mend_head(directory))
    data, lock = data_directory.take(directory)
    try:
        planned = plan(data)
        print(told(planned))
        if not planned.is_needed:
            return asking.OK
        path, summary, aside = salvage(data, planned)
    finally:
        os.close(lock)
    for moved in aside:
        print(f"{moved} was set aside.")
    print(shown(path, os.path.getsize(path), summary))
    return asking.OK
