"""`keyrack incr`: add to a counter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, KEYS, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Add to a counter and print its number. A counter is an ordinary value; it is made from "
    "--initial where it is missing.",
    arguments=(
        Argument("KEY", "the key", kind=kinds.key, completes=KEYS),
        Argument("N", "how much to add, perhaps below 0 [default: 1]", True, kind=kinds.integer),
    ),
    flags=(
        Flag(
            ("--initial",),
            "what to begin with where it is missing [default: 0]",
            "N",
            kinds.integer,
            0,
        ),
        Flag(("--ttl",), "when it is to end; without it the end stays", "TIME", kinds.some_seconds),
    ),
    formats=("raw", "json"),
    writes=True,
    names_lock=True,
    examples=(
        Example("Count up and down:", "keyrack incr visits 5\nkeyrack incr visits -2", "5\n3"),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the new number."""

    def question(service: Service) -> int:
        delta = 1 if given.n is None else given.n
        number = service.incr(given.key, delta, initial=given.initial, ttl=given.ttl)
        key = given.key.decode("utf-8", "surrogateescape")
        known = {"key": key, "value": str(number)}
        Printer(given, "raw").document(known, [str(number)])
        return DONE

    return asking.ask(given, question)
