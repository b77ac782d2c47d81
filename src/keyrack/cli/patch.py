"""`keyrack patch`: change members of a JSON value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds
from keyrack.cli.printing import Printer
from keyrack.cli.set import data_of
from keyrack.cli.spec import DONE, FILES, KEYS, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Change members of a JSON value (a merge patch, RFC 7396): members of the patch replace those "
    "of the value, members that are null go. The TTL stays, and so does the text of numbers.",
    arguments=(
        Argument("KEY", "the key", kind=kinds.key, completes=KEYS),
        Argument("JSON", "the patch, `-` or `@FILE` [default: -]", optional=True, completes=FILES),
    ),
    flags=(
        Flag(("--if-match",), "only if this is its ETag; * is any", "ETAG", kinds.tag),
        Flag(("-v", "--verbose"), "print the new ETag"),
    ),
    writes=True,
    names_lock=True,
    examples=(
        Example(
            "One member changes, another goes:",
            'keyrack set config \'{"a":1.50,"b":2}\' --type application/json\n'
            'keyrack patch config \'{"b":null,"c":3}\'\n'
            "keyrack get config",
            '{"a":1.50,"c":3}',
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Apply the patch; print the ETag when it is asked for."""
    text = data_of(given.json)

    def question(service: Service) -> int:
        etag = service.patch_text(given.key, text, given.if_match)
        key = given.key.decode("utf-8", "surrogateescape")
        lines = [etag] if given.verbose else []
        Printer(given, "table").document({"key": key, "etag": etag}, lines)
        return DONE

    return asking.ask(given, question)
