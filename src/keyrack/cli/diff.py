"""`keyrack diff`: what is different between two places, or two moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyrack.cli import asking, kinds, lines, places, saying
from keyrack.cli.moments import events, moment
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Column, Printer
from keyrack.cli.spec import DONE, FILES, Argument, Command, Example, Flag
from keyrack.client import KeyrackError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.moments import Moment
    from keyrack.cli.service import Service

DIFFERENT: Final = 1
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}
_PLACES: Final = (Column("", "sign"), Column("KEY", "key"))
_MOMENTS: Final = (
    Column("LAST", "event", colour="bold"),
    Column("TIMES", "times", right=True),
    Column("REVISION", "revision"),
    Column("KEY", "key"),
)
COMMAND = Command(
    "Show what is different between two places: + is only in the second, - only in the first, ~ is "
    "in both with another value or type. A place is what it is for `keyrack copy`. Between two "
    "moments (revisions, times, or how long ago) it shows which keys were changed, and how last.",
    arguments=(
        Argument("A", "a place, or a moment", completes=FILES),
        Argument("B", "another one [default: . or now]", optional=True, completes=FILES),
    ),
    flags=(Flag(("--prefix",), "only keys that begin with this", "PREFIX", kinds.raw, b""),),
    formats=("table", "json", "jsonl"),
    codes=((DONE, "nothing is different"), (DIFFERENT, "something is different")),
    examples=(
        Example(
            "Since the last export:",
            "keyrack set site/a 1\nkeyrack set site/b 1\nkeyrack export before.ndjson\n"
            "keyrack set site/b 2\nkeyrack set site/c 1\nkeyrack del site/a\n"
            "keyrack diff before.ndjson .",
            "   KEY\n-  site/a\n~  site/b\n+  site/c",
        ),
        Example(
            "In the last hour:",
            "keyrack diff 1h --prefix site/ | awk '{print $1, $2, $4}'",
            "LAST TIMES KEY\ndelete 2 site/a\nset 2 site/b\nset 1 site/c",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print what is different."""
    first, second = _moment(given.a), None if given.b is None else _moment(given.b)
    if first is not None and (given.b is None or second is not None):
        return asking.ask(given, lambda service: _of_moments(service, given, first, second))
    if first is not None or second is not None:
        raise Misused("Two places, or two moments: these are one of each.")
    return _of_places(given)


def _moment(text: str) -> Moment | None:
    try:
        return moment(text)
    except ValueError:
        return None


# Moments


def _of_moments(
    service: Service, given: argparse.Namespace, first: Moment, second: Moment | None
) -> int:
    last: dict[str, dict[str, Any]] = {}
    for event in events(service, given.prefix, first):
        if second is not None and second.is_before(event):
            continue
        times = last[event["key"]]["times"] + 1 if event["key"] in last else 1
        last[event["key"]] = {**event, "times": times}
    Printer(given, "table").rows(last.values(), _MOMENTS)
    return DIFFERENT if last else DONE


# Places


def _of_places(given: argparse.Namespace) -> int:
    first = places.place_of(given.a, given)
    second = places.place_of(given.b or ".", given)
    found = 0
    try:
        with (
            places.exported(first, given.prefix) as before,
            places.exported(second, given.prefix) as after,
        ):
            differences = list(_differences(_lines(first.name, before), _lines(second.name, after)))
    except KeyrackError as error:
        return saying.complain(str(error), asking.exit_code(error))
    found = len(differences)
    Printer(given, "table").rows(differences, _PLACES)
    return DIFFERENT if found else DONE


def _lines(name: str, pieces: Iterator[bytes]) -> Iterator[lines.ExportLine]:
    """Yield the lines of a place. Raises `Misused` where their keys are not in order."""
    import msgspec

    before = b""
    for piece in places.whole_lines(pieces):
        for text in piece.splitlines():
            try:
                line = lines.read(text)
            except msgspec.DecodeError as error:
                raise Misused(f"{name}: a line cannot be read: {error}.") from None
            key = line.key.encode()
            if key < before:
                raise Misused(f"{name}: the keys are not in order, as an export has them.")
            before = key
            yield line


def _differences(
    before: Iterator[lines.ExportLine], after: Iterator[lines.ExportLine]
) -> Iterator[dict[str, Any]]:
    one, other = next(before, None), next(after, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.key.encode() < other.key.encode()):
            assert one is not None
            yield _difference("removed", one.key)
            one = next(before, None)
        elif one is None or other.key.encode() < one.key.encode():
            yield _difference("added", other.key)
            other = next(after, None)
        else:
            if _content(one) != _content(other):
                yield _difference("changed", one.key)
            one, other = next(before, None), next(after, None)


def _content(line: lines.ExportLine) -> tuple[object, ...]:
    # The TTL that is left is another one at every moment.
    return bytes(line.value), line.type, line.encoding


def _difference(change: str, key: str) -> dict[str, Any]:
    return {"key": key, "change": change, "sign": _SIGNS[change]}
