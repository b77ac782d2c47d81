"""`keyrack completion`: print what makes a shell complete commands, flags and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.cli import completing, table
from keyrack.cli.printing import Printer, flush, write
from keyrack.cli.spec import DONE, Argument, Command, Example

if TYPE_CHECKING:
    import argparse


def _shell(text: str) -> str:
    if text not in completing.SHELLS:
        raise ValueError(f"{text!r} is none of {', '.join(completing.SHELLS)}.")
    return text


COMMAND = Command(
    "Print a script that makes a shell complete commands, flags, and keys of the service that "
    "variables or the context name. -o json prints the table that it is made of instead.",
    arguments=(Argument("SHELL", "bash, zsh or fish", kind=_shell),),
    formats=("raw", "json"),
    asks=False,
    examples=(
        Example(
            "For this shell, and for those to come:",
            "source <(keyrack completion bash)\n"
            "echo 'source <(keyrack completion bash)' >> ~/.bashrc\n"
            "complete -p keyrack",
            "complete -F _keyrack keyrack",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the script."""
    printer = Printer(given, "raw")
    if printer.as_json:
        printer.document({"commands": [_row(verb) for verb in table.VERBS]})
    else:
        write(completing.script(given.shell))
    flush()
    return DONE


def _row(verb: str) -> dict[str, Any]:
    return {
        "command": verb,
        "summary": table.VERBS[verb][2],
        "arguments": [argument.name for argument in table.load(verb).arguments],
        "flags": [
            {"names": list(flag.names), "takes": flag.takes or None, "help": flag.help}
            for flag in table.flags_of(verb)
        ],
    }
