"""`keyrack snapshot save`: have a running service take a snapshot, and fetch it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from keyrack.cli import asking, saying
from keyrack.cli.printing import Printer
from keyrack.cli.progress import FLAG, Progress
from keyrack.cli.snapshot.shown import shown
from keyrack.cli.spec import DONE, FILES, MISUSED, REFUSED, Argument, Command

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Have the service take a snapshot of everything it holds, and fetch it. The file is there "
    "whole and checked, or not at all.",
    arguments=(Argument("FILE", "where to put it", completes=FILES),),
    flags=(FLAG,),
)


def run(given: argparse.Namespace) -> int:
    """Fetch a snapshot into a file."""
    try:
        return asking.ask(given, lambda service: _saved(service, given))
    except OSError as error:
        return saying.complain(f"{given.file!r} cannot be written: {error.strerror}.", MISUSED)


def _saved(service: Service, given: argparse.Namespace) -> int:
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import snapshot

    path, part = given.file, f"{given.file}.part"
    try:
        with open(part, "wb") as file:
            for piece in Progress("fetched", shown=given.progress).watch(service.snapshot()):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        _, summary = snapshot.verify(part)
        os.replace(part, path)
    except StoreError as error:
        return saying.complain(f"What came is no whole snapshot: {error}", REFUSED)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
    shown(Printer(given, "table"), path, os.path.getsize(path), summary)
    return DONE
