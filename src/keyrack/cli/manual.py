"""Writes docs/cli.md and the man page from the table of verbs.

python -m keyrack.cli.manual docs/cli.md docs/keyrack.1
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from keyrack.cli import helping, table
from keyrack.cli.spec import CODES, COMMON, CONNECTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.cli.spec import Flag

_HEAD: Final = """\
# The command line

<!-- made by `make docs` from the declarations in src/keyrack/cli -->

`keyrack` asks a service over HTTP: it needs nothing of the machine that the service runs on.
`keyrack help` lists the commands, `keyrack help COMMAND` tells what is below. Every example here is
typed by a test.

## What holds for all

**Where.** A flag wins (`--url`, `--uds`, `--context`), then a variable (`KEYRACK_URL`,
`KEYRACK_CONTEXT`, `KEYRACK_UDS`, or `KEYRACK_HOST` and `KEYRACK_PORT` as the service itself takes
them), then the context that `keyrack context use` chose, then `http://127.0.0.1:8088`.

**As whom.** `--token-file`, `--token` (which `ps` shows to others), `KEYRACK_TOKEN`,
`KEYRACK_TOKEN_FILE`, then the token of the context. A context's token goes to its own service only.

**What is printed.** Standard output is data and nothing else, standard error is talk and progress.
`-o json` is one JSON document, `-o jsonl` a line for each thing, `-o raw` bare keys (with `-0` a
NUL behind each), `-o table` for people. In tables keys are escaped (`\\x00`, `\\e`), in JSON
they are exact. A JSON value keeps the text that it was stored with. Revisions are strings, as in
the API.

**What is typed.** Flags go anywhere before `--`; what is behind it is taken as it is, also where it
begins with a dash. Times are seconds or like `90s`, `5m`, `1h30m`; sizes are bytes or like `64k`,
`1.5g`. Keys and values are bytes as the shell gives them.

**Colours** are there on a terminal only, and not where `NO_COLOR` is set, unless `--color` says
otherwise.

### Exit codes

| code | meaning |
|---|---|
"""


def page() -> str:
    """Return docs/cli.md."""
    lines = [_HEAD.rstrip("\n")]
    lines += [f"| {code} | {meaning} |" for code, meaning in CODES]
    lines += ["", "Commands that have more say so.", "", *_shared()]
    group = ""
    for verb, (_, its_group, _) in table.VERBS.items():
        if its_group != group:
            group = its_group
            lines += [f"## {group}", ""]
        lines += _of_verb(verb)
    return "\n".join(lines).rstrip("\n") + "\n"


def _shared() -> Iterator[str]:
    yield "### Flags that many commands have"
    yield ""
    yield from _flags((*COMMON, *CONNECTION))


def _of_verb(verb: str) -> Iterator[str]:
    command = table.load(verb)
    yield f"### `{helping.usage(verb, command)}`"
    yield ""
    yield command.description
    yield ""
    for argument in command.arguments:
        yield f"- `{argument.name}`: {argument.help}"
    if command.arguments:
        yield ""
    yield from _flags(command.flags)
    own = [f"{code} {meaning}" for code, meaning in command.codes]
    if own:
        yield f"Exit codes of its own: {'; '.join(own)}."
        yield ""
    if len(command.formats) > 1:
        yield f"Formats: {', '.join(command.formats)}."
        yield ""
    for example in command.examples:
        yield example.what
        yield ""
        yield "```console"
        yield from (f"$ {line}" for line in example.command.splitlines())
        yield from example.prints.splitlines()
        yield "```"
        yield ""


def _flags(flags: tuple[Flag, ...]) -> Iterator[str]:
    if not flags:
        return
    yield "| flag | |"
    yield "|---|---|"
    for flag in flags:
        text = flag.help.replace("|", "\\|")
        yield f"| `{flag.usage}` | {text} |"
    yield ""


# The man page


def man() -> str:
    """Return the man page."""
    lines = [
        '.TH KEYRACK 1 "" "Keyrack" "User Commands"',
        ".SH NAME",
        "keyrack \\- an in\\-memory key\\-value store that is spoken to with plain HTTP",
        ".SH SYNOPSIS",
        ".B keyrack",
        "COMMAND [ARGUMENT ...] [FLAG ...]",
        ".SH COMMANDS",
    ]
    for verb in table.VERBS:
        command = table.load(verb)
        lines += [".SS " + _roff(helping.usage(verb, command)), _roff(command.description)]
        for flag in command.flags:
            lines += [".TP", f".B {_roff(flag.usage)}", _roff(flag.help)]
    lines.append(".SH FLAGS OF MANY COMMANDS")
    for flag in (*COMMON, *CONNECTION):
        lines += [".TP", f".B {_roff(flag.usage)}", _roff(flag.help)]
    lines.append(".SH EXIT STATUS")
    for code, meaning in CODES:
        lines += [".TP", f".B {code}", _roff(meaning)]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{text}" if text[:1] in (".", "'") else text


if __name__ == "__main__":
    for path, text in zip(sys.argv[1:], (page(), man()), strict=True):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
