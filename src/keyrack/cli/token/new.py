"""`keyrack token new`: print a token and its hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.access import tokens
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, Command, Flag

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Print a new token, and with --hash what a file keeps of it. Nothing is stored. A service that "
    "is started with this token in KEYRACK_TOKEN lets it do everything.",
    flags=(Flag(("--hash",), "print its id and its hash as well"),),
    asks=False,
)


def run(given: argparse.Namespace) -> int:
    """Print a token that nobody knows yet, and what a file keeps of it."""
    made = tokens.new()
    lines = [made.text]
    if given.hash:
        lines += [f'id = "{made.id}"', f'hash = "{made.hash}"']
    known = {"token": made.text, "id": made.id, "hash": made.hash}
    Printer(given, "table").document(known, lines)
    return DONE
