"""`keyrack snapshot save`: have a running service take a snapshot, and fetch it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from keyrack.cli import asking
from keyrack.cli.progress import Progress
from keyrack.cli.snapshot.shown import shown

if TYPE_CHECKING:
    from keyrack.client import Client


def run(arguments: list[str]) -> int:
    """Fetch a snapshot into a file, which is there whole and checked, or not at all."""
    parser = asking.parser(
        "snapshot save", "Have the service take a snapshot, and fetch it.", key=False
    )
    parser.add_argument("file", help="where to put it")
    given = parser.parse_args(arguments)
    try:
        return asking.ask(given, lambda client: _saved(client, given.file))
    except OSError as error:
        return asking.complain(
            f"{given.file!r} cannot be written: {error.strerror}.", asking.MISUSED
        )


def _saved(client: Client, path: str) -> int:
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import snapshot

    part = f"{path}.part"
    try:
        with open(part, "wb") as file:
            for piece in Progress("fetched").watch(client.snapshot()):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        _, summary = snapshot.verify(part)
        os.replace(part, path)
    except StoreError as error:
        return asking.complain(f"What came is no whole snapshot: {error}", asking.REFUSED)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
    print(shown(path, os.path.getsize(path), summary))
    return asking.OK
