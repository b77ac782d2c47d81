"""`keyrack get`: print a key's value."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any

from keyrack.cli import asking, kinds, saying
from keyrack.cli.printing import Printer, flush, pairs, write, write_bytes
from keyrack.cli.saying import escaped, shown_key
from keyrack.cli.spec import DONE, KEYS, MISSING, MISUSED, Argument, Command, Example, Flag
from keyrack.client import Value

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Print a key's value, byte for byte, and nothing else. On a terminal a text ends its line, and "
    "bytes that are no text are not printed unless a format is named.",
    arguments=(Argument("KEY", "the key", kind=kinds.key, completes=KEYS),),
    flags=(
        Flag(("--meta",), "print type, size, ETag and TTL before the value, on standard error"),
    ),
    formats=("raw", "json", "hex"),
    examples=(
        Example(
            "A value goes where the output goes.",
            "keyrack set app/name Keyrack\nkeyrack get app/name",
            "Keyrack",
        ),
        Example(
            "With everything that is known of it:",
            "keyrack set app/port 8088 --type application/json\n"
            "keyrack get app/port -o json | grep -o '\"value\": .*'",
            '"value": 8088}',
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print the value."""

    def question(service: Service) -> int:
        value = service.get_value(given.key)
        if not isinstance(value, Value):
            return saying.complain(f"The key {shown_key(given.key)} is missing.", MISSING)
        if given.meta:
            for line in pairs(described(value)):
                saying.say(line)
        return _print(value, given)

    return asking.ask(given, question)


def described(value: Value) -> dict[str, Any]:
    """Return what is known of a value beside its bytes."""
    return {
        "type": value.media_type,
        "size": len(value.data),
        "etag": value.etag,
        "ttl": value.ttl,
    }


def _print(value: Value, given: argparse.Namespace) -> int:
    printer = Printer(given, "raw")
    if printer.format == "json":
        key = given.key.decode("utf-8", "surrogateescape")
        write(document(printer, {"key": key, **described(value)}, value) + "\n")
    elif printer.format == "hex":
        write("\n".join(_dumped(value.data)) + "\n")
    elif printer.on_terminal and given.format is None and not _is_harmless(value):
        shown = f"{len(value.data):,} bytes of {escaped(value.media_type)}"
        return saying.complain(f"{shown}; use `-o hex`, or redirect.", MISUSED)
    else:
        write_bytes(value.data)
        if sys.stdout.isatty() and is_text(value) and not value.data.endswith(b"\n"):
            write_bytes(b"\n")
    flush()
    return DONE


def is_text(value: Value) -> bool:
    """Tell whether a value is a text by its type, and by its bytes."""
    kind = value.media_type.partition(";")[0].strip()
    if not (kind.startswith("text/") or kind == "application/json" or kind.endswith("+json")):
        return False
    try:
        value.data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_harmless(value: Value) -> bool:
    """Tell whether a terminal shows a value as it is: a text that does not drive it."""
    return is_text(value) and all(c.isprintable() or c in "\n\t\r" for c in value.data.decode())


def document(printer: Printer, known: dict[str, Any], value: Value) -> str:
    """Return what is known and the value as JSON. The text of a JSON value stays as it is."""
    data = value.data
    if is_text(value):
        if value.media_type.partition(";")[0].strip() == "application/json" and _is_json(data):
            text = data.decode().strip().replace("\n", " ").replace("\r", " ")
            return f'{printer.json(known)[:-1]}, "value": {text}}}'
        return printer.json({**known, "value": data.decode()})
    encoded = base64.b64encode(data).decode()
    return printer.json({**known, "encoding": "base64", "value": encoded})


def _is_json(data: bytes) -> bool:
    import json  # not for those who print bytes

    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _dumped(data: bytes) -> list[str]:
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:08x}  {part.hex(' '):47}  {text}")
    return lines or ["(no bytes)"]
