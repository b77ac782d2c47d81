"""`keyrack token revoke`: take a token back."""

from __future__ import annotations

import sys
from http import HTTPStatus

from keyrack.access import writing
from keyrack.access.sections import AccessFileError
from keyrack.cli.asking import MISUSED, OK, complain
from keyrack.cli.token import service


def run(arguments: list[str]) -> int:
    """Take a token back; when this has ended, no worker lets it in any more."""
    parser = service.parser(
        "revoke",
        "Take a token back. When the command has ended, no worker of the service lets it in, and "
        "its streams have ended. From a file it is removed: the service notices in two seconds.",
    )
    parser.add_argument("id", help="the token's id, the 8 characters behind krk_")
    parser.add_argument("--file", metavar="FILE", help="remove it from this file")
    given = parser.parse_args(arguments)
    if given.file is None:
        return service.ask(given, lambda running: _in_service(running, given.id))
    try:
        writing.remove(given.file, given.id)
    except AccessFileError as error:
        return complain(str(error), MISUSED)
    return OK


def _in_service(running: service.Service, token_id: str) -> int:
    status, answer = running.ask("DELETE", f"/v1/auth/tokens/{token_id}")
    if status == HTTPStatus.ACCEPTED:
        pending = answer["pending"]
        print(f"revoked; {pending} workers have not said yet that they know", file=sys.stderr)
    return OK
