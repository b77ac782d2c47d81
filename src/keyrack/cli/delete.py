"""`keyrack del`: remove a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking

if TYPE_CHECKING:
    from keyrack.client import Client


def run(arguments: list[str]) -> int:
    """Remove a key; print nothing."""
    given = asking.parser("del", "Remove a key.").parse_args(arguments)

    def question(client: Client) -> int:
        if client.delete(asking.key_of(given)):
            return asking.OK
        return asking.complain(f"The key {given.key!r} is missing.", asking.MISSING)

    return asking.ask(given, question)
