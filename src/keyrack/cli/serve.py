"""`keyrack serve`: run the service in the foreground."""

from __future__ import annotations

import argparse
import logging
import sys

from keyrack import settings

_EXIT_CODES = """\
exit codes: 0 ended as told (SIGTERM, SIGINT), 1 could not start or was told twice to end,
2 a setting cannot be used"""


def run(arguments: list[str]) -> int:
    """Run the service until it is told to end."""
    parser = argparse.ArgumentParser(
        prog="keyrack serve",
        description="Run the service in the foreground.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    settings.add_flags(parser)
    flags = vars(parser.parse_args(arguments))
    try:
        loaded, warnings = settings.load(flags)
    except settings.SettingsError as error:
        print(f"keyrack serve: {error}", file=sys.stderr)
        return 2
    # The server's modules cost a third of a second, which `--help` does without.
    from keyrack.server import logs, supervisor

    logs.configure(loaded.log_level)
    for warning in warnings:
        logging.getLogger("keyrack.settings").warning("%s", warning)
    return supervisor.run(loaded)
