"""`keyrack open`: open the console in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, MISSING, Command, Example, Flag
from keyrack.cli.target import target_of

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    "Open the service's console in a browser, and print its address. A token is typed there: an "
    "address would be kept by the browser.",
    flags=(Flag(("--print",), "only print the address", attribute="only_print"),),
    examples=(
        Example(
            "Where is it?",
            "keyrack open --print --url http://127.0.0.1:8088",
            "http://127.0.0.1:8088/",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Open it."""
    target = target_of(given)
    if target.uds is not None:
        raise Misused("A browser cannot open a Unix socket; name the service with --url.")
    url = f"{target.url.rstrip('/')}/"
    Printer(given, "table").document({"url": url}, [url])
    if given.only_print:
        return DONE
    import webbrowser  # only for this

    if not webbrowser.open(url):
        return saying.complain("No browser was found here; the address is above.", MISSING)
    return DONE
