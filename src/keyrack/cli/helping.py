"""What `--help` prints, made from the declarations of the verbs."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from keyrack.cli import table
from keyrack.cli.spec import codes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.cli.spec import Command

_WIDTH: Final = 80


def overview() -> str:
    """Return the list of all verbs, by what they are about."""
    lines = [
        "Keyrack, an in-memory key-value store that is spoken to with plain HTTP.",
        "",
        "usage: keyrack COMMAND [...]",
    ]
    groups = dict.fromkeys(group for _, group, _ in table.VERBS.values())
    for group in groups:
        lines += ["", f"{group}:"]
        lines += [f"  {name:15} {summary}" for name, summary in _listed(group)]
    lines += [
        "",
        "`keyrack help COMMAND` tells more of one; `keyrack --version` prints the version.",
        "The service at http://127.0.0.1:8088 is asked, unless --url, KEYRACK_URL or a context",
        "names another.",
    ]
    return "\n".join(lines)


def _listed(group: str) -> Iterator[tuple[str, str]]:
    told = set()
    for verb, (_, its_group, summary) in table.VERBS.items():
        family = verb.partition(" ")[0]
        if its_group != group or family in told:
            continue
        if family in table.FAMILIES:
            told.add(family)
            yield family, table.FAMILIES[family]
        else:
            yield verb, summary


def of_family(family: str) -> str:
    """Return the list of the verbs that begin with the same word."""
    lines = [f"{table.FAMILIES[family]}.", "", f"usage: keyrack {family} COMMAND [...]", ""]
    lines += [f"  {name:15} {summary}" for name, summary in table.commands_of(family).items()]
    lines += ["", f"`keyrack help {family} COMMAND` tells more of one."]
    return "\n".join(lines)


def of_verb(verb: str, command: Command) -> str:
    """Return everything about one verb."""
    lines = [
        *_filled(f"usage: {usage(verb, command)}", indent=" " * 7),
        "",
        *_filled(command.description),
    ]
    if command.arguments:
        lines += ["", "arguments:"]
        for argument in command.arguments:
            lines += _entry(argument.name, argument.help)
    if command.flags:
        lines += ["", "flags:"]
        for flag in command.flags:
            lines += _entry(flag.usage, flag.help)
    shared = [flag for flag in command.every_flag() if flag not in command.flags]
    if shared:
        lines += ["", "flags that other commands have too:"]
        for flag in shared:
            lines += _entry(flag.usage, flag.help)
    if command.examples:
        lines += ["", "examples:"]
        for example in command.examples:
            lines += ["", *_filled(example.what, indent="  ")]
            lines += [f"    {line}" for line in example.command.splitlines()]
    codes = "; ".join(f"{code} {meaning}" for code, meaning in codes_of(command))
    lines += ["", *_filled(f"exit codes: {codes}", indent="  ")]
    return "\n".join(lines)


def usage(verb: str, command: Command) -> str:
    """Return the line that says what may be given."""
    words = [f"keyrack {verb}"]
    words += [argument.usage for argument in command.arguments]
    words += [f"{flag.name} {flag.takes}" for flag in command.flags if flag.required]
    words.append("[FLAG…]")
    if command.program:
        words.append(command.program)
    return " ".join(words)


def _entry(name: str, text: str) -> list[str]:
    wide = 26
    lines = textwrap.wrap(text, _WIDTH - wide)
    if len(name) > wide - 4:
        return [f"  {name}", *(" " * wide + line for line in lines)]
    first, *rest = lines
    return [f"  {name:{wide - 2}}{first}", *(" " * wide + line for line in rest)]


def _filled(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent=indent, initial_indent=indent if indent == "  " else ""
    )
