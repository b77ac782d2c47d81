"""`keyrack serve`: run the service in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from keyrack.cli.spec import Command
from keyrack.server.signals import Signals

if TYPE_CHECKING:
    from keyrack.settings import Settings

COMMAND = Command(
    "Run the service in the foreground. Every setting is a flag, a variable KEYRACK_… and a line "
    "of the TOML file that --config names; docs/settings.md has them all.",
    formats=(),
    asks=False,
    codes=(
        (0, "ended as told (SIGTERM, SIGINT, SIGQUIT)"),
        (1, "could not start, or was told twice to end"),
        (2, "a setting cannot be used"),
    ),
)


_NO_MEMORY: Final = (
    "There is not enough memory to start. Raise the limit (`ulimit -d` and `ulimit -v`, LimitDATA "
    "and LimitAS of systemd, or the memory of the container)."
)


def run(arguments: list[str]) -> int:
    """Run the service until it is told to end."""
    try:
        return _run(arguments)
    except MemoryError:
        # Written by hand: what writes all other lines may not have been loaded.
        shown = _NO_MEMORY if os.isatty(2) else f'{{"level":"error","message":"{_NO_MEMORY}"}}'
        os.write(2, shown.encode() + b"\n")
        return 1


def _run(arguments: list[str]) -> int:
    heard = Signals()
    try:
        loaded = _load(arguments)
    except SystemExit:
        heard.release()
        raise
    # The server's modules cost a third of a second, which `--help` does without.
    from keyrack.server import logs, supervisor

    logs.configure(loaded.settings.log_level)
    for warning in loaded.warnings:
        logging.getLogger("keyrack.settings").warning("%s", warning)
    return supervisor.run(loaded.settings, heard)


class _Loaded(NamedTuple):
    settings: Settings
    warnings: list[str]


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong, without the usage, which is two screens long."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        from keyrack.server import logs
        from keyrack.server.termination import leave_message

        logs.complain(self.prog, message)
        leave_message(message)
        raise SystemExit(2)


def _load(arguments: list[str]) -> _Loaded:
    from keyrack import settings  # so late that a signal has been heard of before

    codes = ", ".join(f"{code} {meaning}" for code, meaning in COMMAND.codes)
    parser = _Parser(
        prog="keyrack serve",
        description=COMMAND.description,
        epilog="\n".join(textwrap.wrap(f"exit codes: {codes}", 100)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    settings.add_flags(parser)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(settings.unknown_flag(unknown[0]))
    try:
        loaded = _Loaded(*settings.load(vars(known)))
        settings.refuse_open_network(loaded.settings)
        return loaded
    except settings.SettingsError as error:
        parser.error(str(error))
