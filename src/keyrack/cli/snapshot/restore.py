"""`keyrack snapshot restore`: put a snapshot into a data directory, for the next start."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from keyrack.cli import saying
from keyrack.cli.printing import Printer
from keyrack.cli.snapshot.shown import DATA_DIR, shown
from keyrack.cli.spec import DONE, FILES, MISUSED, REFUSED, Argument, Command

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Make a snapshot the newest of a data directory that no service uses. The next service that is "
    "started on it begins with what the snapshot holds; what the directory held before stays there "
    "as an older snapshot, as long as it is kept.",
    arguments=(Argument("FILE", "the snapshot", completes=FILES),),
    flags=(DATA_DIR,),
    asks=False,
    codes=((1, "the file is damaged, or the directory in use"),),
)


def run(given: argparse.Namespace) -> int:
    """Check a snapshot and make it the newest of a data directory that no service has."""
    from keyrack.engines.contract import StoreError

    try:
        return _restored(given)
    except StoreError as error:
        return saying.complain(str(error), REFUSED)
    except OSError as error:
        return saying.complain(f"{error.filename}: {error.strerror}.", MISUSED)


def _restored(given: argparse.Namespace) -> int:
    from keyrack.engines.embedded.durability import data_directory, snapshot

    snapshot.verify(given.file)
    place, lock = data_directory.take(given.data_dir)
    try:
        number = place.next_number()
        part = place.files.create(place.part(number))
        with open(given.file, "rb") as source, open(part, "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        _, summary = snapshot.verify(place.part(number))
        os.rename(place.part(number), place.snapshot(number))
        place.files.sync_directory(place.path)
    finally:
        place.remove_parts()
        os.close(lock)
    name = place.snapshot(number)
    shown(Printer(given, "table"), name, os.path.getsize(name), summary)
    return DONE
