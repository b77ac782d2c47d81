"""`keyrack data`: see what a data directory holds, and go on with what can be read of it."""

from __future__ import annotations

from typing import Final

from keyrack.cli import group

VERBS: Final = {
    "check": ("check", "Say what can be read, and what is lost"),
    "salvage": ("salvage", "Go on with what can be read, and say what is lost"),
}
"""Each verb's module and what it does."""

_ABOUT: Final = "Look into a data directory (--data-dir) that no service uses now."


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    return group.run(__name__, VERBS, _ABOUT, arguments)
