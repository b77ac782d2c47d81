"""`keyrack import`: store keys from lines of JSON."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from keyrack.cli import asking
from keyrack.cli.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.client import Client

_PIECE: Final = 1 << 18


def run(arguments: list[str]) -> int:
    """Send the lines of a file or of standard input, and say what became of them."""
    parser = asking.parser("import", "Store keys from lines of JSON as export writes.", key=False)
    parser.add_argument("file", nargs="?", default="-", help="the file; - is standard input")
    parser.add_argument(
        "--stop-on-error", action="store_true", help="stop at the first line that fails"
    )
    given = parser.parse_args(arguments)

    def question(client: Client) -> int:
        with _opened(given.file) as (file, size):
            pieces = Progress("sent", size).watch(iter(lambda: file.read(_PIECE), b""))
            report = client.import_lines(pieces, stop_on_error=given.stop_on_error)
        return _reported(report)

    try:
        return asking.ask(given, question)
    except OSError as error:
        return asking.complain(f"{given.file!r} cannot be read: {error.strerror}.", asking.MISUSED)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    if path == "-":
        yield sys.stdin.buffer, None
        return
    with open(path, "rb") as file:
        yield file, os.fstat(file.fileno()).st_size or None


def _reported(report: dict[str, Any]) -> int:
    for error in report["errors"]:
        asking.complain(f"Line {error['line']}: {error['detail']}", asking.REFUSED)
    stopped = ", and stopped there" if report["stopped"] else ""
    print(
        f"{report['imported']} keys imported, {report['failed']} lines failed{stopped}",
        file=sys.stderr,
    )
    return asking.REFUSED if report["failed"] else asking.OK
