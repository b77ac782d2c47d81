"""`keyrack limits`: every limit that the service enforces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking
from keyrack.cli.printing import Printer, pairs
from keyrack.cli.spec import DONE, Command, Example

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Show every limit that the service enforces.",
    examples=(
        Example(
            "How long may a key be?",
            "keyrack limits -o json | grep -o '\"key_bytes\": [0-9]*'",
            '"key_bytes": 511',
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the limits."""

    def question(service: Service) -> int:
        found = service.limits()
        Printer(given, "table").document(found, pairs(found))
        return DONE

    return asking.ask(given, question)
