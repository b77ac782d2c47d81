"""Makes what was typed into the values that a verb's declaration names."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from keyrack.cli import typos
from keyrack.cli.spec import CONNECTION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyrack.cli.spec import Argument, Command, Flag

_NUMBER: Final = re.compile(r"-[0-9.]")


class Misused(Exception):
    """Raised when what was typed cannot be. The message is a sentence."""


class HelpWanted(Exception):
    """Raised when `--help` was typed."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise `Misused` instead of printing two screens of usage."""
        raise Misused(f"{message.removeprefix('argument ')}.")


def parse(command: Command, arguments: list[str]) -> argparse.Namespace:
    """Return the values of arguments and flags. Raises `Misused` and `HelpWanted`.

    Flags may be anywhere before `--`; what is behind it is taken as it is.
    """
    head, behind = _cut(arguments)
    flags = command.every_flag()
    if "-h" in head or "--help" in head:
        raise HelpWanted
    given, words = _flags_parser(flags).parse_known_args(head)
    if given.help:
        raise HelpWanted
    for word in words:
        if _looks_like_flag(word):
            raise Misused(_unknown_flag(word, flags))
    for flag in flags:
        _convert_flag(given, flag)
    if command.program:
        # `lock -- -odd -- COMMAND`: the first one is for a name that begins with a dash.
        named, given.program = _cut(behind) if "--" in behind else ([], behind)
        words += named
    else:
        words += behind
    if command.program and words[len(command.arguments) :]:
        raise Misused(f"{words[len(command.arguments)]!r} goes behind `--`, if it is a program.")
    _place(given, command.arguments, words)
    return given


def _cut(arguments: list[str]) -> tuple[list[str], list[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _flags_parser(flags: Iterable[Flag]) -> _Parser:
    # argparse knows flags only. It would take words by their place before it has seen all flags,
    # and so refuse `set KEY --ttl 5 VALUE`.
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    # A verb may have a flag of its own by one of these names, as `wait --timeout` is.
    parser.set_defaults(**{flag.target: None for flag in CONNECTION})
    for flag in flags:
        options: dict[str, Any] = {"dest": flag.target}
        if not flag.takes:
            options["action"] = "store_true"
        elif flag.repeat:
            options |= {"action": "append", "default": []}
        parser.add_argument(*flag.names, **options)
    return parser


def _looks_like_flag(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and not _NUMBER.match(word)


def _unknown_flag(word: str, flags: Iterable[Flag]) -> str:
    name = word.partition("=")[0]
    names = [name for flag in flags for name in flag.names]
    meant = typos.proposal(name, ("--help", *names))
    more = "" if meant else " A word that begins with a dash goes behind `--`."
    return f"{name} is no flag of this command{meant}.{more}"


def _convert_flag(given: argparse.Namespace, flag: Flag) -> None:
    text = getattr(given, flag.target)
    if not flag.takes:
        return
    if flag.required and not text:
        raise Misused(f"{flag.name} {flag.takes} is missing.")
    if text is None:
        setattr(given, flag.target, flag.default)
        return
    if flag.repeat:
        setattr(given, flag.target, [_value(flag, one) for one in text])
    else:
        setattr(given, flag.target, _value(flag, text))


def _value(flag: Flag, text: str) -> Any:
    if flag.choices and text not in flag.choices:
        raise Misused(f"{flag.name} is {_one_of(flag.choices)}, not {text!r}.")
    try:
        return flag.kind(text)
    except ValueError as error:
        raise Misused(f"{flag.name}: {error}") from None


def _one_of(choices: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def _place(given: argparse.Namespace, arguments: tuple[Argument, ...], words: list[str]) -> None:
    """Give words to the arguments that they stand for."""
    for argument in arguments:
        taken, words = (words, []) if argument.many else (words[:1], words[1:])
        if not taken and not argument.optional:
            raise Misused(f"{argument.name} is missing.")
        try:
            values = [argument.kind(word) for word in taken]
        except ValueError as error:
            raise Misused(f"{argument.name}: {error}") from None
        value = values if argument.many else (values[0] if values else None)
        setattr(given, argument.attribute, value)
    if words:
        raise Misused(f"unrecognized arguments: {' '.join(words)}.")
