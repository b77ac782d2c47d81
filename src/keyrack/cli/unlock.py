"""`keyrack unlock`: give a lock back, or take it from a holder that is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, MISSING, Argument, Command, Example, Flag
from keyrack.client import Refused

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Give a lock back that was taken without a command, or take one from a holder that is gone.",
    arguments=(Argument("NAME", "the lock", kind=kinds.key),),
    flags=(
        Flag(("--token",), "the token that `keyrack lock` printed", "TOKEN", kinds.whole),
        Flag(("--force",), "whoever holds it; needs `admin` where access is controlled"),
    ),
    writes=True,
    examples=(
        Example(
            "Hold it for longer than one command:",
            "token=$(keyrack lock deploy --ttl 10m)\nkeyrack unlock deploy --token $token",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Give it back; print nothing."""
    if (given.token is None) != given.force:
        raise Misused("Say --token TOKEN or --force.")
    token, given.token = given.token, None  # it is the lock's, and not one that lets us in
    query = [("force", "true")] if given.force else [("token", str(token))]

    def question(service: Service) -> int:
        try:
            service.json("DELETE", service.path_of_lock(given.name), query=query)
        except Refused as error:
            if error.kind not in ("lock-not-held", "lock-held"):
                raise
            return saying.complain(str(error), MISSING)
        name = given.name.decode("utf-8", "surrogateescape")
        Printer(given, "table").document({"lock": name, "released": True})
        return DONE

    return asking.ask(given, question)
