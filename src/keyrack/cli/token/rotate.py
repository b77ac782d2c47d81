"""`keyrack token rotate`: give a token another secret."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from keyrack.access import tokens, writing
from keyrack.access.file import load
from keyrack.access.model import rotated
from keyrack.access.sections import AccessFileError
from keyrack.cli import asking, kinds, saying
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, MISUSED, REFUSED, Argument, Command, Flag
from keyrack.cli.token import shown
from keyrack.cli.token.show import path_of

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

_TICKETS: Final = "tickets"
COMMAND = Command(
    "Give a token another secret and print it, once. Id and rights stay; the earlier secret counts "
    "until the overlap is over. `keyrack token rotate tickets` makes a new key for tickets, and so "
    "ends all of them.",
    arguments=(Argument("ID", "the token's id, the 8 characters behind krk_, or `tickets`"),),
    flags=(
        Flag(
            ("--overlap",),
            "how long both count, 0 for not at all [default: 1h]",
            "TIME",
            kinds.seconds,
            3600.0,
        ),
        shown.FILE,
    ),
    writes=True,
)


def run(given: argparse.Namespace) -> int:
    """Print the token's new text; the earlier one counts until the overlap is over."""
    if given.file is None:
        return asking.ask(given, lambda service: _in_service(service, given))
    return _in_file(given)


def _in_service(service: Service, given: argparse.Namespace) -> int:
    printer = Printer(given, "table")
    if given.id == _TICKETS:
        service.json("POST", "/v1/auth/tickets/rotate")
        printer.document({"rotated": _TICKETS})
        return DONE
    path = f"/v1/auth/tokens/{path_of(given.id)}/rotate"
    _, made = service.json("POST", path, {"overlap": given.overlap})
    printer.document(made, [made["token"]])
    return DONE


def _in_file(given: argparse.Namespace) -> int:
    try:
        found = {token.id: token for token in load(given.file).access.tokens}
        if given.id not in found:
            return saying.complain(f"{given.file} has no token {given.id!r}.", REFUSED)
        made = tokens.new(given.id)
        writing.replace(given.file, rotated(found[given.id], made.hash, given.overlap, time.time()))
    except AccessFileError as error:
        return saying.complain(str(error), MISUSED)
    saying.say("the token is shown this once")
    Printer(given, "table").document({"id": made.id, "token": made.text}, [made.text])
    return DONE
