"""Finds the verb that was asked for, reads what it was told, and runs it."""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from keyrack import __version__
from keyrack.cli import saying, table, typos
from keyrack.cli.spec import DONE, INTERRUPTED, MISUSED

if TYPE_CHECKING:
    from keyrack.cli.spec import Command

_HELP = ("--help", "-h")


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    match arguments:
        case ["--version" | "-V"]:
            print(f"keyrack {__version__}")
            return DONE
        case ["help" | "--help" | "-h"]:
            return _print(_overview())
        case ["__complete", kind, begun]:
            return _completed(kind, begun)
        case ["help", *words]:
            return run([*words, "--help"])
    verb, rest = _found(arguments)
    return _unknown(arguments) if verb is None else _run_verb(verb, rest)


def _found(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return the verb, of one word or two, and what is behind it."""
    for words in (2, 1):
        verb = " ".join(arguments[:words])
        if len(arguments) >= words and verb in table.VERBS:
            return verb, arguments[words:]
    return None, arguments


def _run_verb(verb: str, arguments: list[str]) -> int:
    module = import_module(f"keyrack.cli.{table.VERBS[verb][0]}")
    if verb in table.RAW:
        return int(module.run(arguments))
    from keyrack.cli import parsing  # argparse is slow to load, and `--version` does without

    command: Command = module.COMMAND
    try:
        given = parsing.parse(command, arguments)
    except parsing.HelpWanted:
        from keyrack.cli import helping

        return _print(helping.of_verb(verb, command))
    except parsing.Misused as error:
        return saying.complain(f"{error} `keyrack help {verb}` tells more.", MISUSED)
    given.command = command
    try:
        return int(module.run(given))
    except parsing.Misused as error:
        return saying.complain(str(error), MISUSED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _completed(kind: str, begun: str) -> int:
    from keyrack.cli import completing

    # A shell asks while somebody types: nobody reads what is wrong.
    with contextlib.suppress(Exception):
        print("\n".join(completing.words(kind, begun)))
    return DONE


def _print(text: str) -> int:
    print(text)
    return DONE


def _overview() -> str:
    from keyrack.cli import helping

    return helping.overview()


# What is no verb


def _unknown(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), file=sys.stderr)
        return MISUSED
    first, *rest = arguments
    if first in table.FAMILIES:
        return _unknown_of(first, rest)
    if first in _HELP:
        return run(["help", *rest])
    meant = typos.proposal(first, (*_first_words(), "help", "--help", "--version"))
    return saying.complain(f"{first!r} is no command{meant}; `keyrack help` lists them.", MISUSED)


def _unknown_of(family: str, rest: list[str]) -> int:
    from keyrack.cli import helping

    if rest and rest[0] in _HELP:
        return _print(helping.of_family(family))
    known = table.commands_of(family)
    listed = f"`keyrack help {family}` lists them."
    if not rest:
        return saying.complain(f"{family}: a command is missing; {listed}", MISUSED)
    meant = typos.proposal(rest[0], (*known, "--help"))
    return saying.complain(f"{family}: {rest[0]!r} is no command{meant}; {listed}", MISUSED)


def _first_words() -> list[str]:
    return list(dict.fromkeys(verb.partition(" ")[0] for verb in table.VERBS))
