"""Logs of all processes of a service: text lines on a terminal, JSON lines anywhere else.

One line is one call of `write`, so lines of several processes do not mix (up to the 4 KiB that a
pipe takes in one piece). Nothing that a client sends can begin a line of its own or steer a
terminal: control characters are escaped, in texts and in JSON.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
from typing import Any, Final

import msgspec

ACCESS: Final = "keyrack.access"
_STANDARD: Final = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message")
)
"""What every record has; whatever else it carries was given as `extra`."""
_UNSAFE_IN_JSON: Final = re.compile("[\x7f-\x9f\u2028\u2029]")


def configure(level: str, descriptor: int = 2, terminal: bool | None = None) -> None:
    """Send all logs to a file descriptor, from `level` on. Call it once, before forking."""
    if terminal is None:
        terminal = os.isatty(descriptor)
    handler = LineHandler(descriptor)
    handler.setFormatter(TextLines() if terminal else JsonLines())
    root = logging.getLogger()
    for earlier in root.handlers[:]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # uvicorn tells of every process's start and end, which the supervisor does as well.
    logging.getLogger("uvicorn.error").setLevel("DEBUG" if level == "debug" else "WARNING")
    # The access log has a switch of its own; whoever turned it on wants to see it.
    logging.getLogger(ACCESS).setLevel("INFO")


def on_terminal() -> bool:
    """Tell whether a person reads what is logged."""
    return sys.stderr is not None and sys.stderr.isatty()


class LineHandler(logging.Handler):
    """Writes each record at once. A log that cannot be written must not stop the service."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record)
        except Exception as error:
            line = f"a log record could not be shown ({error!r}): {escaped(repr(record.msg))}"
        rest = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


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
