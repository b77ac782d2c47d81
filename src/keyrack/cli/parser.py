"""The parser of every verb: argparse's, with a proposal where a flag was mistyped."""

from __future__ import annotations

import argparse
import itertools
from typing import Any, NoReturn

from keyrack.cli import typos


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations: a flag that is added later must not change what a script means."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **options)
        self._given: list[str] = []

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return what was given; end with exit code 2 and a sentence where that is no use."""
        self._given = list(args)
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, and name the flag that is none, whatever argparse stumbled over.

        The value of a mistyped flag is taken for something else, and that is what it tells of.
        """
        super().error(next((self._about(word) for word in self._unknown_flags()), message))

    def _unknown_flags(self) -> list[str]:
        words = itertools.takewhile(lambda word: word != "--", self._given)
        flags = (word.partition("=")[0] for word in words if word.startswith("--"))
        return [flag for flag in flags if flag not in self._option_string_actions]

    def _about(self, flag: str) -> str:
        proposal = typos.proposal(flag, self._option_string_actions)
        return f"{flag} is no flag of this command{proposal}"
