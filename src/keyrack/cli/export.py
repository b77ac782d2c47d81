"""`keyrack export`: write keys as lines of JSON."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from keyrack.cli import asking, kinds, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.progress import FLAG, Progress
from keyrack.cli.spec import DONE, FILES, KEYS, MISUSED, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service

_TAIL_BYTES: Final = 1 << 20
COMMAND = Command(
    "Write keys as lines of JSON, lossless: any key, any value, its type and the TTL that is left. "
    "A file is there when it is whole. What came of an export that broke off is kept beside it as "
    "FILE.part, and --resume goes on behind its last key.",
    arguments=(
        Argument(
            "FILE", "the file; - is standard output [default: -]", optional=True, completes=FILES
        ),
    ),
    flags=(
        Flag(
            ("--prefix",),
            "only keys that begin with this",
            "PREFIX",
            kinds.raw,
            b"",
            completes=KEYS,
        ),
        Flag(("--resume",), "go on with an export that broke off"),
        FLAG,
    ),
    formats=("raw", "json"),
    examples=(
        Example(
            "All that begins with app/, into a file and back:",
            "keyrack set app/name Keyrack\n"
            "keyrack export app.ndjson --prefix app/\n"
            "keyrack import app.ndjson",
        ),
        Example(
            "With -o json what was done is told, on standard error:",
            "keyrack export app.ndjson --prefix app/name -o json 2>&1",
            '{"file": "app.ndjson", "keys": 1}',
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Write the keys to a file or to standard output."""
    path = given.file or "-"
    if path == "-" and given.resume:
        raise Misused("--resume needs the name of the FILE whose export broke off.")
    try:
        return asking.ask(given, lambda service: _exported(service, given, path))
    except OSError as error:
        return saying.complain(f"{path!r} cannot be written: {error.strerror}.", MISUSED)


def _exported(service: Service, given: argparse.Namespace, path: str) -> int:
    progress = Progress("exported", shown=given.progress)
    if path == "-":
        for piece in progress.watch(service.export(given.prefix)):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    else:
        _to_file(service, given, path, progress)
    if given.format == "json":
        saying.say(Printer(given, "raw").json({"file": path, "keys": progress.lines}))
    return DONE


def _to_file(service: Service, given: argparse.Namespace, path: str, progress: Progress) -> None:
    part = f"{path}.part"
    last = _last_key(part) if given.resume else None
    whole = False
    try:
        with open(part, "wb" if last is None else "ab") as file:
            for piece in progress.watch(_pieces(service, given.prefix, last)):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            whole = True
        os.replace(part, path)
    finally:
        if not whole:
            _tell_of(part)


def _pieces(service: Service, prefix: bytes, last: str | None) -> Iterator[bytes]:
    if last is None:
        return service.export(prefix)
    from keyrack.cli import lines  # only for those that go on

    return lines.after(service, prefix, last)


def _last_key(part: str) -> str | None:
    """Cut off a line that is not whole, and return the key of the last that is, None for none."""
    import json  # only for those that go on

    try:
        size = os.path.getsize(part)
    except FileNotFoundError:
        return None
    with open(part, "rb+") as file:
        tail, reach = b"", 0
        while tail.count(b"\n") < 2 and reach < size:
            reach = min(size, max(_TAIL_BYTES, 2 * reach))
            file.seek(size - reach)
            tail = file.read()
        end = tail.rfind(b"\n") + 1
        file.truncate(size - reach + end)
    whole = tail[:end].splitlines()
    return None if not whole else str(json.loads(whole[-1])["key"])


def _tell_of(part: str) -> None:
    if not os.path.exists(part):
        return
    if os.path.getsize(part):
        saying.say(f"keyrack: what came is in {part}; --resume goes on from there.")
    else:
        os.unlink(part)
