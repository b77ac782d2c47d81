"""`keyrack token create`: make a token, in a file or in a running service."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from keyrack.access import rules, tokens, writing
from keyrack.access.model import Token, checked_token_name, network_of, rate_of
from keyrack.access.sections import AccessFileError
from keyrack.cli.asking import MISUSED, OK, complain
from keyrack.cli.token import service

if TYPE_CHECKING:
    import argparse

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def run(arguments: list[str]) -> int:
    """Print the token, the only time that anybody sees it, and what was made on standard error."""
    given = _parser().parse_args(arguments)
    try:
        wanted = _wanted(given)
    except ValueError as error:
        return complain(str(error), MISUSED)
    if given.file is None:
        return service.ask(given, lambda running: _in_service(running, wanted))
    return _in_file(given.file, wanted)


def _parser() -> argparse.ArgumentParser:
    parser = service.parser(
        "create",
        "Make a token and print it, once. With --file it is added to a file, offline: the service "
        "that uses the file notices within two seconds. Otherwise a running service keeps it.",
    )
    parser.add_argument("--file", metavar="FILE", help="the file to add it to")
    parser.add_argument("--name", default="", help="what it is for")
    parser.add_argument("--admin", action="store_true", help="let it do everything")
    parser.add_argument(
        "--policy", action="append", default=[], metavar="NAME", help="a policy; may be repeated"
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="RULE",
        help="a rule like 'read,list keys:app/*'; may be repeated",
    )
    parser.add_argument("--ttl", metavar="TIME", help="when it is to end, like 3600, 12h or 90d")
    parser.add_argument("--rate", metavar="RATE", help="like '200/s burst 400'")
    parser.add_argument("--watches", type=int, metavar="NUMBER", help="how many watches at once")
    parser.add_argument(
        "--from",
        dest="sources",
        action="append",
        default=[],
        metavar="NETWORK",
        help="where it may be used from, like 10.0.0.0/8; may be repeated",
    )
    return parser


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
        "ttl": None if given.ttl is None else seconds_of(given.ttl),
        "rate": given.rate,
        "watches": given.watches,
        "from": given.sources,
    }
    return {name: value for name, value in wanted.items() if value not in (None, [])}


def seconds_of(text: str) -> float:
    """Return the seconds that a text like `90`, `15m`, `12h` or `90d` says. Raises `ValueError`."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    if not number.isascii() or not number.isdecimal() or not int(number):
        raise ValueError(f"{text!r} is no time like 3600, 15m, 12h or 90d.")
    return float(int(number) * _UNITS[unit])


def _in_file(path: str, wanted: dict[str, Any]) -> int:
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
        writing.add(path, token)
    except AccessFileError as error:
        return complain(str(error), MISUSED)
    print(f"added {made.id} to {path}; the token is shown this once", file=sys.stderr)
    print(made.text)
    return OK


def _in_service(running: service.Service, wanted: dict[str, Any]) -> int:
    _, made = running.ask("POST", "/v1/auth/tokens", wanted)
    print(f"made {made['id']}; the token is shown this once", file=sys.stderr)
    print(made["token"])
    return OK
