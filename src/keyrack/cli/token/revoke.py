"""`keyrack token revoke`: take a token back."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from keyrack.access import writing
from keyrack.access.sections import AccessFileError
from keyrack.cli import asking, saying
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, FILES, MISUSED, Command, Flag
from keyrack.cli.token import shown
from keyrack.cli.token.show import path_of

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Take a token back. When the command has ended, no worker of the service lets it in, and its "
    "streams have ended. From a file it is removed: the service notices in two seconds.",
    arguments=(shown.ID,),
    flags=(Flag(("--file",), "remove it from this file", "FILE", completes=FILES),),
    writes=True,
)


def run(given: argparse.Namespace) -> int:
    """Take a token back; when this has ended, no worker lets it in any more."""
    if given.file is None:
        return asking.ask(given, lambda service: _in_service(service, given))
    try:
        writing.remove(given.file, given.id)
    except AccessFileError as error:
        return saying.complain(str(error), MISUSED)
    Printer(given, "table").document({"revoked": given.id, "pending": 0})
    return DONE


def _in_service(service: Service, given: argparse.Namespace) -> int:
    status, answer = service.json("DELETE", f"/v1/auth/tokens/{path_of(given.id)}")
    pending = answer["pending"] if status == HTTPStatus.ACCEPTED else 0
    if pending:
        saying.say(f"revoked; {pending} workers have not said yet that they know")
    Printer(given, "table").document({"revoked": given.id, "pending": pending})
    return DONE
