"""`keyrack render`: write files from templates that name keys."""

from __future__ import annotations

import contextlib
import os
import re
import string
import subprocess
import tempfile
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.cli import asking, kinds, outages, saying
from keyrack.cli.changes import Changes
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer, flush, write
from keyrack.cli.set import file_of
from keyrack.cli.spec import DONE, FILES, MISSING, Argument, Command, Example, Flag
from keyrack.client import ScanEntry, Value

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from keyrack.cli.service import Service

_LONG_SECONDS: Final = 3600.0
COMMAND = Command(
    "Write files from templates. In a template `${app/name}` is the value of that key, and `$$` is "
    "a dollar. A template that is called *.j2 is one of Jinja, where that is installed: "
    "`key('app/name')`, `keys('app/')`. A file is written as a whole or not at all, and only when "
    "it would be another; where a key is missing nothing is written.",
    arguments=(
        Argument(
            "TEMPLATE", "a template and where its text goes: IN:OUT; IN alone prints it", many=True,
            completes=FILES,
        ),
    ),
    flags=(
        Flag(("--exec",), "run this by the shell when a file was written", "COMMAND"),
        Flag(("--watch",), "go on, and write again when keys change"),
        Flag(("--mode",), "the mode of new files, like 600 [default: 644]", "MODE", default="644"),
    ),
    codes=((MISSING, "a key is missing"),),
    examples=(
        Example(
            "A configuration file, and a reload when it has changed:",
            "keyrack set app/port 8088\n"
            "echo 'listen ${app/port};' > app.conf.in\n"
            "keyrack render app.conf.in:app.conf --exec 'echo reload'\n"
            "keyrack render app.conf.in:app.conf --exec 'echo reload'\n"
            "cat app.conf",
            "reload\nlisten 8088;",
        ),
    ),
)  # fmt: skip


class _Task(NamedTuple):
    """A template and the file that is made of it, None for standard output."""

    template: str
    out: str | None


class _Keys(string.Template):
    """`${anything but braces}` names a key, `$$` is a dollar, and nothing else means anything."""

    pattern = r"\$(?:(?P<escaped>\$)|\{(?P<braced>[^{}]+)\}|(?P<named>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]  # the base makes a compiled pattern of it


def run(given: argparse.Namespace) -> int:
    """Write the files."""
    tasks = [_task(word) for word in given.template]
    mode = _mode(given.mode)

    def question(service: Service) -> int:
        code = _rendered(service, given, tasks, mode)
        if not given.watch:
            return code
        return _watched(service, given, tasks, mode)

    with outages.told():
        return asking.ask(given, question)


def _task(word: str) -> _Task:
    template, colon, out = word.partition(":")
    return _Task(template, out if colon else None)


def _mode(text: str) -> int:
    if not re.fullmatch("[0-7]{3,4}", text):
        raise Misused(f"--mode: {text!r} is no mode like 600.")
    return int(text, 8)


def _watched(service: Service, given: argparse.Namespace, tasks: list[_Task], mode: int) -> int:
    changes = Changes(service, [b""])
    changes.wait_synced()
    _rendered(service, given, tasks, mode)
    try:
        while changes.failure is None:
            if changes.wait(_LONG_SECONDS) and changes.failure is None:
                _rendered(service, given, tasks, mode)
        raise changes.failure
    finally:
        changes.close()


def _rendered(service: Service, given: argparse.Namespace, tasks: list[_Task], mode: int) -> int:
    texts = []
    for task in tasks:
        try:
            texts.append(_text(service, task.template))
        except KeyError as error:
            return saying.complain(
                f"{task.template}: the key {error.args[0]!r} is missing; nothing was written.",
                MISSING,
            )
    written = [
        task.out
        for task, text in zip(tasks, texts, strict=True)
        if task.out is not None and _replaced(task.out, text, mode)
    ]
    printer = Printer(given, "table")
    if printer.as_json:
        shown = [text for task, text in zip(tasks, texts, strict=True) if task.out is None]
        printer.document({"written": written, "texts": shown})
    else:
        for task, text in zip(tasks, texts, strict=True):
            if task.out is None:
                write(text)
    flush()
    if written and given.exec:
        # A command line of the user's own; nothing that was read is part of it.
        done = subprocess.run(given.exec, shell=True, check=False)  # nosec B602
        if done.returncode:
            saying.say(f"keyrack: {given.exec!r} ended with {done.returncode}.")
    return DONE


# What a template becomes


def _text(service: Service, path: str) -> str:
    """Return what a template becomes. Raises `KeyError` with the key that is missing."""
    source = os.fsdecode(file_of(path))

    def value(key: str) -> str:
        found = service.get_value(kinds.key(key))
        if not isinstance(found, Value):
            raise KeyError(key)
        return os.fsdecode(found.data)

    if path.endswith(".j2"):
        return _jinja(service, path, source, value)
    return _Keys(source).substitute(_Looked(value))


class _Looked(dict[str, str]):
    """Values by their keys, each asked for once."""

    def __init__(self, value: Callable[[str], str]) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, key: str) -> str:
        self[key] = self._value(key)
        return self[key]


def _jinja(service: Service, path: str, source: str, value: Callable[[str], str]) -> str:
    try:
        jinja2: Any = import_module("jinja2")
    except ImportError:
        raise Misused(f"{path} is a template of Jinja, which is not installed here.") from None

    def keys(prefix: str) -> dict[str, str]:
        return {
            entry.key: os.fsdecode(entry.value)
            for entry in service.scan(prefix, values=True)
            if isinstance(entry, ScanEntry)
        }

    names: dict[str, Any] = {"key": value, "keys": keys}
    # What comes of it is a file of any kind, not HTML.
    made = jinja2.Environment(  # nosec B701
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    try:
        return str(made.from_string(source).render(names))
    except jinja2.TemplateError as error:
        raise Misused(f"{path}: {error}.") from None


# The file


def _replaced(path: str, text: str, mode: int) -> bool:
    """Write a file unless it is this already, and tell whether it was written."""
    data = os.fsencode(text)
    with contextlib.suppress(OSError), open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o7777
        if file.read() == data:
            return False
    try:
        with tempfile.NamedTemporaryFile(
            dir=os.path.dirname(path) or ".", prefix=".keyrack-", delete=False
        ) as part:
            try:
                part.write(data)
                part.flush()
                os.fchmod(part.fileno(), mode)
                os.fsync(part.fileno())
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        raise Misused(f"{path} cannot be written: {error.strerror}.") from None
    return True
