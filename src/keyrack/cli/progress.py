"""A line on the terminal that says how far a long command is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_INTERVAL: Final = 0.2
_WIDTH: Final = 30


class Progress:
    """Counts lines and bytes that pass; `total` is the bytes to come, None when unknown.

    Shows nothing where standard error is no terminal.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = self._began
        self.lines = 0
        self.bytes = 0

    def watch(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield pieces as they are, and show how far it is."""
        for piece in pieces:
            yield piece
            self.lines += piece.count(b"\n")
            self.bytes += len(piece)
            if self._shown and time.monotonic() >= self._next:
                self._show()
        if self._shown:
            self._show()
            print(file=sys.stderr)

    def _show(self) -> None:
        now = time.monotonic()
        self._next = now + _INTERVAL
        rate = self.lines / max(now - self._began, 0.001)
        line = f"{self._what} {self.lines:,} keys, {self.bytes / 1e6:,.1f} MB, {rate:,.0f} keys/s"
        if self._total:
            part = min(1.0, self.bytes / self._total)
            filled = round(part * _WIDTH)
            line = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {part:4.0%} {line}"
        print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)
