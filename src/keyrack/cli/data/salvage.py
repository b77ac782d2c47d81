"""`keyrack data salvage`: go on with what can be read of a damaged data directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from keyrack.cli import saying
from keyrack.cli.data.check import described, told
from keyrack.cli.printing import Printer
from keyrack.cli.snapshot import shown
from keyrack.cli.snapshot.shown import DATA_DIR
from keyrack.cli.spec import DONE, MISUSED, REFUSED, Command

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Make a snapshot of what can be read of a damaged data directory, for the next start. What "
    "is damaged, and all journals, are renamed and kept (.set-aside). Where nothing is lost "
    "nothing is changed, but a damaged file `keyrack`, which is made anew. `keyrack data check` "
    "says beforehand what is lost.",
    flags=(DATA_DIR,),
    asks=False,
    codes=((0, "done, or nothing to do"), (1, "refused")),
)


def run(given: argparse.Namespace) -> int:
    """Make a snapshot of what can be read, set the rest aside, and print what is lost."""
    from keyrack.engines.contract import StoreError

    try:
        return _salvaged(given)
    except StoreError as error:
        return saying.complain(str(error), REFUSED)
    except OSError as error:
        return saying.complain(f"{error.filename}: {error.strerror}.", MISUSED)


def _salvaged(given: argparse.Namespace) -> int:
    from keyrack.engines.contract import StoreFormatUnknown
    from keyrack.engines.embedded.durability import data_directory
    from keyrack.engines.embedded.durability.salvage import mend_head, plan, salvage

    printer = Printer(given, "table")
    mended = ""
    try:
        data_directory.look(given.data_dir)
    except StoreFormatUnknown:
        if not data_directory.has_files(given.data_dir):
            raise  # else a directory that is misspelt would be made
        mended = mend_head(given.data_dir)
    data, lock = data_directory.take(given.data_dir)
    try:
        planned = plan(data)
        found = {**described(planned), "mended": mended, "snapshot": None, "set_aside": []}
        lines = [*filter(None, (mended,)), *told(planned)]
        if not planned.is_needed:
            printer.document(found, lines)
            return DONE
        if not printer.as_json:
            printer.document(found, lines)
        path, summary, aside = salvage(data, planned)
    finally:
        os.close(lock)
    if printer.as_json:
        made = shown.described(path, os.path.getsize(path), summary)
        printer.document({**found, "snapshot": made, "set_aside": list(aside)})
        return DONE
    for moved in aside:
        printer.line(f"{moved} was set aside.")
    shown.shown(printer, path, os.path.getsize(path), summary)
    return DONE
