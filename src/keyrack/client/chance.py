"""Chance from the kernel, which the children of a fork do not share, and which is quick to load."""

from __future__ import annotations

import os


def uniform(least: float, most: float) -> float:
    """Return a number between two others."""
    return least + (most - least) * int.from_bytes(os.urandom(6)) / (1 << 48)


def new_id() -> bytes:
    """Return 32 hex digits that nobody else has."""
    return os.urandom(16).hex().encode()
