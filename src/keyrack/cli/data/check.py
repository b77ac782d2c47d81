"""`keyrack data check`: say what can be read of a data directory, and what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking
from keyrack.cli.parser import Parser

if TYPE_CHECKING:
    from keyrack.engines.embedded.durability.salvage import Plan


def run(arguments: list[str]) -> int:
    """Read every file, change nothing, and print what was found."""
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import data_directory
    from keyrack.engines.embedded.durability.salvage import plan

    parser = Parser(
        prog="keyrack data check",
        description="Read every file of a data directory that the next start would read, and say "
        "what is damaged, what can be read, and what is lost. Nothing is changed.",
        epilog="exit codes: 0 nothing is lost, 1 something is, or it cannot be read, 2 misused",
    )
    parser.add_argument("--data-dir", required=True, metavar="DIRECTORY")
    try:
        planned = plan(data_directory.look(parser.parse_args(arguments).data_dir))
    except StoreError as error:
        return asking.complain(str(error), asking.REFUSED)
    print(told(planned))
    return asking.REFUSED if planned.is_needed else asking.OK


def told(planned: Plan) -> str:
    """Return what was found, a line for each sentence."""
    found = planned.found
    lines = [*found.damage, f"What can be read: {planned.source()}."]
    if planned.is_needed:
        lines += [*filter(None, (found.obstacle,)), *planned.losses()]
    else:
        lines.append("Nothing that was promised is lost.")
    return "\n".join(lines)
