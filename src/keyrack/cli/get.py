"""`keyrack get`: print a key's value."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from keyrack.cli import asking
from keyrack.client import Value

if TYPE_CHECKING:
    from keyrack.client import Client


def run(arguments: list[str]) -> int:
    """Print the value's bytes and nothing else; on a terminal, end a text's last line."""
    parser = asking.parser("get", "Print a key's value, byte for byte.")
    given = parser.parse_args(arguments)

    def question(client: Client) -> int:
        value = client.get_value(asking.key_of(given))
        if not isinstance(value, Value):
            return asking.complain(f"The key {given.key!r} is missing.", asking.MISSING)
        _print(value)
        return asking.OK

    return asking.ask(given, question)


def _print(value: Value) -> None:
    out = sys.stdout.buffer
    out.write(value.data)
    is_text = value.media_type.startswith("text/") or value.media_type == "application/json"
    if sys.stdout.isatty() and is_text and not value.data.endswith(b"\n"):
        out.write(b"\n")
    out.flush()
