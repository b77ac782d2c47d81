"""`keyrack undo`: put back what was removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer, flush
from keyrack.cli.saying import escaped
from keyrack.cli.spec import DONE, MISSING, Argument, Command, Example, Flag
from keyrack.client.errors import Refused

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service
    from keyrack.client.undo import OpenUndo, UndoReport

COMMAND = Command(
    "Put back what was removed, as it was. Keys that exist by now stay as they are; what would "
    "have ended by now is not put back. `keyrack del` prints the number. Without one: the last "
    "removal.",
    arguments=(Argument("NUMBER", "which removal", optional=True, kind=kinds.whole),),
    flags=(
        Flag(("-l", "--list"), "show what can be undone, the newest first"),
        Flag(("--limit",), "show at most so many", "N", kinds.some, 20),
    ),
    writes=True,
    examples=(
        Example(
            "The last removal:",
            "keyrack set greeting hello\nkeyrack del greeting\nkeyrack undo",
            "1 key put back",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Undo, or show what can be undone."""
    if given.list and given.number is not None:
        raise Misused("A number is undone, and --list shows the numbers: give one of them.")
    return asking.ask(given, lambda service: (_show if given.list else _undo)(service, given))


def _undo(service: Service, given: argparse.Namespace) -> int:
    number = given.number
    if number is None:
        last = service.undos(1)
        if not last:
            return saying.complain("Nothing can be undone.", MISSING)
        number = last[0].undo
    try:
        done = service.undo(number)
    except Refused as error:
        if error.kind != "undo-not-found":
            raise
        said = f"There is no removal {number} that could be undone (any more)."
        return saying.complain(said, MISSING)
    Printer(given, "table").document(done._asdict(), [_sentence(done)])
    flush()
    return DONE


def _sentence(done: UndoReport) -> str:
    rest = (
        (done.kept_newer, "exist by now and were left alone"),
        (done.ended, "would have ended by now"),
        (done.gone, "are gone, because their room was needed"),
    )
    said = [f"{_keys(done.restored)} put back", *(f"{n:,} {what}" for n, what in rest if n)]
    return ", ".join(said)


def _show(service: Service, given: argparse.Namespace) -> int:
    found = service.undos(given.limit)
    lines = [_line(one) for one in found]
    Printer(given, "table").document({"undos": [one._asdict() for one in found]}, lines)
    flush()
    return DONE


def _line(one: OpenUndo) -> str:
    what = "several keys"
    if one.prefix is not None:
        what = f"all that begins with {escaped(one.prefix)}" if one.prefix else "all keys"
    elif one.key is not None:
        what = escaped(one.key)
    return f"{one.undo}  {_keys(one.left)}  until {one.until}  {what}"


def _keys(count: int) -> str:
    return f"{count:,} {'key' if count == 1 else 'keys'}"
