"""`keyrack snapshot restore`: put a snapshot into a data directory, for the next start."""

from __future__ import annotations

import os
import shutil

from keyrack.cli import asking
from keyrack.cli.parser import Parser
from keyrack.cli.snapshot.shown import shown


def run(arguments: list[str]) -> int:
    """Check a snapshot and make it the newest of a data directory that no service has."""
    from keyrack.engines.contract import StoreError

    parser = Parser(
        prog="keyrack snapshot restore",
        description="Make a snapshot the newest of a data directory that no service uses. The next "
        "service that is started on it begins with what the snapshot holds; what the directory "
        "held before stays there as an older snapshot, as long as it is kept.",
        epilog="exit codes: 0 done, 1 refused, 2 misused",
    )
    parser.add_argument("file")
    parser.add_argument("--data-dir", required=True, metavar="DIRECTORY")
    given = parser.parse_args(arguments)
    try:
        return _restored(given.file, given.data_dir)
    except StoreError as error:
        return asking.complain(str(error), asking.REFUSED)
    except OSError as error:
        return asking.complain(f"{error.filename}: {error.strerror}.", asking.MISUSED)


def _restored(path: str, directory: str) -> int:
    from keyrack.engines.embedded.durability import data_directory, snapshot

    snapshot.verify(path)
    place, lock = data_directory.take(directory)
    try:
        number = place.next_number()
        part = place.files.create(place.part(number))
        with open(path, "rb") as source, open(part, "wb") as target:
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
    print(shown(name, os.path.getsize(name), summary))
    return asking.OK
