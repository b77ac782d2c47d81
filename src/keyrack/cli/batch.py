"""`keyrack batch`: several operations, all or none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from keyrack.cli import asking
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Column, Printer
from keyrack.cli.set import file_of
from keyrack.cli.spec import CONFLICT, DONE, FILES, Argument, Command, Example

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

_COLUMNS: Final = (
    Column("OP", "op"),
    Column("KEY", "key"),
    Column("EXISTED", "existed"),
    Column("REVISION", "revision"),
    Column("VALUE", "value"),
)
COMMAND = Command(
    "Do several operations at one moment, all or none: get, set, delete, add, touch and check, as "
    "POST /v1/batch takes them. The file has a JSON array of them.",
    arguments=(Argument("FILE", "the file; - is standard input", optional=True, completes=FILES),),
    formats=("json", "table", "jsonl"),
    writes=True,
    codes=((CONFLICT, "one was refused, and so nothing was done"),),
    examples=(
        Example(
            "Move a key, if it is there:",
            "keyrack set from x\n"
            'echo \'[{"op":"check","key":"from","if_match":"*"},'
            '{"op":"set","key":"to","value":"x"},'
            '{"op":"delete","key":"from"}]\' > move.json\n'
            "keyrack batch move.json -o table | awk '{print $1, $2}'\n"
            'keyrack batch move.json || echo "exit code $?"',
            "OP KEY\ncheck from\nset to\ndelete from\nexit code 5",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Print a result for each operation."""
    document = _document(given.file or "-")

    def question(service: Service) -> int:
        _, answer = service.json("POST", "/v1/batch", body=document)
        Printer(given, "json").rows(answer["results"], _COLUMNS)
        return DONE

    return asking.ask(given, question)


def _document(path: str) -> bytes:
    """Return the body: what the file says, its numbers as they were written."""
    import sys

    data = sys.stdin.buffer.read() if path == "-" else file_of(path)
    try:
        found: Any = json.loads(data)
    except ValueError as error:
        raise Misused(f"{path} is no JSON: {error}.") from None
    return b'{"operations":%b}' % data.strip() if isinstance(found, list) else data
