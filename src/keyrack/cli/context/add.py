"""`keyrack context add`: give a service a name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from keyrack.cli import contexts
from keyrack.cli.context import shown
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, FILES, Argument, Command, Example, Flag
from keyrack.client.address import address

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Give a service a name, with how to ask it. It is kept in ~/.config/keyrack/contexts.toml, "
    "which nobody else may read. A context of this name is replaced.",
    arguments=(Argument("NAME", "its name"),),
    flags=(
        Flag(("--url",), "where the service is", "URL"),
        Flag(("--uds",), "a Unix socket instead", "PATH", completes=FILES),
        Flag(("--token-file",), "a file that holds the token", "FILE", completes=FILES),
        Flag(("--token-command",), "a command of the shell that prints the token", "COMMAND"),
        Flag(("--token-stdin",), "keep a token, which is read from standard input"),
        Flag(("--ca",), "trust certificates that this file signed", "FILE", completes=FILES),
        Flag(("--prefix",), "put this before every key", "PREFIX"),
        Flag(("--read-only",), "refuse on this side what changes anything"),
        Flag(("--red",), "name it in red where something is asked, so that it is not mistaken"),
        Flag(("--use",), "use it from now on where nothing else is said"),
    ),
    asks=False,
    examples=(
        Example(
            "The first one is used from then on:",
            "keyrack context add here --url $KEYRACK_URL\nkeyrack context list -o raw",
            "here",
        ),
        Example(
            "Production, only to look at:",
            "keyrack context add prod --url https://keyrack.example --read-only --red\n"
            "keyrack set a b --context prod 2>&1",
            "keyrack: The context 'prod' is for reading only.",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Keep it; print nothing."""
    found = shown.loaded()
    found.named[given.name] = _members(given)
    current = given.name if given.use or found.current is None else found.current
    shown.saved(contexts.Contexts(current, found.named))
    Printer(given, "table").document(shown.document(found._replace(current=current), given.name))
    return DONE


def _members(given: argparse.Namespace) -> dict[str, Any]:
    if (given.url is None) == (given.uds is None):
        raise Misused("Say where it is: --url or --uds.")
    tokens = (given.token_file, given.token_command, given.token_stdin or None)
    if sum(one is not None for one in tokens) > 1:
        raise Misused("A context has one token: --token-file, --token-command or --token-stdin.")
    if given.url is not None:
        try:
            address(given.url)
        except ValueError as error:
            raise Misused(str(error)) from None
    members = {
        "url": given.url,
        "uds": given.uds,
        "token": sys.stdin.readline().strip() if given.token_stdin else None,
        "token_file": given.token_file,
        "token_command": given.token_command,
        "ca": given.ca,
        "prefix": given.prefix,
        "read_only": given.read_only or None,
        "color": "red" if given.red else None,
    }
    return {name: value for name, value in members.items() if value is not None}
