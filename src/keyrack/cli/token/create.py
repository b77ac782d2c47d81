"""`keyrack token create`: make a token, in a file or in a running service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from keyrack.access import rules, tokens, writing
from keyrack.access.model import Token, checked_token_name, network_of, rate_of
from keyrack.access.sections import AccessFileError
from keyrack.cli import asking, kinds, saying
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, FILES, MISUSED, Command, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Make a token and print it, once. With --file it is added to a file, offline: the service that "
    "uses the file notices within two seconds. Otherwise a running service keeps it.",
    flags=(
        Flag(("--file",), "the file to add it to", "FILE", completes=FILES),
        Flag(("--name",), "what it is for", "NAME", default=""),
        Flag(("--admin",), "let it do everything"),
        Flag(("--policy",), "a policy; may be repeated", "NAME", repeat=True),
        Flag(
            ("--rule",), "a rule like 'read,list keys:app/*'; may be repeated", "RULE", repeat=True
        ),
        Flag(("--ttl",), "when it is to end, like 3600, 12h or 90d", "TIME", kinds.some_seconds),
        Flag(("--rate",), "like '200/s burst 400'", "RATE"),
        Flag(("--watches",), "how many watches at once", "NUMBER", kinds.whole),
        Flag(
            ("--from",),
            "where it may be used from, like 10.0.0.0/8; may be repeated",
            "NETWORK",
            repeat=True,
            attribute="sources",
        ),
    ),
    writes=True,
)


def run(given: argparse.Namespace) -> int:
    """Print the token, the only time that anybody sees it, and what was made on standard error."""
    try:
        wanted = _wanted(given)
    except ValueError as error:
        return saying.complain(str(error), MISUSED)
    if given.file is None:
        return asking.ask(given, lambda service: _in_service(service, given, wanted))
    return _in_file(given, wanted)


def _wanted(given: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags ask for, as the service takes it. Raises `ValueError`."""
    policies = [*(["admin"] if given.admin else []), *given.policy]
    if not policies and not given.rule:
        raise ValueError("Say what it may do: --policy, --rule or --admin.")
    for rule in given.rule:
        rules.parse(rule)
    for network in given.sources:
        network_of(network)
    if given.rate is not None:
        rate_of(given.rate)
    wanted = {
        "name": checked_token_name(given.name or (policies or ["token"])[0]),
        "policies": policies,
        "rules": given.rule,
        "ttl": given.ttl,
        "rate": given.rate,
        "watches": given.watches,
        "from": given.sources,
    }
    return {name: value for name, value in wanted.items() if value not in (None, [])}


def _in_file(given: argparse.Namespace, wanted: dict[str, Any]) -> int:
    made = tokens.new()
    now = float(round(time.time()))
    token = Token(
        id=made.id,
        hash=made.hash,
        name=wanted["name"],
        policies=tuple(wanted.get("policies", ())),
        rules=tuple(wanted.get("rules", ())),
        expires=now + wanted["ttl"] if "ttl" in wanted else None,
        rate=rate_of(wanted["rate"]) if "rate" in wanted else None,
        watches=wanted.get("watches"),
        sources=tuple(wanted.get("from", ())),
        created=now,
    )
    try:
        writing.add(given.file, token)
    except AccessFileError as error:
        return saying.complain(str(error), MISUSED)
    saying.say(f"added {made.id} to {given.file}; the token is shown this once")
    Printer(given, "table").document({"id": made.id, "token": made.text}, [made.text])
    return DONE


def _in_service(service: Service, given: argparse.Namespace, wanted: dict[str, Any]) -> int:
    _, made = service.json("POST", "/v1/auth/tokens", wanted)
    saying.say(f"made {made['id']}; the token is shown this once")
    Printer(given, "table").document(made, [made["token"]])
    return DONE
