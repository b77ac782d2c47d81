"""`keyrack set`: store a value."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from keyrack.cli import asking

if TYPE_CHECKING:
    from keyrack.client import Client


def run(arguments: list[str]) -> int:
    """Store a value; print nothing, or its ETag with `--verbose`."""
    parser = asking.parser("set", "Store a value.")
    parser.add_argument(
        "value", metavar="VALUE", nargs="?", default="-", help="- (or nothing) reads standard input"
    )
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help="when the key is to end")
    parser.add_argument(
        "--type", metavar="MEDIA", help="media type [default: text if it is UTF-8, else binary]"
    )
    parser.add_argument(
        "--if-match", type=_tag, metavar="ETAG", help="only if this is what it is now; * is any"
    )
    parser.add_argument(
        "--if-none-match", type=_tag, metavar="ETAG", help="only if it is not that; * is any"
    )
    parser.add_argument("--verbose", action="store_true", help="print the new ETag")
    given = parser.parse_args(arguments)

    def question(client: Client) -> int:
        etag = client.set(
            asking.key_of(given),
            sys.stdin.buffer.read() if given.value == "-" else os.fsencode(given.value),
            media_type=given.type,
            ttl=given.ttl,
            if_match=given.if_match,
            if_none_match=given.if_none_match,
        )
        if given.verbose:
            print(etag)
        return asking.OK

    return asking.ask(given, question)


def _tag(given: str) -> str:
    """Return an ETag with the quotes that belong to it, which shells take away."""
    return f'"{given}"' if given.isdecimal() else given
