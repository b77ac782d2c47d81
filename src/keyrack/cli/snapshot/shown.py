"""How a snapshot is told of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from keyrack.cli.printing import Column, Printer
from keyrack.cli.spec import FILES, Flag

if TYPE_CHECKING:
    from keyrack.engines.embedded.durability.snapshot import Summary

DATA_DIR: Final = Flag(
    ("--data-dir",), "the data directory", "DIRECTORY", required=True, completes=FILES
)
COLUMNS: Final = (
    Column("FILE", "file"),
    Column("TAKEN", "taken"),
    Column("REVISION", "revision", right=True),
    Column("KEYS", "keys", right=True),
    Column("BYTES", "bytes", right=True),
)


def described(name: str, size: int, summary: Summary) -> dict[str, Any]:
    """Return what is told of a good snapshot of `size` bytes. A revision is a text."""
    taken = datetime.fromtimestamp(summary.wall_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "file": name,
        "taken": taken,
        "revision": str(summary.revision),
        "keys": summary.keys,
        "bytes": size,
    }


def shown(printer: Printer, name: str, size: int, summary: Summary) -> None:
    """Print what is told of one snapshot."""
    told = described(name, size, summary)
    line = (
        f"{name}  taken {told['taken']}  revision {told['revision']}  {told['keys']} keys  "
        f"{size} bytes"
    )
    printer.document(told, [line])
