"""`keyrack ls`: list keys and folders."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds, listing
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, KEYS, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service
    from keyrack.client import Folder, ScanEntry

COMMAND = Command(
    "List keys in their order. What keys share up to the next `/` is shown once, as a folder, "
    "unless -r is given. A prefix is any beginning of keys; `app/` lists what is in that folder.",
    arguments=(
        Argument(
            "PREFIX", "only what begins with this", optional=True, kind=kinds.raw, completes=KEYS
        ),
    ),
    flags=(
        Flag(("-r", "--recursive"), "every key, without folders"),
        listing.LONG_FLAG,
        Flag(("--count",), "print how many keys there are, and nothing else"),
        Flag(("--limit",), "at most so many", "NUMBER", kinds.some),
        Flag(("--reverse",), "the last first"),
        Flag(("--delimiter",), "what ends a folder's name [default: /]", "TEXT", default="/"),
        listing.ZERO_FLAG,
    ),
    formats=listing.FORMATS,
    terminal="table",
    examples=(
        Example(
            "Folders first, then what is in one:",
            "keyrack set app/name Keyrack\nkeyrack set app/port 8088\nkeyrack set top x\n"
            "keyrack ls\nkeyrack ls app/",
            "app/\ntop\napp/name\napp/port",
        ),
        Example("How many are there?", "keyrack ls --count", "3"),
        Example(
            "One after the other, whatever they are called:",
            "keyrack ls app/ -0 | xargs -0 -n 1 keyrack get",
            "Keyrack8088",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the keys."""
    return asking.ask(given, lambda service: _listed(service, given))


def _listed(service: Service, given: argparse.Namespace) -> int:
    prefix: bytes = given.prefix or b""
    if given.count:
        count = service.count(prefix)
        Printer(given, "raw").document({"count": count}, [str(count)])
        return DONE
    printer = Printer(given, "table" if given.long else "raw", "table")
    columns = listing.LONG if given.long else listing.SHORT
    found = map(listing.record, _items(service, given, prefix))
    printer.rows(found, columns, titled=given.long, bare="key")
    return DONE


def _items(
    service: Service, given: argparse.Namespace, prefix: bytes
) -> Iterator[ScanEntry | Folder]:
    delimiter = None if given.recursive else given.delimiter
    page = min(given.limit or 1000, 1000)
    items = service.scan(prefix, delimiter=delimiter, reverse=given.reverse, page=page)
    return itertools.islice(items, given.limit)
