"""A line on the terminal that says how far a long command is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from keyrack.cli.spec import Flag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_INTERVAL: Final = 0.2
_WIDTH: Final = 30
FLAG: Final = Flag(("--progress",), "show how far it is, also where nobody sits at a terminal")


class Progress:
    """Counts lines and bytes that pass; `total` is the bytes to come, None when unknown.

    Shows nothing where standard error is no terminal, unless it is told to.
    """

    def __init__(self, what: str, total: int | None = None, *, shown: bool = False) -> None:
        self._what = what
        self._total = total
        self._on_terminal = sys.stderr.isatty()
        self._shown = shown or self._on_terminal
        self._began = time.monotonic()
        self._next = self._began
        self.lines = 0
        self.bytes = 0

    def watch(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield pieces as they are, and show how far it is."""
        try:
            for piece in pieces:
                yield piece
                self.add(piece.count(b"\n"), len(piece))
        finally:
            self.end()

    def add(self, lines: int, size: int) -> None:
        """Count what has passed."""
        self.lines += lines
        self.bytes += size
        if self._shown and time.monotonic() >= self._next:
            self._show()

    def end(self) -> None:
        """Show how far it came."""
        if self._shown:
            self._show()
            if self._on_terminal:
                print(file=sys.stderr)

    def _show(self) -> None:
        now = time.monotonic()
        self._next = now + (_INTERVAL if self._on_terminal else 5 * _INTERVAL)
        rate = self.lines / max(now - self._began, 0.001)
        line = f"{self._what} {self.lines:,} keys, {self.bytes / 1e6:,.1f} MB, {rate:,.0f} keys/s"
        if self._total:
            part = min(1.0, self.bytes / self._total)
            filled = round(part * _WIDTH)
            line = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {part:4.0%} {line}"
        if self._on_terminal:
            print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
