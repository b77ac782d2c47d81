"""`keyrack snapshot`: work with the files that keep a store on a disk. Each verb is a module."""

from __future__ import annotations

import argparse
import importlib
from typing import Final

VERBS: Final = {
    "save": ("save", "Have a running service take one, and fetch it"),
    "list": ("list_", "Show those in a data directory"),
    "verify": ("verify", "Check files, every byte"),
    "restore": ("restore", "Put one into a data directory, for the next start"),
}
"""Each verb's module and what it does."""


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    match arguments:
        case [verb, *rest] if verb in VERBS:
            return int(importlib.import_module(f"{__name__}.{VERBS[verb][0]}").run(rest))
    parser = argparse.ArgumentParser(
        prog="keyrack snapshot",
        usage="keyrack snapshot COMMAND [...]",
        description="Work with snapshots, the files that keep a store on a disk.",
        epilog="`keyrack snapshot COMMAND --help` tells more.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb, (_, summary) in VERBS.items():
        commands.add_parser(verb, help=summary)
    parser.parse_args(arguments)
    raise AssertionError("whatever is no verb ends in a message")
