"""Tells whoever sits at the terminal that a service cannot be reached and is tried again."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from keyrack.cli import saying

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Teller(logging.Handler):
    """Says what the client notes, but each sentence once in a row."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        sentence = record.getMessage()
        if sentence != self._last:
            self._last = sentence
            saying.say(f"keyrack: {sentence}")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Say what the client notes while this lasts."""
    logger = logging.getLogger("keyrack.client")
    teller = _Teller()
    before = logger.level
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(teller)
