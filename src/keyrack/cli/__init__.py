"""The command line. Each verb is a module with `run(arguments) -> exit code`.

A verb's module is imported only when it is asked for: `keyrack get` in a shell's loop should not
wait for the server's modules.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

from keyrack import __version__
from keyrack.cli import typos

VERBS: Final = {
    "serve": ("serve", "Run the service"),
    "get": ("get", "Print a key's value"),
    "set": ("set", "Store a value"),
    "del": ("delete", "Remove a key"),
    "export": ("export", "Write keys as lines of JSON"),
    "import": ("import_", "Store keys from lines of JSON"),
    "snapshot": ("snapshot", "Save, list, verify and restore snapshots"),
    "data": ("data", "Check a data directory, and salvage what is damaged"),
    "token": ("token", "Make tokens, look at them, take them back"),
    "verify": ("verify", "Check a running service from outside"),
    "health": ("health", "Tell whether a service is alive"),
}
"""Each verb's module and what it does."""


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    match arguments:
        case ["--version" | "-V"]:
            print(f"keyrack {__version__}")
            return 0
        case ["help" | "--help" | "-h"]:
            print(_help())
            return 0
        case ["help", verb] if verb in VERBS:
            return _run_verb(verb, ["--help"])
        case [verb, *rest] if verb in VERBS:
            return _run_verb(verb, rest)
    print(_misused(arguments), file=sys.stderr)
    return 2


def _run_verb(verb: str, arguments: list[str]) -> int:
    return int(importlib.import_module(f"keyrack.cli.{VERBS[verb][0]}").run(arguments))


def _misused(arguments: list[str]) -> str:
    if not arguments:
        return _help()
    word = arguments[1] if arguments[0] == "help" else arguments[0]
    meant = typos.proposal(word, (*VERBS, "help", "--help", "--version"))
    return f"keyrack: {word!r} is no command{meant}; `keyrack help` lists them."


def _help() -> str:
    verbs = "\n".join(f"  {verb:8} {summary}" for verb, (_, summary) in VERBS.items())
    return f"""\
Keyrack, an in-memory key-value store that is spoken to with plain HTTP.

usage: keyrack <command> [...]

{verbs}
  help     Print this, or `keyrack help <command>` for a command

`keyrack --version` prints the version."""
