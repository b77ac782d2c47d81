"""Sizes and times as people write them, in settings, on the command line and in messages."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

TIME_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""Seconds of each unit."""

_TIME: Final = re.compile(
    "".join(rf"(?:([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in TIME_UNITS), re.IGNORECASE
)
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_SIZE: Final = re.compile(
    r"([0-9]{1,18}(?:\.[0-9]{1,6}(?=[kmgt]))?)(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE
)


def seconds_of(text: str) -> float:
    """Return the seconds of a text like `90`, `500ms`, `5m` or `1h30m`. Raises `ValueError`."""
    if _SECONDS.fullmatch(text):
        return float(text)
    match = _TIME.fullmatch(text) if text else None
    if match is None:
        raise ValueError(f"{text!r} is no time like 90, 500ms, 5m or 1h30m.")
    parts = zip(match.groups(), TIME_UNITS.values(), strict=True)
    return float(sum(float(part) * unit for part, unit in parts if part is not None))


def size_of(text: str) -> int:
    """Return the bytes of a text like `512`, `64k` or `1.5g`. Raises `ValueError`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no size like 512, 64k or 1.5g.")
    unit = 1 << 10 * " kmgt".index((match[2] or " ").lower())
    return int(Decimal(match[1]) * unit)


def shown_seconds(seconds: float) -> str:
    """Return a time as a setting is written: `5m`, or seconds where no longer unit fits."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % TIME_UNITS[unit] == 0:
            return f"{seconds / TIME_UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


def shown_size(size: int) -> str:
    """Return a size as a setting is written: `64m`, `1.5g`, or plain bytes where no unit fits."""
    for shift, unit in ((30, "g"), (20, "m"), (10, "k")):
        tenths, rest = divmod(size * 10, 1 << shift)
        if size >= 1 << shift and not rest and (unit != "k" or tenths % 10 == 0):
            return f"{tenths / 10:g}{unit}"
    return str(size)
