"""Sizes and times as people write them, in settings and in messages."""

from __future__ import annotations

from typing import Final

TIME_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""Seconds of each unit."""


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
