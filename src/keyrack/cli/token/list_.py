"""`keyrack token list`: show all tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from keyrack.access.file import load
from keyrack.access.sections import AccessFileError
from keyrack.cli.asking import MISUSED, OK, complain
from keyrack.cli.token import service, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def run(arguments: list[str]) -> int:
    """Print a line for each token, or a line of JSON."""
    parser = service.parser("list", "Show the tokens of a file, or all that a service knows.")
    parser.add_argument("--file", metavar="FILE", help="show those of a file")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each")
    given = parser.parse_args(arguments)
    if given.file is None:
        return service.ask(given, lambda running: _print(_of_service(running), given.json))
    try:
        found = load(given.file).access.tokens
    except AccessFileError as error:
        return complain(str(error), MISUSED)
    return _print((shown.document(token) for token in found), given.json)


def _of_service(running: service.Service) -> Iterator[dict[str, Any]]:
    after: str | None = ""
    while after is not None:
        query = urlencode({"limit": 1000, **({"after": after} if after else {})})
        _, page = running.ask("GET", f"/v1/auth/tokens?{query}")
        yield from page["tokens"]
        after = page["next"]


def _print(found: Iterable[dict[str, Any]], as_json: bool) -> int:
    for token in found:
        print(json.dumps(token) if as_json else shown.line(token))
    return OK
