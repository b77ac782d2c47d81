"""`keyrack token ticket`: make a weaker token for a short time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.access import rules
from keyrack.cli import asking, kinds, saying
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, Command, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service


def _rule(text: str) -> str:
    rules.parse(text)
    return text


COMMAND = Command(
    "Make a ticket: a weaker token that ends by itself, for a link, a page or a child process. It "
    "may do what its rules say, as long as the token that made it may do that too.",
    flags=(
        Flag(
            ("--rule",),
            "a rule like 'read keys:app/report'; may be repeated",
            "RULE",
            _rule,
            repeat=True,
            required=True,
        ),
        Flag(
            ("--ttl",),
            "when it is to end, at most 1d [default: 60]",
            "TIME",
            kinds.some_seconds,
            60.0,
        ),
    ),
    writes=True,
)


def run(given: argparse.Namespace) -> int:
    """Print a ticket."""
    return asking.ask(given, lambda service: _made(service, given))


def _made(service: Service, given: argparse.Namespace) -> int:
    _, made = service.json("POST", "/v1/auth/tickets", {"rules": given.rule, "ttl": given.ttl})
    saying.say(f"ends at {made['expires']}")
    Printer(given, "table").document(made, [made["ticket"]])
    return DONE
