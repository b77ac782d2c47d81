"""`keyrack touch`: give a key another TTL, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.saying import shown_key
from keyrack.cli.spec import DONE, KEYS, MISSING, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Give a key another TTL, or let it have no end. Its value and its ETag stay.",
    arguments=(Argument("KEY", "the key", kind=kinds.key, completes=KEYS),),
    flags=(
        Flag(("--ttl",), "when it is to end from now on", "TIME", kinds.some_seconds),
        Flag(("--persist",), "let it have no end"),
    ),
    writes=True,
    names_lock=True,
    examples=(
        Example(
            "Half an hour more:",
            "keyrack set session/7 x --ttl 1m\nkeyrack touch session/7 --ttl 30m",
        ),
        Example(
            "For ever:",
            "keyrack touch session/7 --persist\nkeyrack head session/7 | grep ttl",
            "ttl   -",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Change the key's end; print nothing."""
    if (given.ttl is None) != given.persist:
        raise Misused("Say --ttl TIME or --persist.")

    def question(service: Service) -> int:
        ttl = given.ttl
        if not (service.persist(given.key) if ttl is None else service.touch(given.key, ttl)):
            return saying.complain(f"The key {shown_key(given.key)} is missing.", MISSING)
        key = given.key.decode("utf-8", "surrogateescape")
        Printer(given, "table").document({"key": key, "ttl": given.ttl})
        return DONE

    return asking.ask(given, question)
