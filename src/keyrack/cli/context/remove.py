"""`keyrack context remove`: forget a context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli.context import shown
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, Command

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Forget a context, its token included.",
    arguments=(shown.NAME,),
    asks=False,
)


def run(given: argparse.Namespace) -> int:
    """Forget it; print nothing."""
    found = shown.loaded()
    shown.members_of(found, given.name)
    del found.named[given.name]
    current = None if found.current == given.name else found.current
    shown.saved(found._replace(current=current))
    Printer(given, "table").document({"removed": given.name, "current": current})
    return DONE
