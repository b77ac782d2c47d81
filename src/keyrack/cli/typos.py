"""What was probably meant by a word that is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def proposal(given: str, known: Iterable[str]) -> str:
    """Return a remark like ` (is --ttl meant?)`, empty where nothing known is like it."""
    import difflib  # only for messages: it takes longer than a whole `keyrack get`

    close = difflib.get_close_matches(given.lower().replace("_", "-"), list(known), 1)
    return f" (is {close[0]} meant?)" if close else ""
