"""`keyrack snapshot verify`: check snapshots, every byte."""

from __future__ import annotations

import os

from keyrack.cli import asking
from keyrack.cli.parser import Parser
from keyrack.cli.snapshot.shown import shown


def run(arguments: list[str]) -> int:
    """Check each file, and say what it is."""
    parser = Parser(
        prog="keyrack snapshot verify",
        description="Check snapshots, every byte, and say what they hold.",
        epilog="exit codes: 0 all are good, 1 one is not, 2 misused",
    )
    parser.add_argument("file", nargs="+")
    code = asking.OK
    for path in parser.parse_args(arguments).file:
        code = max(code, _verified(path))
    return code


def _verified(path: str) -> int:
    from keyrack.engines.contract import StoreError
    from keyrack.engines.embedded.durability import snapshot

    try:
        _, summary = snapshot.verify(path)
    except StoreError as error:
        return asking.complain(str(error), asking.REFUSED)
    print(shown(path, os.path.getsize(path), summary))
    return asking.OK
