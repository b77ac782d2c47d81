"""`keyrack token ticket`: make a weaker token for a short time."""

from __future__ import annotations

import sys

from keyrack.access import rules
from keyrack.cli.asking import MISUSED, OK, complain
from keyrack.cli.token import service
from keyrack.cli.token.create import seconds_of


def run(arguments: list[str]) -> int:
    """Print a ticket."""
    parser = service.parser(
        "ticket",
        "Make a ticket: a weaker token that ends by itself, for a link, a page or a child process. "
        "It may do what its rules say, as long as the token that made it may do that too.",
    )
    parser.add_argument(
        "--rule",
        action="append",
        required=True,
        metavar="RULE",
        help="a rule like 'read keys:app/report'; may be repeated",
    )
    parser.add_argument(
        "--ttl", default="60", metavar="TIME", help="when it is to end, at most 1d [default: 60]"
    )
    given = parser.parse_args(arguments)
    try:
        for rule in given.rule:
            rules.parse(rule)
        document = {"rules": given.rule, "ttl": seconds_of(given.ttl)}
    except ValueError as error:
        return complain(str(error), MISUSED)
    return service.ask(given, lambda running: _made(running, document))


def _made(running: service.Service, document: dict[str, object]) -> int:
    _, made = running.ask("POST", "/v1/auth/tickets", document)
    print(f"ends at {made['expires']}", file=sys.stderr)
    print(made["ticket"])
    return OK
