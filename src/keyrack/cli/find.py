"""`keyrack find`: list the keys that are of a kind."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds, listing
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, KEYS, Argument, Command, Example, Flag
from keyrack.client import ScanEntry

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service

COMMAND = Command(
    "List the keys below a prefix that fit all that is asked. Every key is looked at, on this "
    "side: O(keys below the prefix).",
    arguments=(
        Argument(
            "PREFIX", "only what begins with this", optional=True, kind=kinds.raw, completes=KEYS
        ),
    ),
    flags=(
        Flag(("--name",), "fits a pattern like '*.json'", "PATTERN"),
        Flag(("--type",), "its media type begins with this", "MEDIA"),
        Flag(("--larger",), "at least so large, like 64k", "SIZE", kinds.size),
        Flag(("--smaller",), "at most so large", "SIZE", kinds.size),
        Flag(("--ttl-less",), "ends within this time", "TIME", kinds.seconds),
        Flag(("--no-ttl",), "has no end"),
        listing.LONG_FLAG,
        listing.ZERO_FLAG,
    ),
    formats=listing.FORMATS,
    terminal="table",
    examples=(
        Example(
            "What ends within an hour?",
            "keyrack set a x --ttl 10m\nkeyrack set b x --ttl 1d\nkeyrack set c x\n"
            "keyrack find --ttl-less 1h",
            "a",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the keys that fit."""

    def question(service: Service) -> int:
        printer = Printer(given, "table" if given.long else "raw", "table")
        columns = listing.LONG if given.long else listing.SHORT
        printer.rows(
            map(listing.record, _found(service, given)), columns, titled=given.long, bare="key"
        )
        return DONE

    return asking.ask(given, question)


def _found(service: Service, given: argparse.Namespace) -> Iterator[ScanEntry]:
    for item in service.scan(given.prefix or b""):
        if isinstance(item, ScanEntry) and _fits(item, given):
            yield item


def _fits(entry: ScanEntry, given: argparse.Namespace) -> bool:
    ends = entry.ttl
    return all(
        (
            given.name is None or fnmatch.fnmatchcase(entry.key, given.name),
            given.type is None or entry.media_type.startswith(given.type),
            given.larger is None or entry.size >= given.larger,
            given.smaller is None or entry.size <= given.smaller,
            given.ttl_less is None or (ends is not None and ends <= given.ttl_less),
            not given.no_ttl or ends is None,
        )
    )
