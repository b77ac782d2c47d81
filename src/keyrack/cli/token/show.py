"""`keyrack token show`: show a token and its rules, in the order of decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.access.file import load
from keyrack.access.grant import rights_of
from keyrack.access.sections import AccessFileError
from keyrack.cli import asking, saying
from keyrack.cli.printing import Printer
from keyrack.cli.saying import escaped
from keyrack.cli.spec import DONE, MISUSED, REFUSED, Command
from keyrack.cli.token import shown

if TYPE_CHECKING:
    import argparse

    from keyrack.access.model import AccessFile
    from keyrack.cli.service import Service

COMMAND = Command(
    "Show a token, its rules in the order of decision.",
    arguments=(shown.ID,),
    flags=(shown.FILE,),
)


def run(given: argparse.Namespace) -> int:
    """Print the token's line and its rules."""
    if given.file is None:
        return asking.ask(given, lambda service: _of_service(service, given))
    try:
        access = load(given.file).access
    except AccessFileError as error:
        return saying.complain(str(error), MISUSED)
    return _of_file(access, given)


def _of_service(service: Service, given: argparse.Namespace) -> int:
    _, found = service.json("GET", f"/v1/auth/tokens/{path_of(given.id)}")
    return _print(found, given)


def path_of(token_id: str) -> str:
    """Return an id as a path names it."""
    from urllib.parse import quote

    return quote(token_id, safe="")


def _of_file(access: AccessFile, given: argparse.Namespace) -> int:
    for token in access.tokens:
        if token.id == given.id:
            rights = rights_of(token.policies, token.rules, access.policies)
            return _print({**shown.document(token), "decides": rights.rules.lines()}, given)
    return saying.complain(f"{given.file} has no token {given.id!r}.", REFUSED)


def _print(found: dict[str, Any], given: argparse.Namespace) -> int:
    lines = [escaped(shown.line(found)), *(f"  {rule}" for rule in found["decides"])]
    Printer(given, "table").document(found, lines)
    return DONE
