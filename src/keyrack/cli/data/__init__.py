"""`keyrack data`: see what a data directory holds, and go on with what can be read of it."""

from __future__ import annotations

import argparse
import importlib
from typing import Final

VERBS: Final = {
    "check": ("check", "Say what can be read, and what is lost"),
    "salvage": ("salvage", "Go on with what can be read, and say what is lost"),
}
"""Each verb's module and what it does."""


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    match arguments:
        case [verb, *rest] if verb in VERBS:
            return int(importlib.import_module(f"{__name__}.{VERBS[verb][0]}").run(rest))
    parser = argparse.ArgumentParser(
        prog="keyrack data",
        usage="keyrack data COMMAND [...]",
        description="Look into a data directory (--data-dir) that no service uses now.",
        epilog="`keyrack data COMMAND --help` tells more.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb, (_, summary) in VERBS.items():
        commands.add_parser(verb, help=summary)
    parser.parse_args(arguments)
    raise AssertionError("whatever is no verb ends in a message")
