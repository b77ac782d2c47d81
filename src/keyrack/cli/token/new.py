"""`keyrack token new`: print a token and its hash."""

from __future__ import annotations

from keyrack.access import tokens
from keyrack.cli.asking import OK
from keyrack.cli.parser import Parser


def run(arguments: list[str]) -> int:
    """Print a token that nobody knows yet, and what a file keeps of it."""
    parser = Parser(
        prog="keyrack token new",
        description="Print a new token, and with --hash what a file keeps of it. Nothing is "
        "stored. A service that is started with this token in KEYRACK_TOKEN lets it do everything.",
        epilog="exit codes: 0 done, 2 misused",
    )
    parser.add_argument("--hash", action="store_true", help="print its id and its hash as well")
    given = parser.parse_args(arguments)
    made = tokens.new()
    print(made.text)
    if given.hash:
        print(f'id = "{made.id}"')
        print(f'hash = "{made.hash}"')
    return OK
