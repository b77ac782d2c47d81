"""`keyrack snapshot`: work with the files that keep a store on a disk. Each verb is a module."""

from __future__ import annotations

from typing import Final

from keyrack.cli import group

VERBS: Final = {
    "save": ("save", "Have a running service take one, and fetch it"),
    "list": ("list_", "Show those in a data directory"),
    "verify": ("verify", "Check files, every byte"),
    "restore": ("restore", "Put one into a data directory, for the next start"),
}
"""Each verb's module and what it does."""

_ABOUT: Final = "Work with snapshots, the files that keep a store on a disk."


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    return group.run(__name__, VERBS, _ABOUT, arguments)
