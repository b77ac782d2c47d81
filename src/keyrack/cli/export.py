"""`keyrack export`: write keys as lines of JSON."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, BinaryIO

from keyrack.cli import asking
from keyrack.cli.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.client import Client


def run(arguments: list[str]) -> int:
    """Write the keys to a file or to standard output; a file is there whole or not at all."""
    parser = asking.parser("export", "Write keys as lines of JSON, lossless.", key=False)
    parser.add_argument("file", nargs="?", default="-", help="the file; - is standard output")
    parser.add_argument("--prefix", default="", help="only keys that begin with this")
    given = parser.parse_args(arguments)

    def question(client: Client) -> int:
        progress = Progress("exported")
        with _opened(given.file) as out:
            for piece in progress.watch(client.export(os.fsencode(given.prefix))):
                out.write(piece)
        return asking.OK

    try:
        return asking.ask(given, question)
    except OSError as error:
        return asking.complain(
            f"{given.file!r} cannot be written: {error.strerror}.", asking.MISUSED
        )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = f"{path}.part"
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
