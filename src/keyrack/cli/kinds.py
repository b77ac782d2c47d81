"""What texts on the command line mean. Each function raises `ValueError` with a sentence."""

from __future__ import annotations

import os
from typing import Final

from keyrack.shared import units

_MOST_TOKEN_DIGITS: Final = 20
_MOST_SECONDS: Final = 315_360_000.0
"""Ten years, the longest TTL that a service takes."""


def seconds(text: str) -> float:
    """Return a time of zero or more in seconds."""
    found = units.seconds_of(text)
    if found > _MOST_SECONDS:
        raise ValueError(f"{text!r} is longer than ten years.")
    return found


def some_seconds(text: str) -> float:
    """Return a time above zero in seconds."""
    found = seconds(text)
    if found <= 0:
        raise ValueError("the time must be above 0, like 5, 500ms or 1h.")
    return found


def whole_seconds(text: str) -> int:
    """Return a time, which may be 0, in whole seconds."""
    found = seconds(text)
    if found != int(found):
        raise ValueError("the time must be whole seconds, like 30 or 5m.")
    return int(found)


def lock(text: str) -> tuple[bytes, int]:
    """Return the name of a lock and its token, which KEYRACK_TOKEN_FENCE says where none is."""
    name, colon, token = text.rpartition(":")
    if not (colon and name and token.isascii() and token.isdecimal()):
        name, token = text, os.environ.get("KEYRACK_TOKEN_FENCE", "")
    if not (token.isascii() and token.isdecimal() and len(token) < _MOST_TOKEN_DIGITS):
        raise ValueError(f"{text!r} names no token: NAME:TOKEN, or NAME under `keyrack lock`.")
    return key(name), int(token)


def size(text: str) -> int:
    """Return a size in bytes."""
    return units.size_of(text)


def whole(text: str) -> int:
    """Return a whole number of zero or more."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"{text!r} is no whole number of 0 or more.")
    return int(text)


def some(text: str) -> int:
    """Return a whole number above zero."""
    found = whole(text)
    if not found:
        raise ValueError("the number must be above 0.")
    return found


def integer(text: str) -> int:
    """Return a whole number of 64 bits, which may be below zero."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if digits.isascii() and digits.isdecimal() and len(digits) < 20:
        found = int(text)
        if -(1 << 63) <= found < 1 << 63:
            return found
    raise ValueError(f"{text!r} is no whole number of 64 bits.")


def key(text: str) -> bytes:
    """Return a key as bytes. One that is no UTF-8 goes out as it is: the server judges it."""
    if not text:
        raise ValueError("a key has at least one byte.")
    return os.fsencode(text)


def raw(text: str) -> bytes:
    """Return what a shell gave as bytes."""
    return os.fsencode(text)


def tag(text: str) -> str:
    """Return an ETag with the quotes that belong to it, which shells take away."""
    return f'"{text}"' if text.isascii() and text.isdecimal() else text
