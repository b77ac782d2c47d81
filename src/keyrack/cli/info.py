"""`keyrack info`: what runs, and how full it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.cli import asking
from keyrack.cli.printing import Printer, pairs
from keyrack.cli.spec import DONE, Command, Example

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from keyrack.cli.service import Service

COMMAND = Command(
    "Show what runs, and how full it is.",
    examples=(
        Example(
            "How many keys?",
            "keyrack set a x\nkeyrack info | awk '$1 == \"keys\" {print $2}'",
            "1",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print what the service tells of itself."""

    def question(service: Service) -> int:
        found = service.info()
        Printer(given, "table").document(found, pairs(flat(found)))
        return DONE

    return asking.ask(given, question)


def flat(found: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested members as one level: `memory.used`."""
    shown: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, dict):
            shown |= flat(value, f"{before}{name}.")
        else:
            shown[f"{before}{name}"] = value
    return shown
