"""Logs of all processes of a service: text lines on a terminal, JSON lines anywhere else.

One line is one call of `write`, so lines of several processes do not mix (up to the 4 KiB that a
pipe takes in one piece). A log that nobody reads holds nobody up: lines are dropped, counted, and
their number is told when there is room again. Nothing that a client sends can begin a line of its
own or steer a terminal: control characters are escaped, in texts and in JSON.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import select
import socket
import stat
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

ACCESS: Final = "keyrack.access"
AUDIT: Final = "keyrack.audit"
_STANDARD: Final = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message")
)
"""What every record has; whatever else it carries was given as `extra`."""
_PIPE_BYTES: Final = 1 << 20
"""What a pipe holds for a reader that is busy for a moment; the kernel gives 64 KiB by itself."""
_RETRY_SECONDS: Final = 0.01
_UNREAD: Final = "%d lines were dropped because nobody read the log"
_UNSAFE_IN_JSON: Final = re.compile("[\x7f-\x9f\u2028\u2029]")


def configure(level: str, descriptor: int = 2, terminal: bool | None = None) -> None:
    """Send all logs to a file descriptor, from `level` on. Call it once, before forking."""
    if terminal is None:
        terminal = os.isatty(descriptor)
    lines = LineHandler(DescriptorSink(descriptor))
    lines.setFormatter(TextLines() if terminal else JsonLines())
    root = logging.getLogger()
    for earlier in root.handlers[:]:
        root.removeHandler(earlier)
    root.addHandler(lines)
    root.setLevel(level.upper())
    # uvicorn tells of every process's start and end, which the supervisor does as well.
    logging.getLogger("uvicorn.error").setLevel("DEBUG" if level == "debug" else "WARNING")
    # These two have switches of their own; whoever turned one on wants to see it.
    logging.getLogger(ACCESS).setLevel("INFO")
    logging.getLogger(AUDIT).setLevel("INFO")


def on_terminal() -> bool:
    """Tell whether a person reads what is logged."""
    return sys.stderr is not None and sys.stderr.isatty()


def write(text: str) -> None:
    """Write a text for people, as it is, where there is room for it."""
    if (lines := handler()) is not None:
        lines.write(text)


def complain(program: str, sentence: str) -> None:
    """Say why a program cannot begin: as a sentence on a terminal, else as a line like others."""
    if on_terminal():
        print(f"{program}: {sentence}", file=sys.stderr)
        return
    error = ("keyrack.settings", logging.ERROR, __file__, 0, sentence, (), None)
    print(JsonLines().format(logging.LogRecord(*error)), file=sys.stderr)


def handler() -> LineHandler | None:
    """Return what this process's lines are written by, None before `configure`."""
    return next((one for one in logging.getLogger().handlers if isinstance(one, LineHandler)), None)


class LineSink(Protocol):
    """Where lines go, without ever waiting."""

    def write(self, data: memoryview) -> int:
        """Write what there is room for, and return how many bytes that was. Raises `OSError`."""


class DescriptorSink:
    """A file descriptor that is written to without ever waiting for whoever reads it.

    Pipes and terminals are opened anew for that: setting O_NONBLOCK on what was inherited would
    change it for the shell, and for all else that has it, as well.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._socket: socket.socket | None = None
        self._asks_first = False
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(descriptor))
        elif stat.S_ISFIFO(mode):
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        if not stat.S_ISSOCK(mode) and not stat.S_ISREG(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            try:
                self._descriptor = os.open(f"/proc/self/fd/{descriptor}", flags)
            except OSError:
                # A user who may not open it, say; then it is asked whether there is room.
                self._asks_first = True

    def write(self, data: memoryview) -> int:
        """Write what there is room for, and return how many bytes that was. Raises `OSError`."""
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if self._asks_first and not select.select([], [self._descriptor], [], 0)[1]:
                return 0
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0


class LineHandler(logging.Handler):
    """Writes each record at once, or drops and counts it: a log must never stop the service."""

    def __init__(self, sink: LineSink, lost: str = _UNREAD) -> None:
        super().__init__()
        self._sink = sink
        self._lost = lost
        self._rest = memoryview(b"")
        """Of a line that was written in part."""
        self._untold = 0
        """Lines that were dropped since that was last told."""
        self._closed_until = 0.0
        """When it is next tried whether there is room again; until then all lines are dropped."""
        self.dropped = 0
        """Lines that were dropped in all, in this process."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if not self.tell_dropped():
            self._drop()
            return
        try:
            line = self.format(record)
        except Exception as error:
            line = f"a log record could not be shown ({error!r}): {escaped(repr(record.msg))}"
        if not self.write(line):
            self._drop()

    def _drop(self) -> None:
        self._untold += 1
        self.dropped += 1

    def tell_dropped(self) -> bool:
        """Say how many lines were dropped, if any were; False while there is no room for that."""
        if not self._untold:
            return True
        now = time.monotonic()
        if now < self._closed_until:
            return False
        self._closed_until = now + _RETRY_SECONDS
        name, level, lines = "keyrack.logs", logging.WARNING, self._untold
        record = logging.LogRecord(name, level, __file__, 0, self._lost, (lines,), None)
        vars(record).update(event="log_dropped", lines=lines)
        if not self.write(self.format(record)):
            return False
        self._untold = 0
        return True

    def write(self, line: str) -> bool:
        """Write a line, or tell that there is no room for it. A partial one is ended later."""
        with contextlib.suppress(OSError):
            if self._rest:
                self._rest = self._rest[self._sink.write(self._rest) :]
                if self._rest:
                    return False
            data = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
            written = self._sink.write(data)
            self._rest = data[written:] if written else self._rest
            return written > 0
        return True  # it cannot be written at all, so nobody is to be told


class Drops:
    """Watches what a process's log drops. `count` is called with how many lines more that were.

    `lines` is what another log than the common one is written by.
    """

    def __init__(self, count: Callable[[int], None], lines: LineHandler | None = None) -> None:
        self._count = count
        self._handler = lines or handler()
        self._counted = 0 if self._handler is None else self._handler.dropped

    def look(self) -> None:
        """Count what was dropped, and say so in the log if there is room. Call it regularly."""
        if self._handler is not None and self._handler.dropped != self._counted:
            self._count(self._handler.dropped - self._counted)
            self._counted = self._handler.dropped
        if self._handler is not None:
            self._handler.tell_dropped()


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, pid, what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        members: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        for name, value in _extra(record).items():
            members.setdefault(name, value)
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return _json(members)


class TextLines(logging.Formatter):
    """For people: time, level, message, what was given as `extra`; an exception is indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and those of the exception."""
        words = [rfc3339(record.created), f"{record.levelname.lower():7}", record.getMessage()]
        words += (f" {name}={value}" for name, value in _extra(record).items())
        lines = [escaped(" ".join(words))]
        if record.exc_info:
            lines += map(escaped, self.formatException(record.exc_info).splitlines())
        return "\n    ".join(lines)


def escaped(text: str) -> str:
    """Return the text with all that is not printable as Python would write it: `\\n`, `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def rfc3339(seconds: float) -> str:
    """Return a time (seconds since 1970) in UTC with milliseconds."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _json(members: dict[str, Any]) -> str:
    try:
        raw = msgspec.json.encode(members, enc_hook=str)
    except (TypeError, ValueError):
        # A lone surrogate, or a member that is no JSON: everything as text, then.
        raw = msgspec.json.encode({name: _text(value) for name, value in members.items()})
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", raw.decode())


def _text(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
