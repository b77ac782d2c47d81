"""`keyrack context show`: show one context, without its token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli.context import shown
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer, pairs
from keyrack.cli.spec import CONTEXTS, DONE, Argument, Command

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Show a context, the one that is used if none is named. Its token is not shown.",
    arguments=(Argument("NAME", "its name", optional=True, completes=CONTEXTS),),
    asks=False,
)


def run(given: argparse.Namespace) -> int:
    """Print what it says."""
    found = shown.loaded()
    name = given.name or found.current
    if name is None:
        raise Misused("No context is used; `keyrack context add` makes one.")
    told = shown.document(found, name)
    Printer(given, "table").document(told, pairs(told))
    return DONE
