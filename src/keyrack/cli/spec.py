"""What a verb can be told, as data: its arguments, flags, formats and examples.

The parser, the help, the completion of shells, docs/cli.md and the man page are made from these
declarations and from nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.cli import kinds

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS: Final = "keys"
FILES: Final = "files"
CONTEXTS: Final = "contexts"
"""What a shell completes: keys of the service, names of files, names of contexts."""


class Argument(NamedTuple):
    """A word that is given by its place. `kind` makes a value of it, and raises `ValueError`."""

    name: str
    help: str
    optional: bool = False
    many: bool = False
    kind: Callable[[str], Any] = str
    completes: str = ""

    @property
    def attribute(self) -> str:
        """The name of its value."""
        return self.name.lower().replace("-", "_")

    @property
    def usage(self) -> str:
        """How it is shown in the usage line."""
        shown = f"{self.name}…" if self.many else self.name
        return f"[{shown}]" if self.optional else shown


class Flag(NamedTuple):
    """A word that begins with dashes. It takes a value when `takes` names one.

    `kind` makes a value of the text, and raises `ValueError` with a sentence for what cannot be.
    """

    names: tuple[str, ...]
    help: str
    takes: str = ""
    kind: Callable[[str], Any] = str
    default: Any = None
    choices: tuple[str, ...] = ()
    repeat: bool = False
    required: bool = False
    completes: str = ""
    attribute: str = ""

    @property
    def name(self) -> str:
        """The longest of its names."""
        return max(self.names, key=len)

    @property
    def target(self) -> str:
        """The name of its value."""
        return self.attribute or self.name.lstrip("-").replace("-", "_")

    @property
    def usage(self) -> str:
        """How it is shown in a list of flags."""
        names = ", ".join(self.names)
        return f"{names} {self.takes}" if self.takes else names


class Example(NamedTuple):
    """Shell text that a reader can type, and what it prints. A test types it."""

    what: str
    command: str
    prints: str = ""


class Command(NamedTuple):
    """A verb. `formats` are those of `-o`, the first is what it prints where nobody reads along.

    `names_lock` tells whether its writes can be made to depend on a lock.
    `terminal` is the format on a terminal, the first one if it is empty. `asks` tells whether it
    asks a service, `writes` whether it changes what a service holds. `program` names the words
    behind `--` that are a program to run. `codes` are exit codes beside those of all verbs.
    """

    description: str
    arguments: tuple[Argument, ...] = ()
    flags: tuple[Flag, ...] = ()
    formats: tuple[str, ...] = ("table", "json")
    terminal: str = ""
    asks: bool = True
    writes: bool = False
    names_lock: bool = False
    program: str = ""
    codes: tuple[tuple[int, str], ...] = ()
    examples: tuple[Example, ...] = ()

    def every_flag(self) -> tuple[Flag, ...]:
        """Return its own flags and those that it shares with others."""
        shared = (_format_flag(self.formats, self.terminal), *COMMON) if self.formats else ()
        shared = (*shared, *(CONNECTION if self.asks else ()))
        if self.names_lock:
            shared = (_LOCK, *shared)
        own = {flag.name for flag in self.flags}
        return (*self.flags, *(flag for flag in shared if flag.name not in own))


_LOCK: Final = Flag(
    ("--lock",),
    "only while this lock is held with this token; under `keyrack lock` the NAME alone will do",
    "NAME:TOKEN",
    kinds.lock,
)


def _format_flag(formats: tuple[str, ...], terminal: str) -> Flag:
    one = terminal in ("", formats[0])
    default = formats[0] if one else f"{terminal} on a terminal, else {formats[0]}"
    help_ = f"how to print: {', '.join(formats)} [default: {default}]"
    return Flag(("-o", "--output"), help_, "FORMAT", choices=formats, attribute="format")


COMMON: Final = (
    Flag(
        ("--color",),
        "colours: auto (on a terminal, without NO_COLOR), always, never [default: auto]",
        "WHEN",
        choices=("auto", "always", "never"),
    ),
)
"""Flags of every verb that prints."""

CONNECTION: Final = (
    Flag(("--url",), "where the service is [KEYRACK_URL]", "URL"),
    Flag(
        ("--uds",), "a Unix socket to use instead of a URL [KEYRACK_UDS]", "PATH", completes=FILES
    ),
    Flag(
        ("--context",),
        "a service by the name that `keyrack context add` gave it [KEYRACK_CONTEXT]",
        "NAME",
        completes=CONTEXTS,
    ),
    Flag(
        ("--token-file",),
        "a file that holds the token to use [KEYRACK_TOKEN_FILE, KEYRACK_TOKEN]",
        "FILE",
        completes=FILES,
    ),
    Flag(("--token",), "the token itself, which others on this machine can see in `ps`", "TOKEN"),
    Flag(("--ca",), "trust certificates that this file signed", "FILE", completes=FILES),
    Flag(("--timeout",), "how long to wait for an answer, like 5 or 500ms [default: 10]", "TIME"),
)
"""Flags of every verb that asks a service. What they mean is worked out when one is asked."""

DONE: Final = 0
MISSING: Final = 1
REFUSED: Final = 1
MISUSED: Final = 2
UNREACHABLE: Final = 3
FORBIDDEN: Final = 4
CONFLICT: Final = 5
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130

CODES: Final = (
    (DONE, "done"),
    (MISSING, "missing, or a condition is not met"),
    (MISUSED, "misused"),
    (UNREACHABLE, "the service cannot be reached, or cannot do it now"),
    (FORBIDDEN, "not allowed: no token, or one that may not"),
    (CONFLICT, "somebody else was first, or only a part was done"),
    (INTERRUPTED, "interrupted"),
)
"""What exit codes mean for every verb."""


def codes_of(command: Command) -> tuple[tuple[int, str], ...]:
    """Return what the exit codes of a verb mean, in order."""
    return tuple(sorted((dict(CODES) | dict(command.codes)).items()))
