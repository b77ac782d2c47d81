"""`keyrack token list`: show all tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.access.file import load
from keyrack.access.sections import AccessFileError
from keyrack.cli import asking, saying
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, FILES, MISUSED, Command, Flag
from keyrack.cli.token import shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from keyrack.cli.service import Service

COMMAND = Command(
    "Show the tokens of a file, or all that a service knows, without their secrets.",
    flags=(Flag(("--file",), "show those of a file", "FILE", completes=FILES),),
    formats=("table", "json", "jsonl", "raw"),
)


def run(given: argparse.Namespace) -> int:
    """Print a line for each token."""
    if given.file is None:
        return asking.ask(given, lambda service: _print(_of_service(service), given))
    try:
        found = load(given.file).access.tokens
    except AccessFileError as error:
        return saying.complain(str(error), MISUSED)
    return _print((shown.document(token) for token in found), given)


def _of_service(service: Service) -> Iterator[dict[str, Any]]:
    after: str | None = ""
    while after is not None:
        query = [("limit", "1000"), *([("after", after)] if after else [])]
        _, page = service.json("GET", "/v1/auth/tokens", query=query)
        yield from page["tokens"]
        after = page["next"]


def _print(found: Iterable[dict[str, Any]], given: argparse.Namespace) -> int:
    printer = Printer(given, "table")
    if not printer.as_json:
        found = map(shown.row, found)
    printer.rows(found, shown.COLUMNS)
    return DONE
