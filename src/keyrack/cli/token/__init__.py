"""`keyrack token`: make tokens, look at them, take them back. Each verb is a module."""

from __future__ import annotations

import argparse
import importlib
from typing import Final

VERBS: Final = {
    "new": ("new", "Print a token and its hash; nothing is stored"),
    "create": ("create", "Make a token, in a file or in a running service"),
    "list": ("list_", "Show all tokens"),
    "show": ("show", "Show a token and its rules, in the order of decision"),
    "revoke": ("revoke", "Take a token back, at once"),
    "rotate": ("rotate", "Give a token another secret"),
    "check": ("check", "Tell whether something is allowed, and by which rule"),
    "ticket": ("ticket", "Make a weaker token for a short time"),
}
"""Each verb's module and what it does."""


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    match arguments:
        case [verb, *rest] if verb in VERBS:
            return int(importlib.import_module(f"{__name__}.{VERBS[verb][0]}").run(rest))
    parser = argparse.ArgumentParser(
        prog="keyrack token",
        usage="keyrack token COMMAND [...]",
        description="Work with the tokens that let clients in.",
        epilog="`keyrack token COMMAND --help` tells more.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb, (_, summary) in VERBS.items():
        commands.add_parser(verb, help=summary)
    parser.parse_args(arguments)
    raise AssertionError("whatever is no verb ends in a message")
