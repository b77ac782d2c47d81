"""`keyrack token show`: show a token and its rules, in the order of decision."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from keyrack.access.file import load
from keyrack.access.grant import rights_of
from keyrack.access.sections import AccessFileError
from keyrack.cli.asking import MISUSED, OK, REFUSED, complain
from keyrack.cli.token import service, shown

if TYPE_CHECKING:
    from keyrack.access.model import AccessFile


def run(arguments: list[str]) -> int:
    """Print the token's line and its rules, or all of it as JSON."""
    parser = service.parser("show", "Show a token, its rules in the order of decision.")
    parser.add_argument("id", help="the token's id, the 8 characters behind krk_")
    parser.add_argument("--file", metavar="FILE", help="the file that it is in")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    if given.file is None:
        return service.ask(given, lambda running: _of_service(running, given.id, given.json))
    try:
        access = load(given.file).access
    except AccessFileError as error:
        return complain(str(error), MISUSED)
    return _of_file(access, given.id, given.json, given.file)


def _of_service(running: service.Service, token_id: str, as_json: bool) -> int:
    _, found = running.ask("GET", f"/v1/auth/tokens/{token_id}")
    return _print(found, as_json)


def _of_file(access: AccessFile, token_id: str, as_json: bool, path: str) -> int:
    for token in access.tokens:
        if token.id == token_id:
            rights = rights_of(token.policies, token.rules, access.policies)
            return _print({**shown.document(token), "decides": rights.rules.lines()}, as_json)
    return complain(f"{path} has no token {token_id!r}.", REFUSED)


def _print(found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(found))
        return OK
    print(shown.line(found))
    for rule in found["decides"]:
        print(f"  {rule}")
    return OK
