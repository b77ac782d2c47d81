"""Verbs that have verbs of their own, as `keyrack token create`: each is a module."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from keyrack.cli import typos
from keyrack.cli.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Mapping


def run(
    package: str, verbs: Mapping[str, tuple[str, str]], about: str, arguments: list[str]
) -> int:
    """Do what the arguments say and return the exit code.

    `package` is where the modules are; `verbs` has each verb's module and what it does.
    """
    match arguments:
        case [verb, *rest] if verb in verbs:
            return int(importlib.import_module(f"{package}.{verbs[verb][0]}").run(rest))
    prog = f"keyrack {package.rpartition('.')[2]}"
    parser = Parser(
        prog,
        usage=f"{prog} COMMAND [...]",
        description=about,
        epilog=f"`{prog} COMMAND --help` tells more.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for verb, (_, summary) in verbs.items():
        commands.add_parser(verb, help=summary, prog=f"{prog} {verb}")
    if not arguments:
        parser.error("a command is missing")
    if not arguments[0].startswith("-"):
        parser.error(f"{arguments[0]!r} is no command{typos.proposal(arguments[0], verbs)}")
    parser.parse_args(arguments)
    raise AssertionError("whatever is no verb ends in a message")
