"""`keyrack head`: show what is known of a key, without its value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds, saying
from keyrack.cli.printing import Printer, flush, pairs
from keyrack.cli.saying import shown_key
from keyrack.cli.spec import DONE, KEYS, MISSING, Argument, Command, Example

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Show a key's size, media type, ETag and TTL. Its value is not fetched.",
    arguments=(Argument("KEY", "the key", kind=kinds.key, completes=KEYS),),
    examples=(
        Example(
            "How long is it there yet?",
            "keyrack set session/7 x --ttl 1h\nkeyrack head session/7 | grep size",
            "size  1",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print what is known."""

    def question(service: Service) -> int:
        found = service.head(given.key)
        if found is None:
            return saying.complain(f"The key {shown_key(given.key)} is missing.", MISSING)
        known = {
            "key": given.key.decode("utf-8", "surrogateescape"),
            "type": found.media_type,
            "size": found.size,
            "etag": found.etag,
            "ttl": found.ttl,
        }
        Printer(given, "table").document(known, pairs(known))
        flush()
        return DONE

    return asking.ask(given, question)
