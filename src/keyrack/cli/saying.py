"""What is said to whoever sits at the terminal, on standard error: it is never data."""

from __future__ import annotations

import sys
from typing import Final

_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}


def complain(sentence: str, code: int) -> int:
    """Print a sentence, made harmless for terminals, and return the code."""
    print(f"keyrack: {harmless(sentence)}", file=sys.stderr)
    return code


def say(sentence: str) -> None:
    """Tell a person something that is not data."""
    print(harmless(sentence), file=sys.stderr)


def harmless(text: str) -> str:
    """Return a text that a terminal shows as it is."""
    return "".join(c if c.isprintable() else escaped(c) for c in text)


def escaped(text: str) -> str:
    """Return a text in which everything can be seen: `\\x00`, `\\e`, `\\n`, `\\u202e`."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_ESCAPES.get(c) or (c if c.isprintable() else _code(c)) for c in text)


def _code(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8, as the shell gave it
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def shown_key(key: bytes) -> str:
    """Return a key in quotes for a sentence."""
    return f"'{escaped(key.decode('utf-8', 'surrogateescape'))}'"
