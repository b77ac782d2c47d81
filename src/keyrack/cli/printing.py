"""How verbs print: tables for people, JSON and bare keys for programs. stdout is data alone.

What comes from a store may hold anything. In tables it is escaped, so that it can neither drive a
terminal nor break a line; in JSON it is exact.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.cli.saying import escaped

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PAGE_ROWS: Final = 1000
"""A table is laid out so many rows at a time: memory is bounded, and the first rows come soon."""
_COLOURS: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
}


class Column(NamedTuple):
    """A column of a table: its title, the member of a record that it shows, and how."""

    title: str
    member: str
    right: bool = False
    colour: str = ""


class Printer:
    """Prints what a verb found, in the format that was asked for."""

    def __init__(self, given: argparse.Namespace, default: str, terminal: str = "") -> None:
        self.on_terminal = sys.stdout.isatty()
        self.format: str = given.format or ((self.on_terminal and terminal) or default)
        self._zero: bool = getattr(given, "zero", False)
        self._colours = _wants_colour(given.color, self.on_terminal)

    @property
    def as_json(self) -> bool:
        """Whether programs are to read it."""
        return self.format in ("json", "jsonl")

    def paint(self, text: str, colour: str) -> str:
        """Return a text in a colour, where colours are wanted."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if colour and self._colours else text

    def json(self, value: Any) -> str:
        """Return JSON without line breaks; on a terminal in ASCII, so that it does no harm."""
        import json  # not for those who print bytes

        return json.dumps(value, ensure_ascii=self.on_terminal)

    def line(self, text: str) -> None:
        """Print a line."""
        write(f"{text}\n")

    def document(self, value: Mapping[str, Any], shown: Iterable[str] = ()) -> None:
        """Print one thing: as JSON, or as the lines that show it."""
        if self.as_json:
            self.line(self.json(value))
            return
        for line in shown:
            self.line(line)

    def rows(
        self,
        records: Iterable[Mapping[str, Any]],
        columns: Sequence[Column],
        *,
        titled: bool = True,
        bare: str = "",
    ) -> None:
        """Print many things. `bare` is the member that is printed alone, else the first column."""
        if self.format == "json":
            self._array(records)
        elif self.format == "jsonl":
            for record in records:
                self.line(self.json(record))
                if self.on_terminal:
                    flush()
        elif self.format == "raw":
            for record in records:
                self.bare(str(record[bare or columns[0].member]))
        else:
            self._table(records, columns, titled)
        flush()

    def bare(self, text: str) -> None:
        """Print a text and nothing else, with a line break or, where it was wanted, a NUL."""
        write(text + ("\0" if self._zero else "\n"))

    def _array(self, records: Iterable[Mapping[str, Any]]) -> None:
        between = "["
        for record in records:
            write(f"{between}{self.json(record)}")
            between = ",\n "
        write("]\n" if between != "[" else "[]\n")

    def _table(
        self, records: Iterable[Mapping[str, Any]], columns: Sequence[Column], titled: bool
    ) -> None:
        remaining = iter(records)
        widths = [len(column.title) if titled else 0 for column in columns]
        while page := list(itertools.islice(remaining, _PAGE_ROWS)):
            rows = [[cell(record.get(column.member)) for column in columns] for record in page]
            widths = [max(found) for found in zip(widths, *map(_widths, rows), strict=True)]
            if titled:
                titles = [column.title for column in columns]
                self.line(self.paint(_laid_out(titles, widths, columns), "dim"))
                titled = False
            for row in rows:
                self.line(self._row(row, widths, columns))

    def _row(self, row: list[str], widths: list[int], columns: Sequence[Column]) -> str:
        if not self._colours:
            return _laid_out(row, widths, columns)
        cells = [
            self.paint(_padded(text, wide, column.right), column.colour)
            for text, wide, column in zip(row, widths, columns, strict=True)
        ]
        return "  ".join(cells).rstrip()


def pairs(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines that show names and values below each other."""
    wide = max(map(len, found), default=0)
    for name, value in found.items():
        yield f"{name.ljust(wide)}  {cell(value)}"


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple):
        return ", ".join(cell(one) for one in value) or "-"
    return escaped(str(value))


def write(text: str) -> None:
    """Write a text to standard output."""
    write_bytes(text.encode("utf-8", "surrogateescape"))


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output."""
    sys.stdout.buffer.write(data)


def flush() -> None:
    """Let what was written be seen."""
    sys.stdout.buffer.flush()


def _wants_colour(when: str | None, on_terminal: bool) -> bool:
    if when in (None, "auto"):
        return on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return when == "always"


def _widths(row: list[str]) -> list[int]:
    return [_width(text) for text in row]


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    import unicodedata  # rarely needed

    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _padded(text: str, wide: int, right: bool) -> str:
    space = " " * (wide - _width(text))
    return space + text if right else text + space


def _laid_out(row: Sequence[str], widths: list[int], columns: Sequence[Column]) -> str:
    cells = zip(row, widths, columns, strict=True)
    return "  ".join(_padded(text, wide, column.right) for text, wide, column in cells).rstrip()
