"""`keyrack data check`: say what can be read of a data directory, and what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.cli import saying
from keyrack.cli.printing import Printer
from keyrack.cli.snapshot.shown import DATA_DIR
from keyrack.cli.spec import DONE, REFUSED, Command

if TYPE_CHECKING:
    import argparse

    from keyrack.engines.embedded.durability.salvage import Plan

COMMAND = Command(
    "Read every file of a data directory that the next start would read, and say what is damaged, "
    "what can be read, and what is lost. Nothing is changed.",
    flags=(DATA_DIR,),
    asks=False,
    codes=((1, "something is lost, or cannot be read"),),
)


def run(given: argparse.Namespace) -> int:
    """Read every file, change nothing, and print what was found."""
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import data_directory
    from keyrack.engines.embedded.durability.salvage import plan

    try:
        planned = plan(data_directory.look(given.data_dir))
    except StoreError as error:
        return saying.complain(str(error), REFUSED)
    Printer(given, "table").document(described(planned), told(planned))
    return REFUSED if planned.is_needed else DONE


def described(planned: Plan) -> dict[str, Any]:
    """Return what was found, for programs."""
    return {
        "damaged": planned.is_needed,
        "damage": list(planned.found.damage),
        "readable": planned.source(),
        "losses": list(planned.losses()) if planned.is_needed else [],
    }


def told(planned: Plan) -> list[str]:
    """Return what was found, a line for each sentence."""
    found = planned.found
    lines = [*found.damage, f"What can be read: {planned.source()}."]
    if planned.is_needed:
        return [*lines, *filter(None, (found.obstacle,)), *planned.losses()]
    return [*lines, "Nothing that was promised is lost."]
