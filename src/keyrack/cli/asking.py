"""What the verbs that ask a running service share: flags, errors, exit codes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from keyrack.cli.parser import Parser
from keyrack.client import Ambiguous, Client, KeyrackError, ProtocolError, Raw, Unreachable
from keyrack.client.address import DEFAULT_URL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

OK: Final = 0
MISSING: Final = 1
REFUSED: Final = 1
MISUSED: Final = 2
UNREACHABLE: Final = 3

_EPILOG: Final = "exit codes: 0 done, 1 missing or refused, 2 misused, 3 the service did not answer"


def parser(verb: str, description: str, *, key: bool = True) -> Parser:
    """Return a parser with the key, if there is one, and the flags that say where to ask."""
    made = Parser(prog=f"keyrack {verb}", description=description, epilog=_EPILOG)
    if key:
        made.add_argument("key", metavar="KEY")
    made.add_argument(
        "--url",
        default=os.environ.get("KEYRACK_URL") or DEFAULT_URL,
        help=f"where the service is [KEYRACK_URL; default: {DEFAULT_URL}]",
    )
    made.add_argument("--uds", metavar="PATH", help="a Unix socket to use instead of the URL")
    made.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for the service [default: 10]",
    )
    return made


def ask(given: argparse.Namespace, question: Callable[[Client], int]) -> int:
    """Ask the service that was named and return the exit code; print what went wrong."""
    try:
        # A verb asks once: whoever typed it sees what happened, and can type it again.
        with Client(
            given.url, uds=given.uds, timeout=given.timeout, retries=0, serializer=Raw()
        ) as client:
            return question(client)
    except (Unreachable, Ambiguous, ProtocolError) as error:
        return complain(str(error), UNREACHABLE)
    except KeyrackError as error:
        return complain(str(error), REFUSED)
    except ValueError as error:
        return complain(str(error), MISUSED)


def key_of(given: argparse.Namespace) -> bytes:
    """Return the key that was named. What is no UTF-8 goes out as it is: the server judges it."""
    return os.fsencode(given.key)


def complain(sentence: str, code: int) -> int:
    """Print a sentence, made harmless for terminals, and return the code."""
    shown = sentence.encode("utf-8", "backslashreplace").decode()
    print(
        "keyrack:",
        "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown),
        file=sys.stderr,
    )
    return code
