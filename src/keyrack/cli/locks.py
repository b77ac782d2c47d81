"""`keyrack locks`: who holds which locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyrack.cli import asking, kinds
from keyrack.cli.printing import Column, Printer
from keyrack.cli.spec import DONE, Argument, Command, Example

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service

_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("OWNER", "owner"),
    Column("TTL", "ttl", right=True),
)
COMMAND = Command(
    "Show which locks are held, by whom, and for how long yet.",
    arguments=(Argument("PREFIX", "only locks that begin with this", True, kind=kinds.raw),),
    formats=("table", "json", "jsonl", "raw"),
    examples=(
        Example(
            "Who holds it?",
            "keyrack lock deploy --owner me > /dev/null\nkeyrack locks dep | awk '{print $1, $2}'",
            "NAME OWNER\ndeploy me",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print a line for each lock."""

    def question(service: Service) -> int:
        Printer(given, "table").rows(_held(service, given.prefix or b""), _COLUMNS)
        return DONE

    return asking.ask(given, question)


def _held(service: Service, prefix: bytes) -> Iterator[dict[str, Any]]:
    after: str | None = ""
    while after is not None:
        query: list[tuple[str, str | bytes]] = [("prefix", service.prefixed(prefix))]
        query += [("after", after)] if after else []
        _, page = service.json("GET", "/v1/locks", query=query)
        for lock in page["locks"]:
            lock["name"] = service.without_prefix(lock["name"])
            yield lock
        after = page["next"]
