"""`keyrack import`: store keys from lines of JSON."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from keyrack.cli import asking, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.progress import FLAG, Progress
from keyrack.cli.spec import CONFLICT, DONE, FILES, MISUSED, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service

_PIECE_BYTES: Final = 1 << 18
_PART_BYTES: Final = 8 << 20
"""A file is sent in parts of whole lines, each a request: what is done of it is known then."""
_MOST_ERRORS: Final = 100
COMMAND = Command(
    "Store keys from lines of JSON as export writes them, and say what became of them. How far a "
    "file was imported is kept beside it as FILE.done while it lasts, and --resume goes on there.",
    arguments=(
        Argument(
            "FILE", "the file; - is standard input [default: -]", optional=True, completes=FILES
        ),
    ),
    flags=(
        Flag(
            ("--on-error",),
            "what to do at a line that fails: stop, or continue [default: continue]",
            "WHAT",
            default="continue",
            choices=("stop", "continue"),
        ),
        Flag(("--stop-on-error",), "the same as --on-error stop"),
        Flag(("-n", "--dry-run"), "store nothing; look whether the lines can be read"),
        Flag(("--resume",), "go on with an import that broke off"),
        FLAG,
    ),
    writes=True,
    names_lock=True,
    codes=((CONFLICT, "some lines failed"),),
    examples=(
        Example(
            "Lines from a pipe:",
            'echo \'{"key":"a","value":"1"}\' | keyrack import -o json',
            '{"imported": 1, "failed": 0, "errors": [], "stopped": false}',
        ),
        Example(
            "Are they any good?",
            'printf \'{"key":"a"}\\n\' | keyrack import --dry-run 2>&1',
            "keyrack: Line 1: Object missing required field `value`\n0 lines are good, 1 is not",
        ),
    ),
)


class _Report:
    """What became of all lines so far. Lines count from 1."""

    def __init__(self) -> None:
        self.imported = 0
        self.failed = 0
        self.errors: list[dict[str, Any]] = []
        self.stopped = False
        self.lines = 0

    def add(self, part: dict[str, Any], lines: int) -> None:
        """Take what became of the next lines."""
        self.imported += part["imported"]
        self.failed += part["failed"]
        self.stopped = part["stopped"]
        for error in part["errors"]:
            self.fail(self.lines + error["line"], error["detail"])
        self.lines += lines

    def fail(self, line: int, detail: str) -> None:
        """Note why a line failed; the first hundred are kept."""
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append({"line": line, "detail": detail})

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "imported": self.imported,
            "failed": self.failed,
            "errors": self.errors,
            "stopped": self.stopped,
        }


class _Source(NamedTuple):
    """Where lines come from; `size` is None where it is not known."""

    file: BinaryIO
    size: int | None


def run(given: argparse.Namespace) -> int:
    """Send the lines of a file or of standard input, and say what became of them."""
    path = given.file or "-"
    if path == "-" and given.resume:
        raise Misused("--resume needs the name of the FILE whose import broke off.")
    try:
        with _opened(path) as source:
            if given.dry_run:
                return _tried(given, source)
            return asking.ask(given, lambda service: _sent(service, given, path, source))
    except OSError as error:
        return saying.complain(f"{path!r} cannot be read: {error.strerror}.", MISUSED)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[_Source]:
    if path == "-":
        yield _Source(sys.stdin.buffer, None)
        return
    with open(path, "rb") as file:
        yield _Source(file, os.fstat(file.fileno()).st_size or None)


# Sending


def _sent(service: Service, given: argparse.Namespace, path: str, source: _Source) -> int:
    stop = given.stop_on_error or given.on_error == "stop"
    report = _Report()
    progress = Progress("sent", source.size, shown=given.progress)
    if path == "-":
        pieces = progress.watch(iter(lambda: source.file.read1(_PIECE_BYTES), b""))  # type: ignore[attr-defined]  # a buffered reader, which the type does not tell
        report.add(service.import_lines(pieces, stop_on_error=stop), 0)
        return _told(given, report)
    mark = f"{path}.done"
    offset = _known(mark) if given.resume else 0
    source.file.seek(offset)
    if offset:
        progress.add(0, offset)
        report.lines = _lines_before(path, offset)
    try:
        for part in _parts(source.file):
            report.add(service.import_lines([part], stop_on_error=stop), part.count(b"\n"))
            if report.stopped:
                break
            offset += len(part)
            progress.add(part.count(b"\n"), len(part))
            _note(mark, offset)
    finally:
        progress.end()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(mark)
    return _told(given, report)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    """Yield whole lines, as many as a part holds."""
    while part := file.read(_PART_BYTES):
        yield part if part.endswith(b"\n") else part + file.readline()


def _note(mark: str, offset: int) -> None:
    with contextlib.suppress(OSError), open(mark, "w", encoding="ascii") as file:
        file.write(str(offset))


def _known(mark: str) -> int:
    try:
        with open(mark, encoding="ascii") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return 0


def _lines_before(path: str, offset: int) -> int:
    lines = 0
    with open(path, "rb") as file:
        while offset > 0 and (piece := file.read(min(_PIECE_BYTES, offset))):
            lines += piece.count(b"\n")
            offset -= len(piece)
    return lines


def _told(given: argparse.Namespace, report: _Report) -> int:
    printer = Printer(given, "table")
    for error in report.errors:
        saying.complain(f"Line {error['line']}: {error['detail']}", CONFLICT)
    stopped = ", and stopped there" if report.stopped else ""
    if printer.as_json:
        printer.document(report.document())
    else:
        saying.say(f"{report.imported} keys imported, {report.failed} lines failed{stopped}")
    return CONFLICT if report.failed else DONE


# Only looking


def _tried(given: argparse.Namespace, source: _Source) -> int:
    import msgspec  # only for this

    from keyrack.cli import lines

    report = _Report()
    good = 0
    for number, line in enumerate(source.file, 1):
        if not line.strip():
            continue
        try:
            lines.read(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            good += 1
        except msgspec.DecodeError as error:
            report.failed += 1
            report.fail(number, str(error))
            saying.complain(f"Line {number}: {error}", CONFLICT)
    printer = Printer(given, "table")
    if printer.as_json:
        printer.document({**report.document(), "good": good})
    else:
        saying.say(
            f"{good} lines are good, {report.failed} {'is' if report.failed == 1 else 'are'} not"
        )
    return CONFLICT if report.failed else DONE
