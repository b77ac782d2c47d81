"""`keyrack doctor`: ask a running service how it is, and say what stands out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from keyrack.cli import asking
from keyrack.cli.diagnosis import BAD, Facts, findings
from keyrack.cli.exposition import Look
from keyrack.cli.kinds import seconds
from keyrack.cli.printing import Printer, flush
from keyrack.cli.saying import escaped
from keyrack.cli.spec import DONE, REFUSED, Argument, Command, Example, Flag
from keyrack.client import Forbidden, Refused, Unauthenticated

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Ask a running service how it is, twice, and say in sentences what stands out and what can be "
    "done: memory, workers, slow requests, disks, snapshots, clients that are stuck, certificates, "
    "access. It changes nothing. Where access is controlled it needs a token with `admin`.",
    arguments=(Argument("SERVICE", "where the service is: a URL, like --url", optional=True),),
    flags=(
        Flag(
            ("--seconds",),
            "how long to look at what changes [default: 2]",
            "TIME",
            kind=seconds,
            default=2.0,
        ),
    ),
    codes=((REFUSED, "something needs somebody now"),),
    examples=(
        Example(
            "What programs are told:",
            "keyrack doctor --seconds 1 -o json | grep -o findings",
            "findings",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print what stands out; exit with 1 where something needs somebody now."""
    if given.service is not None:
        given.url = given.service
    return asking.ask(given, lambda service: _examine(service, given))


def _examine(service: Service, given: argparse.Namespace) -> int:
    found = findings(_asked(service, given.seconds))
    printer = Printer(given, "table")
    if printer.as_json:
        printer.document({"findings": [one._asdict() for one in found]})
    elif not found:
        printer.line("Nothing stands out.")
    else:
        for one in found:
            mark = printer.paint(
                "!" if one.level == BAD else "-", "red" if one.level == BAD else ""
            )
            printer.line(f"{mark} {escaped(one.text)}")
            printer.line(printer.paint(f"  {escaped(one.advice)}", "dim"))
    flush()
    return REFUSED if any(one.level == BAD for one in found) else DONE


def _asked(service: Service, seconds: float) -> Facts:
    before = Look(service.text("/metrics"), time.monotonic())
    time.sleep(seconds)
    now = Look(service.text("/metrics"), time.monotonic())
    _, info = service.json("GET", "/v1/info")
    return Facts(
        _not_ready(service),
        before,
        now,
        now.moment - before.moment,
        info["time_ms"] / 1000,
        info,
        _if_allowed(service, "/v1/slow"),
        _if_allowed(service, "/v1/clients"),
    )


def _not_ready(service: Service) -> str:
    try:
        service.text("/readyz")
    except Refused as error:
        return str(error)
    return ""


def _if_allowed(service: Service, path: str) -> dict[str, Any]:
    """Return an answer; nothing where the sender may not have it, or the service is older."""
    try:
        return dict(service.json("GET", path)[1])
    except (Forbidden, Unauthenticated, Refused):
        return {}
