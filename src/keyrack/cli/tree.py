"""`keyrack tree`: show keys as a tree of folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyrack.cli import asking, kinds
from keyrack.cli.printing import Printer, flush
from keyrack.cli.saying import escaped
from keyrack.cli.spec import DONE, KEYS, Argument, Command, Example, Flag
from keyrack.client import Folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service

_DEEPEST: Final = 64
COMMAND = Command(
    "Show keys as a tree. Folders are what keys share up to a `/`. A folder that is not gone into "
    "is shown with how many keys are below it.",
    arguments=(
        Argument(
            "PREFIX", "only what begins with this", optional=True, kind=kinds.raw, completes=KEYS
        ),
    ),
    flags=(
        Flag(
            ("--depth",),
            f"how many folders to go into each other [default: {_DEEPEST}]",
            "NUMBER",
            kinds.whole,
            _DEEPEST,
        ),
    ),
    examples=(
        Example(
            "A few keys as a tree:",
            "keyrack set app/db/host h\nkeyrack set app/db/port 1\nkeyrack set app/name n\n"
            "keyrack set top x\nkeyrack tree",
            "├── app/\n│   ├── db/\n│   │   ├── host\n│   │   └── port\n│   └── name\n└── top",
        ),
        Example("Only the beginning:", "keyrack tree --depth 0", "├── app/  (3 keys)\n└── top"),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the tree."""

    def question(service: Service) -> int:
        printer = Printer(given, "table")
        prefix: bytes = given.prefix or b""
        if printer.as_json:
            printer.document(_document(service, prefix, given.depth))
        else:
            for line in _lines(service, printer, prefix, given.depth, ""):
                printer.line(line)
        flush()
        return DONE

    return asking.ask(given, question)


def _document(service: Service, prefix: bytes, depth: int) -> dict[str, Any]:
    keys: list[str] = []
    folders: list[dict[str, Any]] = []
    for item in service.scan(prefix, delimiter="/"):
        if not isinstance(item, Folder):
            keys.append(item.key)
        elif depth:
            folders.append(_document(service, item.name.encode(), depth - 1))
        else:
            folders.append({"prefix": item.name, "count": service.count(item.name)})
    return {"prefix": prefix.decode("utf-8", "surrogateescape"), "folders": folders, "keys": keys}


def _lines(
    service: Service, printer: Printer, prefix: bytes, depth: int, indent: str
) -> Iterator[str]:
    items = service.scan(prefix, delimiter="/")
    cut = len(prefix.decode("utf-8", "surrogateescape"))
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        branch, below = ("├── ", "│   ") if following is not None else ("└── ", "    ")
        if not isinstance(item, Folder):
            yield f"{indent}{branch}{escaped(item.key[cut:])}"
        else:
            name = printer.paint(escaped(item.name[cut:]), "blue")
            if depth:
                yield f"{indent}{branch}{name}"
                folder = item.name.encode()
                yield from _lines(service, printer, folder, depth - 1, indent + below)
            else:
                count = service.count(item.name)
                yield f"{indent}{branch}{name}  ({count:,} {'key' if count == 1 else 'keys'})"
        item = following
