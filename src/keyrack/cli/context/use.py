"""`keyrack context use`: choose the context that is used where nothing else is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli.context import shown
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, Command

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Choose the context that is used where no flag and no variable says otherwise.",
    arguments=(shown.NAME,),
    asks=False,
)


def run(given: argparse.Namespace) -> int:
    """Choose it; print nothing."""
    found = shown.loaded()
    shown.members_of(found, given.name)
    chosen = found._replace(current=given.name)
    shown.saved(chosen)
    Printer(given, "table").document(shown.document(chosen, given.name))
    return DONE
