"""`keyrack token rotate`: give a token another secret."""

from __future__ import annotations

import sys
import time
from typing import Final

from keyrack.access import tokens, writing
from keyrack.access.file import load
from keyrack.access.model import rotated
from keyrack.access.sections import AccessFileError
from keyrack.cli.asking import MISUSED, OK, REFUSED, complain
from keyrack.cli.token import service
from keyrack.cli.token.create import seconds_of

_OVERLAP: Final = "1h"
_TICKETS: Final = "tickets"


def run(arguments: list[str]) -> int:
    """Print the token's new text; the earlier one counts until the overlap is over."""
    parser = service.parser(
        "rotate",
        "Give a token another secret and print it, once. Id and rights stay; the earlier secret "
        "counts until the overlap is over. `keyrack token rotate tickets` makes a new key for "
        "tickets, and so ends all of them.",
    )
    parser.add_argument("id", help="the token's id, the 8 characters behind krk_, or `tickets`")
    parser.add_argument(
        "--overlap",
        default=_OVERLAP,
        metavar="TIME",
        help=f"how long both count, 0 for not at all [default: {_OVERLAP}]",
    )
    parser.add_argument("--file", metavar="FILE", help="the file that it is in")
    given = parser.parse_args(arguments)
    try:
        overlap = 0.0 if given.overlap == "0" else seconds_of(given.overlap)
    except ValueError as error:
        return complain(str(error), MISUSED)
    if given.file is None:
        return service.ask(given, lambda running: _in_service(running, given.id, overlap))
    return _in_file(given.file, given.id, overlap)


def _in_service(running: service.Service, token_id: str, overlap: float) -> int:
    if token_id == _TICKETS:
        running.ask("POST", "/v1/auth/tickets/rotate")
        return OK
    path = f"/v1/auth/tokens/{token_id}/rotate"
    _, made = running.ask("POST", path, {"overlap": overlap})
    print(made["token"])
    return OK


def _in_file(path: str, token_id: str, overlap: float) -> int:
    try:
        found = {token.id: token for token in load(path).access.tokens}
        if token_id not in found:
            return complain(f"{path} has no token {token_id!r}.", REFUSED)
        made = tokens.new(token_id)
        writing.replace(path, rotated(found[token_id], made.hash, overlap, time.time()))
    except AccessFileError as error:
        return complain(str(error), MISUSED)
    print("the token is shown this once", file=sys.stderr)
    print(made.text)
    return OK
