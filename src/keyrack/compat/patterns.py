"""Redis' patterns of keys: `*`, `?`, `[a-z]`, `[^a]`, and `\\` before what stands for itself.

A pattern becomes a regular expression that looks at each byte of a key a bounded number of times
for each star, whatever a hostile client writes: what a star has passed is not tried again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.compat.replies import CommandError
from keyrack.engines.contract import MAX_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES: Final = 1024
"""A longest key, each byte of it behind a backslash. Compiling takes microseconds for each byte."""
_NOTHING: Final = rb"(?!)"
_ANYTHING: Final = rb"[\x00-\xff]"


class Pattern(NamedTuple):
    """What keys have to begin with, and the function that judges a whole one."""

    prefix: bytes
    matches: Callable[[bytes], bool]


def compiled(pattern: bytes) -> Pattern:
    """Return what a pattern means. Raises `CommandError` where it is too long."""
    if len(pattern) > MOST_BYTES:
        raise CommandError(f"a pattern has at most {MOST_BYTES} bytes here, not {len(pattern)}")
    segments: list[list[bytes]] = [[]]
    prefix, is_plain = b"", True
    at = 0
    while at < len(pattern):
        one = pattern[at : at + 1]
        if one == b"*":
            segments.append([])
            at += 1
        elif one == b"?":
            segments[-1].append(_ANYTHING)
            at += 1
        elif one == b"[":
            part, at = _class(pattern, at + 1)
            segments[-1].append(part)
        else:
            if one == b"\\" and at + 1 < len(pattern):
                at += 1
                one = pattern[at : at + 1]
            segments[-1].append(re.escape(one))
            if is_plain:
                prefix += one
            at += 1
            continue
        is_plain = False
    found = re.compile(_joined([b"".join(parts) for parts in segments]), re.DOTALL).fullmatch
    return Pattern(prefix[:MAX_KEY_BYTES], lambda key: found(key) is not None)


def _joined(segments: list[bytes]) -> bytes:
    """Join what stands between stars. The first place where the next part fits is the right one."""
    if len(segments) == 1:
        return segments[0]
    first, *middle, last = segments
    within = b"".join(b"(?>.*?%b)" % part for part in middle if part)
    return b"%b%b.*%b" % (first, within, last)


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return the class that begins at a place, and where it ends; without an end it is the rest."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members = b""
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members += b"\\x%02x" % pattern[at + 1]
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1 : at + 2] == b"-":
            low, high = sorted((pattern[at], pattern[at + 2]))
            members += b"\\x%02x-\\x%02x" % (low, high)
            at += 3
        else:
            members += b"\\x%02x" % pattern[at]
            at += 1
    if not members:
        return (_ANYTHING if negated else _NOTHING), at + 1
    return b"[%b%b]" % (b"^" if negated else b"", members), at + 1
