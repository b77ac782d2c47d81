"""Lines of an import that are of the most frequent shape: a key and a text, nothing escaped.

What is read here is read as `bulk.Import` reads it line by line, in a fifth of the time. Anything
else is left to that: other members, other values, and whatever has to be refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import MAX_KEY_BYTES, Set

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LINE: Final = re.compile(
    rb'^\{"key": ?"([^"\\\x00-\x1f]{1,%d})", ?"value": ?"([^"\\\x00-\x1f]*)"\}$' % MAX_KEY_BYTES,
    re.MULTILINE,
)


def plain_sets(
    lines: Sequence[bytes], max_value: int, may_set: Callable[[bytes], object] | None
) -> list[tuple[Set]] | None:
    """Return what lines without line breaks are to set; None where not all are of this shape.

    `max_value` is in bytes; `may_set` tells whether a key may be set, None for every one.
    """
    block = b"\n".join(lines)
    found = _LINE.findall(block)
    if len(found) != len(lines) or not _is_utf8(block):
        return None
    if len(block) > max_value and any(len(value) > max_value for _, value in found):
        return None
    if may_set is not None and not all(may_set(key) for key, _ in found):
        return None
    return [(Set(key, value),) for key, value in found]


def _is_utf8(block: bytes) -> bool:
    # What is between the quotes is UTF-8 then, too: a quote is no part of a longer character.
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
