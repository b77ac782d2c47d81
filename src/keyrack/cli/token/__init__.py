"""`keyrack token`: make tokens, look at them, take them back. Each verb is a module."""

from __future__ import annotations

from typing import Final

from keyrack.cli import group

VERBS: Final = {
    "new": ("new", "Print a token and its hash; nothing is stored"),
    "create": ("create", "Make a token, in a file or in a running service"),
    "list": ("list_", "Show all tokens"),
    "show": ("show", "Show a token and its rules, in the order of decision"),
    "revoke": ("revoke", "Take a token back, at once"),
    "rotate": ("rotate", "Give a token another secret"),
    "check": ("check", "Tell whether something is allowed, and by which rule"),
    "ticket": ("ticket", "Make a weaker token for a short time"),
}
"""Each verb's module and what it does."""

_ABOUT: Final = "Work with the tokens that let clients in."


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    return group.run(__name__, VERBS, _ABOUT, arguments)
